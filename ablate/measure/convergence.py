"""Convergence at the epoch budget: what the last epochs still gained, judged over seeds and never on one run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ablate.measure import Measured, unknown
from ablate.wording import count_of

Verdict = Literal["under-converged", "converged", "inconclusive", "none"]

GAIN_THRESHOLD = 0.005
CONFIDENCE = 0.9
LEAST_SEEDS = 3
LEAST_EPOCHS = 5


def late_epochs(epochs: int) -> int:
    """Return how many of the last epochs are judged: ⌈0.2·epochs⌉, at least 5 and at most 20."""
    return min(20, max(LEAST_EPOCHS, -(-epochs // 5)))


@dataclass(frozen=True)
class Convergence:
    """The verdict on one cell with what it rests on; gains are fractions of mIoU, NaN where unknown.

    `low` and `high` are the two-sided 90 % interval of the mean gain over `seeds` seeds.
    """

    verdict: Verdict
    gain: float
    low: float
    high: float
    seeds: int
    reason: str


def convergence(curves: Iterable[np.ndarray], *, decays: bool = False) -> Convergence:
    """Judge whether the seeds of one cell had converged at their epoch budget.

    `curves` are val mIoU per epoch (E,) of each seed. The gain is that which `late_epochs(E)` more epochs would bring,
    projected from the two halves of the last three times as many along an approach to a plateau
    (`ablate.stats.saturation.projected_gain`): a curve that bends has less to come than its last slope says.
    **Under-converged** if the lower bound exceeds `GAIN_THRESHOLD`, **converged** if the upper bound is below, else
    **inconclusive**, as always below three seeds. No verdict ("none") where the learning rate `decays` to near zero:
    such a schedule makes its own plateau. Seeds without such a window (diverged, too short) are left out and counted
    in the reason. The seeds carry the test, for within one run successive epochs are dependent and trend tests raise
    false alarms several times too often.
    """
    from ablate.stats.saturation import projected_gain  # brings SciPy, which a run of trials does without

    tried = [np.asarray(curve, dtype=np.float64) for curve in curves]
    epochs = max(map(len, tried), default=0)
    ahead = late_epochs(epochs)
    known, missing = [], []
    for curve in tried:
        if len(curve) < max(epochs, LEAST_EPOCHS):
            missing.append(f"{count_of(len(curve), 'epoch')}; a projection needs {max(epochs, LEAST_EPOCHS)}")
        elif not np.isfinite(curve[-3 * ahead :]).all():
            missing.append("a value of the last epochs is not finite")
        else:
            known.append(curve)
    gain = low = high = np.nan
    if known:
        gain, low, high, _ = projected_gain(np.stack(known), ahead, confidence=CONFIDENCE)
    found = _verdict("projected", (gain, low, high), len(known), missing)
    if decays:
        return replace(found, verdict="none", reason="the schedule ends near zero and makes its own plateau")
    return found


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


def continuation(curves: Iterable[np.ndarray], budget: int) -> Convergence:
    """Judge whether the seeds of one cell had converged at a `budget` of epochs, now that they were trained beyond it.

    As `convergence`, with the gain that came (`realised_gain`) instead of the one that was projected.
    """
    from ablate.stats.intervals import t_interval  # brings SciPy, which a run of trials does without

    gains = [realised_gain(curve, budget) for curve in curves]
    known = np.array([gain.value for gain in gains if gain.known])
    missing = [gain.reason or "" for gain in gains if not gain.known]
    return _verdict("realised", t_interval(known, CONFIDENCE), len(known), missing)


def _verdict(kind: str, estimate: tuple[float, float, float], seeds: int, missing: Sequence[str]) -> Convergence:
    """Return the verdict on a gain with its bounds, of so many seeds; `missing` says why the others have none."""
    gain, low, high = estimate
    of = count_of(seeds + len(missing), "seed")
    note = f"; {len(missing)} of {of} left out ({missing[0]})" if missing else ""
    if seeds < LEAST_SEEDS:
        what = "late slope" if kind == "projected" else "gain"
        reason = f"{count_of(seeds, 'seed')} with a {what}; a verdict needs {LEAST_SEEDS}"
        return Convergence("inconclusive", gain, low, high, seeds, reason + note)
    verdict: Verdict
    if low > GAIN_THRESHOLD:
        verdict, said = "under-converged", "lies above"
    elif high < GAIN_THRESHOLD:
        verdict, said = "converged", "lies below"
    else:
        verdict, said = "inconclusive", "holds"
    reason = f"the {CONFIDENCE:.0%} interval of the {kind} gain {said} {GAIN_THRESHOLD:g}"
    return Convergence(verdict, gain, low, high, seeds, reason + note)
