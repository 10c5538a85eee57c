"""One comparison of a claim: its interval at any level, the threshold that it is held against, what a metric scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import ceil, inf, log, log1p, nan

import numpy as np

from ablate.analysis.bootstrap import Replicates
from ablate.analysis.intervals import Estimate, mean_estimate, permutation_p, welch_interval
from ablate.analysis.resampling import Floats, Score
from ablate.errors import nearest
from ablate.measure import segmentation
from ablate.measure.detail import mean_recall
from ablate.study.metrics import DETAIL
from ablate.study.spec import ClaimSpec

OVERLAP_SCORES: Mapping[str, Score] = {
    "mean_iou": segmentation.mean_iou,
    "dice": segmentation.mean_dice,
    "pixel_accuracy": segmentation.pixel_accuracy,
}
CLASS_SCORES: Mapping[str, Score] = {"iou": segmentation.iou, "dice": segmentation.dice}


class Refusal(Exception):
    """Why a claim cannot be judged as it stands; it is then inconclusive, and this is its reason."""


@dataclass(frozen=True)
class Evidence:
    """One comparison: the number `quantity` at `at`, claimed to lie above (or below) `threshold`.

    `estimate(k)` is its estimate with the error of its interval divided by k (Bonferroni over k comparisons).
    """

    quantity: str
    at: str
    estimate: Callable[[int], Estimate]
    above: bool
    inclusive: bool
    threshold: float
    exact: bool = False
    notes: tuple[str, ...] = ()
    refused: str = ""
    """Why the comparison could not be made; "" where it was."""

    @property
    def threshold_text(self) -> str:
        """The threshold in print."""
        return f"{self.threshold:g}"

    def beyond(self, share: int, *, supporting: bool) -> float:
        """How far the interval lies wholly on the claimed (or the other) side of the threshold; −inf without one."""
        estimate = self.estimate(share)
        if not estimate.has_interval:
            return -inf
        above = self.above == supporting
        gap = estimate.low - self.threshold if above else self.threshold - estimate.high
        # The claimed side holds the threshold itself where the operator does, the other side where it does not.
        return 5e-324 if gap == 0 and self.inclusive == supporting else gap


def refused(metric: str, at: str, why: str) -> Evidence:
    """A comparison that cannot be made."""
    nothing = Estimate(nan, nan, nan, reason=why)
    return Evidence(metric, at, lambda share: nothing, above=True, inclusive=False, threshold=nan, refused=why)


def score_of(name: str, classes: tuple[str, ...]) -> Score:
    if name in DETAIL:
        kind = DETAIL[name]
        if kind.startswith("thin"):
            return mean_recall
        absent = "target" if kind == "interior" else "both"
        return lambda sums: segmentation.mean_iou(sums, absent=absent)  # type: ignore[arg-type]
    if name in OVERLAP_SCORES:
        return OVERLAP_SCORES[name]
    kind, _, label = name.partition("/")
    if label not in classes:
        raise Refusal(f"unknown class '{label}'; {nearest(label, classes)}")
    place, scores = classes.index(label), CLASS_SCORES[kind]
    return lambda sums: scores(sums)[..., place]


def entry(cell: Replicates, place: int) -> Replicates:
    """One entry of a cell whose score is a vector, such as mIoU and the classes."""
    return replace(
        cell,
        test=np.asarray(cell.test[place]),
        test_draws=cell.test_draws[:, place],
        between=np.asarray(cell.between)[..., place] if np.ndim(cell.between) else cell.between,
        interaction=np.asarray(cell.interaction)[..., place] if np.ndim(cell.interaction) else cell.interaction,
    )


def scaled(cell: Replicates, factor: float) -> Replicates:
    return replace(
        cell,
        test=cell.test * factor,
        test_draws=cell.test_draws * factor,
        between=cell.between * factor**2,
        interaction=cell.interaction * factor**2,
    )


def seeds_estimate(left: Floats, right: Floats, factor: float, threshold: float, confidence: float) -> Estimate:
    """Welch's interval; where neither side varies, the exact permutation test says whether it is a point.

    Where one side alone does not vary, Welch's degrees of freedom are those of the other. Between variants whose runs
    are alike, some quiet and some not, that decides no more often than the level says (tested by simulation).
    """
    made = welch_interval(left, right, confidence, factor=factor)
    if made.has_interval or threshold != 0 or factor != 1 or made.reason != "no spread between the seeds":
        return made
    p = permutation_p(left, right)
    method = f"neither side varies between its seeds; exact permutation test, p = {p:.3g}"
    if p > 1 - confidence:
        return replace(made, method=method, p=p, reason=f"{made.reason}; exact permutation p = {p:.3g}")
    return replace(made, low=made.value, high=made.value, method=method, p=p, reason="")


def bounded_estimate(values: Floats, height: float, confidence: float, least: float | None = None) -> Estimate:
    """Mean over seeds of 1 − 1/rise, which lies in [0, 1]: Student's t, or an exact bound where all stand at one end.

    Where no seed rose (all 0), or all diverged (all 1), t has no spread to go by. If a share p of all runs left that
    end, n runs would all stand at it with the chance (1 − p)^n; so p ≤ 1 − (α/2)^(1/n), and the mean lies no further
    from the end than that, whatever the distribution (Clopper and Pearson 1934, for n of n). `height` is the
    threshold, for the reason: how many such seeds could tell at the level `least`, that of a single comparison.
    """
    made = mean_estimate(values, confidence)
    end = made.value
    if made.has_interval or len(values) < 2 or end not in (0.0, 1.0):
        return made
    share = 1 - ((1 - confidence) / 2) ** (1 / len(values))
    return replace(
        made,
        low=max(0.0, end - share),
        high=min(1.0, end + share),
        method="all seeds at one end of the range: exact bound on the share of runs that are not",
        reason=_what_is_left(len(values), end, abs(height - end), least or confidence),
    )


def _what_is_left(n: int, end: float, gap: float, confidence: float) -> str:
    """What n seeds at one end leave open, and how many would exclude a mean as far from it as `gap`."""
    error = (1 - confidence) / 2
    enough = (
        f"at least {ceil(log(error) / log1p(-gap))} such seeds would tell" if 0 < gap < 1 else "no number would tell"
    )
    what = "never rose" if end == 0 else "diverged"
    share = 1 - error ** (1 / n)
    return f"all {n} seeds {what}, which leaves up to {share:.0%} of the runs that do not ({confidence:.0%}); {enough}"


def threshold_of(claim: ClaimSpec) -> float:
    if claim.value is not None:
        return claim.value
    margin = claim.margin or 0.0
    # Minus nought would be printed as such.
    return margin if claim.op in (">", ">=") or not margin else -margin


def right_side(claim: ClaimSpec) -> str:
    return f"{claim.factor:g} × {claim.right}" if claim.factor else str(claim.right)


def difference_text(claim: ClaimSpec, variant: str) -> str:
    return f"{claim.metric}, {variant} − {right_side(claim)}"
