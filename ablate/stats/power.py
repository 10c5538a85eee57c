"""The planner: what difference n seeds can detect and how many seeds a difference needs, from a pilot's variances."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import inf, isfinite, nan, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

# Midpoints of the average over the estimated variance: enough for four digits of the power.
_NODES = (np.arange(2000) + 0.5) / 2000
MOST_SEEDS = 1000


@dataclass(frozen=True)
class Pilot:
    """What a pilot says about one contrast: the variances, in squared score units, that the planner needs.

    `seed` is the variance between runs averaged over the two sides (seed and interaction: what more seeds
    average away), estimated with `df` degrees of freedom; `image` is the variance of the difference by the
    sampling of test images, which both sides share and no number of seeds removes.
    """

    seed: float
    image: float
    df: int

    def cautious(self, confidence: float = 0.8) -> Pilot:
        """Return the same at the upper one-sided confidence bound of the seed variance, df·s²/χ²_{df, 1−confidence}."""
        return Pilot(self.seed * self.df / float(special.chdtri(self.df, confidence)), self.image, self.df)


def power(delta: float, n: int, pilot: Pilot, alpha: float) -> float:
    """Return the chance that the primary decision finds a true difference `delta` with n seeds a side.

    At the two-sided level `alpha` the decision rejects where |D| > t_{1−α/2, 2(n−1)} · SE, with
    D ~ N(delta, 2σ²/n + τ²) and SE² = 2s²/n + τ², s² the pooled variance between n seeds (σ²·χ²/df, df = 2(n−1)) and
    τ² the image part. So power = E_s[Φ((delta − c·SE)/σ_D) + Φ((−delta − c·SE)/σ_D)], averaged over the χ² law of
    s². With τ = 0 it is the power of the two-sample t test: noncentral t with df = 2(n−1) and noncentrality
    delta/√(2σ²/n).
    """
    if n < 2:
        return 0.0
    df = 2 * (n - 1)
    spread = sqrt(2 * pilot.seed / n + pilot.image)
    if spread == 0:
        return 1.0 if delta else 0.0
    estimated = pilot.seed * _chi_squares(df) / df
    reach = special.stdtrit(df, 1 - alpha / 2) * np.sqrt(2 * estimated / n + pilot.image)
    either = special.ndtr((delta - reach) / spread) + special.ndtr((-delta - reach) / spread)
    return float(either.mean())


@lru_cache(maxsize=4096)
def _chi_squares(df: int) -> NDArray[np.float64]:
    return np.asarray(special.chdtri(df, 1 - _NODES))


def detectable(n: int, pilot: Pilot, alpha: float, wanted: float = 0.8) -> float:
    """Return the smallest difference found with chance `wanted` by n seeds a side; NaN below two seeds."""
    if n < 2 or not isfinite(pilot.seed + pilot.image):
        return nan
    top = sqrt(2 * pilot.seed / n + pilot.image) or 1e-12
    while power(top, n, pilot, alpha) < wanted:
        top *= 2
    return float(optimize.brentq(lambda delta: power(delta, n, pilot, alpha) - wanted, 0.0, top, xtol=1e-7))


def floor_of_detection(pilot: Pilot, alpha: float, wanted: float = 0.8) -> float:
    """Return the smallest difference that any number of seeds could find: (z_{1−α/2} + z_wanted)·τ.

    The other side's tail is left out; it is below 10⁻⁶ at any usual level.
    """
    return float((special.ndtri(1 - alpha / 2) + special.ndtri(wanted)) * sqrt(pilot.image))


def seeds_needed(delta: float, pilot: Pilot, alpha: float, wanted: float = 0.8) -> float:
    """Return the least seeds a side that find `delta` with chance `wanted`.

    Inf where 1,000 do not, NaN without a pilot.
    """
    if not isfinite(pilot.seed + pilot.image) or delta <= 0:
        return nan
    if power(delta, MOST_SEEDS, pilot, alpha) < wanted:
        return inf
    low, high = 1, MOST_SEEDS  # power grows with n, so halving finds the least
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(delta, middle, pilot, alpha) >= wanted else (middle, high)
    return float(high)


def holm_level(alpha: float, contrasts: int, step: int = 1) -> float:
    """Return the level at which Holm's procedure judges the contrast of rank `step`: α/(m − step + 1).

    Step 1 is the strictest.
    """
    return alpha / (contrasts - step + 1)
