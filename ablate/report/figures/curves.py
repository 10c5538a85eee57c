"""Curves over the epochs: losses and val mIoU at the chosen setting, rate by rate, and of one trial alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ablate.analysis.analyse import Analysis
from ablate.records.store import Results, read_lines
from ablate.registry import register_figure
from ablate.report import lookup
from ablate.report.figures.marks import (
    curve_axis,
    draw_curves,
    evenly,
    finish,
    looks,
    losses_rule,
    panels_of,
    spreads,
)
from ablate.report.figures.theme import FULL, canvas, legend, plain

RULE = (
    "Line: mean over the seeds that did not diverge; band: from the lowest to the highest seed; ×: last finite epoch "
    "of a diverged seed."
)
MOST_SETTINGS = 5
THUMBNAIL = {"training and val loss": ("train_loss", "val_loss"), "val mIoU": ("val_mean_iou",)}


@register_figure("curves_by_rate", title="Curves rate by rate", order=30)
def curves_by_rate(analysis: Analysis) -> Figure:
    """Draw the same curves at every setting of the grid: what the learning rate does to each variant."""
    every = lookup.settings(analysis)
    if len(every) < 2:
        raise lookup.NotDrawn("the study has one setting only")
    if lookup.searched(analysis):
        raise lookup.NotDrawn("every variant was searched at settings of its own")
    shown = evenly(every, MOST_SETTINGS)
    trials = lookup.main_trials(analysis)
    frame = lookup.curves_of(analysis, trials[trials["setting"].isin(shown)])
    if frame.empty:
        raise lookup.NotDrawn("no trial has finished an epoch")
    figure = canvas(FULL, 5.2 + 0.14 * (len(analysis.frames.axes) - 1))
    panels = panels_of(analysis)
    grid = figure.subplots(len(panels), len(shown), sharex=True, sharey="row", squeeze=False)
    by_setting = dict(list(frame.groupby("setting")))
    for row, (column, title) in zip(grid, panels, strict=True):
        lived = spreads(frame, column, ["setting", "variant"])
        for axes, setting in zip(row, shown, strict=True):
            own = {variant: spread for (other, variant), spread in lived.items() if other == setting}
            draw_curves(axes, by_setting.get(setting, frame[:0]), column, looks(analysis), own)
            axes.set_xlabel("")
        row[0].set_ylabel(title)
        curve_axis(row[0], column, frame[column])
    for axes, setting in zip(grid[0], shown, strict=True):
        title = "\n".join(map(plain, lookup.setting_lines(analysis, setting)))
        axes.set_title(title, size=8.5 if lookup.only_rate(analysis) else 7)
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    legend(figure, looks(analysis), lookup.among(analysis, frame["variant"]), notes={})
    left_out = len(every) - len(shown)
    more = f" {left_out} settings between those shown are left out." if left_out else ""
    return finish(figure, analysis, RULE + losses_rule(analysis) + more)


def write_curves(results: Results, name: str, path: Path) -> Path | None:
    """Draw one trial's curves as a small image: the loss of every step, the losses and val mIoU of every epoch.

    Returns the path, None where no epoch was finished.
    """
    folder = results.trial(name)
    epochs = read_lines(folder.epochs)
    if not epochs:
        return None
    steps = np.fromfile(folder.steps, dtype="<f4").reshape(-1, 2)
    figure = Figure(figsize=(9, 2.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    left, *others = figure.subplots(1, 3)
    left.plot(np.arange(1, len(steps) + 1), steps[:, 0], linewidth=0.8)
    left.set(title="training loss", xlabel="step", yscale="log")
    for axes, (title, columns) in zip(others, THUMBNAIL.items(), strict=True):
        for column in columns:
            values = [np.nan if row[column] is None else row[column] for row in epochs]
            axes.plot([row["epoch"] for row in epochs], values, marker=".", label=column.replace("_", " "))
        axes.set(title=title, xlabel="epoch")
        if len(columns) > 1:
            axes.legend(frameon=False)
    figure.savefig(path)
    return path
