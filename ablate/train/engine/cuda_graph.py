"""Work captured once as a CUDA graph and replayed: a prediction, or a whole training step.

A replay reads and writes the memory that the capture saw. So inputs are copied into fixed buffers, the learning
rate is a tensor, and parameters and optimizer state are only ever set in place: then one capture serves every
trial of its variant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ablate.train.network import Network, learn
from ablate.train.optim import make_optimizer
from ablate.train.probes.gradients import untouched

Work = Callable[[], tuple[Tensor, ...]]


class CaptureFailed(RuntimeError):
    """The work could not be captured; the process is better not used any more."""


# Before a capture: libraries choose their kernels, the optimizer makes its state, a compiled step is compiled.
WARM_UPS = 3


def capture_on_cuda(work: Work) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
    """Capture `work` on the current device, which it must not wait for; return its replay, and what a replay writes.

    Raises `CaptureFailed` where it does, or where memory runs out meanwhile; errors of the warm-up as they are.
    """
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UPS):
            work()
    current = torch.cuda.current_stream()
    current.wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            outputs = work()
    except RuntimeError as error:
        # Ending a broken capture fails too, before the context has put the stream back.
        torch.cuda.set_stream(current)
        cure = "run.engine: eager does without"
        raise CaptureFailed(f"cannot be captured as a CUDA graph ({first_words(error)}); {cure}") from error
    return graph.replay, outputs


def first_words(error: BaseException) -> str:
    """Return the first line of the exception that all others came of."""
    while (earlier := error.__cause__ or error.__context__) is not None:
        error = earlier
    return (str(error).splitlines() or [type(error).__name__])[0]


class Captured:
    """A function of tensors of fixed shapes, captured at its first call.

    What a call returns is overwritten by the next one.
    """

    def __init__(self, function: Callable[..., tuple[Tensor, ...]]) -> None:
        self._function = function
        self._inputs: list[Tensor] = []
        self._replay: Callable[[], None] | None = None
        self._outputs: tuple[Tensor, ...] = ()

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return what the function gives for `inputs`, in tensors that the next call overwrites."""
        if self._replay is None:
            self._inputs = [value.clone() for value in inputs]
            self._replay, self._outputs = capture_on_cuda(lambda: self._function(*self._inputs))
        for place, value in zip(self._inputs, inputs, strict=True):
            copy_into(place, value)
        self._replay()
        return self._outputs


def copy_into(place: Tensor, value: Tensor) -> None:
    """Copy a batch to its fixed place; `ValueError` where the shapes differ: copy_ would broadcast."""
    if place.shape != value.shape:
        raise ValueError(f"captured for {tuple(place.shape)}, called with {tuple(value.shape)}")
    place.copy_(value, non_blocking=True)


class CapturedStep:
    """A network's training step with its optimizer, captured for batches of one shape and replayed for any trial.

    Learning rate, parameters and optimizer state may change between replays, by `reset` and `load`; everything else
    of `train` (optimizer, weight decay, momentum, gradient clipping) is part of the capture. The network's
    parameters and buffers are what they were when the constructor returns.
    """

    def __init__(self, network: Network, train: dict[str, Any], images: tuple[int, ...]) -> None:
        """Capture for batches of the shape `images` (B, H, W, C)."""
        device = network.device
        self.network, self._train = network, train
        self.optimizer = make_optimizer(network.model, train)
        if not all(isinstance(group["lr"], Tensor) for group in self.optimizer.param_groups):
            for group in self.optimizer.param_groups:
                group["lr"] = torch.tensor(float(group["lr"]), device=device)
        self._images = torch.zeros(images, dtype=network.image_type, device=device)
        self._target = torch.zeros(images[:3], dtype=torch.uint8, device=device)
        with untouched(network.model):
            network.model.train()
            self._replay, (self._row,) = capture_on_cuda(self._work)
            self._set_capturable(False)
            # The gradients of the capture stay in its memory; nothing else may be given that memory.
            self._gradients = [parameter.grad for parameter in network.parameters()]
        self.reset()

    def _work(self) -> tuple[Tensor, ...]:
        capturing = self._images.is_cuda and torch.cuda.is_current_stream_capturing()
        self._set_capturable(capturing)
        row = learn(self.network, self.optimizer, self._images, self._target, self._train)
        if not capturing:
            self.optimizer.zero_grad(set_to_none=True)  # a capture begins without gradients of another stream
        return (row,)

    def _set_capturable(self, value: bool) -> None:
        """Set what the optimizers ask for in a capture and warn of otherwise; the kernels are the same."""
        for group in self.optimizer.param_groups:
            if "capturable" in group:
                group["capturable"] = value

    def __call__(self, images: Tensor, target: Tensor) -> Tensor:
        """Do one step; loss and gradient norm before clipping, float32 (2,) on the device."""
        copy_into(self._images, images)
        copy_into(self._target, target)
        self._replay()
        return self._row.clone()

    @torch.no_grad()
    def reset(self) -> None:
        """Set the optimizer's state, in place, to that of a fresh one: zero, for all of `CAPTURABLE`."""
        for state in self.optimizer.state.values():
            for value in state.values():
                if isinstance(value, Tensor):
                    value.zero_()

    @torch.no_grad()
    def load(self, saved: dict[str, Any]) -> None:
        """Take over an optimizer's `state_dict` in place."""
        order = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        for index, values in saved["state"].items():
            state = self.optimizer.state[order[int(index)]]
            for name, value in values.items():
                if isinstance(state.get(name), Tensor):
                    state[name].copy_(torch.as_tensor(value))
        # The learning rate is set at every step, and the rest of the groups is part of the capture.
