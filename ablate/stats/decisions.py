"""From intervals to words: Holm's correction, equivalence, the primary decision, and cells that learned nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from ablate.stats.intervals import Estimate, t_interval

Trained = Literal["trained", "untrained", "unclear"]
Verdict = Literal["better", "worse", "equivalent", "undecided", "futile"]

# A cell at most a point of mean IoU above a prediction without an image has learned nothing worth comparing.
REACH = 0.01


@dataclass(frozen=True)
class Decision:
    """The primary decision of one contrast, with the adjusted p-values that it rests on."""

    verdict: Verdict
    p_holm: float
    p_equivalent: float


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """Return Holm's step-down adjusted p-values, in the order given: (m,) -> (m,).

    With p sorted ascending, adjusted p_(i) = max over j ≤ i of min(1, (m − j + 1) · p_(j)); rejecting where it is
    ≤ α keeps the chance of any false rejection at α whatever the dependence (Holm 1979). A contrast without p (NaN)
    stays in the family of m and comes back as NaN: leaving it out afterwards would loosen the others.
    """
    raw = np.asarray(p, dtype=float).ravel()
    known = np.where(np.isnan(raw), 1.0, raw)
    order = np.argsort(known, kind="stable")
    steps = (raw.size - np.arange(raw.size)) * known[order]
    adjusted = np.empty(raw.size)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return np.where(np.isnan(raw), np.nan, adjusted)


def equivalence_p(estimate: Estimate, rope: float) -> float:
    """Return the p of two one-sided t tests of a difference outside (−rope, rope) (Schuirmann 1987).

    NaN without an interval.
    """
    if not estimate.has_interval:
        return nan
    lower = special.stdtr(estimate.df, -(estimate.value + rope) / estimate.se)
    upper = special.stdtr(estimate.df, -(rope - estimate.value) / estimate.se)
    return float(max(lower, upper))


def decide(estimates: Sequence[Estimate], *, rope: float, confidence: float = 0.95) -> list[Decision]:
    """Decide every contrast of one family at α = 1 − confidence. Larger is better.

    - **equivalent**: the printed interval lies inside (−rope, rope), and Holm's adjusted p of the two one-sided tests
      is ≤ α. This comes first: a difference below the rope counts as none, however surely it is not zero.
    - **better** / **worse**: Holm's adjusted p of no difference is ≤ α, by the sign of the estimate.
    - **undecided**: else. It says that the data do not tell, never that there is no difference.

    An estimate whose own interval is of a stricter level, since it has to hold over several looks, is judged at that
    level: its p-values count as α / (1 − its confidence) times as large.
    """
    alpha = 1 - confidence
    scales = [alpha / (1 - estimate.confidence) for estimate in estimates]
    different = holm([estimate.p * scale for estimate, scale in zip(estimates, scales, strict=True)])
    equal = holm([equivalence_p(estimate, rope) * scale for estimate, scale in zip(estimates, scales, strict=True)])
    decisions = []
    for estimate, p, q in zip(estimates, different, equal, strict=True):
        verdict: Verdict = "undecided"
        if estimate.has_interval and -rope < estimate.low and estimate.high < rope and q <= alpha:
            verdict = "equivalent"
        elif np.isfinite(p) and p <= alpha:
            verdict = "better" if estimate.value > 0 else "worse"
        decisions.append(Decision(verdict, float(p), float(q)))
    return decisions


def blind_score(pixels: ArrayLike, labelled: int | None = None) -> float:
    """Return the best mean IoU that a prediction without an image has, by the target's pixels of each class (classes,).

    With p the share of a class in the target, the mean being over the classes that are in it: predicting class c
    everywhere has IoU p_c for it and 0 for the others; drawing each pixel's class by the shares has the expected counts
    TP = p², FP = FN = p(1 − p), so that IoU = p/(2 − p). The higher of the two; NaN where the target has no pixel.

    Where a pixel may bear several classes, `labelled` is the number of all pixels that are scored, and the constant
    prediction bears every class: its mean IoU is that of the p_c.
    """
    counts = np.asarray(pixels, dtype=float).ravel()
    total, there = counts.sum(), int((counts > 0).sum())
    if total <= 0 or labelled == 0:
        return nan
    share = counts / (total if labelled is None else labelled)
    constant = share.max() if labelled is None else share.sum()
    return max(float(constant) / there, float((share / (2 - share)).sum()) / there)


def trained(scores: ArrayLike, reference: float) -> Trained:
    """Return whether a cell's scores (n,), one a seed, are beyond the reach of a prediction without an image.

    *untrained* where the mean is at most reference + `REACH`, *trained* where the lower bound of Student's one-sided
    95 % interval of the mean is above it, else *unclear*, as for a single seed above it. Contrasts with an untrained
    cell compare nothing that was learned.
    """
    mean, low, _ = t_interval(scores, 0.9)
    if np.isnan(mean) or np.isnan(reference):
        return "unclear"
    if mean <= reference + REACH:
        return "untrained"
    return "trained" if low > reference + REACH else "unclear"
