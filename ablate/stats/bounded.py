"""Intervals of means of bounded quantities (shares, rises, areas under a curve), which never leave the bounds."""

from __future__ import annotations

from math import inf, log, nan

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from ablate.stats.intervals import Estimate, Floats, t_interval

Interval = tuple[float, float, float]

# Shares of the most that may be bet. Half of the capital bets all: that wins most where all values lie at a bound.
_BETS = np.arange(1, 51) / 50
_LOG_SHARES = np.log(np.append(np.full(49, 0.5 / 49), 0.5))


def betting_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Return the mean of values in [0, 1] (n,) with its interval by betting: (mean, low, high).

    Holds the true mean with at least the stated chance for any distribution within [0, 1], from one value on
    (Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting"). A
    gambler who bets that the mean exceeds m has the capital K(m) = Σ_g w_g Π_i (1 + λ_g · (x_i/m − 1)) with bets
    λ_g = 1/50, ..., 1 mixed in the shares w_g; were m the true mean, K(m) ≥ 2/α would come with a chance of at most α/2
    (Markov), so that the lower bound is the largest m whose capital reaches it. The upper bound is the same for 1 − x.
    The mixture over a grid (their hedged grid-Kelly) makes the interval independent of the order of the values.

    NaN for no values, or where one is not finite; raises ValueError where a value lies outside the bounds.
    """
    x = np.asarray(values, dtype=float).ravel()
    if x.size == 0 or not np.isfinite(x).all():
        return nan, nan, nan
    if x.min() < 0 or x.max() > 1:
        raise ValueError("a value lies outside of [0, 1]")
    goal = log(2 / (1 - confidence))
    return float(x.mean()), _lower_bound(x, goal), 1 - _lower_bound(1 - x, goal)


def _lower_bound(x: Floats, goal: float) -> float:
    """Return the largest mean m at which the log capital of values x (n,) reaches `goal`: it falls with m."""
    low, high = 0.0, 1.0
    with np.errstate(divide="ignore"):  # who bets all on a value of 0 is left with nothing
        for _ in range(40):
            middle = (low + high) / 2
            wealth = np.log1p(_BETS[:, None] * (x / middle - 1)).sum(axis=1)
            low, high = (middle, high) if np.logaddexp.reduce(wealth + _LOG_SHARES) >= goal else (low, middle)
    return low


def seeds_to_exclude(gap: float, confidence: float = 0.95) -> float:
    """Return the least number of values at one end of [0, 1] whose interval excludes a mean `gap` away from that end.

    Of n values that are all 1, K(m) = Σ_g w_g (1 + λ_g · (1/m − 1))^n at m = 1 − gap must reach 2/α. inf for a gap of
    zero or one.
    """
    if not 0 < gap < 1:
        return inf
    goal, growth = log(2 / (1 - confidence)), np.log1p(_BETS * gap / (1 - gap))
    n = 1
    while np.logaddexp.reduce(n * growth + _LOG_SHARES) < goal:
        n += 1
    return float(n)


def bounded_mean(
    values: ArrayLike,
    height: float,
    confidence: float = 0.95,
    *,
    least: float,
    ends: tuple[str, str] = ("at 0", "at 1"),
) -> Estimate:
    """Return the mean of values in [0, 1] (n,) with its `betting_interval`, as an estimate.

    Where all are at one end the reason says so, in the words `ends` for a value at 0 and one at 1, with how many such
    values it takes to tell the mean from `height` at the level `least`.
    """
    x = np.asarray(values, dtype=float).ravel()
    mean, low, high = betting_interval(x, confidence)
    reason = ""
    if mean in (0.0, 1.0):
        told = seeds_to_exclude(abs(height - mean), least)
        said = f"at least {told:.0f} such seeds would tell" if told < inf else "no number would tell"
        reason = f"all {x.size} seeds {ends[int(mean)]}; {said}"
    method = "mean of a bounded quantity, by betting"
    return Estimate(mean, low, high, n=x.size, confidence=confidence, method=method, reason=reason)


def logit_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Return the centre of values (n,) in (0, 1) with Student's t interval of their logits: (centre, low, high).

    For areas under the ROC curve and other shares of many pixels: log(x/(1 − x)) ± t_{n−1} · s/√n, taken back, cannot
    leave [0, 1]; the centre is that of the mean logit. Where a value is exactly 0 or 1 its logit is infinite, and the
    interval is `betting_interval`'s. Bounds are NaN below two values and where the values do not vary, all three where
    one is not finite; raises ValueError for a value outside of [0, 1].
    """
    x = np.asarray(values, dtype=float).ravel()
    if x.size == 0 or not np.isfinite(x).all():
        return nan, nan, nan
    if x.min() <= 0 or x.max() >= 1:
        return betting_interval(x, confidence)
    centre, low, high = special.expit(t_interval(special.logit(x), confidence)).tolist()
    return (centre, low, high) if np.ptp(x) else (centre, nan, nan)
