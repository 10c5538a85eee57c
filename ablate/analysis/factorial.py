"""Studies with factors: main effects and interactions of a full grid, and scores against the training images."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ablate.analysis.looks import Looks
from ablate.analysis.schema import FRAMES
from ablate.analysis.scores import StudyScores
from ablate.analysis.selection import Choice
from ablate.stats.bootstrap import combine
from ablate.stats.decisions import decide
from ablate.stats.interaction import Side, factor_interactions
from ablate.stats.intervals import Estimate
from ablate.study.trial import canonical, level_text
from ablate.study.variants import generate


class _Cells:
    """The variants of a full grid by their levels, with the replicates that decide: fresh seeds where there are any."""

    def __init__(self, scores: StudyScores, looks: pd.DataFrame) -> None:
        study = scores.frames.study
        self.scores, self.looks = scores, looks
        self.factors = {name: levels for name, levels in study.factors.items() if levels}
        made = generate(self.factors, "grid") if study.design == "grid" and self.factors else []
        self._names = {canonical(item.levels): item.name for item in made if item.name in scores.frames.variants}
        self._chosen = scores.confirmed if study.confirm is not None else None

    def side(self, levels: Mapping[str, Any]) -> Side | None:
        """Return the cells of the variant with these levels, by setting; None where it has no result yet."""
        name = self._names.get(canonical(dict(levels)))
        if name is None:
            return None
        if self._chosen is None:
            return self.scores.cells(name) or None
        setting = self._chosen[name]
        if setting is None or not self.scores.members(name, setting, "confirm"):
            return None
        return {setting: self.scores.cell(name, setting, "confirm")}

    def confidence(self, places: Sequence[Mapping[str, Any]]) -> float:
        """Return the level of an interval of variants with these levels: that of the latest look at any of them."""
        names = [self._names.get(canonical(dict(levels))) for levels in places]
        found = self.looks[self.looks["variant"].isin(names)].sort_values("n")
        return float(found["confidence"].iloc[-1]) if len(found) else self.scores.confidence

    def at(self, sides: Sequence[Side]) -> list[Any] | None:
        """Return the settings at which fresh seeds stand; None where the best one is chosen in each replicate."""
        return None if self._chosen is None else [next(iter(side)) for side in sides]


def interactions_frame(scores: StudyScores, looks: Looks) -> pd.DataFrame:
    """Return a row for two factors of a full grid and a level of each beside their first; the others at their first.

    One family: the p-values are adjusted by Holm over all rows.
    """
    cells = _Cells(scores, looks.frame)
    first = {name: levels[0] for name, levels in cells.factors.items()}
    rows: list[dict[str, Any]] = []
    tables: list[list[Side]] = []
    levels: list[float] = []
    for a, b in itertools.combinations(cells.factors, 2):
        for level_a, level_b in itertools.product(cells.factors[a][1:], cells.factors[b][1:]):
            places = [first | {a: at_a, b: at_b} for at_a in (first[a], level_a) for at_b in (first[b], level_b)]
            sides = [side for side in map(cells.side, places) if side is not None]
            if len(sides) == len(places):
                row: dict[str, Any] = {
                    "factor_a": a,
                    "factor_b": b,
                    "level_a0": level_text(first[a]),
                    "level_a1": level_text(level_a),
                }
                rows.append(row | {"level_b0": level_text(first[b]), "level_b1": level_text(level_b)})
                tables.append(sides)
                levels.append(cells.confidence(places))
    measure = scores.frames.study.measure
    settings = None if cells.at([]) is None else [cells.at(table) or [] for table in tables]
    found = factor_interactions(tables, at=settings, rope=measure.rope, confidence=measure.confidence, levels=levels)
    for row, one in zip(rows, found, strict=True):
        parts = dict(zip(("mean_00", "mean_01", "mean_10", "mean_11"), one.means, strict=True))
        parts |= {"effect_b0": one.effects[0], "effect_b1": one.effects[1]}
        for name, part in parts.items():
            row |= {name: part.value, f"{name}_low": part.low, f"{name}_high": part.high}
        row |= {"estimate": one.estimate.value, "low": one.estimate.low, "high": one.estimate.high}
        row |= {"p": one.estimate.p, "p_holm": one.p_holm, "decision": one.decision, "reason": one.estimate.reason}
    return FRAMES["interactions"].filled(rows)


def main_effects_frame(scores: StudyScores, looks: Looks) -> pd.DataFrame:
    """Return a row a factor of a full grid and level beside its first: its effect, the mean over all other levels."""
    cells = _Cells(scores, looks.frame)
    rows: list[dict[str, Any]] = []
    estimates: list[Estimate] = []
    measure = scores.frames.study.measure
    for name, levels in cells.factors.items() if len(cells.factors) > 1 else ():
        others = {other: values for other, values in cells.factors.items() if other != name}
        rest = [dict(zip(others, values, strict=True)) for values in itertools.product(*others.values())]
        for level in levels[1:]:
            places = [(one | {name: at}, sign) for one in rest for at, sign in ((level, 1), (levels[0], -1))]
            found = [(cells.side(place), sign / len(rest)) for place, sign in places]
            sides = [side for side, _ in found if side is not None]
            if len(sides) == len(found):
                weights = [weight for _, weight in found]
                made = combine(sides, weights, at=cells.at(sides), confidence=cells.confidence([p for p, _ in places]))
                estimates.append(made[0].estimate)
                rows.append({"factor": name, "level_0": level_text(levels[0]), "level_1": level_text(level)})
    decisions = decide(estimates, rope=measure.rope, confidence=measure.confidence)
    for row, one, judged in zip(rows, estimates, decisions, strict=True):
        row |= {"estimate": one.value, "low": one.low, "high": one.high, "p": one.p}
        row |= {"p_holm": judged.p_holm, "decision": judged.verdict, "reason": one.reason}
    return FRAMES["main_effects"].filled(rows)


def data_size_frame(scores: StudyScores, own_best: Choice) -> pd.DataFrame:
    """Return a row a variant of those that differ in the number of training images, at what decides.

    `variant` names what else is the same in all rows of a curve: what differs from the baseline besides the data, or
    the model where nothing does.
    """
    frames = scores.frames
    described = frames.run.get("variants", {})
    chosen = scores.confirmed if frames.study.confirm is not None else own_best
    rows: list[dict[str, Any]] = []
    for name in frames.variants:
        images, setting = described.get(name, {}).get("train_images"), chosen.get(name)
        if images is None or setting is None or frames.study.variants[name].control:
            continue
        differs = described[name].get("differs", {}).items()
        others = [f"{field} {level_text(new)}" for field, (_, new) in differs if not field.startswith("data.")]
        role = "confirm" if scores.is_fresh(name, setting) else "main"
        estimate = scores.level(name, setting, role)[0]
        row = {"variant": ", ".join(others) or frames.study.model.name, "name": name, "images": int(images)}
        row |= {"score": estimate.value, "low": estimate.low, "high": estimate.high}
        rows.append(row | {"seeds": len(scores.members(name, setting, role)), "reason": estimate.reason})
    frame = FRAMES["data_size"].filled(rows)
    sizes = frame.groupby("variant")["images"].transform("nunique")
    return frame[sizes > 1].sort_values(["variant", "images"], ignore_index=True)
