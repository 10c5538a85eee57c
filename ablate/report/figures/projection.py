"""The learning curve of every variant with the gain that further epochs are projected to bring."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ablate.analysis.analyse import Analysis
from ablate.measure.convergence import GAIN_THRESHOLD, Convergence, convergence, late_epochs
from ablate.registry import register_figure
from ablate.report import lookup
from ablate.report.figures import theme
from ablate.report.figures.differences import subtitle
from ablate.report.figures.marks import finish, looks, percent_axis
from ablate.report.figures.theme import FULL, canvas, plain
from ablate.report.format import percent, percent_interval, short_names
from ablate.stats.saturation import projected_gain

MOST_PANELS = 12


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
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).ravel()
    names = short_names(shown, 88 // columns - 2)
    for axes, variant in zip(grid, shown, strict=False):
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
        subtitle(axes, f"{percent(verdict.gain, sign=True)} {percent_interval(verdict.low, verdict.high)}")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, steps=[1, 2, 5, 10]))
    for axes in grid[len(shown) :]:
        axes.set_visible(False)
    for axes in grid[::columns]:
        axes.set_ylabel("val mIoU, %")
    for place, axes in enumerate(grid[: len(shown)]):
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
