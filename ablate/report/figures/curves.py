"""Curves over the epochs: training loss, val loss and val mIoU, at the chosen setting and rate by rate."""

from __future__ import annotations

from matplotlib.figure import Figure

from ablate.analysis.analyse import Analysis
from ablate.registry import register_figure
from ablate.report.figures.marks import (
    PANELS,
    curve_axis,
    draw_curve_panels,
    draw_curves,
    evenly,
    finish,
    looks,
    spreads,
)
from ablate.report.figures.theme import FULL, canvas, legend, plain
from ablate.report.lookup import (
    NotDrawn,
    among,
    chosen_notes,
    chosen_rule,
    curves_of,
    epochs_at_own_best,
    main_trials,
    only_rate,
    searched,
    setting_lines,
    settings,
)

RULE = (
    "Line: mean over the seeds that did not diverge; band: from the lowest to the highest seed; ×: last finite epoch "
    "of a diverged seed."
)
MOST_SETTINGS = 5


@register_figure("curves", title="Curves at the chosen rates", order=20)
def curves(analysis: Analysis) -> Figure:
    """Draw training loss, validation loss and validation mIoU of every variant at its own best setting."""
    frame = epochs_at_own_best(analysis)
    if frame.empty:
        raise NotDrawn("no trial at a chosen setting has finished an epoch")
    figure = canvas(FULL, 2.5)
    draw_curve_panels(analysis, figure.subplots(1, 3), frame)
    legend(figure, looks(analysis), among(analysis, frame["variant"]), notes=chosen_notes(analysis))
    return finish(figure, analysis, f"{RULE} {chosen_rule(analysis)}")


@register_figure("curves_by_rate", title="Curves rate by rate", order=30)
def curves_by_rate(analysis: Analysis) -> Figure:
    """Draw the same curves at every setting of the grid: what the learning rate does to each variant."""
    every = settings(analysis)
    if len(every) < 2:
        raise NotDrawn("the study has one setting only")
    if searched(analysis):
        raise NotDrawn("every variant was searched at settings of its own")
    shown = evenly(every, MOST_SETTINGS)
    trials = main_trials(analysis)
    frame = curves_of(analysis, trials[trials["setting"].isin(shown)])
    if frame.empty:
        raise NotDrawn("no trial has finished an epoch")
    figure = canvas(FULL, 5.2 + 0.14 * (len(analysis.frames.axes) - 1))
    grid = figure.subplots(len(PANELS), len(shown), sharex=True, sharey="row", squeeze=False)
    by_setting = dict(list(frame.groupby("setting")))
    for row, (column, title) in zip(grid, PANELS, strict=True):
        lived = spreads(frame, column, ["setting", "variant"])
        for axes, setting in zip(row, shown, strict=True):
            own = {variant: spread for (other, variant), spread in lived.items() if other == setting}
            draw_curves(axes, by_setting.get(setting, frame[:0]), column, looks(analysis), own)
            axes.set_xlabel("")
        row[0].set_ylabel(title)
        curve_axis(row[0], column, frame[column])
    for axes, setting in zip(grid[0], shown, strict=True):
        title = "\n".join(map(plain, setting_lines(analysis, setting)))
        axes.set_title(title, size=8.5 if only_rate(analysis) else 7)
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    legend(figure, looks(analysis), among(analysis, frame["variant"]), notes={})
    left_out = len(every) - len(shown)
    more = f" {left_out} settings between those shown are left out." if left_out else ""
    return finish(figure, analysis, RULE + more)
