"""The training step of a trial with its optimizer: computed anew each time, or recorded and replayed."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from ablate.errors import DeviceError
from ablate.train.graph import RecordedStep
from ablate.train.optimizers import RECORDABLE
from ablate.train.step import Network, learn, set_rate


class Step(Protocol):
    """One step of training after another, on a network that it changes in place."""

    optimizer: torch.optim.Optimizer

    def __call__(self, images: Tensor, target: Tensor, rate: float) -> Tensor:
        """Learn from images uint8 (B, H, W, C) and targets uint8 (B, H, W) on the network's device.

        Loss and gradient norm before clipping, float32 (2,) on the device; waits for nothing.
        """

    def reset(self) -> None:
        """Set the optimizer to the state of a fresh one."""

    def load(self, saved: dict[str, Any]) -> None:
        """Take over an optimizer's `state_dict`."""


class PlainStep:
    """A step that the host launches kernel by kernel, eager or compiled."""

    def __init__(self, network: Network, train: dict[str, Any]) -> None:
        self._network, self._train = network, train
        self.reset()

    def __call__(self, images: Tensor, target: Tensor, rate: float) -> Tensor:
        set_rate(self.optimizer, rate)
        return learn(self._network, self.optimizer, images, target, clip_norm=self._train["clip_norm"])

    def reset(self) -> None:
        """Begin with a fresh optimizer."""
        self.optimizer = self._network.optimizer(self._train)

    def load(self, saved: dict[str, Any]) -> None:
        """As torch does it, with a learning rate that is a tensor kept on the device."""
        self.optimizer.load_state_dict(saved)
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"] = group["lr"].to(self._network.device)


# Of a trial's training settings, those that are part of a recording.
RECORDED_SETTINGS = ("optimizer", "weight_decay", "momentum", "clip_norm")


def make_step(network: Network, train: dict[str, Any], images: tuple[int, ...]) -> Step:
    """A step of the network's engine for batches of the shape `images` (B, H, W, C).

    Raises `DeviceError` for an optimizer that cannot be recorded where the engine records.
    """
    if not network.decisions.records:
        return PlainStep(network, train)
    if train["optimizer"] not in RECORDABLE:
        raise DeviceError(
            f"the engine '{network.decisions.engine}' records the optimizers {', '.join(RECORDABLE)}, "
            f"not '{train['optimizer']}'",
            key="run.engine",
            cure="take eager or compiled",
        )
    return RecordedStep(network, train, images)
