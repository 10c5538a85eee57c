"""mIoU against the learning rate, with the basin of each variant; and against the number of settings tried."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.markers import CARETDOWN
from matplotlib.ticker import MaxNLocator

from ablate.analysis.analyse import Analysis
from ablate.registry import register_figure
from ablate.report.figures import theme
from ablate.report.figures.marks import finish, label_rows, looks, percent_axis
from ablate.report.figures.theme import FULL, SINGLE, canvas, legend
from ablate.report.format import percent, rate_text
from ablate.report.lookup import NotDrawn, among, by_variant, chosen_notes, only_rate, order, untuned
from ablate.wording import count_of, range_of


@register_figure("rates", title="mIoU against the learning rate", order=60)
def rates(analysis: Analysis) -> Figure:
    """Draw validation and test mIoU against the learning rate, with the basin of every variant beneath."""
    cells = by_rate(analysis)
    levels = sorted(cells["lr"].unique())
    if len(levels) < 2:
        raise NotDrawn("the study has one learning rate only")
    variants, styles = order(analysis), looks(analysis)
    strip = 0.35 + 0.16 * len(variants)
    figure = canvas(FULL, 2.7 + strip)
    grid = figure.subplots(2, 2, sharex=True, height_ratios=[2.5, strip])
    for axes, split, title in zip(grid[0], ("val", "test"), ("Validation mIoU, %", "Test mIoU, %"), strict=True):
        _lines(axes, cells, split, variants, analysis)
        axes.set_title(title)
        axes.sharey(grid[0][0])
    kept = _rate_axis(grid[1][0], levels)
    _rate_axis(grid[1][1], levels)
    _basins(grid[1][0], analysis, variants)
    _regrets(grid[1][1], cells[cells["lr"].isin(kept)], variants)
    legend(figure, styles, variants, notes=chosen_notes(analysis))
    more = "" if only_rate(analysis) else " At each rate the best of the other settings, by validation."
    seeds = count_of(range_of(cells["n"].astype(int)), "seed")
    rule = (
        f"Points: mean over {seeds}, a diverged seed counting 0; lines: {100 * analysis.confidence:.0f} "
        "% t interval over seeds, pale where one diverged, cut off at the axis; ring: the chosen rate; mark at the "
        "foot: below the axis. Basin: where a quadratic in log rate through the best rate and its neighbours stays "
        f"within {percent(analysis.rope)} points of its optimum (tick). Regret: points of validation mIoU lost against "
        "the variant's best rate." + more
    )
    return finish(figure, analysis, rule)


def _rate_axis(axes: Axes, rates: Sequence[float]) -> list[float]:
    """Make the horizontal axis one of learning rates; return those named, thinned where labels would touch."""
    axes.set_xscale("log")
    axes.minorticks_off()
    ordered = sorted(rates)
    kept = ordered
    if len(ordered) > 1:
        # A label takes about 0.35 inch; the axis of a small panel is about 1.7 inches long.
        span = math.log10(ordered[-1] / ordered[0]) or 1.0
        gap = span * 0.16
        kept = ordered[:1]
        for rate in ordered[1:-1]:
            if math.log10(rate / kept[-1]) >= gap and math.log10(ordered[-1] / rate) >= gap:
                kept = [*kept, rate]
        kept = [*kept, ordered[-1]]
    axes.set_xticks(kept, [rate_text(rate) for rate in kept])
    axes.set_xlabel("learning rate")
    return kept


def by_rate(analysis: Analysis) -> pd.DataFrame:
    """Return the cells, one for each variant and rate: where other settings vary too, the one best on validation."""
    cells = analysis.cells[np.isfinite(analysis.cells["val_mean"].astype(float))]
    best = cells.sort_values("val_mean", ascending=False, kind="stable").drop_duplicates(["variant", "lr"])
    return best.sort_values(["variant", "lr"])


def _lines(axes: Axes, cells: pd.DataFrame, split: str, variants: list[str], analysis: Analysis) -> None:
    styles = looks(analysis)
    values = cells[f"{split}_mean"]
    lived = values[cells["n_diverged"] == 0]
    low, high = float(values.min()), float(values.max())
    if len(lived) and lived.min() > low + 0.1:
        # Cells with diverged seeds reach down to 0 and would flatten the others: they leave the picture at its foot.
        low = float(lived.min()) - 0.1 * (high - float(lived.min()))
    ends = cells[cells["n_diverged"] == 0][[f"{split}_low", f"{split}_high"]].to_numpy(dtype=float)
    ends = ends[np.isfinite(ends)]
    if ends.size:
        # Intervals are shown whole as far as that leaves half of the height to the means.
        room = max(high - low, 0.01) / 2
        low, high = max(min(low, float(ends.min())), low - room), min(max(high, float(ends.max())), high + room)
    margin = 0.08 * max(high - low, 0.01)
    # There is no score below 0.
    floor = max(low - margin, -0.02)
    axes.set_ylim(floor, high + margin)
    percent_axis(axes)
    gaps = np.diff(np.log10(np.sort(cells["lr"].unique())))
    step = min(0.012, 0.4 * float(gaps.min()) / len(variants))
    of_variant = dict(list(cells.groupby("variant")))
    for place, variant in enumerate(variants):
        if variant not in of_variant:
            continue
        rows, look = of_variant[variant], styles[variant]
        # Side by side, for intervals at one rate would hide one another, but nearer to their own rate than to the next.
        shift = 10 ** (step * (place - (len(variants) - 1) / 2))
        at, value = rows["lr"] * shift, rows[f"{split}_mean"]
        axes.plot(at, value, **look.line(marker=look.marker, zorder=3, linewidth=1.2))
        inside = value >= floor
        for part, alpha in ((inside & (rows["n_diverged"] == 0), 0.8), (inside & (rows["n_diverged"] > 0), 0.3)):
            bars = at[part], rows[f"{split}_low"][part], rows[f"{split}_high"][part]
            axes.vlines(*bars, colors=look.color, alpha=alpha, linewidth=0.9, zorder=2.5)
        # What lies below leaves a mark at the foot; how far below, the regret says.
        foot = at[~inside]
        if len(foot):
            mark = {"marker": CARETDOWN, "color": look.color, "markersize": 5, "zorder": 4}
            axes.plot(foot, [0.01] * len(foot), "", **mark, transform=axes.get_xaxis_transform())  # type: ignore[arg-type]
        chosen = rows["setting"] == analysis.own_best.get(variant)
        size = 9 if len(variants) <= 6 else 7.5
        axes.plot(
            at[chosen], value[chosen], "o", markersize=size, fillstyle="none", color=look.color, markeredgewidth=1
        )


def _basins(axes: Axes, analysis: Analysis, variants: list[str]) -> None:
    rows, styles = by_variant(analysis.variants), looks(analysis)
    label_rows(axes, variants, most=18)
    axes.tick_params(axis="y", labelsize=6.5)
    for place, variant in enumerate(variants):
        if variant not in rows:
            continue
        optimum, width = float(rows[variant]["basin_optimum"]), float(rows[variant]["basin_width"])
        look = styles[variant]
        if np.isfinite(optimum) and np.isfinite(width):
            ends = optimum * 10 ** (-width / 2), optimum * 10 ** (width / 2)
            axes.plot(ends, (place, place), color=look.color, linewidth=3.2, alpha=0.55, solid_capstyle="butt")
            axes.plot(optimum, place, "|", color=look.color, markersize=8, markeredgewidth=1.8)
        else:
            why = "none: the best rate is on the edge" if rows[variant]["unbracketed"] else "none: no quadratic fits"
            why = "none: no other rate has a result yet" if variant in untuned(analysis) else why
            axes.text(0.02, place, why, transform=axes.get_yaxis_transform(), va="center", size=6, color=theme.MUTED)
    axes.set_title("Basin and optimum")


def _regrets(axes: Axes, cells: pd.DataFrame, variants: list[str]) -> None:
    label_rows(axes, [""] * len(variants))
    axes.set_yticks([])
    regrets = {name: list(zip(rows["lr"], rows["regret"], strict=True)) for name, rows in cells.groupby("variant")}
    for place, variant in enumerate(variants):
        for rate, regret in regrets.get(variant, ()):
            weight = "bold" if regret == 0 else "normal"
            axes.text(rate, place, percent(regret), ha="center", va="center", size=6.5, weight=weight)
    axes.set_title("Regret, points")


@register_figure("budget", title="Tuning budget", order=130)
def budget(analysis: Analysis) -> Figure:
    """Draw the expected test mIoU of the val-best of n settings, for every variant."""
    frame = analysis.budget
    if frame.empty:
        raise NotDrawn("a tuning-budget curve needs eight settings of a variant")
    figure = canvas(SINGLE, 2.3)
    axes = figure.subplots()
    styles = looks(analysis)
    shown = among(analysis, frame["variant"])
    for variant in shown:
        rows = frame[frame["variant"] == variant].sort_values("settings_tried")
        look = styles[variant]
        axes.plot(
            rows["settings_tried"],
            rows["expected_test"],
            **look.line(marker=look.marker, markevery=max(1, len(rows) // 8)),
        )
    axes.set_xlabel("settings tried")
    axes.set_ylabel("expected test mIoU, %")
    axes.xaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True, steps=[1, 2, 5, 10]))
    percent_axis(axes)
    legend(figure, styles, shown, notes={})
    rule = (
        "Expected test mIoU of the setting that is best on validation among n settings drawn without replacement, "
        "uniform over the settings of the study."
    )
    return finish(figure, analysis, rule)
