"""Tuning-budget curves: the test score to expect after trying so many settings."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ablate.analysis.analyse import Analysis
from ablate.registry import register_figure
from ablate.report.figures.marks import finish, looks, percent_axis
from ablate.report.figures.theme import SINGLE, canvas, legend
from ablate.report.lookup import NotDrawn, among


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
