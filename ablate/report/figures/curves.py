"""Curves over the epochs: rate by rate, with the gain that more are projected to bring, and of one trial alone."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ablate.analysis.analyse import Analysis
from ablate.measure.convergence import GAIN_THRESHOLD, Convergence, convergence, late_epochs
from ablate.records.store import Results, read_lines
from ablate.registry import register_figure
from ablate.report import lookup
from ablate.report.figures import theme
from ablate.report.figures.marks import (
    curve_axis,
    draw_curves,
    evenly,
    finish,
    looks,
    losses_rule,
    name_settings,
    panel_grid,
    panels_of,
    percent_axis,
    spreads,
    subtitle,
)
from ablate.report.figures.theme import FULL, canvas, legend, plain
from ablate.report.format import percent, percent_change, short_names
from ablate.stats.saturation import projected_gain

RULE = (
    "Line: mean over the seeds that did not diverge; band: from the lowest to the highest seed; ×: last finite epoch "
    "of a diverged seed."
)
MOST_SETTINGS = 5
THUMBNAIL = {"training and val loss": ("train_loss", "val_loss"), "val mIoU": ("val_mean_iou",)}
MOST_PANELS = 12


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
    by_setting, beyond = dict(list(frame.groupby("setting"))), []
    for row, (column, title) in zip(grid, panels, strict=True):
        lived = spreads(frame, column, ["setting", "variant"])
        for axes, setting in zip(row, shown, strict=True):
            own = {variant: spread for (other, variant), spread in lived.items() if other == setting}
            draw_curves(axes, by_setting.get(setting, frame[:0]), column, looks(analysis), own)
            axes.set_xlabel("")
        row[0].set_ylabel(title)
        beyond.append(curve_axis(row[0], column, frame))
    name_settings(grid[0], analysis, shown)
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    legend(figure, looks(analysis), lookup.among(analysis, frame["variant"]), notes={})
    left_out = len(every) - len(shown)
    more = f" {left_out} settings between those shown are left out." if left_out else ""
    return finish(figure, analysis, RULE + losses_rule(analysis) + "".join(dict.fromkeys(beyond)) + more)


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


class Outlook(NamedTuple):
    """The val mIoU of a variant's seeds (seeds, epochs), the verdict on it, and its projected mean (ahead + 1,)."""

    curves: np.ndarray
    verdict: Convergence
    path: np.ndarray


def outlook(curves: np.ndarray) -> Outlook:
    """Project the curves (seeds, epochs) on: the path starts at the mean of the last epoch and ends a gain above it."""
    ahead = late_epochs(curves.shape[1])
    gain, _, _, decay = projected_gain(curves, ahead)
    # The approach to a plateau of `projected_gain`: the slope falls by `decay` over half its window.
    half = max(1, min(3 * ahead, curves.shape[1]) // 2)
    steps = decay ** (np.arange(1, ahead + 1) / half)
    risen = np.concatenate([[0.0], steps.cumsum() / steps.sum()]) * gain
    return Outlook(curves, convergence(curves), curves[:, -1].mean() + risen)


@register_figure("projection", title="What further epochs would bring", order=40)
def projection(analysis: Analysis) -> Figure:
    """Draw the val mIoU of every variant's seeds, their mean, and the gain projected for the next epochs."""
    trials = lookup.judged_trials(analysis)
    trials = trials[trials["status"] == "complete"]
    if len(trials) and not trials["schedule"].eq("constant").any():
        raise lookup.NotDrawn("the learning rate ends near zero, which makes a plateau of its own")
    epochs = lookup.curves_of(analysis, trials)
    found: dict[str, Outlook] = {}
    for variant in lookup.among(analysis, epochs["variant"]):
        table = epochs[epochs["variant"] == variant].pivot_table("val_mean_iou", "key", "epoch")
        curves = table.dropna().to_numpy()
        if len(curves) and np.isfinite((projected := outlook(curves)).verdict.gain):
            found[variant] = projected
    if not found:
        raise lookup.NotDrawn("no trial that decides has epochs enough for a projection")
    if all(seen.verdict.verdict == "converged" for seen in found.values()):
        said = f"no variant has {percent(GAIN_THRESHOLD)} points of validation mIoU to gain from further epochs"
        raise lookup.NotDrawn(f"{said}: every interval of the projected gain lies below")
    shown = sorted(found, key=lambda variant: -found[variant].verdict.gain)[:MOST_PANELS]
    shown = lookup.among(analysis, shown)
    columns = min(4 if len(shown) != 6 else 3, len(shown))
    lines = -(-len(shown) // columns)
    figure = canvas(FULL, 0.35 + 1.75 * lines)
    grid = panel_grid(figure, len(shown), columns, sharex=True, sharey=True)
    names = short_names(shown, 88 // columns - 2)
    for axes, variant in zip(grid, shown, strict=True):
        curves, verdict, path = found[variant]
        look = looks(analysis)[variant]
        last = curves.shape[1]
        seen = np.arange(1, last + 1)
        axes.plot(seen, curves.T, color=look.color, linewidth=0.6, alpha=0.4)
        axes.plot(seen, curves.mean(axis=0), color=look.color, linewidth=1.8)
        axes.plot(np.arange(last, last + len(path)), path, color=look.color, linewidth=1.4, linestyle=(0, (2, 1.2)))
        end = last + len(path) - 1
        if np.isfinite(verdict.low):
            bar = np.clip(path[0] + np.array([verdict.low, verdict.high]), 0, 1)
            axes.plot((end, end), bar, color=look.color, linewidth=1.2)
        axes.plot(end, path[-1], look.marker, color=look.color, markersize=5, markerfacecolor=theme.PAPER)
        axes.axvline(last, color=theme.MUTED, linewidth=0.7)
        axes.set_title(plain(names[variant]))
        subtitle(axes, percent_change(verdict.gain, verdict.low, verdict.high))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, steps=[1, 2, 5, 10]))
    for axes in grid[::columns]:
        axes.set_ylabel("val mIoU, %")
    for place, axes in enumerate(grid):
        axes.tick_params(axis="x", labelbottom=place + columns >= len(shown))
        axes.set_xlabel("epoch" if place + columns >= len(shown) else "")
    percent_axis(grid[0])
    rule = (
        f"Thin: seeds; thick: their mean; right of the line: the mean projected on along an approach to a plateau, "
        f"above each panel its gain in points of validation mIoU with the 90 % interval over seeds (jackknife), drawn "
        f"at the end. {lookup.chosen_rule(analysis)}"
    )
    left = len(found) - len(shown)
    return finish(figure, analysis, rule + (f" {left} variants of smaller gain are left out." if left else ""))
