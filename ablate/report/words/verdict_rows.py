"""The verdicts as the page shows them: a row of each variant with its small interval."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np

from ablate.analysis.analyse import Analysis
from ablate.report import lookup
from ablate.report.format import count_text, number, percent, percent_interval, percent_spread
from ablate.report.lookup import Row
from ablate.report.words.component_words import DECISIONS, differs_text, found_from, reach, seeds_text

# Stands for a contrast that was not made.
UNDECIDED: Row = {
    **dict.fromkeys(("delta", "low", "high", "p_holm", "detectable", "seeds_needed"), np.nan),
    **dict.fromkeys(("untrained", "lr_confounded", "control"), False),
    "decision": "undecided",
}


def verdict_rows(analysis: Analysis) -> tuple[list[SimpleNamespace], SimpleNamespace]:
    """Return the rows as they are shown, the baseline first, and the axis that their small intervals share.

    Places on the axis are in the units of the drawing, 0 to 200; None where there is nothing to draw.
    """
    primary = lookup.primary_contrasts(analysis)
    ends = primary[["delta", "low", "high"]].to_numpy(dtype=float).ravel()
    # No two scores differ by more than 100 points, however few the seeds of an interval.
    ends = np.append(np.clip(ends[np.isfinite(ends)], -1, 1), [-2 * analysis.rope, 2 * analysis.rope])
    low, high = float(ends.min()), float(ends.max())
    margin = 0.04 * (high - low)
    low, high = low - margin, high + margin

    def place(value: float) -> float | None:
        return round(200 * (value - low) / (high - low), 2) if np.isfinite(value) else None

    zero, left, right = (place(value) or 0.0 for value in (0.0, -analysis.rope, analysis.rope))
    drawn = "Interval" if lookup.has_intervals(analysis) else "Δ"
    label = f"{drawn}, {percent(low, 0, sign=True)} to {percent(high, 0, sign=True)}"
    at = "rate" if lookup.only_rate(analysis) else "setting"
    at = at.capitalize() if lookup.one_setting(analysis) else f"Best {at}"
    scale = SimpleNamespace(zero=zero, rope_low=left, rope_width=right - left, label=label, at=at)
    rows, compared = lookup.by_variant(analysis.variants), lookup.by_variant(primary)
    return [
        _row(analysis, rows[variant], compared.get(variant), place)
        for variant in lookup.order(analysis)
        if variant in rows
    ], scale


def _row(analysis: Analysis, row: Row, contrast: Row | None, place: Callable[[float], float | None]) -> SimpleNamespace:
    variant, found = row["variant"], UNDECIDED if contrast is None else contrast
    base = variant == analysis.baseline
    verdict = "baseline" if base else lookup.decided(found)
    cell = lookup.by_variant(analysis.cells[analysis.cells["setting"] == row["setting"]]).get(variant)
    edge = "edge of the grid" * (variant in lookup.on_edge(analysis) and not lookup.one_setting(analysis))
    judged = lookup.primary_kind(analysis) != "confirmed" or analysis.scores.is_fresh(variant, row["setting"])
    return SimpleNamespace(
        variant=variant,
        control=bool(row["control"]),
        differs=f"A/A copy of {row['against']}" if row["control"] else differs_text(analysis, variant),
        verdict=verdict,
        # The interval of what is not decided is drawn dashed.
        is_open=verdict not in DECISIONS,
        flags=_flags(analysis, row, found),
        p=f"p {number(found['p_holm'], 2)} (Holm)" if np.isfinite(found["p_holm"]) else "",
        # Of an undecided one: what could have been found, and what would decide it.
        reach=_reach(found),
        # By the seeds that it is judged by: a dash where fresh ones are to decide and have not come.
        miou=percent_spread(*(row[name] if judged else np.nan for name in ("test_mean", "test_low", "test_high"))),
        delta="" if base else percent(found["delta"], sign=True),
        interval=percent_interval(found["low"], found["high"]),
        x=place(0.0 if base else found["delta"]),
        low=place(found["low"]),
        high=place(found["high"]),
        at=lookup.setting_label(analysis, row["setting"], lookup.WHOLE),
        edge="no other has a result yet" if variant in lookup.untuned(analysis) else edge,
        rise=number(cell["rise"]) if cell else "–",
        diverged=f"{cell['n_diverged']} of {cell['n']} diverged" if cell and cell["n_diverged"] else "",
        speed=_speed_text(analysis, variant),
        parameters=count_text(row["parameters"]),
    )


def _reach(found: Row) -> list[str]:
    if not reach(found):
        return []
    detectable = [f"detectable: {found_from(found['detectable'])} points"] * bool(np.isfinite(found["detectable"]))
    return detectable + [f"to decide: {seeds_text(found['seeds_needed'])}"] * (not np.isnan(found["seeds_needed"]))


def _flags(analysis: Analysis, row: Row, found: Row) -> tuple[str, ...]:
    flags = {
        "lr-confounded": found["lr_confounded"],
        "provisional": row["variant"] in lookup.provisional(analysis),
        "own training settings": row["confounds"],
    }
    return tuple(flag for flag, on in flags.items() if on)


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
