"""A whole training step recorded once and replayed for every trial of a variant."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ablate.train.probes import untouched
from ablate.train.recording import Recorder, recorder
from ablate.train.step import Network, learn, set_rate


class RecordedStep:
    """A network's training step with its optimizer, recorded for batches of one shape and replayed for any trial.

    Learning rate, parameters and optimizer state may change between replays, by `reset` and `load`; everything else
    of `train` (optimizer, weight decay, momentum, gradient clipping) is part of the recording. The network's
    parameters and buffers are what they were when the constructor returns.
    """

    def __init__(
        self, network: Network, train: dict[str, Any], images: tuple[int, ...], record: Recorder | None = None
    ) -> None:
        """`images` is the shape (B, H, W, C) of a batch."""
        device = network.device
        self.network = network
        self.optimizer = network.optimizer(train)
        if not all(isinstance(group["lr"], Tensor) for group in self.optimizer.param_groups):
            for group in self.optimizer.param_groups:
                group["lr"] = torch.tensor(float(group["lr"]), device=device)
        self._clip_norm: float | None = train["clip_norm"]
        self._images = torch.zeros(images, dtype=network.image_type, device=device)
        self._target = torch.zeros(images[:3], dtype=torch.uint8, device=device)
        with untouched(network.model):
            network.model.train()
            self._replay, (self._row,) = (record or recorder(device))(self._work)
            self._set_capturable(False)
            # The gradients of the recording stay in its memory; nothing else may be given that memory.
            self._gradients = [parameter.grad for parameter in network.parameters()]
        self.reset()

    def _work(self) -> tuple[Tensor, ...]:
        capturing = self._images.is_cuda and torch.cuda.is_current_stream_capturing()
        self._set_capturable(capturing)
        row = learn(self.network, self.optimizer, self._images, self._target, clip_norm=self._clip_norm)
        if not capturing:
            self.optimizer.zero_grad(set_to_none=True)  # a recording begins without gradients of another stream
        return (row,)

    def _set_capturable(self, value: bool) -> None:
        """What the optimizers ask for while a graph is captured and warn of otherwise; the kernels are the same."""
        for group in self.optimizer.param_groups:
            if "capturable" in group:
                group["capturable"] = value

    def __call__(self, images: Tensor, target: Tensor, rate: float) -> Tensor:
        """One step; loss and gradient norm before clipping, float32 (2,) on the device."""
        if images.shape != self._images.shape:
            raise ValueError(f"recorded for {tuple(self._images.shape)}, called with {tuple(images.shape)}")
        self._images.copy_(images, non_blocking=True)
        self._target.copy_(target, non_blocking=True)
        set_rate(self.optimizer, rate)
        self._replay()
        return self._row.clone()

    @torch.no_grad()
    def reset(self) -> None:
        """Set the optimizer's state, in place, to that of a fresh one: zero, for all of `RECORDABLE`."""
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
        # The learning rate is set at every step, and the rest of the groups is part of the recording.
