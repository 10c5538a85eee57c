"""Each variant against the baseline, three ways about the learning rate, and the one primary decision.

The columns of every frame are listed at the top of `analyse`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ablate.analysis.bootstrap import SE_TEXT
from ablate.analysis.frames import Frames
from ablate.analysis.scores import StudyScores
from ablate.analysis.selection import MATCHED, OWN_BEST, SHARED, Choice
from ablate.analysis.statistics import Contrast, Decision, Estimate, decide, probability_of_superiority

DECIDED = ("better", "worse", "equivalent")
KINDS = {"own_best": "Own best", "shared": "Shared", "matched": "Matched", "confirmed": "Confirmed"}
SUPERIORITY_TEXT = (
    "P(better): how often a run of the variant scores higher than one of the other, ties one half, with Newcombe's "
    "interval over seeds (images held fixed); meaningful where it lies above 0.5 and reaches above 0.75, no verdict "
    "below five seeds a side."
)
CONFIRMED_TEXT = (
    "Each variant at the setting that the main trials chose for it, scored by seeds that took no part in choosing."
)


@dataclass(frozen=True)
class Way:
    """One way to make a contrast: its name, the settings it compares at, and the rule that is printed."""

    kind: str
    choice: Choice
    text: str
    role: str = "main"


def interval_text(frames: Frames) -> str:
    """How the intervals of contrasts are made, in words."""
    measure = frames.study.measure
    how = "independently"
    if any(frames.groups[split] is not None for split in ("val", "test")):
        how = f"in circular blocks of {measure.block} within their groups (short groups, where they are many, whole)"
    return (
        f"Interval ({measure.confidence:.0%}): Multi-Bootstrap of {measure.resamples} replicates, each drawing the "
        f"seeds within every cell and the images {how}, the same for both variants; difference ± t with 2(n − 1) "
        f"degrees of freedom × {SE_TEXT}."
    )


def scored_text(frames: Frames) -> str:
    """At which size the scores were taken, in words."""
    return f"Test scores {frames.resolution}."


def interval_rule(frames: Frames) -> str:
    """How the intervals and decisions of contrasts are made, in words."""
    measure = frames.study.measure
    return (
        f"{scored_text(frames)} {interval_text(frames)} p by the same t, Holm over the contrasts with the baseline (an "
        f"A/A control is judged by itself). Equivalent: interval inside ±{measure.rope:g} and Holm's p of the two "
        f"one-sided tests at most {1 - measure.confidence:.2g}."
    )


RETUNED = "Error bar retune: the setting is chosen on val again in every replicate."
KEPT = "Error bar fixed: the setting is kept, only seeds and images are drawn."
RESEEDED = (
    "Error bar tune_once: the setting is chosen once and run again with fresh seeds; only seeds and images are drawn."
)
PRIMARY = "This is the primary decision."
DESCRIPTIVE = "Descriptive."


def against(frames: Frames) -> dict[str, str]:
    """What every variant is compared with: the baseline, or for an A/A control the variant that it copies."""
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
                if name != variant
                and not other.control
                and (other.difference, other.train) == (own.difference, own.train)
            ]
            if alike and frames.baseline not in alike:
                table[variant] = alike[0]
    return table


def controls(frames: Frames) -> set[str]:
    """The variants that are A/A copies."""
    return {name for name, spec in frames.study.variants.items() if spec.control and name != frames.baseline}


def confounds(frames: Frames, variants: Sequence[str]) -> str:
    """The training settings that some of the variants declare for themselves, "" for none."""
    return "; ".join(
        f"{name}: {', '.join(f'{key} {value}' for key, value in frames.study.variants[name].train.items())}"
        for name in variants
        if name in frames.study.variants and frames.study.variants[name].train
    )


def ways(frames: Frames, v: pd.DataFrame) -> list[Way]:
    """Own best, shared, every matched setting, and the confirming trials, each where there is one."""
    copies = controls(frames)
    made = [Way("own_best", OWN_BEST.choose(v, copies), f"{OWN_BEST.text} {RETUNED} {PRIMARY}")]
    # A search has settings of its own for every variant: hardly ever is there one that two of them have tried.
    least = 1 if frames.study.search is None else 2
    shared = SHARED.choose(v, copies)
    if least == 1 or any(shared.values()):
        made.append(Way("shared", shared, f"{SHARED.text} {KEPT} {DESCRIPTIVE}"))
    made += [
        Way("matched", choice, f"{MATCHED.text} {KEPT} {DESCRIPTIVE}")
        for choice in MATCHED.comparisons(v, copies)
        if sum(setting is not None for setting in choice.values()) >= least
    ]
    confirming = frames.trials[frames.trials["role"] == "confirm"]
    if len(confirming):
        settings: Choice = {str(name): str(part["setting"].iloc[-1]) for name, part in confirming.groupby("variant")}
        made.append(Way("confirmed", settings, f"{CONFIRMED_TEXT} {RESEEDED} {DESCRIPTIVE}", "confirm"))
    return made


def ways_rule(frames: Frames, made: Sequence[Way]) -> str:
    """The rules of several ways under one table: what each chooses, and what they have in common once."""
    texts = {way.kind: way.text for way in made}
    said = [f"{KINDS[kind]}: {text}" for kind, text in texts.items()]
    return " ".join([*said, interval_rule(frames), SUPERIORITY_TEXT])


CONTRAST_COLUMNS = [
    "variant", "against", "control", "kind", "setting", "against_setting", "lr", "against_lr", "delta", "low", "high",
    "se", "df", "p", "p_holm", "p_equivalent", "decision", "primary", "error_bar", "n", "n_against", "left", "right",
    "stability", "lr_confounded", "unbracketed", "provisional", "confounded", "superiority", "superiority_low",
    "superiority_high", "superiority_verdict", "parameters_ratio", "flops_ratio", "reason", "rule",
]  # fmt: skip


def contrasts_frame(frames: Frames, scores: StudyScores, made: Sequence[Way]) -> pd.DataFrame:
    """A row a contrast and way."""
    sides = against(frames)
    copies = controls(frames)
    rows = []
    for way in made:
        found = {name: _contrast(way, name, other, scores) for name, other in sides.items()}
        decisions = _decisions(found, copies, frames)
        rows += [
            _row(frames, scores, way, name, sides[name], found[name], decisions[name]) | {"control": name in copies}
            for name in sides
        ]
    frame = pd.DataFrame(rows, columns=CONTRAST_COLUMNS)
    if len(frame):
        frame["lr_confounded"] = _confounded(frame)
    # A study of one variant has none; its columns have their types all the same.
    return frame.astype(dict.fromkeys(("control", "primary", "lr_confounded", "unbracketed", "provisional"), bool))


def _contrast(way: Way, name: str, other: str, scores: StudyScores) -> Contrast | str:
    """The contrast of mIoU, or why there is none."""
    for side in (name, other):
        if _unresolved(way, side, scores):
            return f"no result of {side} " + (
                f"at {way.choice.get(side)}" if way.choice.get(side) else "to choose from"
            )
    if way.kind == "own_best":
        return scores.own_best(name, other)[0]
    at = (name, str(way.choice[name])), (other, str(way.choice[other]))
    return scores.fixed(*at, role=way.role)[0]


def _unresolved(way: Way, side: str, scores: StudyScores) -> bool:
    setting = way.choice.get(side)
    return not scores.members(side, setting, way.role)


def _decisions(found: Mapping[str, Contrast | str], copies: set[str], frames: Frames) -> dict[str, Decision]:
    """Holm over the variants; each control is a family of its own, so that adding one costs the others nothing."""
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
    frames: Frames,
    scores: StudyScores,
    way: Way,
    name: str,
    other: str,
    contrast: Contrast | str,
    decision: Decision,
) -> dict[str, Any]:
    estimate = _estimate(contrast)
    settings = {side: way.choice.get(side) for side in (name, other)}
    cells = {side: _cell(scores, side, settings[side], way.role) for side in (name, other)}
    mean = {side: float(cell.mean()) if len(cell) else np.nan for side, cell in cells.items()}
    superior = probability_of_superiority(cells[name], cells[other], frames.study.measure.confidence)
    row: dict[str, Any] = {"variant": name, "against": other, "kind": way.kind}
    row |= {"setting": settings[name] or "", "against_setting": settings[other] or ""}
    row |= {"lr": scores.rate(settings[name]), "against_lr": scores.rate(settings[other])}
    row |= {"delta": estimate.value, "low": estimate.low, "high": estimate.high, "se": estimate.se, "df": estimate.df}
    row |= {"p": estimate.p, "p_holm": decision.p_holm, "p_equivalent": decision.p_equivalent}
    row |= {"decision": decision.verdict, "primary": way.kind == "own_best"}
    row["error_bar"] = {"own_best": "retune", "confirmed": "tune_once"}.get(way.kind, "fixed")
    row |= {"n": len(cells[name]), "n_against": len(cells[other]), "left": mean[name], "right": mean[other]}
    row["stability"] = np.nan
    if not isinstance(contrast, str):
        row["stability"] = contrast.left_stability * contrast.right_stability
    row["lr_confounded"] = False
    chosen = way.kind in ("own_best", "shared")
    row["unbracketed"] = chosen and any(scores.edge(side, settings[side]) for side in (name, other))
    # A choice rests on all the cells that it was made among.
    row["provisional"] = any(
        scores.unfinished(side, None if chosen else settings[side], way.role) for side in (name, other)
    )
    row["confounded"] = confounds(frames, [name, other])
    row |= {"superiority": superior.value, "superiority_low": superior.low, "superiority_high": superior.high}
    row["superiority_verdict"] = superior.verdict or ""
    row["parameters_ratio"] = _ratio(frames, name, other, "parameters")
    row["flops_ratio"] = _ratio(frames, name, other, "forward_flops")
    row["reason"] = estimate.reason
    return row | {"rule": f"{way.text} {interval_rule(frames)}"}


def _cell(scores: StudyScores, variant: str, setting: str | None, role: str) -> np.ndarray:
    return np.array([seed.test_score for seed in scores.members(variant, setting, role)], dtype=float)


def _ratio(frames: Frames, name: str, other: str, quantity: str) -> float:
    described = frames.run.get("variants", {})
    values = [described.get(side, {}).get(quantity) for side in (name, other)]
    return values[0] / values[1] if all(values) else np.nan


def _confounded(frame: pd.DataFrame) -> pd.Series:
    """Own-best rows whose decision and the shared one are both decided, differ, and were made at different settings."""
    rows = frame.to_dict("records")
    shared = {row["variant"]: row for row in rows if row["kind"] == "shared"}
    flags = []
    for row in rows:
        other = shared.get(row["variant"]) if row["kind"] == "own_best" else None
        flags.append(
            other is not None
            and row["decision"] in DECIDED
            and other["decision"] in DECIDED
            and row["decision"] != other["decision"]
            and (row["setting"], row["against_setting"]) != (other["setting"], other["against_setting"])
        )
    return pd.Series(flags, index=frame.index, dtype=bool)


def class_contrasts_frame(frames: Frames, scores: StudyScores, made: Sequence[Way]) -> pd.DataFrame:
    """A row a contrast, way (own best, shared) and class."""
    rows = []
    for way in made:
        if way.kind not in ("own_best", "shared"):
            continue
        for name, other in against(frames).items():
            if any(_unresolved(way, side, scores) for side in (name, other)):
                continue
            at = (name, str(way.choice[name])), (other, str(way.choice[other]))
            found = (scores.own_best(name, other) if way.kind == "own_best" else scores.fixed(*at))[1:]
            left, right = (scores.cell(*side).test[1:] for side in at)
            for place, label in enumerate(frames.class_names):
                estimate = found[place].estimate
                row: dict[str, Any] = {"variant": name, "against": other, "kind": way.kind, "class": label}
                row |= {"delta": estimate.value, "low": estimate.low, "high": estimate.high}
                row |= {"left": float(left[place]), "right": float(right[place]), "n": estimate.n}
                text = way.text.replace(PRIMARY, DESCRIPTIVE)
                rule = f"{text} {scored_text(frames)} {interval_text(frames)}"
                rows.append(row | {"reason": estimate.reason, "rule": rule})
    columns = ["variant", "against", "kind", "class", "delta", "low", "high", "left", "right", "n", "reason", "rule"]
    return pd.DataFrame(rows, columns=columns)
