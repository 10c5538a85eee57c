"""Predictions that look at no image: what they score, and whether a cell is within their reach."""

from __future__ import annotations

from math import nan, sqrt
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

Trained = Literal["trained", "untrained", "unclear"]

# A cell within a point of mean IoU of a prediction without an image has learned nothing worth comparing.
REACH = 0.01


class Blind(NamedTuple):
    """The mean IoU of predictions that look at no image: the best constant class (`best`), and class frequencies."""

    constant: float
    best: int
    frequencies: float

    @property
    def score(self) -> float:
        """The higher of the two."""
        return max(self.constant, self.frequencies)


def blind_scores(pixels: ArrayLike, labelled: int | None = None) -> Blind:
    """Return what predictions without an image score on a target with the given class pixel counts (classes,).

    With p the share of a class in the target, the mean being over the classes that are in it: predicting class c
    everywhere has IoU p_c for it and 0 for the others; drawing each pixel's class by the shares has the expected counts
    TP = p², FP = FN = p(1 − p), so that IoU = p/(2 − p). NaN (and class −1) where the target has no pixel.

    Where a pixel may bear several classes, `labelled` is the number of all pixels that are scored, and the constant
    prediction bears every class: its mean IoU is that of the p_c.
    """
    counts = np.asarray(pixels, dtype=float).ravel()
    total, there = counts.sum(), int((counts > 0).sum())
    if total <= 0 or labelled == 0:
        return Blind(nan, -1, nan)
    share = counts / (total if labelled is None else labelled)
    if labelled is not None:
        return Blind(float(share.sum()) / there, int(share.argmax()), float((share / (2 - share)).sum()) / there)
    return Blind(float(share.max()) / there, int(share.argmax()), float((share / (2 - share)).sum()) / there)


def trained(scores: ArrayLike, reference: float) -> Trained:
    """Return whether a cell's scores (n,), one a seed, are beyond the reach of a prediction without an image.

    *untrained* where the mean is at most reference + `REACH`, *trained* where the lower bound of Student's one-sided
    95 % interval of the mean is above it, else *unclear*, as for a single seed above it. Contrasts with an untrained
    cell compare nothing that was learned.
    """
    x = np.asarray(scores, dtype=float).ravel()
    if x.size == 0 or not np.isfinite(x).all() or np.isnan(reference):
        return "unclear"
    if x.mean() <= reference + REACH:
        return "untrained"
    if x.size < 2:
        return "unclear"
    low = x.mean() - special.stdtrit(x.size - 1, 0.95) * x.std(ddof=1) / sqrt(x.size)
    return "trained" if low > reference + REACH else "unclear"
