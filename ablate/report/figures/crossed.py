"""Factors that are crossed: whether two components help one another, and how scores grow with the training images."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ablate.analysis.analyse import Analysis
from ablate.registry import register_figure
from ablate.report import lookup
from ablate.report.figures import theme
from ablate.report.figures.marks import finish, interval_words, looks, panel_grid, percent_axis, subtitle
from ablate.report.figures.theme import FULL, SINGLE, canvas, legend, plain
from ablate.report.format import percent_change, shorten

MOST_PAIRS = 9


@register_figure("interactions", title="Do components help one another", section="consolidated", order=20)
def interactions(analysis: Analysis) -> Figure:
    """Draw, for every two factors, the four cells of their levels: parallel lines are no interaction."""
    frame = analysis.interactions.head(MOST_PAIRS)
    if frame.empty:
        raise lookup.NotDrawn("no two factors of the study are crossed")
    columns = min(3, len(frame))
    lines = -(-len(frame) // columns)
    figure = canvas(FULL if columns > 1 else SINGLE, 0.2 + 2.3 * lines)
    grid = panel_grid(figure, len(frame), columns, sharey=True)
    for axes, row in zip(grid, lookup.rows_of(frame), strict=True):
        # The second factor's levels as lines in the first two looks, side by side.
        for b, (color, dash, marker) in enumerate(zip(theme.COLORS[:2], theme.DASHES, theme.MARKERS, strict=False)):
            at = np.array([0, 1]) + 0.05 * (2 * b - 1)
            mean, low, high = (np.array([row[f"mean_{a}{b}{end}"] for a in (0, 1)]) for end in ("", "_low", "_high"))
            style: dict[str, Any] = {} if row["decision"] != "undecided" else {"markerfacecolor": theme.PAPER}
            axes.vlines(at, np.clip(low, 0, 1), np.clip(high, 0, 1), color=color, linewidth=1.2)
            label = plain(shorten(f"{row['factor_b']} {row[f'level_b{b}']}", 24))
            axes.plot(at, mean, color=color, linestyle=dash, marker=marker, markersize=5, label=label, **style)
        axes.set_xticks([0, 1], [plain(shorten(str(row[f"level_a{a}"]), 16)) for a in (0, 1)])
        axes.set(xlim=(-0.4, 1.4), xlabel=plain(shorten(str(row["factor_a"]), 30)))
        axes.set_title(plain(shorten(f"{row['factor_a']} × {row['factor_b']}", 26)))
        word = row["decision"] if row["decision"] in ("additive", "undecided") else "decided"
        subtitle(axes, f"{percent_change(row['estimate'], row['low'], row['high'])}, {word}")
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.28), ncols=1)
    percent_axis(grid[0])
    for axes in grid[::columns]:
        axes.set_ylabel(f"test mIoU, % ({interval_words(analysis)})")
    rule = (
        "Test mIoU with each pair of levels; lines that are parallel mean that the first factor does the same at both "
        "levels of the second. Above: the change from left to right along the line of the second level less that along "
        f"the line of the first, in points, with its {interval_words(analysis)}, and whether it is decided, corrected "
        "for the number of pairs (Holm). Filled: decided."
    )
    return finish(figure, analysis, rule)


@register_figure("data_size", title="Test mIoU against the training images", section="consolidated", order=30)
def data_size(analysis: Analysis) -> Figure:
    """Draw the test mIoU of every variant against the number of images that it was trained on."""
    frame = analysis.data_size
    if frame.empty:
        raise lookup.NotDrawn("the number of training images is no factor of the study")
    figure = canvas(SINGLE, 2.8)
    axes = figure.subplots()
    sizes = sorted(frame["images"].unique())
    styles = looks(analysis)
    names = [str(name) for name in dict.fromkeys(frame["variant"])]
    # The frame's variants may be those without the number of images in their name.
    styles |= theme.looks(names) if not set(names) <= set(styles) else {}
    step = 1.012
    for place, name in enumerate(names):
        rows = frame[frame["variant"] == name].sort_values("images")
        look, shift = styles[name], step ** (place - (len(names) - 1) / 2)
        axes.vlines(
            rows["images"] * shift, rows["low"].clip(0, 1), rows["high"].clip(0, 1), color=look.color, linewidth=1
        )
        axes.plot(rows["images"] * shift, rows["score"], **look.line(marker=look.marker))
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
    axes.set(xlabel="training images", ylabel=f"test mIoU, % ({interval_words(analysis)})")
    percent_axis(axes)
    legend(figure, styles, names, notes={})
    rule = (
        "Mean test mIoU on the same test images, whatever number of images was trained on, with its interval; the "
        "smaller sets are parts of the larger ones. A line still rising on the right: more images would help."
    )
    return finish(figure, analysis, rule)
