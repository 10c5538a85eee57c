"""Convergence at the epoch budget: what the last epochs still gained, judged over seeds and never on one run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ablate.measure import Measured, unknown
from ablate.wording import count_of

Verdict = Literal["under-converged", "converged", "inconclusive", "none"]

GAIN_THRESHOLD = 0.005
LEAST_SEEDS = 3
LEAST_EPOCHS = 5


def theil_sen_slope(values: np.ndarray) -> np.ndarray:
    """Return the median of the slopes between all pairs of points of the last axis: (...) from (..., K), K ≥ 2.

    Theil (1950) and Sen (1968); `scipy.stats.theilslopes` for one series, here for many at once. Beyond 1,000 points
    only the pairs half the length apart are used (Theil's abbreviated form), for all of them would fill the memory.
    """
    values = np.asarray(values, dtype=np.float64)
    points = values.shape[-1]
    if points > 1000:
        first = np.arange(points // 2)
        second = first + (points + 1) // 2
    else:
        first, second = np.triu_indices(points, k=1)
    return np.median((values[..., second] - values[..., first]) / (second - first), axis=-1)


def late_epochs(epochs: int) -> int:
    """Return how many of the last epochs are judged: ⌈0.2·epochs⌉, at least 5 and at most 20."""
    return min(20, max(LEAST_EPOCHS, -(-epochs // 5)))


def projected_gain(val_mean_iou: np.ndarray) -> Measured:
    """Return the gain of val mIoU that as many epochs again would bring at the late slope, a fraction.

    Theil–Sen slope per epoch of the last k = `late_epochs(E)` values of `val_mean_iou` (E,), times k.
    """
    curve = np.asarray(val_mean_iou, dtype=np.float64)
    k = late_epochs(len(curve))
    if len(curve) < k:
        return unknown(f"{count_of(len(curve), 'epoch')}; a late slope needs {k}")
    if not np.isfinite(curve[-k:]).all():
        return unknown("a value of the last epochs is not finite")
    return Measured(float(theil_sen_slope(curve[-k:]) * k))


def ends_near_zero(rates: Sequence[float] | np.ndarray) -> bool:
    """Tell whether the learning rate per epoch (E,) ends below a quarter of its peak.

    Such a schedule makes its own plateau: a flat curve then says nothing about the budget. A quarter, because the
    last of a few epochs of a polynomial schedule still starts at more than a tenth.
    """
    rates = np.asarray(rates, dtype=np.float64)
    return len(rates) > 0 and bool(rates[-1] < 0.25 * rates.max())


@dataclass(frozen=True)
class Convergence:
    """The verdict on one cell with what it rests on; gains are fractions of mIoU, NaN where unknown.

    `low` and `high` are the two-sided 90 % t interval of the mean projected gain over `seeds` seeds.
    """

    verdict: Verdict
    gain: float
    low: float
    high: float
    seeds: int
    reason: str


def convergence(
    curves: Iterable[np.ndarray],
    *,
    rates: Sequence[float] | np.ndarray | None = None,
    threshold: float = GAIN_THRESHOLD,
    confidence: float = 0.9,
) -> Convergence:
    """Judge whether the seeds of one cell had converged at their epoch budget.

    `curves` are val mIoU per epoch (E,) of each seed, `rates` the learning rate per epoch of the schedule. With
    the t interval over seeds of the projected gain: **under-converged** if its lower bound exceeds `threshold`,
    **converged** if its upper bound is below, else **inconclusive**, as always below three seeds. No verdict
    ("none") for a schedule that ends near zero. Seeds without a late slope (diverged, too short) are left out and
    counted in the reason. The seeds carry the test, for within one run successive epochs are dependent and trend
    tests raise false alarms several times too often.
    """
    plateau = rates is not None and ends_near_zero(rates)
    return _judged([projected_gain(curve) for curve in curves], "projected", threshold, confidence, plateau)


def realised_gain(val_mean_iou: np.ndarray, budget: int) -> Measured:
    """Return the gain of val mIoU that the epochs beyond a `budget` of epochs brought, a fraction.

    Mean of the last k = `late_epochs(budget)` values of `val_mean_iou` (E,) less the mean of the k values up to the
    budget; the two windows must not overlap. Means of windows and not best values, whose maximum grows with the
    number of epochs whether anything is learned or not.
    """
    curve = np.asarray(val_mean_iou, dtype=np.float64)
    k = late_epochs(budget)
    if budget < k or len(curve) < budget + k:
        return unknown(f"{count_of(len(curve), 'epoch')}; the gain beyond {budget} needs {max(budget, k) + k}")
    before, after = curve[budget - k : budget], curve[-k:]
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        return unknown("a value of the epochs compared is not finite")
    return Measured(float(after.mean() - before.mean()))


def continuation(
    curves: Iterable[np.ndarray], budget: int, *, threshold: float = GAIN_THRESHOLD, confidence: float = 0.9
) -> Convergence:
    """Judge whether the seeds of one cell had converged at a `budget` of epochs, now that they were trained beyond it.

    As `convergence`, with the gain that came (`realised_gain`) instead of the one that was projected.
    """
    return _judged([realised_gain(curve, budget) for curve in curves], "realised", threshold, confidence)


def _judged(
    gains: Sequence[Measured], kind: str, threshold: float, confidence: float, plateau: bool = False
) -> Convergence:
    from ablate.stats.intervals import t_interval  # brings SciPy, which a run of trials does without

    known = np.array([gain.value for gain in gains if gain.known])
    missing = [gain.reason for gain in gains if not gain.known]
    note = f"; {len(missing)} of {count_of(len(gains), 'seed')} left out ({missing[0]})" if missing else ""
    mean, low, high = t_interval(known, confidence)
    if plateau:
        return Convergence("none", mean, low, high, len(known), "the schedule ends near zero and makes its own plateau")
    if len(known) < LEAST_SEEDS:
        what = "late slope" if kind == "projected" else "gain"
        reason = f"{count_of(len(known), 'seed')} with a {what}; a verdict needs {LEAST_SEEDS}"
        return Convergence("inconclusive", mean, low, high, len(known), reason + note)
    verdict: Verdict
    if low > threshold:
        verdict, said = "under-converged", "lies above"
    elif high < threshold:
        verdict, said = "converged", "lies below"
    else:
        verdict, said = "inconclusive", "holds"
    reason = f"the {confidence:.0%} interval of the {kind} gain {said} {threshold:g}"
    return Convergence(verdict, mean, low, high, len(known), reason + note)
