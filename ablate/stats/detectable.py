"""The reach of a comparison: power of Welch's test, detectable difference, seeds that a difference needs."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isfinite, nan, sqrt

import numpy as np
from scipy import optimize, special

from ablate.stats.intervals import contrast_error

MOST_SEEDS = 1000


def holm_first(alpha: float, contrasts: int) -> float:
    """Return the level at which Holm's procedure judges the first of m contrasts: α/m, which none needs to surpass."""
    return alpha / max(1, contrasts)


def welch_power(
    delta: float, between: Sequence[float], seeds: Sequence[int], *, level: float = 0.05, shared: float = 0.0
) -> float:
    """Return the chance that Welch's two-sided test at `level` finds a true difference `delta` of two cells' means.

    `between` are the two variances between seeds and `seeds` their numbers, `shared` the variance by the test images
    that no number of seeds removes. The test statistic is taken as noncentral t with the standard error and the
    degrees of freedom of `contrast_error` at the true variances: exact for equal spreads and sizes, where it is the
    power of the two-sample t test (Cohen 1988), and within a point or two else. 0 below two seeds a side.
    """
    if min(seeds) < 2:
        return 0.0
    se, df = (float(part) for part in contrast_error(between, seeds, shared=shared))
    if se == 0:
        return float(delta != 0)
    away = abs(delta) / se
    if not isfinite(df):
        reach = float(special.ndtri(1 - level / 2))
        return float(special.ndtr(away - reach) + special.ndtr(-away - reach))
    reach = float(special.stdtrit(df, 1 - level / 2))
    missed, other_side = special.nctdtr(df, away, reach), 1 - special.nctdtr(df, -away, reach)
    # In its far tails scipy's law is NaN instead of next to nothing.
    return float(1 - np.nan_to_num(missed) + np.nan_to_num(other_side))


def detectable_difference(
    between: Sequence[float],
    seeds: Sequence[int],
    *,
    contrasts: int = 1,
    alpha: float = 0.05,
    power: float = 0.8,
    shared: float = 0.0,
) -> float:
    """Return the smallest difference found with the chance `power`, at Holm's first step of m `contrasts`.

    Other arguments as in `welch_power`. The first step is the strictest: a contrast that is not the first to be
    rejected is found at least as often. NaN below two seeds a side or where a variance is not known.
    """
    if min(seeds) < 2 or not isfinite(sum(between) + shared):
        return nan
    level = holm_first(alpha, contrasts)
    top = float(contrast_error(between, seeds, shared=shared)[0])
    if top == 0:
        return 0.0
    while welch_power(top, between, seeds, level=level, shared=shared) < power:
        top *= 2
    return float(
        optimize.brentq(
            lambda delta: welch_power(delta, between, seeds, level=level, shared=shared) - power, 0, top, xtol=1e-9
        )
    )


def floor_of_detection(shared: float, *, level: float, power: float = 0.8) -> float:
    """Return the smallest difference that any number of seeds could find: (z_{1−α/2} + z_power)·√shared.

    The other side's tail is left out; it is below 10⁻⁶ at any usual level.
    """
    return float(special.ndtri(1 - level / 2) + special.ndtri(power)) * sqrt(shared)


def seeds_to_find(
    delta: float,
    between: Sequence[float],
    *,
    contrasts: int = 1,
    alpha: float = 0.05,
    power: float = 0.8,
    shared: float = 0.0,
) -> float:
    """Return the least seeds of either cell that find a true difference `delta` with the chance `power`.

    As `detectable_difference` the other way round, with equal numbers on both sides. inf where 1,000 do not suffice
    (the images alone may forbid it: see `floor_of_detection`), NaN for a difference of zero or where a variance is not
    known.
    """
    if delta == 0 or not isfinite(delta) or not isfinite(sum(between) + shared):
        return nan
    level = holm_first(alpha, contrasts)
    floor = floor_of_detection(shared, level=level, power=power)
    if abs(delta) < floor or welch_power(delta, between, [MOST_SEEDS] * 2, level=level, shared=shared) < power:
        return inf
    low, high = 1, MOST_SEEDS  # power grows with n, so halving finds the least
    while high - low > 1:
        middle = (low + high) // 2
        enough = welch_power(delta, between, [middle] * 2, level=level, shared=shared) >= power
        low, high = (low, middle) if enough else (middle, high)
    return float(high)
