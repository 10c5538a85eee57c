"""The verdicts as the page shows them: a row of each variant with its small interval."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np

from ablate.analysis.analyse import Analysis
from ablate.report import lookup
from ablate.report.format import count_text, number, percent, percent_interval, percent_spread
from ablate.report.words.component_words import DECISIONS, differs_text, reach, seeds_text


def verdict_rows(analysis: Analysis) -> tuple[list[SimpleNamespace], SimpleNamespace]:
    """Return the rows as they are shown, the baseline first, and the axis that their small intervals share.

    Places on the axis are in the units of the drawing, 0 to 200; None where there is nothing to draw.
    """
    primary = lookup.primary_contrasts(analysis)
    ends = primary[["delta", "low", "high"]].to_numpy(dtype=float).ravel()
    ends = np.append(ends[np.isfinite(ends)], [-2 * analysis.rope, 2 * analysis.rope])
    low, high = float(ends.min()), float(ends.max())
    margin = 0.04 * (high - low)
    low, high = low - margin, high + margin

    def place(value: float | None) -> float | None:
        known = value is not None and np.isfinite(value)
        return round(200 * (value - low) / (high - low), 2) if known else None  # type: ignore[operator]

    zero, left, right = (place(value) or 0.0 for value in (0.0, -analysis.rope, analysis.rope))
    drawn = "Interval" if lookup.has_intervals(analysis) else "Δ"
    label = f"{drawn}, {percent(low, 0, sign=True)} to {percent(high, 0, sign=True)}"
    scale = SimpleNamespace(zero=zero, rope_low=left, rope_width=right - left, label=label)
    rows, compared = lookup.by_variant(analysis.variants), lookup.by_variant(primary)
    there = [variant for variant in lookup.order(analysis) if variant in rows]
    return [_row(analysis, variant, rows[variant], compared.get(variant), place) for variant in there], scale


def _row(
    analysis: Analysis,
    variant: str,
    row: lookup.Row,
    contrast: lookup.Row | None,
    place: Callable[[float | None], float | None],
) -> SimpleNamespace:
    cell = analysis.cells[(analysis.cells["variant"] == variant) & (analysis.cells["setting"] == row["setting"])]
    dead = float(cell["n_diverged"].iloc[0]) if len(cell) else 0.0
    shown = SimpleNamespace(variant=variant, control=bool(row["control"]), interval="", p="", low=None, high=None)
    if variant == analysis.baseline:
        shown.verdict, shown.delta, shown.x = "baseline", "", place(0.0)
    elif contrast is None:
        shown.verdict, shown.delta, shown.x = "undecided", "–", None
    else:
        shown.verdict, shown.delta = str(contrast["decision"]), percent(contrast["delta"], sign=True)
        shown.x, shown.low, shown.high = (place(contrast[name]) for name in ("delta", "low", "high"))
        shown.interval = percent_interval(contrast["low"], contrast["high"])
        if np.isfinite(contrast["p_holm"]):
            shown.p = f"p {number(contrast['p_holm'], 2)} (Holm)"
    # The interval of what is not decided is drawn dashed.
    shown.is_open = shown.verdict not in DECISIONS
    shown.differs = f"A/A copy of {row['against']}" if row["control"] else differs_text(analysis, variant)
    shown.flags = _flags(analysis, row, contrast)
    shown.miou = _score(analysis, variant, row, contrast)
    # Of an undecided one: what could have been found, and what would decide it.
    shown.reach = () if contrast is None else _reach(contrast)
    shown.at = (
        lookup.setting_label(analysis, str(row["setting"]), lookup.WHOLE) if isinstance(row["setting"], str) else "–"
    )
    shown.edge = _edge(analysis, variant)
    shown.rise = number(float(cell["rise"].iloc[0])) if len(cell) else "–"
    shown.diverged = f"{dead:.0f} of {cell['n'].iloc[0]:.0f} diverged" if dead else ""
    shown.speed = _speed_text(analysis, variant)
    shown.parameters = count_text(row["parameters"])
    return shown


def _score(analysis: Analysis, variant: str, row: lookup.Row, contrast: lookup.Row | None) -> str:
    """Return the test mIoU that the variant is judged by: of its fresh seeds where they decide."""
    if lookup.primary_kind(analysis) != "confirmed":
        return percent_spread(row["test_mean"], row["test_low"], row["test_high"])
    primary = lookup.primary_contrasts(analysis)
    bases = primary.loc[primary["against"] == variant, "right"]
    return percent(contrast["left"] if contrast is not None else bases.iloc[0] if len(bases) else np.nan)


def _reach(contrast: lookup.Row) -> tuple[str, ...]:
    if not reach(contrast):
        return ()
    found = (
        f"detectable: {percent(contrast['detectable'])} points" if np.isfinite(contrast["detectable"]) else "",
        f"to decide: {seeds_text(contrast['seeds_needed'])}" if not np.isnan(contrast["seeds_needed"]) else "",
    )
    return tuple(filter(None, found))


def _edge(analysis: Analysis, variant: str) -> str:
    if variant in lookup.untuned(analysis):
        return "no other has a result yet"
    return "edge of the grid" if variant in lookup.on_edge(analysis) else ""


def _flags(analysis: Analysis, row: lookup.Row, contrast: lookup.Row | None) -> tuple[str, ...]:
    flags = []
    if contrast is not None and contrast["untrained"]:
        flags.append("untrained")
    if contrast is not None and bool(contrast["lr_confounded"]):
        flags.append("lr-confounded")
    if row["variant"] in lookup.provisional(analysis):
        flags.append("provisional")
    if isinstance(row["confounds"], str) and row["confounds"]:
        flags.append("own training settings")
    return tuple(flags)


def speed(analysis: Analysis, variant: str) -> tuple[float, float]:
    """Return training images per second, measured alone, and their ratio to the baseline's; NaN if not measured."""
    frame = analysis.throughput
    rows = frame[(frame["variant"] == variant) & (frame["quantity"] == "train_images_per_s")]
    return (float(rows["value"].iloc[0]), float(rows["ratio"].iloc[0])) if len(rows) else (np.nan, np.nan)


def _speed_text(analysis: Analysis, variant: str) -> str:
    """Return the training speed against the baseline's, with a star where the machine was busy; a dash for none."""
    rate, ratio = speed(analysis, variant)
    if not np.isfinite(rate):
        return "–"
    text = f"{ratio:.2f}×" if variant != analysis.baseline and np.isfinite(ratio) else f"{number(rate)} img/s"
    return text + "*" * bool(lookup.busy(analysis))
