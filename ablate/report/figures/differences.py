"""Differences to the baseline in a panel a variant, all of them descriptive: rate by rate, by class, of fine detail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablate.analysis.analyse import Analysis
from ablate.registry import register_figure
from ablate.report import lookup
from ablate.report.figures import marks, theme
from ablate.report.figures.theme import FULL, SINGLE, canvas, plain
from ablate.report.format import detail_name, percent, short_names, shorten
from ablate.wording import count_of, range_of

# Panels of a figure, and settings in one: more of them fill more than a page.
MOST_PANELS = 12
MOST_SETTINGS = 10


@register_figure("contrasts_by_rate", title="Differences to the baseline rate by rate", order=10)
def contrasts_by_rate(analysis: Analysis) -> Figure:
    """Draw the difference of test mIoU to the baseline with both sides at the same setting, for every setting."""
    frame = analysis.contrasts[analysis.contrasts["kind"] == "matched"]
    every = lookup.settings(analysis)
    if frame.empty or len(every) < 2:
        raise lookup.NotDrawn("no two settings were tried by several variants")
    shown = marks.evenly(every, MOST_SETTINGS)
    frame = frame[frame["setting"].isin(shown)].sort_values("setting", key=lambda column: column.map(shown.index))
    rule = (
        f"Both sides at the same setting: {lookup.settings_axis(analysis)}. Descriptive: nothing is corrected for the "
        f"number of settings, so that none is decided. {_band(analysis)}"
    )
    return _by_variant(
        analysis, frame, "setting", lambda at: lookup.setting_values(analysis, at), "Δ test mIoU", rule, "contrasts"
    )


@register_figure("classes", title="Differences per class", order=70)
def classes(analysis: Analysis) -> Figure:
    """Draw the difference of every class's IoU to the baseline, with intervals, at own best settings."""
    rule = (
        "Difference of the class's test IoU at own best settings. Descriptive: not corrected for the number of "
        f"classes, so that none is decided. {_band(analysis)}"
    )
    return _by_variant(analysis, analysis.class_contrasts, "class", str, "Δ IoU", rule, "class_differences")


@register_figure("detail", title="Fine detail", order=80)
def detail(analysis: Analysis) -> Figure:
    """Draw the differences of boundary, thin-structure and interior quality to the baseline, with their verdict."""
    rule = (
        "Differences at own best settings. Fine detail counts as lost only where boundary IoU and thin recall both "
        "fall by more than interior IoU does, with intervals that exclude zero; one interval by itself decides "
        "nothing. ÷: relative difference of the ratio, in %. Widths are for a 600 px diagonal and scaled. "
        f"{_band(analysis)}"
    )
    words = {"lost": "fine detail lost", "gained": "fine detail gained", "undecided": "fine detail: undecided"}
    verdicts = {variant: str(row["verdict"]) for variant, row in lookup.by_variant(analysis.detail_verdicts).items()}
    notes = {variant: words.get(verdict, verdict) for variant, verdict in verdicts.items()}
    frame = lookup.distinct_detail(analysis, analysis.detail)
    # In the room of a label; the caption says that a ratio's difference is a relative one.
    called = {measure: detail_name(measure).removesuffix(" (relative)") for measure in frame.get("measure", ())}
    return _by_variant(analysis, frame, "measure", called.__getitem__, "Δ", rule, "detail", notes)


def _by_variant(
    analysis: Analysis,
    frame: pd.DataFrame,
    field: str,
    name: Callable[[str], str],
    quantity: str,
    rule: str,
    table: str,
    notes: dict[str, str] | None = None,
) -> Figure:
    """Draw a panel a variant with a row for each value of the field; the other variants stand in the `table`."""
    frame = frame[np.isfinite(frame["delta"].astype(float))] if len(frame) else frame
    compared = lookup.among(analysis, frame.get("variant", ()))
    if not compared:
        several = analysis.frames.multilabel and analysis.no_detail
        raise lookup.NotDrawn(several or "no two variants have finished trials with stored predictions to compare")
    compared, left_out = marks.largest(analysis, compared, MOST_PANELS, table)
    frame = frame[frame["variant"].isin(compared)]
    rows = list(dict.fromkeys(frame[field]))
    columns = 2 if len(compared) == 4 else min(3, len(compared))
    lines = -(-len(compared) // columns)
    high = (0.17 if lines < 3 else 0.14) * max(len(rows), 3)
    figure = canvas(FULL if columns > 1 else SINGLE, 0.2 + lines * (0.55 + high))
    grid = marks.panel_grid(figure, len(compared), columns)
    limits, intervals = marks.reach_of(frame), bool(frame["low"].notna().any())
    for axes, variant in zip(grid, compared, strict=True):
        of_variant = frame[frame["variant"] == variant].set_index(field).reindex(rows).reset_index()
        _intervals(axes, of_variant, [name(value) for value in rows], analysis, variant, limits)
    against = dict(zip(frame["variant"], frame["against"], strict=True))
    _titles(grid, {variant: str(against[variant]) for variant in compared}, notes or {})
    for axes in grid[-columns:]:
        axes.set_xlabel(f"{quantity}, points" + f" ({marks.interval_words(analysis)})" * intervals)
    seeds = count_of(range_of(frame["n"].astype(int)), "seed")
    rule += f" Intervals hold {seeds} a side and the images. Arrow: goes on beyond the axis." * intervals
    return marks.finish(figure, analysis, rule + left_out)


def _intervals(
    axes: Axes, rows: pd.DataFrame, names: list[str], analysis: Analysis, variant: str, limits: tuple[float, float]
) -> None:
    """Draw one interval a row, each with a hollow mark: nothing was corrected for how many there are."""
    look = marks.looks(analysis)[variant]
    if axes.get_subplotspec().is_first_col():  # type: ignore[union-attr]
        marks.label_rows(axes, names)
    else:
        # Ticks that nobody sees take as long as others.
        axes.set_yticks([])
        axes.set_ylim(len(names) - 0.4, -0.6)
    marks.draw_zero(axes, analysis, limits)
    dead = (rows["left"] == 0) & (rows["right"] == 0)
    for place in np.flatnonzero(rows["delta"].isna() | dead).tolist():
        word = "both diverged" if dead.iloc[place] else "no data"
        axes.text(0, place, f"  {word}", size=6.5, color=theme.MUTED, va="center")
    # Few artists for all rows: each line and mark by itself takes most of the time of a large figure.
    shown = rows[rows["delta"].notna() & ~dead]
    marks.draw_spans(axes, shown, shown.index, [look.color] * len(shown), limits, width=1.2)
    style: dict[str, Any] = {"color": look.color, "markersize": 4.5, "markerfacecolor": theme.PAPER, "zorder": 4}
    axes.plot(shown["delta"], shown.index, look.marker, **style)


def _band(analysis: Analysis) -> str:
    return (
        f"Δ: the variant minus {shorten(analysis.baseline, 40)} (a copy: minus its original). Grey band: differences "
        f"within ± {percent(analysis.rope)} points count as none."
    )


def _titles(grid: list[Axes], against: dict[str, str], notes: dict[str, str]) -> None:
    """Write what each panel compares, and beneath it in a word what came of it."""
    # Letters of the bold 8.5 pt that a panel has room for.
    room = 24 if len(grid) not in (1, 2, 4) else 36
    others = short_names(list(dict.fromkeys(against.values())), 14)
    variants = short_names(list(against), room)
    both = {variant: f"{variants[variant]} − {others[other]}" for variant, other in against.items()}
    tight = short_names(list(against), max(10, room - 17))
    # One form for all: where the longest does not fit, only those name the other side that have one of their own.
    fits = all(len(text) <= room for text in both.values())
    usual = max(set(against.values()), key=list(against.values()).count)
    for axes, (variant, other) in zip(grid, against.items(), strict=True):
        named = both[variant] if fits else variants[variant]
        axes.set_title(plain(named if fits or other == usual else f"{tight[variant]} − {others[other]}"))
        if note := notes.get(variant):
            marks.subtitle(axes, note)
