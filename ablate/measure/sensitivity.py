"""The learning rate's effect on scores: sensitivity, basin, budget.

Rates are positive and need not come sorted; scores are better where larger, losses where smaller.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ablate.measure import Measured, unknown
from ablate.wording import count_of

# From how many settings on a tuning-budget curve is worth drawing.
BUDGET_CURVE_FROM = 8


class Basin(NamedTuple):
    """The parabola through the best rate and its neighbours, in the logarithm of the rate.

    `optimum` is the rate at its vertex, `value` the score there, `width` the decades within which it stays within
    delta of `value`. NaN with a `reason` where the parabola is invalid. `bracketed`: the best rate is not on the edge
    of the grid. `extrapolated`: the width reaches past the three rates that the parabola goes through.
    """

    optimum: float = math.nan
    value: float = math.nan
    width: float = math.nan
    bracketed: bool = False
    extrapolated: bool = False
    reason: str | None = None


def _by_rate(rates: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    rates = np.asarray(rates, dtype=np.float64)
    order = np.argsort(rates)
    return np.log(rates[order]), order


def lr_sensitivity(rates: ArrayLike, final_loss: ArrayLike, initial_loss: ArrayLike) -> Measured:
    """Return the mean over log rate in [a, b] of min(final loss, loss at initialisation) − best, in units of the loss.

    `rates` (R,) span [a, b]; `final_loss` is the final val loss (R,) or (R, seeds), what is not finite counting as the
    loss at initialisation; `initial_loss` is a number or of the same shape. The mean over seeds is taken first, the
    integral by the trapezoid rule in log rate, and best is the lowest of the curve (after the learning rate sensitivity
    of Wortsman et al. 2023, arXiv 2309.14322, section 2.2). Comparable between variants only over the same [a, b].
    """
    log_rates, order = _by_rate(rates)
    final = np.asarray(final_loss, dtype=np.float64)
    if len(order) < 2:
        return unknown(f"{count_of(len(order), 'rate')}; a sensitivity needs two")
    initial = np.broadcast_to(np.asarray(initial_loss, dtype=np.float64), final.shape)
    if not np.isfinite(initial).all():
        return unknown("the loss at initialisation is not finite")
    capped = np.minimum(np.where(np.isfinite(final), final, initial), initial)
    curve = capped.reshape(len(order), -1).mean(axis=1)[order]
    return Measured(float(np.trapezoid(curve - curve.min(), log_rates) / (log_rates[-1] - log_rates[0])))


def basin(rates: ArrayLike, scores: ArrayLike, delta: float) -> Basin:
    """Return the basin of a score over log rate: its optimum, and its width in decades within `delta` of it.

    A parabola through the best of `scores` (R,), larger being better, and its neighbours; for a best on the edge of
    the grid through the three rates nearest to that edge. Invalid, NaN with a reason, where it opens upward, or its
    vertex lies outside those three rates, or a score is not finite. A diverged cell scores 0 and bends it sharply.
    """
    log_rates, order = _by_rate(rates)
    values = np.asarray(scores, dtype=np.float64)[order]
    if len(values) < 3:
        return Basin(reason=f"{count_of(len(values), 'rate')}; a parabola needs three")
    if not np.isfinite(values).all():
        return Basin(reason="a score is not finite")
    best = int(values.argmax())
    bracketed = 0 < best < len(values) - 1
    middle = min(max(best, 1), len(values) - 2)
    x = log_rates[middle - 1 : middle + 2] / math.log(10)
    y = values[middle - 1 : middle + 2]
    curvature = (float((y[2] - y[1]) / (x[2] - x[1])) - float((y[1] - y[0]) / (x[1] - x[0]))) / float(x[2] - x[0])
    if curvature >= 0:
        return Basin(bracketed=bracketed, reason="the parabola does not open downward")
    slope = float((y[1] - y[0]) / (x[1] - x[0]))
    vertex = float(x[0] + x[1]) / 2 - slope / (2 * curvature)
    if not x[0] <= vertex <= x[2]:
        reason = "the vertex lies outside the rates: the grid does not hold the optimum"
        return Basin(bracketed=bracketed, reason=reason)
    top = float(y[1]) - curvature * (float(x[1]) - vertex) ** 2
    half = math.sqrt(delta / -curvature)
    extrapolated = bool(vertex - half < x[0] or vertex + half > x[2])
    return Basin(10**vertex, top, 2 * half, bracketed, extrapolated)


def budget_curve(val: ArrayLike, test: ArrayLike) -> np.ndarray:
    """Return the expected test score of the val-best setting among n of the B that were tried: (B,), n = 1 … B.

    `val` and `test` (B,), larger being better, diverged settings 0. With t_(i) the test scores sorted by val, the mean
    over all subsets of n: Σ_{i≥n} C(i−1, n−1) / C(B, n) · t_(i), for the purpose of Tang et al. (2020, arXiv
    2004.13705), who estimate the expected best itself. Settings tied on val share the mean of their test scores, as if
    one were drawn. To be labelled "uniform over the grid": its settings are taken as equally likely to be tried.
    """
    val, test = np.asarray(val, dtype=np.float64), np.asarray(test, dtype=np.float64)
    _, group = np.unique(val, return_inverse=True)
    shared = (np.bincount(group, weights=test) / np.bincount(group))[group]
    ordered = shared[np.argsort(val, kind="stable")]
    budget = len(val)
    weights = np.array(
        [[math.comb(i - 1, n - 1) / math.comb(budget, n) for i in range(1, budget + 1)] for n in range(1, budget + 1)]
    )
    return weights @ ordered
