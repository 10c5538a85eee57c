"""The consolidated figure: everything a reader of one figure should see of a study, on a page or in a column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ablate.analysis.analyse import Analysis
from ablate.registry import register_figure
from ablate.report import lookup
from ablate.report.figures import marks, theme
from ablate.report.figures.maps import MOST_NUMBERS, NARROWEST, draw_map
from ablate.report.figures.theme import FULL, canvas, legend
from ablate.report.format import like, number, percent
from ablate.stats.intervals import mean_estimate

RULE = (
    "({curves}) Mean over the seeds{alive}, band from the lowest to the highest seed{dead}. "
    "({bars}) Dots are seeds{intervals}."
)
MAP_RULE = " ({letter}) Mean over the {screening}seeds of every cell{zero}, the chosen setting framed."
# Of a narrower figure the panels stand below one another.
NARROW = 5.0
# More seeds than this are drawn as a cloud of small dots.
MOST_DOTS = 12


@register_figure("consolidated", title="Consolidated results", section="consolidated", order=0)
def consolidated(analysis: Analysis) -> Figure:
    """Draw curves, test loss and test mIoU with intervals, and the map over variant × learning rate, in one figure."""
    return draw_consolidated(analysis, FULL)


def draw_consolidated(analysis: Analysis, width: float) -> Figure:
    """Draw the consolidated figure in so many inches; a narrow one without the losses of validation and test."""
    frame = lookup.curves_of(analysis, lookup.judged_trials(analysis))
    if frame.empty:
        raise lookup.NotDrawn("no trial at a chosen setting has finished an epoch")
    variants, narrow = lookup.order(analysis), width < NARROW
    rows = 0.25 * max(3, len(variants))
    below = 0.75 + rows
    # Of one setting there is no map.
    maps = int(not lookup.one_setting(analysis))
    if narrow:
        figure = canvas(width, 2.0 + (1 + maps) * below)
        heights = [2.0, *[below] * (1 + maps)]
        upper, *lower = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).ravel()
        curves = upper.subplots(1, 2)
        beyond = marks.draw_curve_panels(analysis, curves, frame, (0, 2))
        loss, (miou, *cells) = [], (part.subplots() for part in lower)
    else:
        figure = canvas(width, 2.3 + below)
        upper, under = figure.subfigures(2, 1, height_ratios=[2.2, below], squeeze=False).ravel()
        curves = upper.subplots(1, 3)
        beyond = marks.draw_curve_panels(analysis, curves, frame)
        first, miou, *cells = under.subplots(1, 2 + maps, width_ratios=[1, 1, 1.2][: 2 + maps])
        loss = [first]
        column, title = lookup.loss_column(analysis)
        draw_bars(analysis, first, column)
        first.set_title(title)
    draw_bars(analysis, miou, "test_mean_iou")
    miou.set_title("Test mIoU, %")
    columns = max(1, *map(len, lookup.own_settings(analysis).values()))
    wide = width - 1.2 if narrow else width / 3
    crowded = wide / columns < NARROWEST or columns * len(variants) > MOST_NUMBERS
    named = lookup.only_rate(analysis) and not lookup.searched(analysis)
    for axes in cells:
        # Cells without room for their numbers are read by the scale.
        draw_map(analysis, axes, "test_mean", wide, bar=crowded, named=named)
        axes.set_title("Test mIoU, % by rate" if named else "Test mIoU, % by setting")
    for axes in [*loss, miou] if loss else []:
        # A row of bars and the row of the map beside it are one.
        axes.set_ylim(len(variants) - 0.5, -0.5)
    for axes in [miou, *cells] if loss else []:
        axes.set_yticks([])
    panels = dict(zip("abcdef", [*curves, *loss, miou, *cells], strict=False))
    for letter, axes in panels.items():
        # Left of the title, above the labels of the axis.
        at: dict[str, Any] = {"xytext": (-3, 6), "xycoords": "axes fraction", "textcoords": "offset points"}
        axes.annotate(f"({letter})", (0, 1), ha="right", size=8.5, weight="bold", **at)
    legend(figure, marks.looks(analysis), lookup.among(analysis, frame["variant"]), notes=lookup.chosen_notes(analysis))
    diverged = bool((analysis.frames.trials["status"] == "diverged").any())
    known, kinds = bool(analysis.variants["test_low"].notna().any()), "" if narrow else "loss: t over seeds; "
    rule = RULE.format(
        curves="a, b" if narrow else "a–c",
        alive=" that did not diverge" * diverged,
        dead=", × a diverged seed" * diverged,
        bars="c" if narrow else "d, e",
        intervals=f", lines and ± {marks.interval_words(analysis)}s ({kinds}mIoU: seeds and images)" * known,
    )
    rule += maps * MAP_RULE.format(
        letter="d" if narrow else "f",
        screening="screening " * bool((analysis.frames.trials["role"] == "confirm").any()),
        zero=", a diverged one counting 0 (×1)" * diverged,
    )
    rule += beyond + marks.losses_rule(analysis)
    return marks.finish(figure, analysis, f"{lookup.chosen_rule(analysis)} {rule}")


def draw_bars(analysis: Analysis, axes: Axes, column: str) -> None:
    """Draw one horizontal bar a variant, with its interval, its seeds as dots, and its number at the right."""
    rows, styles, variants = lookup.by_variant(analysis.variants), marks.looks(analysis), lookup.order(analysis)
    miou = column == "test_mean_iou"
    seeds = lookup.judged_trials(analysis)
    points = "test_score" if miou else column
    # Before the first record there is no such column.
    seeds = seeds[np.isfinite(seeds.get(points, np.nan * seeds["seed"]).astype(float))]
    if seeds.empty:
        raise lookup.NotDrawn("no trial at a chosen setting has finished")
    marks.label_rows(axes, variants)
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
        marks.write_beside(axes, place, text, 4)
    if miou:
        marks.percent_axis(axes, "x", 5)
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
