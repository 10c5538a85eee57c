"""Measures of predictions and of training runs: pure functions of arrays, each registered under its name.

A measure of a trial is a function of `TrialArrays` that returns a number or a `Measured`; see `register_measure` in
`ablate.registry`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np


class Measured(NamedTuple):
    """A number, or NaN and the reason for it.

    `reason` is None exactly where `value` is a number (infinity is one); it is one line of plain text otherwise.
    """

    value: float
    reason: str | None = None

    @property
    def known(self) -> bool:
        """Return whether there is a number."""
        return self.reason is None


def unknown(reason: str) -> Measured:
    """Return the result of a measure that the data are too few, or unfit, for."""
    return Measured(math.nan, reason)


class TrialArrays(Protocol):
    """The files of one finished trial as arrays: all that a measure of it can be computed from.

    Reading what the trial does not have raises `ablate.errors.ResultsError`, whose message becomes the reason why
    the measure is missing.
    """

    @property
    def diverged(self) -> bool:
        """Return whether the trial ended in a loss or gradient that is not finite."""

    @property
    def steps(self) -> np.ndarray:
        """Training loss and gradient norm before clipping of every step: float64 (S, 2)."""

    @property
    def steps_per_epoch(self) -> int:
        """Return the number of steps in an epoch."""

    @property
    def epochs(self) -> Mapping[str, np.ndarray]:
        """The curves "train_loss", "val_loss" and "val_mean_iou": float64 (E,), NaN where not finite."""

    @property
    def counts(self) -> Mapping[str, np.ndarray]:
        """The pixels tp, fp, fn of each image and class, by the split "val" or "test": int64 (N, C, 3)."""

    @property
    def layers(self) -> Mapping[str, Mapping[str, list[float | None]]]:
        """The values of the probes: name of the probe -> layer -> values in the order of training."""
