"""Each variant against the baseline, three ways about the learning rate, and the one primary decision."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ablate.analysis.frames import Frames
from ablate.analysis.looks import Looks, basis, look_plan, taken_looks
from ablate.analysis.schema import FRAMES
from ablate.analysis.scores import StudyScores
from ablate.analysis.selection import Choice, best_of_all, best_of_each, each_setting
from ablate.stats.blocks import order_test
from ablate.stats.bootstrap import Contrast
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
# What is known of the drawing of test images where no trial is complete.
NOT_RESAMPLED: dict[str, Any] = {
    "images_drawn": "",
    "groups": 0,
    "block": 0,
    "conditional": False,
    "order_correlation": np.nan,
    "order_warning": False,
}


@dataclass(frozen=True)
class Way:
    """One way to make a contrast: its name (of `KINDS`), and the settings at which it compares."""

    kind: str
    choice: Choice
    role: str = "main"


def against(frames: Frames) -> dict[str, str]:
    """Return what every variant is compared with: the baseline, or for an A/A control the variant that it copies."""
    specs = frames.study.variants
    table = {}
    for variant in frames.variants:
        if variant == frames.baseline:
            continue
        table[variant] = frames.baseline
        own = specs.get(variant)
        if own is not None and own.control:
            alike = [
                name
                for name, other in specs.items()
                if not other.control
                and (other.difference, other.train, other.data) == (own.difference, own.train, own.data)
            ]
            if alike and frames.baseline not in alike:
                table[variant] = alike[0]
    return table


def controls(frames: Frames) -> set[str]:
    """Return the variants that are A/A copies."""
    return {name for name, spec in frames.study.variants.items() if spec.control and name != frames.baseline}


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
    copies = controls(frames)
    made = [Way("own_best", best_of_each(scores.eligible))]
    # A search has settings of its own for every variant: hardly ever is there one that two of them have tried.
    least = 1 if frames.study.search is None else 2
    shared = best_of_all(v, copies)
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


def confirm_looks(frames: Frames, scores: StudyScores | None = None) -> Looks:
    """Return the looks at the confirming trials so far, and where each contrast stands: decided, futile or open.

    The one rule by which a run that trains until it is decided goes on, and by which the analysis decides. Pass the
    `scores` of the same frames where they are there already. `Looks.words` is empty where the study declares no looks.
    """
    scores = StudyScores(frames) if scores is None else scores
    return taken_looks(scores, look_plan(frames), against(frames), controls(frames))


def contrasts_frame(scores: StudyScores, made: Sequence[Way], looks: Looks | None = None) -> pd.DataFrame:
    """Return a row a contrast and way; `looks` are those of `confirm_looks`, where the study trains until decided.

    The primary decision is that of the fresh seeds where the study declares them, and else that at own best.
    """
    frames = scores.frames
    sides, copies = against(frames), controls(frames)
    primary = "own_best" if frames.study.confirm is None else "confirmed"
    last = {} if looks is None else {row["variant"]: row for row in looks.frame.to_dict("records")}
    images = _images(scores) if sides else {}
    rows: list[dict[str, Any]] = []
    contrasts: dict[str, dict[str, Contrast | str]] = {}
    for way in made:
        sequential = way.kind == "confirmed" and looks is not None and bool(looks.words)
        seen = {name: last.get(name) if sequential else None for name in sides}
        found = {name: _contrast(way, name, other, scores, seen[name]) for name, other in sides.items()}
        contrasts[way.kind] = found
        decisions = _decisions(found, copies, frames)
        for name, other in sides.items():
            look = seen[name]
            decision = _sequential(look, 1 - scores.confidence) if sequential else decisions[name]
            row = _row(scores, way, name, other, found[name], decision, None if look is None else int(look["n"]))
            row |= images[name] | {"control": name in copies, "primary": way.kind == primary}
            if decision.verdict in ("undecided", "futile"):
                row |= _reach(found[name], row, 1 if name in copies else len(sides) - len(copies), scores.confidence)
            if sequential and look is None and not row["reason"]:
                row["reason"] = "the first look has not been reached"
            rows.append(row)
    moves = _interactions(contrasts, copies, scores.confidence)
    for row in rows:
        if row["kind"] == "own_best" and (moved := moves.get(row["variant"])) is not None:
            row |= {"interaction": moved.value, "interaction_low": moved.low, "interaction_high": moved.high}
            row |= {"interaction_p": moved.p, "lr_confounded": bool(moved.p <= 1 - scores.confidence)}
    return FRAMES["contrasts"].filled(rows)


def _images(scores: StudyScores) -> dict[str, dict[str, Any]]:
    """Return for the contrast of every variant how the test images are drawn, and whether their order seems to matter.

    A dependence is looked for where the study declares no groups: with groups it is in the interval.
    """
    try:
        scheme = scores.bootstrap.schemes["test"]
    except ValueError:  # no trial is complete
        return dict.fromkeys(scores.frames.variants, NOT_RESAMPLED)
    drawn = NOT_RESAMPLED | {
        "images_drawn": scheme.kind,
        "groups": len(scheme.groups),
        "conditional": scheme.conditional,
    }
    drawn["block"] = scheme.block if scheme.kind == "blocks" else 0
    made = dict.fromkeys(scores.frames.variants, drawn)
    if scheme.kind == "independent":
        for name, differences in scores.image_differences("test").items():
            if differences is not None:
                tested = order_test(differences)
                made[name] = drawn | {"order_correlation": tested.correlation, "order_warning": tested.warn}
    return made


def _contrast(
    way: Way, name: str, other: str, scores: StudyScores, look: Mapping[Any, Any] | None = None
) -> Contrast | str:
    """Return the contrast of mIoU, or why there is none; at a `look`, that of its seeds with the repeated interval."""
    for side in (name, other):
        if not scores.members(side, way.choice.get(side), way.role):
            fresh = " with fresh seeds" if way.role == "confirm" else ""
            where = f"at {way.choice[side]}" if way.choice.get(side) else "" if fresh else "to choose from"
            return f"no result of {side} {where}{fresh}".replace("  ", " ")
    if way.kind == "own_best":
        return scores.own_best(name, other)[0]
    at = (name, str(way.choice[name])), (other, str(way.choice[other]))
    if look is None:
        return scores.fixed(*at, role=way.role)[0]
    return scores.fixed(*at, role=way.role, first=int(look["n"]), confidence=float(look["confidence"]))[0]


def _reach(contrast: Contrast | str, row: Mapping[str, Any], family: int, confidence: float) -> dict[str, float]:
    """Return what an undecided contrast could have found, and the seeds a side that would find what it saw.

    With a chance of 80 %, at Holm's first step over a `family` of contrasts, at the spreads that were seen. What
    choosing the settings adds to the variance is taken to fall with the seeds, as the seeds' own part does.
    """
    if isinstance(contrast, str) or min(row["n"], row["n_against"]) < 2 or not np.isfinite(contrast.image):
        return {}
    seeds = row["n"], row["n_against"]
    between = [own + contrast.choice * n / 2 for own, n in zip(contrast.between, seeds, strict=True)]
    alpha, shared = 1 - confidence, contrast.image
    return {
        "detectable": detectable_difference(between, seeds, contrasts=family, alpha=alpha, shared=shared),
        "seeds_needed": seeds_to_find(row["delta"], between, contrasts=family, alpha=alpha, shared=shared),
    }


def _sequential(look: Mapping[Any, Any] | None, alpha: float) -> Decision:
    """Return the decision at the last look that a contrast was open at; its p-values are scaled to be judged at α."""
    if look is None:
        return Decision("undecided", np.nan, np.nan)
    scale = alpha / look["level"]
    verdict: Verdict = "undecided" if look["decision"] == OPEN else look["decision"]
    return Decision(verdict, min(1.0, look["p"] * scale), min(1.0, look["p_equivalent"] * scale))


def _decisions(found: Mapping[str, Contrast | str], copies: set[str], frames: Frames) -> dict[str, Decision]:
    """Decide by Holm over the variants.

    Each control is a family of its own, so that adding one costs the others nothing.
    """
    measure = frames.study.measure
    families = [[name for name in found if name not in copies], *([name] for name in found if name in copies)]
    decisions: dict[str, Decision] = {}
    for family in families:
        estimates = [_estimate(found[name]) for name in family]
        judged = decide(estimates, rope=measure.rope, confidence=measure.confidence)
        decisions |= dict(zip(family, judged, strict=True))
    return decisions


def _estimate(contrast: Contrast | str) -> Estimate:
    if isinstance(contrast, str):
        return Estimate(np.nan, np.nan, np.nan, reason=contrast)
    return contrast.estimate


def _row(
    scores: StudyScores,
    way: Way,
    name: str,
    other: str,
    contrast: Contrast | str,
    decision: Decision,
    first: int | None = None,
) -> dict[str, Any]:
    """Return the row of a contrast, with False or NaN for what other functions find out."""
    frames = scores.frames
    estimate = _estimate(contrast)
    settings = {side: way.choice.get(side) for side in (name, other)}
    members = {side: scores.members(side, at, way.role)[:first] for side, at in settings.items()}
    cells = {side: np.array([seed.test_score for seed in found], dtype=float) for side, found in members.items()}
    mean = {side: float(cell.mean()) if len(cell) else np.nan for side, cell in cells.items()}
    superior = probability_of_superiority(cells[name], cells[other], frames.study.measure.confidence)
    chosen = way.kind in ("own_best", "shared")
    row: dict[str, Any] = {"variant": name, "against": other, "control": False, "kind": way.kind}
    row |= {"setting": settings[name] or "", "against_setting": settings[other] or ""}
    row |= {"lr": scores.rate(settings[name]), "against_lr": scores.rate(settings[other])}
    row |= {"delta": estimate.value, "low": estimate.low, "high": estimate.high, "se": estimate.se, "df": estimate.df}
    row |= {"p": estimate.p, "p_holm": decision.p_holm, "p_equivalent": decision.p_equivalent}
    row |= {"decision": decision.verdict, "primary": False, "fresh": way.role == "confirm"}
    row |= {"error_bar": ERROR_BARS[way.kind], "n": len(cells[name]), "n_against": len(cells[other])}
    row |= {"left": mean[name], "right": mean[other]}
    row |= {"stability": np.nan if isinstance(contrast, str) else math.prod(contrast.stability), "lr_confounded": False}
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
    row |= NOT_RESAMPLED | {"blind_score": scores.blind_score}
    row["untrained"] = any(trained(cell, scores.blind_score) == "untrained" for cell in cells.values())
    found_out = ("detectable", "seeds_needed", "interaction", "interaction_low", "interaction_high", "interaction_p")
    return row | dict.fromkeys(found_out, np.nan) | {"reason": estimate.reason}


def ratio_of(frames: Frames, name: str, other: str, quantity: str) -> float:
    """Return a quantity of a variant's network ("parameters", "forward_flops") over that of another; NaN if unknown."""
    described = frames.run.get("variants", {})
    values = [described.get(side, {}).get(quantity) for side in (name, other)]
    return values[0] / values[1] if all(values) else np.nan


def _interactions(
    found: Mapping[str, Mapping[str, Contrast | str]], copies: set[str], confidence: float
) -> dict[str, Estimate]:
    """Test for each variant whether its contrast at own best differs from that at the shared setting.

    `found` holds the contrasts by way and variant. The p-values are corrected by Holm over the variants, each control
    by itself; variants that stand at the same two settings either way have none.
    """
    made = {}
    for name, own in found.get("own_best", {}).items():
        shared = found.get("shared", {}).get(name)
        if isinstance(own, Contrast) and isinstance(shared, Contrast):
            values = own.estimate.value, shared.estimate.value
            draws = own.draws, own.draws if own.settings == shared.settings else shared.draws
            made[name] = setting_interaction(*values, *draws, df=own.estimate.df, confidence=confidence)
    judged = [name for name in made if name not in copies]
    adjusted = dict(zip(judged, holm([made[name].p for name in judged]), strict=True))
    return {name: replace(one, p=float(adjusted.get(name, one.p))) for name, one in made.items()}


def class_contrasts_frame(scores: StudyScores, looks: Looks) -> pd.DataFrame:
    """Return a row a contrast and class, at own best, of the seeds that decide the contrast."""
    frames, rows = scores.frames, []
    for name, other in against(frames).items():
        rests = basis(scores, looks.frame, name, other)
        if not all(scores.members(*side) for side in rests.sides):
            continue
        confidence = rests.confidence(scores.confidence)
        if rests.fresh:
            left, right = (scores.cell(*side, rests.first) for side in rests.sides)
            found = scores.between(left, right, rests.sides[0][1], rests.sides[1][1], confidence)[1:]
        else:
            left, right = (scores.cell(*side) for side in rests.sides)
            found = scores.own_best(name, other)[1:]
        for place, label in enumerate(frames.class_names, start=1):
            estimate = found[place - 1].estimate
            row: dict[str, Any] = {"variant": name, "against": other, "class": label, "fresh": rests.fresh}
            row |= {"delta": estimate.value, "low": estimate.low, "high": estimate.high}
            row |= {"left": float(left.test[place]), "right": float(right.test[place]), "n": estimate.n}
            rows.append(row | {"reason": estimate.reason})
    return FRAMES["class_contrasts"].filled(rows)
