"""The verdicts as the page shows them: a row of each variant with its small interval, and the rule behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ablate.analysis.analyse import Analysis
from ablate.report.figures.common import WHOLE, by_variant, looks, order, setting_label
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
    interval: str
    p: str
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
    interval = p = ""
    if variant == analysis.baseline:
        verdict, delta, x, low, high = "baseline", "", 0.0, None, None
    elif contrast is None:
        verdict, delta, x, low, high = "undecided", "–", None, None, None
    else:
        verdict, x = str(contrast["decision"]), contrast["delta"]
        low, high = contrast["low"], contrast["high"]
        delta = percent(x, sign=True)
        if np.isfinite(low):
            interval = f"[{percent(low, sign=True)}, {percent(high, sign=True)}]"
        if np.isfinite(contrast["p_holm"]):
            p = f"p {number(contrast['p_holm'], 2)}"
    return Row(
        variant=variant,
        look=page_look(looks(analysis)[variant]),
        differs=str(row["differs"] or "") if not row["control"] else f"A/A copy of {row['against']}",
        verdict=verdict,
        kind=KIND.get(verdict, "open"),
        flags=_flags(row, contrast),
        miou=miou,
        delta=delta,
        interval=interval,
        p=p,
        x=None if x is None else place(x),
        low=None if low is None else place(low),
        high=None if high is None else place(high),
        at=setting_label(analysis, str(row["setting"]), WHOLE) if isinstance(row["setting"], str) else "–",
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


SHORT_RULE = (
    "Δ against the baseline with its interval, each variant at its own best rate, chosen on validation; grey: "
    "differences that count as none. The verdict goes by p, which is corrected for the number of variants (Holm); the "
    "interval is not, so that it may exclude zero where nothing is decided. Rise: 1 = the training loss never rose. "
    "Speed: against the baseline's, measured alone."
)


def rule(analysis: Analysis) -> str:
    """The rule behind the decisions, in full."""
    primary = (
        analysis.contrasts[analysis.contrasts["primary"].astype(bool)]
        if len(analysis.contrasts)
        else analysis.contrasts
    )
    return str(primary["rule"].iloc[0]) if len(primary) else ""
