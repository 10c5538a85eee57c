"""What the page says first: the row of each variant, and the four questions a reader comes with, from the analysis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ablate.analysis.analyse import Analysis
from ablate.report.figures.common import by_variant, looks, order, setting_label
from ablate.report.style import COLORS, DASHES, Look, count_text, number, percent

KIND = {"better": "good", "worse": "bad", "equivalent": "even", "undecided": "open", "baseline": "even"}
WORDS = {
    "supported": "good",
    "refuted": "bad",
    "inconclusive": "open",
    "complete": "even",
    "diverged": "bad",
    "failed": "bad",
    "pruned": "open",
    "missing": "open",
    "under-converged": "open",
    "converged": "even",
    "lost": "bad",
    "gained": "good",
    **KIND,
}


@dataclass(frozen=True)
class PageLook:
    """A variant's look on the page: classes of its colour, and its dashes."""

    stroke: str
    fill: str
    dashes: str


@dataclass(frozen=True)
class Scale:
    """The axis of the small intervals, in the units of their drawing (0 … 200)."""

    zero: float
    rope_low: float
    rope_width: float
    label: str


@dataclass(frozen=True)
class Row:
    """One variant in the table of verdicts, as it is shown."""

    variant: str
    look: PageLook
    differs: str
    verdict: str
    kind: str
    flags: tuple[str, ...]
    miou: str
    delta: str
    x: float | None
    low: float | None
    high: float | None
    at: str
    edge: str
    rise: str
    diverged: str
    speed: str
    parameters: str
    control: bool


@dataclass(frozen=True)
class Card:
    """One question and its answer."""

    question: str
    answer: str
    more: str


def page_look(look: Look) -> PageLook:
    """The classes that the page's style sheet defines for a variant's colour."""
    place = COLORS.index(look.color)
    dash: Any = look.dash
    dashes = "" if dash == DASHES[0] else " ".join(f"{2 * length:g}" for length in dash[1])
    return PageLook(f"s{place}", f"f{place}", dashes)


def badge_kind(word: str) -> str:
    """The kind of badge for a word of a table, by its first part: "better (lr-confounded)" is good."""
    return WORDS.get(word.split(" (")[0], "")


def verdict_rows(analysis: Analysis) -> tuple[list[Row], Scale]:
    """The rows in order, the baseline first, and the axis that their intervals share."""
    contrasts = analysis.contrasts
    primary = contrasts[contrasts["primary"].astype(bool)] if len(contrasts) else contrasts
    ends = primary[["delta", "low", "high"]].to_numpy(dtype=float).ravel() if len(primary) else np.array([])
    ends = np.append(ends[np.isfinite(ends)], [-2 * analysis.rope, 2 * analysis.rope])
    low, high = float(ends.min()), float(ends.max())
    margin = 0.04 * (high - low)
    low, high = low - margin, high + margin

    def place(value: float) -> float | None:
        return round(200 * (value - low) / (high - low), 2) if np.isfinite(value) else None

    zero, left, right = place(0.0), place(-analysis.rope), place(analysis.rope)
    label = f"Interval, {percent(low, 0, sign=True)} … {percent(high, 0, sign=True)}"
    scale = Scale(zero or 0.0, left or 0.0, (right or 0.0) - (left or 0.0), label)
    rows, compared = by_variant(analysis.variants), by_variant(primary)
    made = [
        _row(analysis, variant, rows[variant], compared.get(variant), place)
        for variant in order(analysis)
        if variant in rows
    ]
    return made, scale


def _row(analysis: Analysis, variant: str, row: dict[str, Any], contrast: dict[str, Any] | None, place: Any) -> Row:
    cell = analysis.cells[(analysis.cells["variant"] == variant) & (analysis.cells["setting"] == row["setting"])]
    dead = float(cell["n_diverged"].iloc[0]) if len(cell) else 0.0
    half = (row["test_high"] - row["test_low"]) / 2
    miou = percent(row["test_mean"]) + (f" ± {percent(half)}" if np.isfinite(half) else "")
    if variant == analysis.baseline:
        verdict, delta, x, low, high = "baseline", "", 0.0, None, None
    elif contrast is None:
        verdict, delta, x, low, high = "undecided", "–", None, None, None
    else:
        verdict, x = str(contrast["decision"]), contrast["delta"]
        low, high = contrast["low"], contrast["high"]
        delta = percent(x, sign=True)
        if np.isfinite(low):
            delta += f" [{percent(low, sign=True)}, {percent(high, sign=True)}]"
    return Row(
        variant=variant,
        look=page_look(looks(analysis)[variant]),
        differs=str(row["differs"] or "") if not row["control"] else f"A/A copy of {row['against']}",
        verdict=verdict,
        kind=KIND.get(verdict, "open"),
        flags=_flags(row, contrast),
        miou=miou,
        delta=delta,
        x=None if x is None else place(x),
        low=None if low is None else place(low),
        high=None if high is None else place(high),
        at=setting_label(analysis, str(row["setting"])) if isinstance(row["setting"], str) else "–",
        edge="edge of the grid" if row["unbracketed"] else "",
        rise=number(float(cell["rise"].iloc[0])) if len(cell) else "–",
        diverged=f"{dead:.0f} of {cell['n'].iloc[0]:.0f} diverged" if dead else "",
        speed=speed_text(analysis, variant),
        parameters=count_text(row["parameters"]),
        control=bool(row["control"]),
    )


def _flags(row: dict[str, Any], contrast: dict[str, Any] | None) -> tuple[str, ...]:
    flags = []
    if contrast is not None and bool(contrast["lr_confounded"]):
        flags.append("lr-confounded")
    if bool(row["provisional"]):
        flags.append("provisional")
    if isinstance(row["confounds"], str) and row["confounds"]:
        flags.append(f"own settings: {row['confounds']}")
    return tuple(flags)


def speed_text(analysis: Analysis, variant: str) -> str:
    """Training images per second against the baseline's, measured alone; a dash where nothing was measured."""
    frame = analysis.throughput
    if frame.empty:
        return "–"
    rows = frame[(frame["variant"] == variant) & (frame["quantity"] == "train_images_per_s")]
    if rows.empty or not np.isfinite(rows["value"].iloc[0]):
        return "–"
    if variant == analysis.baseline or not np.isfinite(rows["ratio"].iloc[0]):
        return f"{number(float(rows['value'].iloc[0]))} img/s"
    return f"{rows['ratio'].iloc[0]:.2f}×"


def cards(analysis: Analysis) -> list[Card]:
    """Which component helps, at which rate, how sure, at what cost."""
    contrasts = analysis.contrasts
    primary = (
        contrasts[contrasts["primary"].astype(bool) & ~contrasts["control"].astype(bool)]
        if len(contrasts)
        else contrasts
    )
    if primary.empty:
        return []
    by_decision = {word: list(primary.loc[primary["decision"] == word, "variant"]) for word in KIND}
    better, worse = by_decision["better"], by_decision["worse"]
    shown = [*(_component(analysis, v, True) for v in better), *(_component(analysis, v, False) for v in worse)]
    rest = [f"{', '.join(by_decision[word])}: {word}" for word in KIND if word != "baseline" and by_decision[word]]
    rates = {variant: setting_label(analysis, setting) for variant, setting in analysis.own_best.items()}
    spread = len(set(rates.values()))
    chosen = next(iter(rates.values())) if spread == 1 else f"{spread} different ones"
    edge = list(analysis.variants.loc[analysis.variants["unbracketed"].astype(bool), "variant"])
    seeds = primary["n"].astype(int)
    decided = int(primary["decision"].isin(["better", "worse", "equivalent"]).sum())
    return [
        Card("Which component helps?", "; ".join(shown) or "None is shown to help", "; ".join(rest)),
        Card(
            "At which rate?",
            chosen,
            (
                ", ".join(f"{variant} {text}" for variant, text in rates.items())
                if spread > 1
                else "Chosen by every variant on validation."
            )
            + (f" On the edge of the grid for {_all(edge, analysis)}: the best may lie beyond." if edge else ""),
        ),
        Card(
            "How sure?",
            f"{decided} of {len(primary)} decided",
            f"{100 * analysis.confidence:.0f} % intervals over {_range(seeds)} seeds and the test images, "
            f"Holm-corrected; differences within ± {percent(analysis.rope)} points count as none.",
        ),
        _price(analysis, better, worse, list(primary["variant"])),
    ]


def _all(variants: list[str], analysis: Analysis) -> str:
    return "every variant" if len(variants) == len(analysis.own_best) else ", ".join(variants)


def _price(analysis: Analysis, better: list[str], worse: list[str], compared: list[str]) -> Card:
    """What the helping component costs, or what going without it saves; then what the others do."""
    first = next(iter(better or worse), None)
    costs = {variant: cost for variant in compared if (cost := _cost(analysis, variant))}
    if not costs:
        return Card("At what cost?", "Not measured", "")
    answer = "" if first is None else costs.pop(first, "Not measured")
    lead = "" if first is None else f"{first}, against {analysis.baseline}"
    others = "; ".join(f"{variant}: {cost}" for variant, cost in costs.items())
    if first is not None and not better:
        answer = f"Without: {answer}"
    if first is None:
        answer = _span_of_costs(analysis, compared)
        lead = f"Against {analysis.baseline}"
    return Card("At what cost?", answer, ". ".join(text for text in (lead, others) if text) + ".")


def _span_of_costs(analysis: Analysis, variants: list[str]) -> str:
    """From which to which number of parameters the variants go, as factors of the baseline's."""
    rows = by_variant(analysis.variants)
    factors = sorted(f for v in variants if np.isfinite(f := float(rows[v]["parameters_ratio"])))
    if not factors:
        return "Not measured"
    low, high = (f"{factor:.2f}×" for factor in (factors[0], factors[-1]))
    return f"{low} parameters" if low == high else f"{low} to {high} parameters"


def _component(analysis: Analysis, variant: str, better: bool) -> str:
    """What helps in words of the settings: "block residual rather than plain" for a variant that has it and is better.

    A variant that is worse shows that what the baseline has instead helps: "skip concat rather than none".
    """
    described = (analysis.frames.run.get("variants") or {}).get(variant) or {}
    differs = described.get("differs") or {}
    if not differs or any(not isinstance(pair, list) or len(pair) != 2 for pair in differs.values()):
        return variant if better else f"{analysis.baseline} rather than {variant}"
    pairs = [(field, *(pair[::-1] if better else pair)) for field, pair in differs.items()]
    return ", ".join(f"{field} {has} rather than {lacks}" for field, has, lacks in pairs)


def _range(values: pd.Series) -> str:
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f"{low} to {high}"


def _cost(analysis: Analysis, variant: str) -> str:
    row = by_variant(analysis.variants)[variant]
    parts = []
    if np.isfinite(row["parameters_ratio"]):
        parts.append(f"{row['parameters_ratio']:.2f}× parameters")
    speed = speed_text(analysis, variant)
    if speed.endswith("×"):
        parts.append(f"{speed} training speed")
    return ", ".join(parts)


def headline(analysis: Analysis, most: int = 4) -> str:
    """The finding in one sentence: every primary decision with its number and interval, the decided ones first."""
    contrasts = analysis.contrasts
    primary = (
        contrasts[contrasts["primary"].astype(bool) & ~contrasts["control"].astype(bool)]
        if len(contrasts)
        else contrasts
    )
    if primary.empty:
        return f"{analysis.baseline} stands alone: there is no other variant to compare it with."
    ordered = primary.assign(_size=-primary["delta"].abs()).sort_values("_size", kind="stable")
    parts, room = [], most
    for decision, words in _CLAUSES.items():
        rows = ordered[ordered["decision"] == decision].head(room)
        room -= len(rows)
        if decision in ("better", "worse"):
            parts += [words.format(_sized(row)) for _, row in rows.iterrows()]
        elif len(rows):
            # What is not a difference is named once, for all of whom it is said.
            unit = "" if parts else " points of test mIoU"
            said = ", ".join(_signed(row, "" if place else unit) for place, (_, row) in enumerate(rows.iterrows()))
            parts.append(f"{words.format(percent(analysis.rope))}: {said}")
    if len(ordered) > most:
        parts.append(f"{len(ordered) - most} more variants below")
    seeds = _range(primary["n"].astype(int))
    if (primary["decision"] == "undecided").all():
        # One list, after one colon.
        said = "; ".join(parts).replace("undecided: ", "", 1)
        return f"Against {analysis.baseline} nothing is decided: {said} – each at its own best rate, {seeds} seeds."
    return f"Against {analysis.baseline}: {'; '.join(parts)} – each at its own best rate, {seeds} seeds."


# How each decision is said, the strongest first.
_CLAUSES = {
    "better": "{0[0]} gains {0[1]} points of test mIoU{0[2]}",
    "worse": "{0[0]} loses {0[1]} points of test mIoU{0[2]}",
    "equivalent": "equivalent within ± {0} points",
    "undecided": "undecided",
}


def _interval(row: pd.Series) -> str:
    return f" [{percent(row['low'], sign=True)}, {percent(row['high'], sign=True)}]" if np.isfinite(row["low"]) else ""


def _sized(row: pd.Series) -> tuple[str, str, str]:
    return str(row["variant"]), percent(abs(row["delta"])), _interval(row)


def _signed(row: pd.Series, unit: str) -> str:
    known = f" {percent(row['delta'], sign=True)}{unit}{_interval(row)}" if np.isfinite(row["delta"]) else ""
    return f"{row['variant']}{known}"


SHORT_RULE = (
    "Δ against the baseline, each variant at its own best rate, chosen on validation; grey: differences that count as "
    "none. Rise: 1 = the training loss never rose. Speed: against the baseline's, measured alone."
)


def rule(analysis: Analysis) -> str:
    """The rule behind the decisions, in full."""
    primary = (
        analysis.contrasts[analysis.contrasts["primary"].astype(bool)]
        if len(analysis.contrasts)
        else analysis.contrasts
    )
    return str(primary["rule"].iloc[0]) if len(primary) else ""
