"""The engines: ways of executing a network's steps and predictions, with the same numbers in each.

`run.engine` names one of five: eager, fused (kernels of our own on a CPU), compiled (torch.compile), graph (a CUDA
graph of the whole step) and compiled_graph. `install` has a network compute in it, `make_step` gives the steps of a
trial, and `Numbers` brings what they give to the host.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ablate.errors import DeviceError
from ablate.study.components import name_of
from ablate.train.device import Clock, Readback
from ablate.train.engine.config import Decisions
from ablate.train.engine.cuda_graph import Captured, CapturedStep
from ablate.train.engine.fused import fuse, fused_loss
from ablate.train.network import Network, learn
from ablate.train.optim import CAPTURABLE, make_optimizer

Weights = dict[str, Tensor]
# Of a trial's training settings, those that are part of a captured step.
CAPTURED_SETTINGS = ("optimizer", "weight_decay", "momentum", "clip_norm", "lr_scale")


class Step(Protocol):
    """One step of training after another, on a network that it changes in place."""

    optimizer: torch.optim.Optimizer

    def __call__(self, images: Tensor, target: Tensor) -> Tensor:
        """Learn from images uint8 (B, H, W, C) and targets uint8 (B, H, W), at the rate that the optimizer has.

        Returns loss and gradient norm before clipping, float32 (2,) on the device; waits for nothing.
        """

    def reset(self) -> None:
        """Set the optimizer to the state of a fresh one."""

    def load(self, saved: dict[str, Any]) -> None:
        """Take over an optimizer's `state_dict`."""


class EagerStep:
    """A step without a capture; forward pass and loss may be fused or compiled."""

    def __init__(self, network: Network, train: dict[str, Any]) -> None:
        self._network, self._train = network, train
        self.reset()

    def __call__(self, images: Tensor, target: Tensor) -> Tensor:
        """Do one step; loss and gradient norm, float32 (2,) on the device."""
        return learn(self._network, self.optimizer, images, target, self._train)

    def reset(self) -> None:
        """Begin with a fresh optimizer."""
        self.optimizer = make_optimizer(self._network.model, self._train)

    def load(self, saved: dict[str, Any]) -> None:
        """Take over a `state_dict` as torch does, but keep a learning rate that is a tensor on the device."""
        self.optimizer.load_state_dict(saved)
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"] = group["lr"].to(self._network.device)


def install(network: Network, decisions: Decisions) -> Network:
    """Have `network` compute in the engine of `decisions`; its parameters, their names and its hooks stay."""
    if decisions.fuses:
        fuse(network.model)
        network.criterion = replace(network.loss, function=fused_loss(network.loss.function))
    if decisions.compiles:
        network.training_loss = torch.compile(with_own_code(network.training_loss), dynamic=False)
        network.predict = torch.compile(with_own_code(network.predict), dynamic=False)
    if decisions.captures:
        network.predict = Captured(network.predict)
    return network


def make_step(network: Network, decisions: Decisions, train: dict[str, Any], images: tuple[int, ...]) -> Step:
    """Return a step of the engine for the settings `train` and batches of the shape `images` (B, H, W, C).

    Raises `DeviceError` for an optimizer that cannot be captured where the engine captures.
    """
    if not decisions.captures:
        return EagerStep(network, train)
    optimizer = name_of(train["optimizer"])
    if optimizer not in CAPTURABLE:
        raise DeviceError(
            f"the engine '{decisions.engine}' captures the optimizers {', '.join(CAPTURABLE)}, not '{optimizer}'",
            key="run.engine",
            cure="take eager or compiled",
        )
    return CapturedStep(network, train, images)


def with_own_code(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a bound method with a code object of its own.

    The compiler keeps what it compiled by code object, a few for each, and runs the rest eagerly without an error: the
    variants of a profile, compiled side by side, would share one.
    """
    function = method.__func__  # type: ignore[attr-defined]
    own = types.FunctionType(
        function.__code__.replace(), function.__globals__, function.__name__, None, function.__closure__
    )
    return types.MethodType(own, method.__self__)  # type: ignore[attr-defined]


@dataclass
class Epoch:
    """The numbers of an epoch: `rows` (n, 2) of its last steps, val losses (N,) and counts (N, C, 3), on the CPU.

    `weights` are the model's at the epoch's end, which the next step may overwrite: copied by whoever keeps them.
    """

    number: int
    rows: Tensor
    losses: Tensor
    counts: Tensor
    train_s: float
    validation_s: float
    images: int
    weights: Weights


class Numbers:
    """The numbers of a trial on their way from its device, epoch by epoch.

    With `ahead` (on a GPU) an epoch is read while the next one runs: nothing in it waits for the device. Else (a CPU
    has nothing to run meanwhile) each is there when it ends, and a step that is not finite at once.
    """

    def __init__(self, device: torch.device, model: nn.Module, *, ahead: bool) -> None:
        self._device, self._model, self._ahead = device, model, ahead
        self._steps: list[Tensor] = []
        self._clock = Clock(device)
        self._unread: tuple[int, int, Readback, Clock, Weights] | None = None

    def begin(self) -> None:
        """Begin an epoch."""
        self._clock = Clock(self._device)
        self._clock.mark()

    def add(self, row: Tensor) -> bool:
        """Take the row of a step; return whether the rows have to be looked at now."""
        self._steps.append(row)
        return not self._ahead and not bool(torch.isfinite(row).all())

    def steps(self) -> Tensor:
        """Return the rows (n, 2) that no epoch has taken yet, on the CPU; waits for them."""
        rows, self._steps = self._steps, []
        return torch.stack(rows).cpu() if rows else torch.zeros(0, 2)

    def elapsed(self) -> float:
        """Return the seconds of training in the epoch that is under way; waits for its steps."""
        return self._clock.since(0)

    def trained(self) -> None:
        """Mark the end of an epoch's training: its validation follows."""
        self._clock.mark()

    def end(self, number: int, losses: Tensor, counts: Tensor, images: int) -> None:
        """End the epoch `number`, in which `images` were trained on; the one before has been taken."""
        self._clock.mark()
        rows, self._steps = torch.stack(self._steps) if self._steps else torch.zeros(0, 2), []
        # Whether they are the best may be known only when the next epoch has changed them.
        weights = {name: value.detach() for name, value in self._model.state_dict().items()}
        if self._ahead:
            weights = {name: value.clone() for name, value in weights.items()}
        self._unread = (number, images, Readback([rows, losses, counts]), self._clock, weights)

    def take(self, *, wait: bool) -> Epoch | None:
        """Return the epoch that ended and has not been taken, once; None where there is none or it is under way."""
        if self._unread is None or not (wait or self._unread[2].ready()):
            return None
        (number, images, readback, clock, weights), self._unread = self._unread, None
        rows, losses, counts = readback.wait()
        return Epoch(number, rows, losses, counts, clock.seconds(0, 1), clock.seconds(1, 2), images, weights)
