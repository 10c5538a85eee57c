"""The verdicts as the page shows them: a row of each variant with its small interval."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ablate.analysis.analyse import Analysis
from ablate.report.format import count_text, number, percent, percent_interval, percent_spread
from ablate.report.lookup import (
    WHOLE,
    Row,
    busy,
    by_variant,
    has_intervals,
    on_edge,
    order,
    primary_contrasts,
    primary_kind,
    provisional,
    setting_label,
    untuned,
)
from ablate.report.words.component_words import DECISIONS, differs_text, reach, seeds_text


@dataclass(frozen=True)
class Scale:
    """The axis of the small intervals, in the units of their drawing (0 … 200)."""

    zero: float
    rope_low: float
    rope_width: float
    label: str


@dataclass(frozen=True)
class VerdictRow:
    """One variant in the table of verdicts, as it is shown."""

    variant: str
    differs: str
    verdict: str
    flags: tuple[str, ...]
    miou: str
    delta: str
    interval: str
    p: str
    reach: tuple[str, ...]
    """Of an undecided one: what could have been found, and what would decide it."""
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

    @property
    def is_open(self) -> bool:
        """Return whether nothing was decided: such an interval is drawn dashed."""
        return self.verdict not in DECISIONS


def verdict_rows(analysis: Analysis) -> tuple[list[VerdictRow], Scale]:
    """Return the rows in order, the baseline first, and the axis that their intervals share."""
    primary = primary_contrasts(analysis)
    ends = primary[["delta", "low", "high"]].to_numpy(dtype=float).ravel()
    ends = np.append(ends[np.isfinite(ends)], [-2 * analysis.rope, 2 * analysis.rope])
    low, high = float(ends.min()), float(ends.max())
    margin = 0.04 * (high - low)
    low, high = low - margin, high + margin

    def place(value: float) -> float | None:
        return round(200 * (value - low) / (high - low), 2) if np.isfinite(value) else None

    zero, left, right = place(0.0), place(-analysis.rope), place(analysis.rope)
    drawn = "Interval" if has_intervals(analysis) else "Δ"
    label = f"{drawn}, {percent(low, 0, sign=True)} to {percent(high, 0, sign=True)}"
    scale = Scale(zero or 0.0, left or 0.0, (right or 0.0) - (left or 0.0), label)
    rows, compared = by_variant(analysis.variants), by_variant(primary)
    made = [
        _row(analysis, variant, rows[variant], compared.get(variant), place)
        for variant in order(analysis)
        if variant in rows
    ]
    return made, scale


def _row(
    analysis: Analysis, variant: str, row: Row, contrast: Row | None, place: Callable[[float], float | None]
) -> VerdictRow:
    cell = analysis.cells[(analysis.cells["variant"] == variant) & (analysis.cells["setting"] == row["setting"])]
    dead = float(cell["n_diverged"].iloc[0]) if len(cell) else 0.0
    interval = p = ""
    if variant == analysis.baseline:
        verdict, delta, x, low, high = "baseline", "", 0.0, None, None
    elif contrast is None:
        verdict, delta, x, low, high = "undecided", "–", None, None, None
    else:
        verdict, x = str(contrast["decision"]), contrast["delta"]
        low, high = contrast["low"], contrast["high"]
        delta = percent(x, sign=True)
        interval = percent_interval(low, high)
        if np.isfinite(contrast["p_holm"]):
            p = f"p {number(contrast['p_holm'], 2)} (Holm)"
    return VerdictRow(
        variant=variant,
        differs=differs_text(analysis, variant) if not row["control"] else f"A/A copy of {row['against']}",
        verdict=verdict,
        flags=_flags(analysis, row, contrast),
        miou=_score(analysis, variant, row, contrast),
        delta=delta,
        interval=interval,
        p=p,
        reach=() if contrast is None else _reach(contrast),
        x=None if x is None else place(x),
        low=None if low is None else place(low),
        high=None if high is None else place(high),
        at=setting_label(analysis, str(row["setting"]), WHOLE) if isinstance(row["setting"], str) else "–",
        edge=_edge(analysis, variant),
        rise=number(float(cell["rise"].iloc[0])) if len(cell) else "–",
        diverged=f"{dead:.0f} of {cell['n'].iloc[0]:.0f} diverged" if dead else "",
        speed=speed_text(analysis, variant),
        parameters=count_text(row["parameters"]),
        control=bool(row["control"]),
    )


def _score(analysis: Analysis, variant: str, row: Row, contrast: Row | None) -> str:
    """Return the test mIoU that the variant is judged by: of its fresh seeds where they decide."""
    if primary_kind(analysis) != "confirmed":
        return percent_spread(row["test_mean"], row["test_low"], row["test_high"])
    primary = primary_contrasts(analysis)
    bases = primary.loc[primary["against"] == variant, "right"]
    return percent(contrast["left"] if contrast is not None else bases.iloc[0] if len(bases) else np.nan)


def _reach(contrast: Row) -> tuple[str, ...]:
    if not reach(contrast):
        return ()
    found = (
        f"detectable: {percent(contrast['detectable'])} points" if np.isfinite(contrast["detectable"]) else "",
        f"to decide: {seeds_text(contrast['seeds_needed'])}" if not np.isnan(contrast["seeds_needed"]) else "",
    )
    return tuple(filter(None, found))


def _edge(analysis: Analysis, variant: str) -> str:
    if variant in untuned(analysis):
        return "no other has a result yet"
    return "edge of the grid" if variant in on_edge(analysis) else ""


def _flags(analysis: Analysis, row: Row, contrast: Row | None) -> tuple[str, ...]:
    flags = []
    if contrast is not None and contrast["untrained"]:
        flags.append("untrained")
    if contrast is not None and bool(contrast["lr_confounded"]):
        flags.append("lr-confounded")
    if row["variant"] in provisional(analysis):
        flags.append("provisional")
    if isinstance(row["confounds"], str) and row["confounds"]:
        flags.append("own training settings")
    return tuple(flags)


def speed_ratio(analysis: Analysis, variant: str) -> float:
    """Return training images per second over the baseline's, measured alone; NaN where it was not measured."""
    frame = analysis.throughput
    rows = frame[(frame["variant"] == variant) & (frame["quantity"] == "train_images_per_s")]
    return float(rows["ratio"].iloc[0]) if len(rows) else np.nan


def speed_text(analysis: Analysis, variant: str) -> str:
    """Return training images per second against the baseline's, measured alone; a dash where nothing was measured.

    A star says that the machine was busy.
    """
    frame, mark = analysis.throughput, "*" * bool(busy(analysis))
    rows = frame[(frame["variant"] == variant) & (frame["quantity"] == "train_images_per_s")]
    if rows.empty or not np.isfinite(rows["value"].iloc[0]):
        return "–"
    if variant == analysis.baseline or not np.isfinite(rows["ratio"].iloc[0]):
        return f"{number(float(rows['value'].iloc[0]))} img/s{mark}"
    return f"{rows['ratio'].iloc[0]:.2f}×{mark}"
