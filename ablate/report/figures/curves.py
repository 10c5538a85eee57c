"""Curves over the epochs: training loss, val loss and val mIoU, at the chosen setting and rate by rate."""

from __future__ import annotations

from matplotlib.figure import Figure

from ablate.analysis.analyse import Analysis
from ablate.registry import register_figure
from ablate.report.figures.common import (
    NotDrawn,
    chosen_notes,
    chosen_rule,
    curves_of,
    draw_curves,
    epochs_at_own_best,
    finish,
    looks,
    loss_axis,
    main_trials,
    order,
    percent_axis,
    searched,
    setting_title,
    settings,
    spreads,
)
from ablate.report.style import FULL, canvas, legend

PANELS = (("train_loss", "Training loss"), ("val_loss", "Validation loss"), ("val_mean_iou", "Validation mIoU, %"))
RULE = (
    "Line: mean over the seeds that did not diverge; band: from the lowest to the highest seed; ×: last finite epoch "
    "of a diverged seed."
)
MOST_SETTINGS = 5


@register_figure("curves")
def curves(analysis: Analysis) -> Figure:
    """Training loss, validation loss and validation mIoU of every variant at its own best setting."""
    frame = epochs_at_own_best(analysis)
    if frame.empty:
        raise NotDrawn("no trial at a chosen setting has finished an epoch")
    figure = canvas(FULL, 2.5)
    styles, variants = looks(analysis), order(analysis)
    for axes, (column, title) in zip(figure.subplots(1, 3), PANELS, strict=True):
        draw_curves(axes, frame, column, variants, styles)
        axes.set_title(title)
        if column == "val_mean_iou":
            percent_axis(axes)
        else:
            loss_axis(axes, frame[column])
    there = set(frame["variant"])
    shown = [variant for variant in variants if variant in there]
    legend(figure, styles, shown, notes=chosen_notes(analysis))
    return finish(figure, analysis, f"{RULE} {chosen_rule(analysis)}")


@register_figure("curves_by_rate")
def curves_by_rate(analysis: Analysis) -> Figure:
    """The same curves at every setting of the grid: what the learning rate does to each variant."""
    shown = settings(analysis)
    if len(shown) < 2:
        raise NotDrawn("the study has one setting only")
    if searched(analysis):
        raise NotDrawn("every variant was searched at settings of its own")
    if len(shown) > MOST_SETTINGS:
        # The outermost settings and those between, evenly.
        step = (len(shown) - 1) / (MOST_SETTINGS - 1)
        shown = [shown[round(place * step)] for place in range(MOST_SETTINGS)]
    trials = main_trials(analysis)
    frame = curves_of(analysis, trials[trials["setting"].isin(shown)])
    if frame.empty:
        raise NotDrawn("no trial has finished an epoch")
    figure = canvas(FULL, 5.2 + 0.14 * (len(analysis.frames.axes) - 1))
    styles, variants = looks(analysis), order(analysis)
    grid = figure.subplots(len(PANELS), len(shown), sharex=True, sharey="row", squeeze=False)
    by_setting = dict(list(frame.groupby("setting")))
    for row, (column, title) in zip(grid, PANELS, strict=True):
        lived = spreads(frame, column, ["setting", "variant"])
        for axes, setting in zip(row, shown, strict=True):
            own = {variant: spread for (other, variant), spread in lived.items() if other == setting}
            draw_curves(axes, by_setting.get(setting, frame[:0]), column, variants, styles, own)
            if axes not in grid[-1]:
                axes.set_xlabel("")
        row[0].set_ylabel(title)
        if column == "val_mean_iou":
            percent_axis(row[0])
        else:
            loss_axis(row[0], frame[column])
    for axes, setting in zip(grid[0], shown, strict=True):
        axes.set_title(setting_title(analysis, setting), size=8.5 if len(analysis.frames.axes) == 1 else 7)
    there = set(frame["variant"])
    legend(figure, styles, [v for v in variants if v in there], notes={})
    left_out = len(settings(analysis)) - len(shown)
    more = f" {left_out} settings between those shown are left out." if left_out else ""
    return finish(figure, analysis, RULE + more)
