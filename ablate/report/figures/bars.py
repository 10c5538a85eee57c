"""Test loss and test mIoU of every variant at its own best setting, with their intervals and every seed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ablate.analysis.analyse import Analysis
from ablate.report.figures import theme
from ablate.report.figures.marks import label_rows, looks, percent_axis
from ablate.report.format import like, number, percent
from ablate.report.lookup import NotDrawn, by_variant, judged_trials, order
from ablate.stats.intervals import mean_estimate

# More seeds than this are drawn as a cloud of small dots.
MOST_DOTS = 12


def draw_bars(analysis: Analysis, axes: Axes, column: str) -> None:
    """Draw one horizontal bar a variant, with its interval, its seeds as dots, and its number at the right."""
    rows, styles, variants = by_variant(analysis.variants), looks(analysis), order(analysis)
    miou = column == "test_mean_iou"
    seeds = judged_trials(analysis)
    points = "test_score" if miou else column
    # Before the first record there is no such column.
    seeds = seeds[np.isfinite(seeds.get(points, np.nan * seeds["seed"]).astype(float))]
    if seeds.empty:
        raise NotDrawn("no trial at a chosen setting has finished")
    label_rows(axes, variants)
    shown, reach = {}, [0.0]
    for place, variant in enumerate(variants):
        if miou:
            row = rows[variant]
            at, low, high = (float(row[key]) for key in ("test_mean", "test_low", "test_high"))
        else:
            estimate = mean_estimate(seeds.loc[seeds["variant"] == variant, points], analysis.confidence)
            at, low, high = estimate.value, estimate.low, estimate.high
        if not np.isfinite(at):
            continue
        color = styles[variant].color
        axes.barh(place, at, height=0.62, color=color, alpha=0.42, edgecolor=color, linewidth=0.8)
        shown[place] = (at, (high - low) / 2)
        reach.append(at)
        if np.isfinite(low):
            # Nothing is drawn where no score can be; the number beside it says how wide the interval is.
            low, high = max(low, 0.0), min(high, 1.0) if miou else high
            axes.plot((low, high), (place, place), color=theme.INK, linewidth=1.3, zorder=4, solid_capstyle="butt")
            reach.append(high)
    position = seeds["variant"].map({variant: place for place, variant in enumerate(variants)})
    # Seeds side by side within the bar rather than on top of one another.
    rank = seeds.groupby("variant").cumcount()
    size = seeds.groupby("variant")[points].transform("size")
    offset = (rank - (size - 1) / 2) * (0.4 / size.clip(lower=3))
    dots = seeds[points], position + offset
    if size.max() > MOST_DOTS:
        axes.scatter(*dots, s=3, color=theme.INK, alpha=0.35, linewidth=0, zorder=5)
    else:
        axes.scatter(*dots, s=7, color=theme.PAPER, edgecolor=theme.INK, linewidth=0.6, zorder=5)
    top = max(*reach, float(seeds[points].max()))
    axes.set_xlim(0, top * 1.03)
    for place, text in _numbers(shown, miou).items():
        # A column of their own, right of the axes, for whose texts the layout makes room.
        axes.annotate(
            text,
            (1.0, place),
            xytext=(4, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            ha="left",
            size=7,
        )
    if miou:
        percent_axis(axes, "x", 5)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
    axes.grid(True, axis="x")
    axes.spines["left"].set_visible(False)


def _numbers(shown: Mapping[int, tuple[float, float]], miou: bool) -> dict[int, str]:
    """Return what stands beside each bar, value and half its interval, with the decimals of the smallest value."""
    if not shown:
        return {}
    model = number(min(value for value, _ in shown.values()))
    texts = {}
    for place, (value, half) in shown.items():
        text = percent(value) if miou else like(model, value)
        if np.isfinite(half):
            text += f" ± {percent(half) if miou else like(model, half)}"
        texts[place] = text
    return texts
