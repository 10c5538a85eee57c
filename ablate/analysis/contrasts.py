"""Each variant against the baseline, three ways about the learning rate, and the one primary decision."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ablate.analysis.frames import Frames
from ablate.analysis.looks import Looks, basis
from ablate.analysis.schema import FRAMES
from ablate.analysis.scores import StudyScores
from ablate.analysis.selection import Choice, best_of_all, best_of_each, each_setting
from ablate.stats.blocks import order_test
from ablate.stats.bootstrap import Contrast, no_contrast
from ablate.stats.decisions import Decision, Verdict, decide, holm, trained
from ablate.stats.detectable import detectable_difference, seeds_to_find
from ablate.stats.interaction import setting_interaction
from ablate.stats.intervals import Estimate, probability_of_superiority
from ablate.stats.sequential import OPEN
from ablate.study.study import flat, undeclared
from ablate.study.trial import level_text

KINDS = {"own_best": "Own best", "shared": "Shared", "matched": "Matched", "confirmed": "Confirmed"}
# How the error bar of a way is made: the setting chosen on val again in every replicate, chosen once and run again with
# fresh seeds, or kept.
ERROR_BARS = {"own_best": "retune", "confirmed": "tune_once", "shared": "fixed", "matched": "fixed"}


@dataclass(frozen=True)
class Way:
    """One way to make a contrast: its name (of `KINDS`), and the settings at which it compares."""

    kind: str
    choice: Choice
    role: str = "main"


def confounds(frames: Frames, variants: Sequence[str]) -> str:
    """Return the settings of training and data that variants have of their own and that are no factor, "" for none."""
    said = []
    for name in variants:
        spec = frames.study.variants.get(name)
        own = flat({"train": spec.train, "data": spec.data}) if spec is not None else {}
        fields = undeclared(own, frames.study.factors)
        if fields:
            said.append(f"{name}: " + ", ".join(f"{f.removeprefix('train.')} {level_text(own[f])}" for f in fields))
    return "; ".join(said)


def ways(scores: StudyScores) -> list[Way]:
    """Return own best, shared, every matched setting, and the confirming trials, each where there is one."""
    frames, v = scores.frames, scores.v
    made = [Way("own_best", best_of_each(scores.eligible))]
    # A search has settings of its own for every variant: hardly ever is there one that two of them have tried.
    least = 1 if frames.study.search is None else 2
    shared = best_of_all(v, frames.controls)
    if least == 1 or any(shared.values()):
        made.append(Way("shared", shared))
    made += [
        Way("matched", choice)
        for choice in each_setting(v)
        if sum(setting is not None for setting in choice.values()) >= least
    ]
    if frames.study.confirm is not None:
        made.append(Way("confirmed", scores.confirmed, "confirm"))
    return made


def contrasts_frame(scores: StudyScores, made: Sequence[Way], looks: Looks | None = None) -> pd.DataFrame:
    """Return a row a contrast and way; `looks` are those of `confirm_looks`, where the study trains until decided.

    The primary decision is that of the fresh seeds where the study declares them, and else that at own best.
    """
    frames, confidence = scores.frames, scores.confidence
    last = {} if looks is None else {row["variant"]: row for row in looks.frame.to_dict("records")}
    found = [{name: _contrast(scores, way, name, last) for name in frames.against} for way in made]
    moved = _interactions(scores, {way.kind: contrasts for way, contrasts in zip(made, found, strict=True)})
    images = _images(scores) if frames.against else {}
    rows: list[dict[str, Any]] = []
    for way, contrasts in zip(made, found, strict=True):
        sequential = way.role == "confirm" and looks is not None and bool(looks.words)
        decisions = _decisions(contrasts, frames)
        for name, contrast in contrasts.items():
            look = last.get(name) if sequential else None
            decision = _sequential(look, 1 - confidence) if sequential else decisions[name]
            first = None if look is None else int(look["n"])
            row = _row(scores, way, name, contrast, decision, first, moved.get(name), images[name])
            if sequential and look is None and not row["reason"]:
                row["reason"] = "the first look has not been reached"
            rows.append(row)
    return FRAMES["contrasts"].filled(rows)


def _images(scores: StudyScores) -> dict[str, dict[str, Any]]:
    """Return for the contrast of every variant how the test images are drawn, and whether their order seems to matter.

    A dependence is looked for where the study declares no groups: with groups it is in the interval.
    """
    row: dict[str, Any] = {"images_drawn": "", "groups": 0, "block": 0, "conditional": False}
    row |= {"order_correlation": np.nan, "order_warning": False}
    try:
        scheme = scores.bootstrap.schemes["test"]
    except ValueError:  # no trial is complete
        return dict.fromkeys(scores.frames.against, row)
    row |= {"images_drawn": scheme.kind, "groups": len(scheme.groups), "conditional": scheme.conditional}
    row["block"] = scheme.block if scheme.kind == "blocks" else 0
    differences = scores.image_differences("test") if scheme.kind == "independent" else {}
    made = dict.fromkeys(scores.frames.against, row)
    for name, values in differences.items():
        if values is not None:
            tested = order_test(values)
            made[name] = row | {"order_correlation": tested.correlation, "order_warning": tested.warn}
    return made


def _contrast(scores: StudyScores, way: Way, name: str, last: Mapping[str, Any]) -> Contrast:
    """Return the contrast of mIoU; of fresh seeds, at its `last` look if it has one, with the repeated interval."""
    sides = name, scores.frames.against[name]
    for side in sides:
        if not scores.members(side, way.choice.get(side), way.role):
            fresh = " with fresh seeds" if way.role == "confirm" else ""
            where = f"at {way.choice[side]}" if way.choice.get(side) else "" if fresh else "to choose from"
            return no_contrast(f"no result of {side} {where}{fresh}".replace("  ", " "))
    if way.kind == "own_best":
        return scores.own_best(*sides)[0]
    left, right = ((side, str(way.choice[side])) for side in sides)
    if way.role == "main" or name not in last:
        return scores.fixed(left, right, role=way.role)[0]
    first, confidence = int(last[name]["n"]), float(last[name]["confidence"])
    return scores.fixed(left, right, role=way.role, first=first, confidence=confidence)[0]


def _sequential(look: Mapping[Any, Any] | None, alpha: float) -> Decision:
    """Return the decision at the last look that a contrast was open at; its p-values are scaled to be judged at α."""
    if look is None:
        return Decision("undecided", np.nan, np.nan)
    scale = alpha / look["level"]
    verdict: Verdict = "undecided" if look["decision"] == OPEN else look["decision"]
    return Decision(verdict, min(1.0, look["p"] * scale), min(1.0, look["p_equivalent"] * scale))


def _decisions(found: Mapping[str, Contrast], frames: Frames) -> dict[str, Decision]:
    """Decide by Holm over the variants, family by family."""
    measure = frames.study.measure
    decisions: dict[str, Decision] = {}
    for family in frames.families:
        estimates = [found[name].estimate for name in family]
        judged = decide(estimates, rope=measure.rope, confidence=measure.confidence)
        decisions |= dict(zip(family, judged, strict=True))
    return decisions


def _row(
    scores: StudyScores,
    way: Way,
    name: str,
    contrast: Contrast,
    decision: Decision,
    first: int | None,
    moved: Estimate | None,
    images: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the row of a contrast of the `first` seeds of either side, with what `_interactions` and `_images` say."""
    frames, estimate, other = scores.frames, contrast.estimate, scores.frames.against[name]
    settings = {side: way.choice.get(side) for side in (name, other)}
    members = {side: scores.members(side, at, way.role)[:first] for side, at in settings.items()}
    cells = {side: np.array([seed.test_score for seed in found], dtype=float) for side, found in members.items()}
    mean = {side: float(cell.mean()) if len(cell) else np.nan for side, cell in cells.items()}
    superior = probability_of_superiority(cells[name], cells[other], scores.confidence)
    own_best, chosen = way.kind == "own_best", way.kind in ("own_best", "shared")
    moved = moved if moved is not None and own_best else Estimate(np.nan, np.nan, np.nan)
    primary = "own_best" if frames.study.confirm is None else "confirmed"
    row: dict[str, Any] = {"variant": name, "against": other, "control": name in frames.controls, "kind": way.kind}
    row |= {"setting": settings[name] or "", "against_setting": settings[other] or ""}
    row |= {"lr": scores.rate(settings[name]), "against_lr": scores.rate(settings[other])}
    row |= {"delta": estimate.value, "low": estimate.low, "high": estimate.high, "se": estimate.se, "df": estimate.df}
    row |= {"p": estimate.p, "p_holm": decision.p_holm, "p_equivalent": decision.p_equivalent}
    row |= {"decision": decision.verdict, "primary": way.kind == primary, "fresh": way.role == "confirm"}
    row |= {"error_bar": ERROR_BARS[way.kind], "n": len(cells[name]), "n_against": len(cells[other])}
    row |= {"left": mean[name], "right": mean[other], "stability": math.prod(contrast.stability)}
    row["lr_confounded"] = bool(moved.p <= 1 - scores.confidence)
    row["unbracketed"] = chosen and any(scores.edge(side, settings[side]) for side in (name, other))
    # A choice rests on all the cells that it was made among.
    row["provisional"] = any(
        scores.unfinished(side, None if chosen else settings[side], way.role) for side in (name, other)
    )
    row["confounded"] = confounds(frames, [name, other])
    row |= {"superiority": superior.value, "superiority_low": superior.low, "superiority_high": superior.high}
    row["superiority_verdict"] = superior.verdict or ""
    row["parameters_ratio"] = ratio_of(frames, name, other, "parameters")
    row["flops_ratio"] = ratio_of(frames, name, other, "forward_flops")
    row |= {**images, "blind_score": scores.blind_score}
    row["untrained"] = any(trained(cell, scores.blind_score) == "untrained" for cell in cells.values())
    row |= _reach(contrast, row, next(len(family) for family in frames.families if name in family), scores.confidence)
    row |= {"interaction": moved.value, "interaction_low": moved.low, "interaction_high": moved.high}
    return row | {"interaction_p": moved.p, "reason": estimate.reason}


def _reach(contrast: Contrast, row: Mapping[str, Any], family: int, confidence: float) -> dict[str, float]:
    """Return what an undecided contrast could have found, and the seeds a side that would find what it saw.

    With a chance of 80 %, at Holm's first step over a `family` of contrasts, at the spreads that were seen. What
    choosing the settings adds to the variance is taken to fall with the seeds, as the seeds' own part does.
    """
    seeds = row["n"], row["n_against"]
    if row["decision"] not in ("undecided", "futile") or min(seeds) < 2 or not np.isfinite(contrast.image):
        return {"detectable": np.nan, "seeds_needed": np.nan}
    between = [own + contrast.choice * n / 2 for own, n in zip(contrast.between, seeds, strict=True)]
    alpha, shared = 1 - confidence, contrast.image
    return {
        "detectable": detectable_difference(between, seeds, contrasts=family, alpha=alpha, shared=shared),
        "seeds_needed": seeds_to_find(row["delta"], between, contrasts=family, alpha=alpha, shared=shared),
    }


def ratio_of(frames: Frames, name: str, other: str, quantity: str) -> float:
    """Return a quantity of a variant's network ("parameters", "forward_flops") over that of another; NaN if unknown."""
    described = frames.run.get("variants", {})
    values = [described.get(side, {}).get(quantity) for side in (name, other)]
    return values[0] / values[1] if all(values) else np.nan


def _interactions(scores: StudyScores, found: Mapping[str, Mapping[str, Contrast]]) -> dict[str, Estimate]:
    """Test for each variant whether its contrast at own best differs from that at the shared setting.

    `found` holds the contrasts by way and variant. The p-values are corrected by Holm over the variants, each control
    by itself; variants that stand at the same two settings either way have none.
    """
    made = {}
    for name, own in found.get("own_best", {}).items():
        shared = found.get("shared", {}).get(name)
        if shared is not None and own.draws.size and shared.draws.size:
            values = own.estimate.value, shared.estimate.value
            draws = own.draws, own.draws if own.settings == shared.settings else shared.draws
            made[name] = setting_interaction(*values, *draws, df=own.estimate.df, confidence=scores.confidence)
    for family in scores.frames.families:
        tested = [name for name in family if name in made]
        for name, p in zip(tested, holm([made[name].p for name in tested]), strict=True):
            made[name] = replace(made[name], p=float(p))
    return made


def class_contrasts_frame(scores: StudyScores, looks: Looks) -> pd.DataFrame:
    """Return a row a contrast and class, at own best, of the seeds that decide the contrast."""
    frames, rows = scores.frames, []
    for name, other in frames.against.items():
        rests = basis(scores, looks.frame, name, other)
        if not all(scores.members(*side) for side in rests.sides):
            continue
        if rests.fresh:
            confidence = rests.confidence(scores.confidence)
            at = [side[:2] for side in rests.sides]
            found = scores.fixed(*at, role="confirm", first=rests.first, confidence=confidence)
        else:
            found = scores.own_best(name, other)
        left, right = (scores.cell(*side, rests.first) for side in rests.sides)
        for place, label in enumerate(frames.class_names, start=1):
            estimate = found[place].estimate
            row: dict[str, Any] = {"variant": name, "against": other, "class": label, "fresh": rests.fresh}
            row |= {"delta": estimate.value, "low": estimate.low, "high": estimate.high}
            row |= {"left": float(left.test[place]), "right": float(right.test[place]), "n": estimate.n}
            rows.append(row | {"reason": estimate.reason})
    return FRAMES["class_contrasts"].filled(rows)
