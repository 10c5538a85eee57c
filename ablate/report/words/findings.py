"""The findings of a study as sentences, made from its intervals: what differs, where, at which rates, at what cost.

No sentence is stronger than its statistics: "higher" and "lower" are said of the primary decision only where it was
made, of descriptive numbers only where their interval excludes zero; everything else is said to be undecided.
Scores are in per cent and their differences in points, as in every rendered table.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import isfinite, isnan, nan

import pandas as pd

from ablate.analysis.analyse import Analysis
from ablate.analysis.looks import basis
from ablate.report.format import percent
from ablate.report.lookup import Row, once_an_analysis, rows_of, setting_words
from ablate.report.words.component_words import DECISIONS, interaction_sentence, reach
from ablate.stats.intervals import larger_more_often
from ablate.wording import count_of, listed

points = partial(percent, sign=True)
# The frames of the analysis that sentences are made from.
FRAMES = (
    *("variants", "contrasts", "cells", "class_contrasts", "detail", "detail_verdicts", "stability", "convergence"),
    *("gate_ablation", "throughput"),
)


def findings(analysis: Analysis) -> dict[str, list[tuple[str, str]]]:
    """Return by variant ("" for the study) every topic with its sentence; the baseline's need no comparison."""
    said: dict[str, list[tuple[str, str]]] = {}
    for variant in analysis.variants_in_order:
        for topic, (say, compares) in TOPICS.items():
            if (variant != analysis.baseline or not compares) and (text := say(analysis, variant)):
                said.setdefault(variant, []).append((topic, text))
    for row in rows_of(analysis.interactions):
        said.setdefault("", []).append(("interaction", interaction_sentence(analysis, row)))
    return said


# --- quality --------------------------------------------------------------------------------------------------------


def _quality(analysis: Analysis, variant: str) -> str:
    row = _row(analysis, "contrasts", variant, primary=True)
    if row is None:
        return ""
    other, level = row["against"], f"{analysis.confidence:.0%}"
    name = f"{variant} (an A/A copy of {other})" if row["control"] else variant
    if not isfinite(row["low"]):
        return f"{name} cannot be compared with {other}: {row['reason'] or 'no interval'}."
    numbers = f"{points(row['delta'])} points of test mIoU ({level} interval {_span(row)}; n = {_seeds_of(row)}"
    numbers += f"; Holm's p = {row['p_holm']:.2g})" if row["decision"] != "equivalent" else ")"
    levels = f"{100 * row['left']:.1f} % against {100 * row['right']:.1f} %"
    if row["decision"] in ("better", "worse"):
        said = f"{name} scores {'higher' if row['decision'] == 'better' else 'lower'} than {other}: {numbers}, {levels}"
    elif row["decision"] == "equivalent":
        said = f"{name} and {other} are equivalent within ±{100 * analysis.rope:g} points: {numbers}, {levels}"
    elif row["decision"] == "futile":
        said = f"{name} against {other} was stopped early, as more seeds would hardly have decided it: {numbers}"
        said += f", {levels}"
    else:
        said = f"Whether {name} differs from {other} is undecided: {numbers}, {levels}"
    place = row["at"]
    if row["setting"] != row["against_setting"]:
        place = f"{variant} at {row['at']}, {other} at {row['against_at']}"
    fresh = ", on seeds that took no part in choosing it" if row["kind"] == "confirmed" else ""
    text = f"{said}, each at its own best setting ({place}){fresh}.{_reservations(analysis, row)}"
    if could := reach(row):
        text += f" {could}."
    return text


@once_an_analysis
def _tables(analysis: Analysis) -> dict[str, dict[str, list[Row]]]:
    """Return the frames that sentences are made from, each as its rows by variant; settings in words: `at`."""
    tables: dict[str, dict[str, list[Row]]] = {}
    for name in FRAMES:
        found = tables.setdefault(name, {})
        for row in rows_of(getattr(analysis, name)):
            for key, said in (("setting", "at"), ("against_setting", "against_at")):
                if isinstance(row.get(key), str):
                    row[said] = setting_words(analysis, row[key])
            found.setdefault(row["variant"], []).append(row)
    return tables


def _rows(analysis: Analysis, table: str, variant: str) -> list[Row]:
    """Return the rows of a frame that are of a variant."""
    return _tables(analysis)[table].get(variant, [])


def _row(analysis: Analysis, table: str, variant: str, **equal: str | bool) -> Row | None:
    """Return the first row of a variant whose columns have the values given, or None."""
    rows = _rows(analysis, table, variant)
    return next((row for row in rows if all(row[column] == value for column, value in equal.items())), None)


def _of_variant(analysis: Analysis, variant: str) -> Row:
    return _rows(analysis, "variants", variant)[0]


def _reservations(analysis: Analysis, row: Row) -> str:
    notes = []
    variants = {name: _of_variant(analysis, name) for name in (row["variant"], row["against"])}
    edges: dict[str, list[str]] = {}
    for name, one in variants.items():
        if one["unbracketed"]:
            edges.setdefault(str(one["bracket"]), []).append(name)
    for why, names in edges.items():
        notes.append(f"the best rate of {listed(names)} is not bracketed, as {why}")
    if row["provisional"]:
        notes.append("trials are still without a result, so this is provisional")
    if row["confounded"]:
        notes.append(f"training settings differ as well ({row['confounded']})")
    return f" Note that {'; '.join(notes)}." if notes else ""


def _rates(analysis: Analysis, variant: str) -> str:
    """Say what the setting does to the variant, and how its contrast depends on the setting at which it is made."""
    said = _sensitivity(analysis, variant)
    own, shared = (_row(analysis, "contrasts", variant, kind=kind) for kind in ("own_best", "shared"))
    if own is not None and shared is not None and isfinite(shared["low"]):
        said += _dependence(analysis, variant, own, shared)
    return " ".join(said)


def _sensitivity(analysis: Analysis, variant: str) -> list[str]:
    """Say what the variant loses at the other settings, by the means that its own was chosen by."""
    cells = _rows(analysis, "cells", variant)
    best = [row for row in cells if row["regret"] == 0]
    rest = sorted((row for row in cells if row["regret"] > 0), key=lambda row: row["regret"])
    if len(best) != 1 or not rest:
        return []
    losses = [f"{100 * row['regret']:.1f} points lower at {row['at']}" for row in rest]
    if len(losses) > 4:
        losses = [losses[0], f"{losses[-1]}, with the {len(losses) - 2} others between"]
    place = best[0]["at"]
    again = float(_of_variant(analysis, variant)["stability_of_choice"])
    drawn = isfinite(again) and best[0]["n"] > 1
    sure = f" (in {100 * again:.0f} % of the bootstrap replicates)" if drawn else ""
    return [f"{variant} did best at {place}{sure}; its mean validation mIoU is {listed(losses)} (not tested)."]


def _dependence(analysis: Analysis, variant: str, own: Row, shared: Row) -> list[str]:
    rows = _rows(analysis, "contrasts", variant)
    matched = [row for row in rows if row["kind"] == "matched" and not isnan(row["low"])]
    if own["setting"] == own["against_setting"] == shared["setting"]:
        text = f"It is compared with {own['against']} at the setting that is best for all variants together"
    else:
        text = (
            f"At the setting that is best for all variants together ({shared['at']}), {variant} differs from "
            f"{own['against']} by {points(shared['delta'])} points ({_span(shared)}, uncorrected)"
        )
    if len(matched) > 1:
        low, high = (most(matched, key=lambda row: row["delta"]) for most in (min, max))
        text += (
            f"; setting by setting, it ranges from {points(low['delta'])} ({low['at']}) to {points(high['delta'])} "
            f"({high['at']}): of {len(matched)} settings the extremes, which chance drives apart"
        )
    said = [f"{text}."]
    if own["lr_confounded"]:
        moved = {"low": own["interaction_low"], "high": own["interaction_high"]}
        said.append(
            f"The difference depends on how the rate is chosen: with each variant at its own best it is "
            f"{points(own['interaction'])} points ({_span(moved)}; Holm's p = {own['interaction_p']:.2g}) from what it "
            "is at the shared setting, so a comparison at one rate would have been confounded with the choice of rate."
        )
    return said


def _classes(analysis: Analysis, variant: str) -> str:
    rows = [row for row in _rows(analysis, "class_contrasts", variant) if not isnan(row["low"])]
    rows.sort(key=lambda row: row["delta"])
    if not rows:
        return ""
    lower = [f"{row['class']} ({points(row['delta'])})" for row in rows if row["high"] < 0]
    higher = [f"{row['class']} ({points(row['delta'])})" for row in reversed(rows) if row["low"] > 0]
    parts = [f"{word} in {listed(names)}" for word, names in (("lower", lower), ("higher", higher)) if names]
    note = f"points; {analysis.confidence:.0%} intervals, each class by itself, uncorrected"
    main = _row(analysis, "contrasts", variant, primary=True)
    if main is not None and main["decision"] not in DECISIONS:
        note += "; the difference of the mean is undecided"
    if not parts:
        return f"For no class does the interval of the difference in IoU exclude zero ({note})."
    open_ones = len(rows) - len(lower) - len(higher)
    rest = f"; {open_ones} of {len(rows)} classes {'are' if open_ones > 1 else 'is'} undecided" if open_ones else ""
    return f"By class, the IoU of {variant} is {' and '.join(parts)}{rest} ({note})."


def _detail(analysis: Analysis, variant: str) -> str:
    verdict = _row(analysis, "detail_verdicts", variant)
    if verdict is None:
        return ""
    rows = {row["measure"]: row for row in _rows(analysis, "detail", variant)}
    words = {"boundary_3": "boundary IoU", "thin_3": "recall of thin structures", "interior": "interior IoU"}
    numbers = [
        f"{word} {points(rows[name]['delta'])} ({_span(rows[name])})"
        for name, word in words.items()
        if name in rows and isfinite(rows[name]["low"])
    ]
    if not numbers:
        return f"Fine detail of {variant} is undecided: {verdict['reason']}."
    said = {
        "lost": f"{variant} loses fine detail beyond what it loses elsewhere",
        "gained": f"{variant} gains fine detail beyond what it gains elsewhere",
    }.get(verdict["verdict"], f"Whether {variant} gains or loses fine detail beyond the rest is undecided")
    return f"{said}: against {verdict['against']}, {'; '.join(numbers)} points."


# --- stability and convergence --------------------------------------------------------------------------------------


def _stability(analysis: Analysis, variant: str) -> str:
    """Say at which settings the variant rises, diverges, or rises more than what it is compared with."""
    cells = _rows(analysis, "cells", variant)
    other = _of_variant(analysis, variant)["against"]
    said, more = [], []
    for cell in cells:
        if cell["n_diverged"]:
            said.append(f"at {cell['at']} {cell['n_diverged']} of {count_of(cell['n'], 'seed')} diverged")
        if variant == analysis.baseline:
            continue
        if _rises_more(analysis, variant, other, cell["setting"]):
            means = [_rise(analysis, name, cell["setting"]) for name in (variant, other)]
            more.append(f"{cell['at']} ({' against '.join(means)})")
    parts = []
    if more:
        note = f"in most pairs of runs; {analysis.confidence:.0%} intervals, each setting by itself, uncorrected"
        parts.append(f"The training loss of {variant} rises more than that of {other} at {listed(more)} ({note}).")
    elif variant != analysis.baseline:
        parts.append(f"At no setting is the training loss of {variant} shown to rise more than that of {other}.")
    if said:
        parts.append(f"Of {variant}, {listed(said)}.")
    if not parts:
        known = [cell["rise"] for cell in cells if not isnan(cell["rise"])]
        worst = max(known, default=nan)
        if not isfinite(worst):
            return ""
        parts.append(f"No seed of {variant} diverged; the mean rise of its cells is at most {worst:.2f}.")
    return " ".join(parts)


def _rises_more(analysis: Analysis, variant: str, other: str, setting: str) -> bool:
    """Tell whether the loss of the variant's runs is shown to rise more often than not, as a claim would be judged."""
    rests = basis(analysis.scores, analysis.looks, variant, other, setting=setting)
    rises = [_rises(analysis).loc[[one.key for one in analysis.scores.members(*side)]] for side in rests.sides]
    if not all(len(one) and one.notna().all() for one in rises):
        return False
    estimate = larger_more_often(rises[0], rises[1], analysis.confidence)
    return bool(estimate.has_interval and estimate.low > 0.5)


@once_an_analysis
def _rises(analysis: Analysis) -> pd.Series:
    """Return the rise of every trial, by its key."""
    return analysis.frames.trials.set_index("key")["rise"].astype(float)


def _rise(analysis: Analysis, variant: str, setting: str) -> str:
    row = _row(analysis, "stability", variant, setting=setting, measure="rise")
    if row is None or isnan(row["mean"]):
        return "no result"
    return f"rise {row['mean']:.2f}" if isfinite(row["mean"]) else "rise infinite, as a seed diverged"


def _convergence(analysis: Analysis, variant: str) -> str:
    rows = _rows(analysis, "convergence", variant)
    under = [row for row in rows if row["verdict"] == "under-converged"]
    done = [row for row in rows if row["verdict"] == "converged"]
    if all(row["verdict"] == "none" for row in rows):
        return ""
    parts = []
    if under:
        gains = [f"{r['at']} (projected gain {points(r['gain'])} points, 90 % {_span(r)})" for r in under]
        parts.append(f"{variant} had not converged when training ended at {listed(gains)}")
    if done:
        settled = listed(row["at"] for row in done)
        parts.append(f"{'it' if parts else variant} had converged at {settled}")
    unknown = len(rows) - len(under) - len(done)
    if unknown:
        parts.append(f"{unknown} of {len(rows)} settings {'are' if unknown > 1 else 'is'} inconclusive")
        if unknown == len(rows):
            parts = [f"Whether {variant} had converged is inconclusive at every setting"]
    return f"{'; '.join(parts)}."


# --- why and at what cost --------------------------------------------------------------------------------------------


def _gates(analysis: Analysis, variant: str) -> str:
    """Say what flattening the attention gates does to mIoU, where the variant has any."""
    rows = _rows(analysis, "gate_ablation", variant)
    if not rows:
        return ""
    row = next((row for row in rows if row["gate"] == "all"), rows[0])
    what = "its attention gates" if row["gate"] == "all" else f"its attention gate {row['gate']}"
    head = f"Replacing the coefficients of {what} by their mean over the image changes the test mIoU of {variant} by"
    if not isfinite(row["low"]):
        return f"{head} {points(row['delta'])} points (no interval: {row['reason']})."
    interval = f"{analysis.confidence:.0%} interval over {row['n']} seeds {_span(row)}"
    said = f"{head} {points(row['delta'])} points ({interval})"
    if row["low"] > -analysis.rope and row["high"] < analysis.rope:
        counts = f"too little to count, as all of it lies within ±{100 * analysis.rope:g} points"
        return f"{said}: {counts}."
    if row["high"] < 0:
        return f"{said}: the network depends on where they look."
    return f"{said}: this does not show that their pattern helps."


def _cost(analysis: Analysis, variant: str) -> str:
    row = _of_variant(analysis, variant)
    parts = []
    if isfinite(row["parameters_ratio"]) and isfinite(row["flops_ratio"]):
        parts.append(f"{row['parameters_ratio']:.3f} times the parameters and {row['flops_ratio']:.3f} times the FLOPs")
    rates = {row["quantity"]: row for row in _rows(analysis, "throughput", variant)}
    for quantity, word in (("train_images_per_s", "trains"), ("inference_images_per_s", "predicts")):
        if quantity in rates and isfinite(rates[quantity]["low"]):
            rate = rates[quantity]
            parts.append(f"{word} at {rate['ratio']:.3f} times its speed ({rate['low']:.3f} to {rate['high']:.3f})")
    if not parts:
        return ""
    text = f"Against {row['against']}, {variant} has {parts[0]}" if "FLOPs" in parts[0] else f"{variant} {parts[0]}"
    return f"{text}; it {' and '.join(parts[1:])}." if len(parts) > 1 else f"{text}."


def _span(row: Row) -> str:
    """Return the interval of a row with `low` and `high` (fractions), in points."""
    return f"{points(row['low'])} to {points(row['high'])}"


def _seeds_of(row: Row) -> str:
    """Return how many seeds stand on both sides of a contrast, once where they are as many."""
    return f"{row['n']}" if row["n"] == row["n_against"] else f"{row['n']} and {row['n_against']}"


# Every topic with the function that says it of a variant, "" where there is nothing to say; and whether it compares the
# variant with another one, so that the baseline has none.
TOPICS: dict[str, tuple[Callable[[Analysis, str], str], bool]] = {
    "quality": (_quality, True),
    "learning rate": (_rates, False),
    "classes": (_classes, True),
    "detail": (_detail, True),
    "stability": (_stability, False),
    "convergence": (_convergence, False),
    "gates": (_gates, False),
    "cost": (_cost, True),
}
