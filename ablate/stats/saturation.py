"""The gain of more training, projected from curves over epochs that may bend."""

from __future__ import annotations

from math import nan, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from ablate.stats.intervals import Floats

# The window is this many times as long as the look ahead: what is asked of a curve must be seen in it.
_WINDOW = 3


class Projection(NamedTuple):
    """The mean gain that `ahead` more epochs would bring, with its interval over seeds, in the curves' unit.

    `decay` is the factor by which the slope falls from one half of the window to the next: 1 for a straight line.
    """

    gain: float
    low: float
    high: float
    decay: float


def projected_gain(curves: ArrayLike, ahead: int, *, confidence: float = 0.9) -> Projection:
    """Project the curves (seeds, epochs) of one cell `ahead` epochs on, along an approach to a plateau.

    Least-squares slopes s₁ and s₂ of the two halves (h epochs each) of the last 3 · `ahead` epochs (or of all where
    there are fewer), averaged over the seeds, give the decay q = s₂/s₁ within [0, 1] of a geometric approach (1 where a
    mean slope is not positive: nothing bends towards a plateau then). The gain is Σ_j s₂ · q^((h/2 + j − 1/2)/h), j = 1
    ... `ahead`. Projecting the last slope straight on instead overstates curves that saturate: 0.35 points to come read
    as more than 0.5 in up to half of the cells.

    The lower bound is gain − t_{n−1} · SE with the jackknife's standard error over the n seeds. The upper bound is not
    below that of the straight line s₂ · `ahead`: a bend is the harder to know the less there is to gain. NaN bounds
    below two seeds, all NaN below four epochs or where a value of the window is not finite.
    """
    y = np.atleast_2d(np.asarray(curves, dtype=float))
    n, epochs = y.shape
    half = min(_WINDOW * ahead, epochs) // 2
    if half < 2 or n < 1 or not np.isfinite(y[:, epochs - 2 * half :]).all():
        return Projection(nan, nan, nan, nan)
    places = np.arange(half) - (half - 1) / 2
    slopes = y[:, epochs - 2 * half :].reshape(n, 2, half) @ places / (places @ places)
    gain, decay = _geometric(slopes.mean(axis=0), half, ahead)
    if n < 2:
        return Projection(gain, nan, nan, decay)
    t = float(special.stdtrit(n - 1, 0.5 + confidence / 2))
    left_out = np.array([_geometric(np.delete(slopes, seed, axis=0).mean(axis=0), half, ahead)[0] for seed in range(n)])
    se = sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum())
    last = slopes[:, 1] * ahead
    straight = float(last.mean() + t * last.std(ddof=1) / sqrt(n))
    return Projection(gain, gain - t * se, max(gain + t * se, straight), decay)


def _geometric(slopes: Floats, half: int, ahead: int) -> tuple[float, float]:
    """Return the gain of `ahead` epochs after two halves with the given mean slopes (2,), and the decay."""
    first, second = float(slopes[0]), float(slopes[1])
    decay = min(1.0, second / first) if first > 0 and second > 0 else 1.0
    return second * float((decay ** ((half / 2 + np.arange(1, ahead + 1) - 0.5) / half)).sum()), decay
