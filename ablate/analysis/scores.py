"""The cells of a study under the Multi-Bootstrap: what every contrast and level of test scores is drawn from."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ablate.analysis.frames import Frames
from ablate.analysis.load import ENDED
from ablate.analysis.selection import Choice, best_of_each, bracket, eligible, v_table
from ablate.measure import segmentation
from ablate.stats.blocks import LEAST_GROUPS_DRAWN_WHOLE, ImageScheme, image_scheme
from ablate.stats.bootstrap import (
    Contrast,
    Counts,
    Floats,
    MultiBootstrap,
    Replicates,
    Score,
    VarianceSplit,
    combine,
    variance_split,
)
from ablate.stats.decisions import blind_score
from ablate.stats.intervals import Estimate


class Member(NamedTuple):
    """A seed of a cell: its trial's key, how it ended, and its test mIoU (0 where it diverged)."""

    key: str
    status: str
    test_score: float


def mean_and_classes(sums: Floats) -> Floats:
    """Return mIoU followed by the IoU of every class: (..., C, 3) -> (..., 1 + C)."""
    iou = segmentation.iou(sums)
    return np.concatenate([segmentation.nan_mean(iou)[..., None], iou], axis=-1)


class StudyScores:
    """Replicates of every cell that may be chosen, made when first asked for and kept.

    The compared score is a vector: mIoU, then the IoU of each class. `v` is V by variant and setting
    (`selection.v_table`); own best is chosen among the cells that are not NaN in `eligible`.
    """

    def __init__(self, frames: Frames) -> None:
        self.frames, self.v = frames, v_table(frames.trials)
        self.eligible = eligible(self.v, frames.trials)
        self.confidence = frames.study.measure.confidence
        self._members: dict[tuple[str, str, str], list[Member]] = {}
        self._unfinished: set[tuple[str, str, str]] = set()
        columns = ["variant", "setting", "role", "key", "status", "test_score"]
        rows = zip(*(frames.trials[name].tolist() for name in columns), strict=True)
        for variant, setting, role, key, status, score in rows:
            if status in ENDED:
                self._members.setdefault((variant, setting, role), []).append(Member(key, status, score))
            elif status in ("missing", "failed"):
                self._unfinished.add((variant, setting, role))
        self._cells: dict[tuple[str, str, str, int | None], Replicates] = {}
        self._by_variant: dict[str, dict[Hashable, Replicates]] = {}

    @cached_property
    def confirmed(self) -> Choice:
        """Return the setting that each variant was trained at again with fresh seeds; None before it was."""
        choice: Choice = dict.fromkeys(self.frames.variants)
        confirming = self.frames.trials[self.frames.trials["role"] == "confirm"]
        return choice | {str(name): str(part["setting"].iloc[-1]) for name, part in confirming.groupby("variant")}

    def is_fresh(self, variant: str, setting: str | None) -> bool:
        """Tell whether the study decides by fresh seeds and has results of such for this cell."""
        return self.frames.study.confirm is not None and bool(self.members(variant, setting, "confirm"))

    @cached_property
    def _complete(self) -> str | None:
        """The key of a trial that is complete."""
        return next((seed.key for cell in self._members.values() for seed in cell if seed.status == "complete"), None)

    @cached_property
    def blind_score(self) -> float:
        """Return the test mIoU of the best prediction that looks at no image; NaN where no trial is complete."""
        key = self._complete
        if key is None:
            return np.nan
        counts = self.frames.counts(key)["test"]
        pixels = (counts[..., segmentation.TP] + counts[..., segmentation.FN]).sum(axis=0)
        return blind_score(pixels, self.frames.labelled_pixels)

    @cached_property
    def bootstrap(self) -> MultiBootstrap:
        """Return the draws of images, one for the whole study; raises ValueError where no trial is complete."""
        return MultiBootstrap(
            val=self._scheme("val"),
            test=self._scheme("test"),
            resamples=self.frames.study.measure.resamples,
        )

    def _scheme(self, split: str) -> ImageScheme:
        """Return how the images of a split are drawn: whole groups, or blocks of a length that study or data say."""
        key = self._complete
        if key is None:
            raise ValueError("no trial is complete")
        groups, block = self.frames.groups[split], self.frames.study.measure.block
        images = len(self.frames.counts(key)[split])
        if groups is None or len(set(groups)) >= LEAST_GROUPS_DRAWN_WHOLE or block != "auto":
            return image_scheme(images, groups, block=None if block == "auto" else block)
        differences = [row for row in self.image_differences(split).values() if row is not None]
        return image_scheme(images, groups, np.stack(differences) if differences else None)

    def image_differences(self, split: str) -> dict[str, Floats | None]:
        """Return by variant what each image adds to its difference of mIoU from the baseline, at own best: (images,).

        The influence of an image on IoU = t/u of a class, t and u its sums over the images, is (t_i − IoU·u_i)/u; that
        on mIoU is the mean over the classes, on a cell's mean that over its seeds. None where a side has no complete
        seed, and for the baseline.
        """
        chosen = best_of_each(self.eligible)
        influences = {name: self._influence(name, setting, split) for name, setting in chosen.items()}
        base = influences.get(self.frames.baseline)
        return {
            name: None if own is None or base is None or name == self.frames.baseline else own - base
            for name, own in influences.items()
        }

    def _influence(self, variant: str, setting: str | None, split: str) -> Floats | None:
        seeds = [counts for counts in self.counts(split, variant, setting or "") if counts is not None]
        if not seeds:
            return None
        right = np.stack([counts[..., segmentation.TP] for counts in seeds]).astype(float)
        union = np.stack([counts.sum(axis=-1) for counts in seeds]).astype(float)
        total = union.sum(axis=1, keepdims=True)
        total[total == 0] = np.nan  # the class is nowhere
        moved = (right - right.sum(axis=1, keepdims=True) / total * union) / total
        return np.asarray(segmentation.nan_mean(moved).mean(axis=0))

    def members(self, variant: str, setting: str | None, role: str = "main") -> list[Member]:
        """Return the seeds of a cell that have a result, complete or diverged."""
        return self._members.get((variant, setting or "", role), [])

    def unfinished(self, variant: str, setting: str | None, role: str = "main") -> bool:
        """Tell whether a planned trial of a cell, or for None of any cell of the variant, has no result yet."""
        return any((name, part) == (variant, role) and setting in (None, at) for name, at, part in self._unfinished)

    def rate(self, setting: str | None) -> float:
        """Return the learning rate of a setting; NaN for none."""
        return np.nan if setting is None else float(self.frames.levels["lr"][setting])

    def edge(self, variant: str, setting: str | None) -> str:
        """Say why the rate of `setting` is unbracketed for the variant, "" where it is bracketed."""
        if setting is None or setting not in self.v.loc[variant].dropna():
            return ""
        row = self.v.loc[[variant]].iloc[0]
        return bracket(setting, row, self.frames.levels, self.frames.searched_rates)

    def counts(
        self, split: str, variant: str, setting: str, role: str = "main", first: int | None = None
    ) -> list[Counts | None]:
        """Return the counts on a split of the seeds of a cell, or of its `first`; None for a diverged one."""
        members = self.members(variant, setting, role)[:first]
        return [self.frames.counts(seed.key)[split] if seed.status == "complete" else None for seed in members]

    def cell(self, variant: str, setting: str, role: str = "main", first: int | None = None) -> Replicates:
        """Return the replicates of one cell, or of its `first` seeds with a result in the order of the plan."""
        cell = variant, setting, role, first
        if cell not in self._cells:
            val, test = (self.counts(split, *cell) for split in ("val", "test"))
            entries = 1 + len(self.frames.class_names)
            self._cells[cell] = self.replicates("|".join(cell[:3]), val, test, mean_and_classes, entries)
        return self._cells[cell]

    def replicates(
        self,
        name: str,
        val: Sequence[Counts | None],
        test: Sequence[Counts | None],
        score: Score,
        entries: int,
    ) -> Replicates:
        """Return the replicates of any counts of the seeds of one cell; `score` gives a vector of `entries`."""
        if all(counts is None for counts in test):
            # Where every seed diverged nothing tells the length of the score: it is 0 throughout.
            zeros = np.zeros((self.frames.study.measure.resamples, entries))
            return Replicates(0.0, np.zeros(entries), np.zeros(len(zeros)), zeros, len(test))
        return self.bootstrap.cell(name, val, test, val_score=segmentation.mean_iou, test_score=score)

    def cells(self, variant: str) -> dict[Hashable, Replicates]:
        """Return the cells of a variant that may be chosen, by setting, in the order of the plan."""
        if variant not in self._by_variant:
            settings = [str(setting) for setting in self.eligible.loc[variant].dropna().index]
            self._by_variant[variant] = {setting: self.cell(variant, setting) for setting in settings}
        return self._by_variant[variant]

    def own_best(self, left: str, right: str) -> list[Contrast]:
        """Return left − right, each at its own best setting, chosen again in every replicate: mIoU, then classes."""
        return combine([self.cells(left), self.cells(right)], [1, -1], confidence=self.confidence)

    def fixed(
        self,
        left: tuple[str, str],
        right: tuple[str, str],
        *,
        role: str = "main",
        first: int | None = None,
        confidence: float | None = None,
    ) -> list[Contrast]:
        """Return left − right at given settings, each side (variant, setting): mIoU, then classes.

        Of the trials of one `role`, or of the `first` of them in either cell.
        """
        sides = [{side[1]: self.cell(*side, role, first)} for side in (left, right)]
        return combine(sides, [1, -1], at=(left[1], right[1]), confidence=confidence or self.confidence)

    def level(self, variant: str, setting: str, role: str) -> list[Estimate]:
        """Return what a variant scores: mIoU, then classes. Its fresh seeds at `setting` if the `role` is "confirm".

        Else those that chose, the best setting chosen again in every replicate.
        """
        if role == "confirm":
            fresh = {setting: self.cell(variant, setting, role)}
            made = combine([fresh], [1], at=[setting], confidence=self.confidence)
        else:
            made = combine([self.cells(variant)], [1], confidence=self.confidence)
        return [contrast.estimate for contrast in made]

    def stability_of_choice(self, variant: str, setting: str) -> float:
        """Return the share of the replicates in which `setting` is the variant's best on val."""
        cells = self.cells(variant)
        val = np.stack([cell.val_draws for cell in cells.values()])
        return float((np.argmax(np.where(np.isfinite(val), val, -np.inf), axis=0) == list(cells).index(setting)).mean())

    def variance(self, variant: str, setting: str, role: str = "main") -> VarianceSplit:
        """Return the components of variance of the test mIoU of a cell."""
        counts = self.counts("test", variant, setting, role)
        if all(seed is None for seed in counts):
            return VarianceSplit(0.0, 0.0, 0.0, 0.0, len(counts))
        return variance_split(counts, self.bootstrap.test_weights, segmentation.mean_iou)
