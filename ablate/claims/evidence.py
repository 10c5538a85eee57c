"""From a claim's metric to its evidence: which interval answers it, on which trials, against which threshold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import inf, isfinite, nan

import numpy as np
from scipy import special

from ablate.analysis.analyse import Analysis
from ablate.analysis.frames import Frames
from ablate.analysis.looks import Basis, basis
from ablate.errors import ResultsError
from ablate.measure import segmentation
from ablate.measure.convergence import GAIN_THRESHOLD, LEAST_SEEDS
from ablate.measure.detail import mean_recall, with_enough_pixels
from ablate.measure.stability import censored_headroom
from ablate.stats.bootstrap import Floats, MultiBootstrap, Replicates, Score, combine
from ablate.stats.bounded import bounded_mean
from ablate.stats.intervals import (
    Estimate,
    larger_more_often,
    mean_estimate,
    ratio_interval,
    share_difference,
    share_interval,
    welch_interval,
    welch_or_permutation,
)
from ablate.study.claims import COUNTS, DETAIL, OVERLAP, RATES, RISES, SHARES, complaints, split_of
from ablate.study.spec import ClaimSpec
from ablate.wording import count_of

OVERLAP_SCORES: Mapping[str, Score] = {
    "mean_iou": segmentation.mean_iou,
    "dice": segmentation.mean_dice,
    "pixel_accuracy": segmentation.pixel_accuracy,
}
CLASS_SCORES: Mapping[str, Score] = {"iou": segmentation.iou, "dice": segmentation.dice}
# Below so many seeds of a side a claim says how many there are.
LEAST_TO_JUDGE = 3


class Refusal(Exception):
    """The reason why a claim cannot be judged as it stands; it is then inconclusive."""


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

    def beyond(self, share: int, *, supporting: bool) -> float:
        """Return how far the interval lies wholly on the claimed (or the other) side of the threshold.

        −inf without an interval.
        """
        estimate = self.estimate(share)
        if not estimate.has_interval:
            return -inf
        above = self.above == supporting
        gap = estimate.low - self.threshold if above else self.threshold - estimate.high
        # The claimed side holds the threshold itself where the operator does, the other side where it does not.
        return 5e-324 if gap == 0 and self.inclusive == supporting else gap

    def seems_decided(self, share: int) -> bool:
        """Tell whether the interval lies wholly on one side of the threshold."""
        return max(self.beyond(share, supporting=True), self.beyond(share, supporting=False)) > 0


class Gatherer:
    """Makes the evidence of a study's claims; scores and detail counts are computed once, when first asked for."""

    def __init__(self, frames: Frames, analysis: Analysis) -> None:
        self.frames, self.analysis = frames, analysis
        self.scores = analysis.scores
        self._cells: dict[tuple[tuple[str, str, str], str, str, int | None], Replicates] = {}
        self._by_key = frames.trials.set_index("key")
        self._any_complete = bool(frames.trials["status"].eq("complete").any())
        self._detail: dict[str, dict[str, np.ndarray]] = {}

    def gather(self, claim: ClaimSpec, variant: str, setting: str | None) -> Evidence:
        """Return the comparison of `claim` for `variant` (its left side), at `setting` or, for None, at own best.

        Raises `Refusal` where it cannot be made.
        """
        # A study is checked when it is read; one that was written before its rules is refused here.
        for key, message, cure in complaints(claim, self.frames.class_names):
            raise Refusal(f"{key}: {message}" + (f"; {cure}" if cure else ""))
        name = split_of(claim.metric)[1]
        if name in RATES or name in COUNTS:
            return self._throughput(claim, variant) if name in RATES else self._count(claim, variant)
        sides = [side for side in (variant, claim.right) if side]
        rests = basis(self.scores, self.analysis.looks, *sides, setting=setting)
        for side, at, role in rests.sides:
            if not at:
                raise Refusal(f"{side} has no setting that may be chosen")
            if not self.scores.members(side, at, role):
                raise Refusal(f"{side} has no result at {at}")
        if name == "convergence":
            made = self._convergence(claim, rests)
        elif name in SHARES:
            made = self._diverged(claim, rests)
        elif "/" in name or name in OVERLAP or name in DETAIL:
            made = self._overlap(claim, rests, again=setting is None and not rests.fresh and name not in DETAIL)
        else:
            made = self._of_trials(claim, rests)
        return replace(made, notes=self._notes(claim, variant, setting, rests))

    def _overlap(self, claim: ClaimSpec, rests: Basis, *, again: bool) -> Evidence:
        """Compare scores of a split; `again`: the settings are chosen again in every replicate."""
        split, name = split_of(claim.metric)
        if name == "pixel_accuracy" and self.frames.multilabel:
            raise Refusal("counts of classes tell no share of right pixels where a pixel may bear several")
        sides = []
        for variant, setting, role in rests.sides:
            settings = [str(one) for one in self.scores.eligible.loc[variant].dropna().index] if again else [setting]
            sides.append({one: self._cell((variant, one, role), name, split, rests.first) for one in settings})
        weights = [1.0, -(claim.factor or 1.0)][: len(sides)]
        at = None if again else [setting for _, setting, _ in rests.sides]

        def estimate(confidence: float) -> Estimate:
            return combine(sides, weights, at=at, confidence=confidence)[0].estimate

        return self._evidence(claim, _of(claim.metric, rests.sides[0][0], _right(claim)), rests, estimate)

    def _cell(self, side: tuple[str, str, str], name: str, split: str, first: int | None) -> Replicates:
        """Return the replicates of a metric for one cell: an entry of those of the contrasts, or made here, once."""
        members = self.scores.members(*side)[:first]
        if all(member.status == "diverged" for member in members) and not self._any_complete:
            raise Refusal("no trial of the study is complete")
        kind, _, label = name.partition("/")
        if split == "test" and name == "mean_iou":
            return self.scores.cell(*side, first).entry(0)
        if split == "test" and kind == "iou" and label in self.frames.class_names:
            return self.scores.cell(*side, first).entry(1 + self.frames.class_names.index(label))
        at = (side, name, split, first)
        if at not in self._cells:
            val, compared = (self.scores.counts(part, *side, first) for part in ("val", split))
            if name in DETAIL:
                compared = [
                    self._detail_counts(one.key)[DETAIL[name]] if one.status == "complete" else None for one in members
                ]
            bootstrap = self.scores.bootstrap if split == "test" else self._val_bootstrap
            scores = {"val_score": segmentation.mean_iou, "test_score": score_of(name, self.frames.class_names)}
            self._cells[at] = bootstrap.cell("|".join(side), val, compared, **scores)
        return self._cells[at]

    @cached_property
    def _val_bootstrap(self) -> MultiBootstrap:
        """Return the study's draws with val in the place of test, for claims about val scores."""
        made = copy(self.scores.bootstrap)
        made.test_weights, made.schemes = made.val_weights, dict.fromkeys(made.schemes, made.schemes["val"])
        return made

    def _detail_counts(self, key: str) -> dict[str, np.ndarray]:
        if key not in self._detail:
            try:
                counts = self.frames.detail_target.counts(self.frames.preds(key))
                self._detail[key] = {name: with_enough_pixels(table) for name, table in counts.items()}
            except (ResultsError, ValueError) as error:
                raise Refusal(f"no measures of fine detail: {error}") from None
        return self._detail[key]

    def _of_trials(self, claim: ClaimSpec, rests: Basis) -> Evidence:
        """Compare a measure that is one value a trial."""
        column = claim.metric.replace("/", "_", 1)
        values = [self._values(side, column, rests.first) for side in rests.sides]
        if column == "lr_headroom":
            return self._headroom(claim, rests, values)
        if column in RISES:
            return self._rise(claim, rests, values)
        estimate = _of_values(values, threshold_of(claim), claim.factor or 1.0)
        return self._evidence(claim, _of(claim.metric, rests.sides[0][0], _right(claim)), rests, estimate)

    def _rise(self, claim: ClaimSpec, rests: Basis, rises: list[Floats]) -> Evidence:
        """Compare rises, whose mean need not exist: of one variant by 1 − 1/rise in [0, 1], of two by which is larger.

        A diverged seed counts as the largest.
        """
        left = rests.sides[0][0]
        if claim.right is None:
            height = 1 - 1 / (claim.value or nan)
            ends, least = ("never rose", "diverged"), self.analysis.confidence
            mean = partial(bounded_mean, 1 - 1 / rises[0], height, least=least, ends=ends)
            return self._evidence(claim, f"1 − 1/{claim.metric} of {left}", rests, mean, height)
        scaled = rises[1] * (claim.factor or 1.0)
        quantity = f"chance that the {claim.metric} of a run of {left} is larger than {_right(claim)}'s"
        return self._evidence(claim, quantity, rests, partial(larger_more_often, rises[0], scaled), 0.5)

    def _headroom(self, claim: ClaimSpec, rests: Basis, values: list[Floats]) -> Evidence:
        """Compare lr_headroom by its logarithm to the base of two, where no seed's is an end of the range probed."""
        for (name, _, _), found in zip(rests.sides, values, strict=True):
            if censored := int(censored_headroom(found).sum()):
                of = f"{censored} of {count_of(len(found), 'seed')} of {name}"
                raise Refusal(f"{of} {'lies' if censored == 1 else 'lie'} at an end of the range probed")
        octaves = [np.log2(found) for found in values]
        threshold = float(np.log2(claim.factor or 1.0 if claim.right else claim.value or nan))
        quantity = _of(f"log2 of {claim.metric}", rests.sides[0][0], claim.right)
        return self._evidence(claim, quantity, rests, _of_values(octaves, threshold), threshold)

    def _values(self, side: tuple[str, str, str], column: str, first: int | None) -> Floats:
        if column not in self._by_key:
            raise Refusal(f"no trial of the study has {column}")
        trials = self._by_key.loc[[member.key for member in self.scores.members(*side)[:first]]]
        values = trials[column].to_numpy(float)
        unknown = np.isnan(values)
        if unknown.any():
            reasons = [m.get(column, "not measured") for m in trials.loc[unknown, "missing"]]
            diverged = int((trials.loc[unknown, "status"] == "diverged").sum())
            why = f"{diverged} of them diverged" if diverged else reasons[0]
            have = "has" if unknown.sum() == 1 else "have"
            of = f"{int(unknown.sum())} of {count_of(len(values), 'seed')} of {side[0]}"
            raise Refusal(f"{of} {have} no {column} ({why})")
        return values

    def _diverged(self, claim: ClaimSpec, rests: Basis) -> Evidence:
        """Compare shares of diverged seeds."""
        ended = [[one.status for one in self.scores.members(*side)[: rests.first]] for side in rests.sides]
        (k, n), *other = [(one.count("diverged"), len(one)) for one in ended]

        def share(confidence: float) -> Estimate:
            if other:
                return share_difference(k, n, *other[0], confidence)
            value, low, high = share_interval(k, n, confidence)
            return Estimate(value, low, high, n=n, confidence=confidence, method="Wilson's interval of a share")

        return self._evidence(claim, _of("share of diverged seeds", rests.sides[0][0], claim.right), rests, share)

    def _convergence(self, claim: ClaimSpec, rests: Basis) -> Evidence:
        """Judge whether training had converged, by the interval that the study's verdict on the cell rests on."""
        frame = self.analysis.convergence
        ((variant, at, _),) = rests.sides
        row = frame[(frame["variant"] == variant) & (frame["setting"] == at)].iloc[0]
        n = int(row["n"])
        reason = str(row["reason"]) if row["verdict"] == "none" or n < LEAST_SEEDS else ""
        gain, low, high = (float(row[part]) for part in ("gain", "low", "high"))

        def estimate(confidence: float) -> Estimate:
            # The verdict's own interval is the 90 % one: twice the error of a 95 % interval on each side.
            wide = 1 - 0.1 * (1 - confidence) / (1 - self.analysis.confidence)
            method = "t over seeds of the projected gain, by the jackknife"
            if reason or not isfinite(low):
                return Estimate(gain, nan, nan, n=n, confidence=wide, method=method, reason=reason)
            stretch = float(special.stdtrit(n - 1, 0.5 + wide / 2) / special.stdtrit(n - 1, 0.95))
            below, above = gain - stretch * (gain - low), gain + stretch * (high - gain)
            return Estimate(gain, below, above, n=n, confidence=wide, method=method)

        return self._evidence(claim, f"projected gain in val mIoU of {variant}", _at(rests), estimate, GAIN_THRESHOLD)

    def _throughput(self, claim: ClaimSpec, variant: str) -> Evidence:
        frame = self.frames.throughput.set_index(["variant", "round"])[claim.metric].dropna()
        for name in filter(None, (variant, claim.right)):
            if name not in frame.index.get_level_values("variant"):
                raise Refusal(f"the throughput of {name} has not been measured alone")
        left, quantity = frame[variant].to_numpy(float), _of(claim.metric, variant, claim.right, "/")
        if claim.right is None:
            return self._evidence(claim, quantity, "the profile", partial(mean_estimate, left))
        pairs = frame[variant].to_frame("left").join(frame[claim.right].rename("right"), how="inner")
        ratio = partial(ratio_interval, pairs["left"], pairs["right"])
        return self._evidence(claim, quantity, "the profile", ratio, claim.factor or 1.0)

    def _count(self, claim: ClaimSpec, variant: str) -> Evidence:
        counts = self.analysis.variants.set_index("variant")[claim.metric]
        value, other = float(counts[variant]), float(counts[claim.right]) if claim.right else 0.0
        if not isfinite(value - other):
            raise Refusal(f"{claim.metric} are not known")
        quantity, threshold = _of(claim.metric, variant, claim.right, "/"), threshold_of(claim)
        if claim.right and claim.margin:
            value, quantity = value - (claim.factor or 1.0) * other, _of(claim.metric, variant, _right(claim))
        elif claim.right:
            value, threshold = value / other if other else nan, claim.factor or 1.0
        exact = Estimate(value, value, value, method="a count without sampling error", confidence=1)
        return replace(self._evidence(claim, quantity, "the model", lambda _: exact, threshold), exact=True)

    def _evidence(
        self,
        claim: ClaimSpec,
        quantity: str,
        rests: Basis | str,
        estimate: Callable[[float], Estimate],
        threshold: float | None = None,
    ) -> Evidence:
        """Return the comparison of an estimate (of its confidence) with the claim's threshold, if no other is given."""
        op = claim.op or (">" if claim.expect == "under-converged" else "<")
        at, stretched = (rests, lambda asked: asked) if isinstance(rests, str) else (_at(rests), rests.confidence)
        threshold = threshold_of(claim) if threshold is None else threshold

        def at_share(share: int) -> Estimate:
            return estimate(stretched(1 - (1 - self.analysis.confidence) / share))

        return Evidence(quantity, at, at_share, op.startswith(">"), op.endswith("="), threshold)

    def _notes(self, claim: ClaimSpec, variant: str, setting: str | None, rests: Basis) -> tuple[str, ...]:
        rows = self.analysis.variants.set_index("variant")
        notes = []
        for name in filter(None, (variant, claim.right)):
            row = rows.loc[name]
            if setting is None and row["unbracketed"]:
                notes.append(f"{name} is unbracketed: {row['bracket']}")
            if row["provisional"]:
                notes.append(f"provisional: {name} has trials without a result")
            if row["confounds"]:
                notes.append(f"{name} has training settings of its own: {row['confounds']}")
        counted = {side: len(self.scores.members(*side)[: rests.first]) for side in rests.sides}
        for (name, at, _), n in counted.items():
            if n < LEAST_TO_JUDGE:
                notes.append(f"{name} has {count_of(n, 'seed')} at {at}")
        return tuple(notes)


def _of_values(values: list[Floats], threshold: float, factor: float = 1.0) -> Callable[[float], Estimate]:
    """Return the estimate, a function of its confidence, of the mean of values or of the difference of two means."""
    if len(values) == 1:
        return partial(mean_estimate, values[0])
    # The permutation test is of no difference.
    interval = welch_interval if threshold else welch_or_permutation
    return partial(interval, values[0], values[1], factor=factor)


def score_of(name: str, classes: tuple[str, ...]) -> Score:
    """Return the score that a metric of overlap or detail is, a function of summed counts: (..., C, 3) -> (...)."""
    if name in DETAIL:
        return mean_recall if DETAIL[name].startswith("thin") else segmentation.mean_iou
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


def _right(claim: ClaimSpec) -> str | None:
    """Return the right side of a comparison in print; None for a claim about one variant."""
    return f"{claim.factor:g} × {claim.right}" if claim.factor and claim.right else claim.right


def _of(name: str, left: str, right: str | None, sign: str = "−") -> str:
    """Return the name of a number of one variant, or of one compared with another."""
    return f"{name} of {left}" if right is None else f"{name}, {left} {sign} {right}"


def _at(rests: Basis) -> str:
    """Return where a comparison stands: its setting, or each variant's."""
    settings = {at for _, at, _ in rests.sides}
    names = " and ".join(name for name, _, _ in rests.sides)
    where = f"{names} at {settings.pop()}" if len(settings) == 1 else ""
    where = where or " and ".join(f"{name} at {at}" for name, at, _ in rests.sides)
    return where + ", fresh seeds" * rests.fresh
