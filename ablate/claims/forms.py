"""The forms of a claim: the score that its metric is, the number it is held against, and its sides in print."""

from __future__ import annotations

from collections.abc import Mapping

from ablate.measure import segmentation
from ablate.measure.detail import mean_recall
from ablate.stats.resampling import Score
from ablate.study.claims import DETAIL
from ablate.study.spec import ClaimSpec

OVERLAP_SCORES: Mapping[str, Score] = {
    "mean_iou": segmentation.mean_iou,
    "dice": segmentation.mean_dice,
    "pixel_accuracy": segmentation.pixel_accuracy,
}
CLASS_SCORES: Mapping[str, Score] = {"iou": segmentation.iou, "dice": segmentation.dice}


def score_of(name: str, classes: tuple[str, ...]) -> Score:
    """Return the score that a metric of overlap or detail is, a function of summed counts: (..., C, 3) -> (...)."""
    if name in DETAIL:
        kind = DETAIL[name]
        if kind.startswith("thin"):
            return mean_recall
        return segmentation.mean_iou
    if name in OVERLAP_SCORES:
        return OVERLAP_SCORES[name]
    kind, _, label = name.partition("/")
    place, scores = classes.index(label), CLASS_SCORES[kind]
    return lambda sums: scores(sums)[..., place]


def threshold_of(claim: ClaimSpec) -> float:
    """Return the number that the interval of the claim must lie beyond."""
    if claim.value is not None:
        return claim.value
    margin = claim.margin or 0.0
    # Minus nought would be printed as such.
    return margin if claim.op in (">", ">=") or not margin else -margin


def right_side(claim: ClaimSpec) -> str:
    """Return the right side of a comparison in print."""
    return f"{claim.factor:g} × {claim.right}" if claim.factor else str(claim.right)


def difference_text(claim: ClaimSpec, variant: str) -> str:
    """Return the name of the difference that a comparison is about."""
    return f"{claim.metric}, {variant} − {right_side(claim)}"
