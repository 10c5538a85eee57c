"""The cost of a variant: test mIoU against measured throughput and against computation."""

from __future__ import annotations

from math import nan
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ablate.analysis.analyse import Analysis
from ablate.registry import register_figure
from ablate.report.figures import theme
from ablate.report.figures.marks import finish, looks, percent_axis
from ablate.report.figures.theme import FULL, SINGLE, canvas, legend
from ablate.report.format import count_text
from ablate.report.lookup import NotDrawn, among, busy, by_variant


@register_figure("cost", title="mIoU against cost", order=90)
def cost(analysis: Analysis) -> Figure:
    """Draw test mIoU against training images per second, inference images per second and forward FLOPs."""
    rows = {name: row for name, row in by_variant(analysis.variants).items() if np.isfinite(row["test_mean"])}
    panels = [
        (title, ratios)
        for quantity, title in (
            ("train_images_per_s", "Training throughput"),
            ("inference_images_per_s", "Inference throughput"),
        )
        if (ratios := _ratios(analysis, quantity))
    ]
    flops = {name: float(row["forward_flops"]) for name, row in rows.items() if np.isfinite(row["forward_flops"])}
    if not rows or not (panels or flops):
        raise NotDrawn("no variant was profiled and no FLOPs are known")
    figure = canvas(FULL if panels else SINGLE, 2.5)
    grid = figure.subplots(1, len(panels) + bool(flops), sharey=True, squeeze=False)[0]
    for axes, (title, ratios) in zip(grid, panels, strict=False):
        for variant, row in rows.items():
            if variant in ratios:
                _point(axes, analysis, variant, row, *ratios[variant])
        axes.axvline(1, color=theme.MUTED, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
        axes.set_title(title)
        axes.set_xlabel("images/s, × the baseline's")
    if flops:
        axes = grid[-1]
        for variant, count in flops.items():
            _point(axes, analysis, variant, rows[variant], count)
        axes.set_title("Computation")
        axes.set_xlabel("forward FLOPs of one image")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
        axes.xaxis.set_major_formatter(lambda value, _place: count_text(value))
    grid[0].set_ylabel("test mIoU, %")
    percent_axis(grid[0])
    for axes in grid:
        axes.margins(x=0.12, y=0.1)
    notes = {name: f"({count_text(row['parameters'])})" for name, row in rows.items() if np.isfinite(row["parameters"])}
    legend(figure, looks(analysis), among(analysis, rows), notes=notes)
    rule = (
        "Vertical: test mIoU at the variant's own best setting with its interval (seeds and images). Horizontal: "
        "images per second as a ratio to the baseline's, each variant measured alone on the device in interleaved "
        "rounds, with the interval over rounds; right of the dashed line is faster. In brackets: the "
        "number of parameters."
    )
    rule += f" The speeds are no measure of cost here: {text}." if (text := busy(analysis)) else ""
    return finish(figure, analysis, rule)


def _ratios(analysis: Analysis, quantity: str) -> dict[str, tuple[float, float, float]]:
    """Return ratio, low, high of every variant to what it is compared with; the baseline itself is 1."""
    frame = analysis.throughput
    found = {}
    for variant, row in by_variant(frame[frame["quantity"] == quantity] if len(frame) else frame).items():
        ratio = 1.0 if variant == analysis.baseline else float(row["ratio"])
        if np.isfinite(row["value"]) and np.isfinite(ratio):
            found[variant] = (ratio, float(row["low"]), float(row["high"]))
    return found


def _point(
    axes: Axes, analysis: Analysis, variant: str, row: dict[str, Any], x: float, low: float = nan, high: float = nan
) -> None:
    look = looks(analysis)[variant]
    y = float(row["test_mean"])
    if np.isfinite(row["test_low"]):
        axes.plot((x, x), np.clip((row["test_low"], row["test_high"]), 0, 1), color=look.color, linewidth=1.1)
    if np.isfinite(low) and np.isfinite(high):
        axes.plot((low, high), (y, y), color=look.color, linewidth=1.1)
    edge: dict[str, Any] = {"markeredgecolor": theme.PAPER, "markeredgewidth": 0.6}
    axes.plot(x, y, look.marker, color=look.color, markersize=6.5, zorder=4, **edge)
