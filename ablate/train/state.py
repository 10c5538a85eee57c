"""What a trial is told, how it may end early, and what it knows while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ablate.study.spec import MeasureSpec
from ablate.train.readback import Clock, Readback

Event = Callable[[dict[str, Any]], None]


class Interrupted(Exception):
    """The trial was asked to stop and has left a checkpoint to go on from."""


class Diverged(Exception):
    """Loss, gradient or validation loss is not finite."""

    def __init__(self, reason: str, epoch: int, step: int) -> None:
        super().__init__(reason)
        self.epoch, self.step = epoch, step


@dataclass
class Options:
    """What a trial is told besides its settings; none of it changes the record's numbers."""

    measure: MeasureSpec
    checkpoint_every: float = 30.0
    on_event: Event = lambda event: None
    should_stop: Callable[[], str | None] = lambda: None
    provenance: dict[str, Any] = field(default_factory=dict)


@dataclass
class Best:
    """The best epoch so far by val mIoU, the earliest where equal."""

    epoch: int = 0
    mean_iou: float = -1.0
    loss: float = float("nan")
    counts: np.ndarray | None = None
    weights: dict[str, Any] | None = None


@dataclass
class Unread:
    """An epoch that was handed to the device and has not been read; on a GPU the next one begins meanwhile."""

    epoch: int
    numbers: Readback  # the rows of its steps, then validation losses and counts
    clock: Clock  # marks: begin, end of training, end of validation
    images: int
    weights: dict[str, torch.Tensor] | None  # as they were at its end, on the device
