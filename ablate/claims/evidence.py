"""From a claim's metric to its evidence: which interval answers it, on which trials, against which threshold."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf, isfinite, nan

import numpy as np
from scipy import special

from ablate.analysis.analyse import Analysis
from ablate.analysis.frames import Frames
from ablate.analysis.looks import confirmed_settings
from ablate.claims.forms import difference_text, right_side, score_of, threshold_of
from ablate.measure import segmentation
from ablate.measure.convergence import GAIN_THRESHOLD, LEAST_SEEDS
from ablate.measure.detail import with_enough_pixels
from ablate.measure.stability import censored_headroom
from ablate.stats.bootstrap import MultiBootstrap, Replicates, combine, multi_bootstrap
from ablate.stats.bounded import bounded_mean
from ablate.stats.intervals import (
    Estimate,
    mean_estimate,
    ratio_interval,
    share_difference,
    share_interval,
    welch_interval,
    welch_or_permutation,
)
from ablate.stats.resampling import Floats
from ablate.study.metrics import COUNTS, DETAIL, OVERLAP, RATES, RISES, SHARES, complaints, split_of
from ablate.study.spec import ClaimSpec
from ablate.wording import count_of


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


class Gatherer:
    """Makes the evidence of a study's claims; scores and detail counts are computed once, when first asked for."""

    def __init__(self, frames: Frames, analysis: Analysis) -> None:
        self.frames, self.analysis = frames, analysis
        self.scores = analysis.scores
        self._cells: dict[tuple[str, str, str, str, str, int | None], Replicates] = {}
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
        family = self._of_trials
        if name == "convergence":
            family = self._convergence
        elif name in SHARES:
            family = self._diverged
        elif "/" in name or name in OVERLAP or name in DETAIL:
            family = self._overlap
        return replace(family(claim, variant, setting), notes=self._notes(claim, variant, setting))

    def _overlap(self, claim: ClaimSpec, variant: str, setting: str | None) -> Evidence:
        split, name = split_of(claim.metric)
        if setting is None and split == "test" and name not in DETAIL and self._fresh(claim, variant):
            return self._confirmed(claim, variant, name)
        # Detail is counted from the predictions, trial by trial: only where it is compared.
        fixed = setting is not None or name in DETAIL
        left = self._replicates(variant, self._at(variant, setting) if fixed else None, name, split)
        at = self._where(variant, claim.right, setting)
        if claim.right is None:
            chosen = [next(iter(left))] if fixed else None
            return self._evidence(
                claim,
                f"{claim.metric} of {variant}",
                at,
                lambda c: combine([left], [1], at=chosen, confidence=c)[0].estimate,
            )
        right = self._replicates(claim.right, self._at(claim.right, setting) if fixed else None, name, split)
        right = {key: cell.scaled(claim.factor or 1.0) for key, cell in right.items()}
        both = (next(iter(left)), next(iter(right))) if fixed else None

        def estimate(confidence: float) -> Estimate:
            return multi_bootstrap(left, right, at=both, confidence=confidence).estimate

        return self._evidence(claim, difference_text(claim, variant), at, estimate)

    def _fresh(self, claim: ClaimSpec, variant: str) -> bool:
        """Tell whether every side of a claim has seeds that took no part in choosing: those decide, as in contrasts."""
        choice = confirmed_settings(self.frames)
        return self.frames.study.confirm is not None and all(
            self.scores.members(name, choice[name], "confirm") for name in (variant, claim.right) if name
        )

    def _confirmed(self, claim: ClaimSpec, variant: str, name: str) -> Evidence:
        """Return a comparison of test scores by the fresh seeds, at the look that the contrast's decision rests on."""
        choice = confirmed_settings(self.frames)
        sides = [side for side in (variant, claim.right) if side]
        looks, first, stretch = self.analysis.looks, None, 1.0
        taken = looks[[{row.variant, row.against} == set(sides) for row in looks.itertuples()]] if len(looks) else looks
        if len(taken):
            first = int(taken["n"].iloc[-1])
            # The interval holds over all looks together: the error at this one is smaller by so much.
            stretch = (1 - float(taken["confidence"].iloc[-1])) / (1 - self.analysis.confidence)
        cells = [self._cell(side, str(choice[side]), name, "test", "confirm", first) for side in sides]
        at = " and ".join(f"{side} at {choice[side]}" for side in sides) + ", fresh seeds"

        def estimate(confidence: float) -> Estimate:
            level_here = 1 - stretch * (1 - confidence)
            if claim.right is None:
                return combine([{0: cells[0]}], [1], at=[0], confidence=level_here)[0].estimate
            right = {0: cells[1].scaled(claim.factor or 1.0)}
            return multi_bootstrap({0: cells[0]}, right, at=(0, 0), confidence=level_here).estimate

        quantity = difference_text(claim, variant) if claim.right else f"{claim.metric} of {variant}"
        return self._evidence(claim, quantity, at, estimate)

    def _replicates(self, variant: str, setting: str | None, name: str, split: str) -> dict[str, Replicates]:
        """Return the replicates of a metric for one setting of a variant, or for all that may be chosen."""
        eligible = self.scores.eligible.loc[variant].dropna().index
        settings = [setting] if setting is not None else [str(name) for name in eligible]
        made = {key: self._cell(variant, key, name, split) for key in settings}
        if not made:
            raise Refusal(f"{variant} has no setting that may be chosen")
        return made

    def _cell(
        self, variant: str, setting: str, name: str, split: str, role: str = "main", first: int | None = None
    ) -> Replicates:
        """Return the replicates of a metric for one cell.

        An entry of those that the contrasts have, or made here, once.
        """
        members = self.scores.members(variant, setting, role)[:first]
        if not members:
            raise Refusal(f"{variant} has no result at {setting}")
        if all(member.status == "diverged" for member in members) and not self._any_complete:
            raise Refusal("no trial of the study is complete")
        kind, _, label = name.partition("/")
        if split == "test" and name == "mean_iou":
            return self.scores.cell(variant, setting, role, first).entry(0)
        if split == "test" and kind == "iou" and label in self.frames.class_names:
            return self.scores.cell(variant, setting, role, first).entry(1 + self.frames.class_names.index(label))
        at = (variant, setting, name, split, role, first)
        if at not in self._cells:
            score = score_of(name, self.frames.class_names)
            seeds = self.scores.counts(variant, setting, role)[:first]
            val = [None if seed is None else seed["val"] for seed in seeds]
            if name in DETAIL:
                compared = [
                    None if seed is None else self._detail_counts(member.key)[DETAIL[name]]
                    for seed, member in zip(seeds, members, strict=True)
                ]
            else:
                compared = [None if seed is None else seed[split] for seed in seeds]
            bootstrap = self.scores.bootstrap if split == "test" else self._val_bootstrap
            self._cells[at] = bootstrap.cell(
                f"{variant}|{setting}|{role}", val, compared, val_score=segmentation.mean_iou, test_score=score
            )
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
            except ValueError as error:
                raise Refusal(f"no measures of fine detail: {error}") from None
        return self._detail[key]

    def _of_trials(self, claim: ClaimSpec, variant: str, setting: str | None) -> Evidence:
        column = claim.metric.replace("/", "_", 1)
        rises = column in RISES
        if column == "lr_headroom":
            return self._headroom(claim, variant, setting)
        left = self._values(variant, setting, column)
        at = self._where(variant, claim.right, setting)
        if claim.right is None:
            subject = f"{claim.metric} of {variant}"
            if rises:
                height = 1 - 1 / (claim.value or nan)
                ends = ("never rose", "diverged")

                def bounded(confidence: float) -> Estimate:
                    return bounded_mean(1 - 1 / left, height, confidence, least=self.analysis.confidence, ends=ends)

                return replace(self._evidence(claim, f"1 − 1/{subject}", at, bounded), threshold=height)
            return self._evidence(claim, subject, at, lambda c: mean_estimate(left, c))
        right = self._values(claim.right, setting, column)
        factor = claim.factor or 1.0
        quantity = difference_text(claim, variant)
        if rises:
            # rise_L > f · rise_R is 1/rise_L < 1/(f · rise_R); so a diverged seed has the finite value 1.
            left, right, factor = 1 - 1 / left, 1 - 1 / right / factor, 1.0
            quantity = f"1 − 1/{claim.metric} (0 never rose, 1 diverged), {variant} − {right_side(claim)}"
        # The permutation test is of no difference.
        interval = welch_interval if threshold_of(claim) else welch_or_permutation
        return self._evidence(claim, quantity, at, lambda c: interval(left, right, c, factor=factor))

    def _headroom(self, claim: ClaimSpec, variant: str, setting: str | None) -> Evidence:
        """Compare lr_headroom by its logarithm to the base of two, where no seed's is an end of the range probed."""
        octaves = {}
        for name in filter(None, (variant, claim.right)):
            values = self._values(name, setting, claim.metric)
            censored = int(censored_headroom(values).sum())
            if censored:
                lie = "lies" if censored == 1 else "lie"
                of = f"{censored} of {count_of(len(values), 'seed')} of {name}"
                raise Refusal(f"{of} {lie} at an end of the range probed")
            octaves[name] = np.log2(values)
        at = self._where(variant, claim.right, setting)
        threshold = float(np.log2(claim.factor or 1.0 if claim.right else claim.value or nan))

        def estimate(confidence: float) -> Estimate:
            if claim.right is None:
                return mean_estimate(octaves[variant], confidence)
            interval = welch_interval if threshold else welch_or_permutation
            return interval(octaves[variant], octaves[claim.right], confidence)

        quantity = f"{claim.metric}, {variant} − {claim.right}" if claim.right else f"{claim.metric} of {variant}"
        return replace(self._evidence(claim, f"log2 of {quantity}", at, estimate), threshold=threshold)

    def _values(self, variant: str, setting: str | None, column: str) -> Floats:
        members = self.scores.members(variant, self._at(variant, setting))
        if not members:
            raise Refusal(f"{variant} has no result at {self._at(variant, setting)}")
        if column not in self._by_key:
            raise Refusal(f"no trial of the study has {column}")
        trials = self._by_key.loc[[member.key for member in members]]
        values = trials[column].to_numpy(float)
        unknown = np.isnan(values)
        if unknown.any():
            reasons = [m.get(column, "not measured") for m in trials.loc[unknown, "missing"]]
            diverged = int((trials.loc[unknown, "status"] == "diverged").sum())
            why = f"{diverged} of them diverged" if diverged else reasons[0]
            have = "has" if unknown.sum() == 1 else "have"
            of = f"{int(unknown.sum())} of {count_of(len(values), 'seed')} of {variant}"
            raise Refusal(f"{of} {have} no {column} ({why})")
        return values

    def _diverged(self, claim: ClaimSpec, variant: str, setting: str | None) -> Evidence:
        counts = []
        for name in filter(None, (variant, claim.right)):
            members = self.scores.members(name, self._at(name, setting))
            counts.append((sum(member.status == "diverged" for member in members), len(members)))
        (k, n), *other = counts

        def share(confidence: float) -> Estimate:
            if other:
                return share_difference(k, n, *other[0], confidence)
            value, low, high = share_interval(k, n, confidence)
            return Estimate(value, low, high, n=n, confidence=confidence, method="Wilson's interval of a share")

        side = f", {variant} − {claim.right}" if claim.right else f" of {variant}"
        at = self._where(variant, claim.right, setting)
        return self._evidence(claim, f"share of diverged seeds{side}", at, share)

    def _convergence(self, claim: ClaimSpec, variant: str, setting: str | None) -> Evidence:
        frame = self.analysis.convergence
        at = self._at(variant, setting)
        rows = frame[(frame["variant"] == variant) & (frame["setting"] == at)]
        if not len(rows):
            raise Refusal(f"{variant} has no cell at {at}")
        row = rows.iloc[0]
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

        above = claim.expect == "under-converged"
        quantity = f"projected gain in val mIoU of {variant}"
        return Evidence(quantity, f"{variant} at {at}", self._levels(estimate), above, False, GAIN_THRESHOLD)

    def _throughput(self, claim: ClaimSpec, variant: str) -> Evidence:
        frame = self.frames.throughput.set_index(["variant", "round"])[claim.metric].dropna()
        for name in filter(None, (variant, claim.right)):
            if name not in frame.index.get_level_values("variant"):
                raise Refusal(f"the throughput of {name} has not been measured alone")
        left = frame[variant]
        if claim.right is None:
            return self._evidence(
                claim, f"{claim.metric} of {variant}", "the profile", lambda c: mean_estimate(left.to_numpy(float), c)
            )
        pairs = left.to_frame("left").join(frame[claim.right].rename("right"), how="inner")
        made = self._evidence(
            claim,
            f"{claim.metric}, {variant} / {claim.right}",
            "the profile",
            lambda c: ratio_interval(pairs["left"], pairs["right"], c),
        )
        return replace(made, threshold=claim.factor or 1.0)

    def _count(self, claim: ClaimSpec, variant: str) -> Evidence:
        counts = self.analysis.variants.set_index("variant")[claim.metric]
        value, other = float(counts[variant]), float(counts[claim.right]) if claim.right else 0.0
        if not isfinite(value - other):
            raise Refusal(f"{claim.metric} are not known")
        quantity, threshold = f"{claim.metric} of {variant}", threshold_of(claim)
        if claim.right and claim.margin:
            value, quantity = value - (claim.factor or 1.0) * other, difference_text(claim, variant)
        elif claim.right:
            value, threshold = value / other if other else nan, claim.factor or 1.0
            quantity = f"{claim.metric}, {variant} / {claim.right}"
        exact = Estimate(value, value, value, method="a count without sampling error", confidence=1)
        evidence = self._evidence(claim, quantity, "the model", lambda _: exact)
        return replace(evidence, threshold=threshold, exact=True)

    def _levels(self, estimate: Callable[[float], Estimate]) -> Callable[[int], Estimate]:
        return lambda share: estimate(1 - (1 - self.analysis.confidence) / share)

    def _evidence(self, claim: ClaimSpec, quantity: str, at: str, estimate: Callable[[float], Estimate]) -> Evidence:
        assert claim.op is not None
        above, inclusive = claim.op.startswith(">"), claim.op.endswith("=")
        return Evidence(quantity, at, self._levels(estimate), above, inclusive, threshold_of(claim))

    def _at(self, variant: str, setting: str | None) -> str:
        chosen = setting if setting is not None else self.analysis.own_best.get(variant)
        if chosen is None:
            raise Refusal(f"{variant} has no setting that may be chosen")
        return chosen

    def _where(self, variant: str, right: str | None, setting: str | None) -> str:
        if setting is not None:
            return setting if right else f"{variant} at {setting}"
        return " and ".join(f"{name} at {self._at(name, None)}" for name in (variant, right) if name)

    def _notes(self, claim: ClaimSpec, variant: str, setting: str | None) -> tuple[str, ...]:
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
        return tuple(notes)
