"""Differences to the baseline as intervals: of test mIoU three ways, of every class, of fine detail."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablate.analysis.analyse import Analysis
from ablate.registry import register_figure
from ablate.report import lookup
from ablate.report.figures import theme
from ablate.report.figures.marks import finish, label_rows, looks, percent_axis
from ablate.report.figures.theme import FULL, SINGLE, canvas, plain
from ablate.report.format import detail_name, number, percent, short_names, shorten
from ablate.wording import count_of, range_of

# Panels of a figure: more of them fill more than a page.
MOST_PANELS = 12
KINDS = {"shared": "shared,", "matched": "both at"}


@register_figure("contrasts", title="Differences to the baseline three ways", order=10)
def contrasts(analysis: Analysis) -> Figure:
    """Draw the difference of test mIoU to the baseline three ways: own best, shared and matched rates."""
    compared = lookup.others(analysis)
    if not compared:
        raise lookup.NotDrawn("there is nothing to compare the baseline with")
    # A rate at which one side has no result yet is no contrast.
    there = analysis.contrasts[analysis.contrasts["setting"].isin(analysis.cells["setting"])]
    by_name = dict(list(there.groupby("variant")))
    kept = {variant: by_name[variant] for variant in compared if variant in by_name}
    # In an unfinished study a variant may have no result yet.
    kept = {variant: rows for variant, rows in kept.items() if rows["primary"].astype(bool).any()}
    if not kept:
        raise lookup.NotDrawn("no two variants have a result to compare")
    compared, left_out = _largest(analysis, list(kept), "contrasts")
    kept = {variant: kept[variant] for variant in compared}
    most = max(len(rows) for rows in kept.values())
    if most > 10:
        # Matched rates only where there is room for them; the table has them all.
        kept = {variant: rows[rows["kind"] != "matched"] for variant, rows in kept.items()}
    dead = _diverged(analysis)
    for variant, rows in kept.items():
        read = rows.to_dict("records")
        kept[variant] = rows.assign(
            label=[_label(row, analysis) for row in read],
            dead=np.array(
                [{(row["variant"], row["setting"]), (row["against"], row["against_setting"])} <= dead for row in read],
                dtype=object,
            ),
        )
    labels = _merged([list(_ordered(rows)["label"]) for rows in kept.values()])
    figure, grid = _panels(compared, len(labels))
    # What diverged seeds tear apart would flatten everything else: it leaves the picture as an arrow.
    limits = _limits([rows[rows["kind"].isin(["own_best", "shared", "confirmed"])] for rows in kept.values()])
    whole = _limits(list(kept.values()))
    limits = whole if whole[1] - whole[0] <= 2 * (limits[1] - limits[0]) else limits
    for axes, (variant, rows) in zip(grid, kept.items(), strict=True):
        _intervals(axes, rows.set_index("label").reindex(labels).reset_index(), labels, analysis, variant, limits)
    primary = [rows[rows["primary"].astype(bool)].iloc[0] for rows in kept.values()]
    against = {row["variant"]: str(row["against"]) for row in primary}
    _titles(grid, against, {row["variant"]: _decided(row, analysis) for row in primary})
    _name_axes(grid, "Δ test mIoU, points")
    holds = f"{lookup.seeds_text(analysis)}, images and the choosing"
    fresh = lookup.primary_kind(analysis) == "confirmed"
    if fresh:
        holds = f"{count_of(range_of([row['n'] for row in primary]), 'fresh seed')} and images"
    rule = (
        f"Filled: the primary contrast, each side at its own best rate, chosen on validation"
        f"{' and run again with fresh seeds' if fresh else ''}; its {100 * analysis.confidence:.0f} % interval holds "
        f"{holds}; p and the decision are Holm-corrected for the number of variants, the interval is not. Hollow: "
        f"descriptive. {_band(analysis)} Arrow: goes on beyond the axis.{_axes(analysis)}{left_out}"
    )
    return finish(figure, analysis, rule)


@register_figure("classes", title="Differences per class", order=70)
def classes(analysis: Analysis) -> Figure:
    """Draw the difference of every class's IoU to the baseline, with intervals, at own best settings."""
    rule = (
        f"Difference of the class's test IoU at own best settings with its {100 * analysis.confidence:.0f} % "
        f"interval over {lookup.seeds_text(analysis)} and images. Descriptive: not corrected for the number of "
        f"classes, so that none is decided. {_band(analysis)}"
    )
    return _by_variant(
        analysis, analysis.class_contrasts, "class", lambda name: name, "Δ IoU, points", rule, "class_differences"
    )


@register_figure("detail", title="Fine detail", order=80)
def detail(analysis: Analysis) -> Figure:
    """Draw the differences of boundary, thin-structure and interior quality to the baseline, with their verdict."""
    verdicts = {variant: str(row["verdict"]) for variant, row in lookup.by_variant(analysis.detail_verdicts).items()}
    words = {"lost": "fine detail lost", "gained": "fine detail gained", "undecided": "fine detail: undecided"}
    rule = (
        "Differences at own best settings. Fine detail counts as lost only where boundary IoU and thin recall both "
        f"fall by more than interior IoU does, with {100 * analysis.confidence:.0f} % intervals (seeds and images) "
        "that exclude zero; one interval by itself decides nothing. Rel.: relative difference of the ratio, in %. "
        "Widths are for a 600 px diagonal and scaled. "
        f"{_band(analysis)}"
    )
    notes = {variant: words.get(verdict, verdict) for variant, verdict in verdicts.items()}
    return _by_variant(
        analysis,
        lookup.distinct_detail(analysis, analysis.detail),
        "measure",
        detail_name,
        "Δ, points",
        rule,
        "detail",
        notes,
    )


def _by_variant(
    analysis: Analysis,
    frame: pd.DataFrame,
    field: str,
    name: Callable[[str], str],
    x_label: str,
    rule: str,
    table: str,
    notes: dict[str, str] | None = None,
) -> Figure:
    frame = frame[np.isfinite(frame["delta"].astype(float))] if len(frame) else frame
    compared = [variant for variant in lookup.others(analysis) if variant in set(frame.get("variant", ()))]
    if not compared:
        raise lookup.NotDrawn("no two variants have finished trials with stored predictions to compare")
    compared, left_out = _largest(analysis, compared, table)
    frame = frame[frame["variant"].isin(compared)]
    shown = list(dict.fromkeys(frame[field]))
    figure, grid = _panels(compared, len(shown))
    limits = _limits([frame])
    for axes, variant in zip(grid, compared, strict=False):
        rows = frame[frame["variant"] == variant].set_index(field).reindex(shown).reset_index()
        _intervals(axes, rows, [name(value) for value in shown], analysis, variant, limits)
    against = dict(zip(frame["variant"], frame["against"], strict=True))
    _titles(grid, {variant: str(against[variant]) for variant in compared}, notes or {})
    _name_axes(grid, x_label)
    return finish(figure, analysis, rule + left_out)


def _largest(analysis: Analysis, compared: list[str], table: str) -> tuple[list[str], str]:
    """Return, of many variants, those that differ most in their primary contrast, and in words where others stand."""
    if len(compared) <= MOST_PANELS:
        return compared, ""
    primary = lookup.primary_contrasts(analysis)
    delta = dict(zip(primary["variant"], primary["delta"].astype(float).abs(), strict=True))
    known = {variant: value if np.isfinite(value := delta.get(variant, np.nan)) else -1.0 for variant in compared}
    kept = set(sorted(compared, key=lambda variant: -known[variant])[:MOST_PANELS])
    said = (
        f" Shown: the {MOST_PANELS} variants that differ most in test mIoU; the {len(compared) - MOST_PANELS} others "
        f"stand in tables/{table}.csv."
    )
    return [variant for variant in compared if variant in kept], said


def _panels(compared: list[str], rows: int) -> tuple[Figure, list[Axes]]:
    columns = 2 if len(compared) == 4 else min(3, len(compared))
    lines = -(-len(compared) // columns)
    row = 0.17 if lines < 3 else 0.14
    figure = canvas(FULL if columns > 1 else SINGLE, 0.2 + lines * (0.55 + row * max(rows, 3)))
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in grid[len(compared) :]:
        axes.set_visible(False)
    return figure, list(grid[: len(compared)])


def _name_axes(grid: list[Axes], label: str) -> None:
    """Name the lowest panel of every column."""
    for axes in grid[-2 if len(grid) == 4 else -3 :]:
        axes.set_xlabel(label)


def _limits(frames: list[pd.DataFrame]) -> tuple[float, float]:
    values = np.concatenate([frame[["delta", "low", "high"]].to_numpy(dtype=float).ravel() for frame in frames])
    values = values[np.isfinite(values)]
    if not values.size:
        return -0.05, 0.05
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    margin = 0.06 * max(high - low, 0.01)
    return low - margin, high + margin


def _intervals(
    axes: Axes, rows: pd.DataFrame, names: list[str], analysis: Analysis, variant: str, limits: tuple[float, float]
) -> None:
    """Draw one interval a row, the mark of the primary contrast filled."""
    look = looks(analysis)[variant]
    if axes.get_subplotspec().is_first_col():  # type: ignore[union-attr]
        label_rows(axes, names)
    else:
        # Ticks that nobody sees take as long as others.
        axes.set_yticks([])
        axes.set_ylim(len(names) - 0.4, -0.6)
    axes.axvspan(-analysis.rope, analysis.rope, color=theme.GRID, alpha=0.7, linewidth=0, zorder=0)
    axes.axvline(0, color=theme.MUTED, linewidth=0.8, zorder=1)
    # Few artists for all rows: each line and mark by itself takes most of the time of a large figure.
    spans: dict[bool, list[tuple[int, float, float]]] = {True: [], False: []}
    marks: dict[bool, list[tuple[float, int]]] = {True: [], False: []}
    for place, row in enumerate(rows.to_dict("records")):
        value, low, high = (float(row[key]) for key in ("delta", "low", "high"))
        if not np.isfinite(value) or row.get("dead") is True:
            word = "no data" if not np.isfinite(value) else "both diverged"
            axes.text(0, place, f"  {word}", size=6.5, color=theme.MUTED, va="center")
            continue
        # What nothing was corrected for decides nothing: it is drawn hollow.
        sure = row.get("primary") is True
        outside = value < limits[0] or value > limits[1]
        if np.isfinite(low) and np.isfinite(high):
            spans[sure].append((place, low, high))
        for end, edge, arrow in ((min(low, value), limits[0], "<"), (max(high, value), limits[1], ">")):
            if np.isfinite(end) and (end < edge if arrow == "<" else end > edge):
                # Its tip at the edge, so that it does not touch the names beside it.
                inside = edge + (1 if arrow == "<" else -1) * 0.015 * (limits[1] - limits[0])
                axes.plot(inside, place, arrow, color=look.color, markersize=4)
        if not outside:
            marks[sure].append((value, place))
    for sure, width, size, filling in ((True, 2.2, 5.5, look.color), (False, 1.2, 4.5, theme.PAPER)):
        if spans[sure]:
            at, lows, highs = zip(*spans[sure], strict=True)
            axes.hlines(at, lows, highs, color=look.color, linewidth=width, zorder=2)
        if marks[sure]:
            values, at = zip(*marks[sure], strict=True)
            axes.plot(values, at, look.marker, color=look.color, markersize=size, markerfacecolor=filling, zorder=4)
    axes.set_xlim(*limits)
    percent_axis(axes, "x", 5)
    axes.grid(True, axis="x")


def _diverged(analysis: Analysis) -> set[tuple[str, str]]:
    """Return the cells, variant and setting, all of whose seeds diverged."""
    cells = analysis.cells
    gone = cells[(cells["n"] > 0) & (cells["n_diverged"] == cells["n"])]
    return set(zip(gone["variant"], gone["setting"], strict=True))


def _ordered(rows: pd.DataFrame) -> pd.DataFrame:
    rank = rows["kind"].map({"confirmed": 0, "own_best": 1, "shared": 2, "matched": 3})
    return rows.assign(rank=rank).sort_values(["rank", "lr"], kind="stable").drop(columns="rank")


def _label(row: Mapping[Any, Any], analysis: Analysis) -> str:
    if row["kind"] == "own_best":
        return "own best"
    if row["kind"] == "confirmed":
        return "confirmed"
    return f"{KINDS[row['kind']]} {lookup.setting_values(analysis, row['setting'])}"


def _decided(row: pd.Series, analysis: Analysis) -> str:
    """Return the primary decision, the settings it is made at, and the p that explains what the interval does not."""
    text = str(row["decision"])
    if lookup.only_rate(analysis):
        # Several values of each side are too long for a panel.
        here, there = (lookup.setting_label(analysis, row[key]) for key in ("setting", "against_setting"))
        text = f"{text} at {here if here == there else f'{here} and {there}'}"
    return f"{text}, p {number(p, 2)}" if np.isfinite(p := float(row["p_holm"])) else text


def _band(analysis: Analysis) -> str:
    return (
        f"Δ: the variant minus {shorten(analysis.baseline, 40)} (a copy: minus its original). Grey band: differences "
        f"within ± {percent(analysis.rope)} points count as none."
    )


def _axes(analysis: Analysis) -> str:
    """Return what the values of a setting are, where there are several."""
    return "" if lookup.only_rate(analysis) else f" A setting: {lookup.settings_axis(analysis)}."


def _merged(lists: list[list[str]]) -> list[str]:
    """Return all labels once, in the order of the first list, what others add put where they have it."""
    merged: list[str] = []
    for labels in lists:
        place = 0
        for label in labels:
            if label not in merged:
                merged.insert(place, label)
            place = merged.index(label) + 1
    return merged


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
        named = named if fits or other == usual else f"{tight[variant]} − {others[other]}"
        note = notes.get(variant, "")
        axes.set_title(plain(named), pad=16 if note else 6)
        if note:
            axes.annotate(
                plain(note),
                (0, 1),
                xytext=(0, 5),
                xycoords="axes fraction",
                textcoords="offset points",
                size=7,
                color=theme.MUTED,
            )
