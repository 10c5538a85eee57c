"""The consolidated figure: everything a reader of one figure should see of a study."""

from __future__ import annotations

from matplotlib.figure import Figure

from ablate.analysis.analyse import Analysis
from ablate.registry import register_figure
from ablate.report import lookup
from ablate.report.figures.bars import draw_bars
from ablate.report.figures.maps import MOST_NUMBERS, NARROWEST, draw_map
from ablate.report.figures.marks import draw_curve_panels, finish, looks
from ablate.report.figures.theme import FULL, canvas, legend

RULE = (
    "Above: mean over the seeds that did not diverge, band from the lowest to the highest seed, × a diverged seed. "
    "Below: test loss and test mIoU there, dots are seeds, lines and ± {confidence:.0f} % intervals (loss: t over "
    "seeds; mIoU: seeds and images); right: mean test mIoU of every cell, a diverged seed counting 0 (×1), the "
    "framed setting is the chosen one."
)


@register_figure("consolidated", title="Consolidated results", section="consolidated", order=0)
def consolidated(analysis: Analysis) -> Figure:
    """Draw curves, test loss and test mIoU with intervals, and the map over variant × learning rate, in one figure."""
    frame = lookup.epochs_at_own_best(analysis)
    if frame.empty:
        raise lookup.NotDrawn("no trial at a chosen setting has finished an epoch")
    variants = lookup.order(analysis)
    below = 0.75 + 0.25 * max(3, len(variants))
    figure = canvas(FULL, 2.3 + below)
    upper, lower = figure.subfigures(2, 1, height_ratios=[2.2, below], squeeze=False).ravel()
    draw_curve_panels(analysis, upper.subplots(1, 3), frame)
    loss, miou, cells = lower.subplots(1, 3, width_ratios=[1, 1, 1.2])
    column, title = lookup.loss_column(analysis)
    draw_bars(analysis, loss, column)
    draw_bars(analysis, miou, "test_mean_iou")
    miou.set_yticks([])
    columns = max(1, *map(len, lookup.own_settings(analysis).values()))
    narrow = FULL / 3 / columns < NARROWEST or columns * len(variants) > MOST_NUMBERS
    named = lookup.only_rate(analysis) and not lookup.searched(analysis)
    # Cells without room for their numbers are read by the scale.
    draw_map(analysis, cells, "test_mean", FULL / 3, bar=narrow, named=named)
    cells.set_yticks([])
    for axes in (loss, miou):
        # A row of bars and the row of the map beside it are one.
        axes.set_ylim(len(variants) - 0.5, -0.5)
    loss.set_title(title)
    miou.set_title("Test mIoU, %")
    cells.set_title("Test mIoU, % by rate" if named else "Test mIoU, % by setting")
    legend(figure, looks(analysis), lookup.among(analysis, frame["variant"]), notes=lookup.chosen_notes(analysis))
    rule = RULE.format(confidence=100 * analysis.confidence)
    return finish(figure, analysis, f"{lookup.chosen_rule(analysis)} {rule}")
