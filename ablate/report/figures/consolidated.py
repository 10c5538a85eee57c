"""The consolidated figure: everything a reader of one figure should see of a study."""

from __future__ import annotations

from matplotlib.figure import Figure

from ablate.analysis.analyse import Analysis
from ablate.registry import register_figure
from ablate.report.figures.bars import draw_bars
from ablate.report.figures.common import (
    NotDrawn,
    chosen_notes,
    chosen_rule,
    draw_curves,
    epochs_at_own_best,
    finish,
    looks,
    loss_axis,
    order,
    own_settings,
    percent_axis,
    searched,
)
from ablate.report.figures.curves import PANELS
from ablate.report.figures.maps import MOST_NUMBERS, NARROWEST, draw_map
from ablate.report.style import FULL, canvas, legend

RULE = (
    "Above: mean over the seeds that did not diverge, band from the lowest to the highest seed, × a diverged seed. "
    "Below: test loss and test mIoU there, dots are seeds, lines and ± {confidence:.0f} % intervals (loss: t over "
    "seeds; mIoU: seeds and images); right: mean test mIoU of every cell, a diverged seed counting 0 (×1), the "
    "framed setting is the chosen one."
)


@register_figure("consolidated")
def consolidated(analysis: Analysis) -> Figure:
    """Curves, test loss and test mIoU with intervals, and the map over variant × learning rate, in one figure."""
    frame = epochs_at_own_best(analysis)
    if frame.empty:
        raise NotDrawn("no trial at a chosen setting has finished an epoch")
    variants, styles = order(analysis), looks(analysis)
    below = 0.75 + 0.25 * max(3, len(variants))
    figure = canvas(FULL, 2.3 + below)
    upper, lower = figure.subfigures(2, 1, height_ratios=[2.2, below], squeeze=False).ravel()
    for axes, (column, title) in zip(upper.subplots(1, 3), PANELS, strict=True):
        draw_curves(axes, frame, column, variants, styles)
        axes.set_title(title)
        if column == "val_mean_iou":
            percent_axis(axes)
        else:
            loss_axis(axes, frame[column])
    loss, miou, cells = lower.subplots(1, 3, width_ratios=[1, 1, 1.2])
    draw_bars(analysis, loss, "test_loss")
    draw_bars(analysis, miou, "test_mean_iou")
    miou.set_yticks([])
    columns = max(1, *map(len, own_settings(analysis).values()))
    narrow = FULL / 3 / columns < NARROWEST or columns * len(variants) > MOST_NUMBERS
    only_rate = list(analysis.frames.axes) == ["lr"] and not searched(analysis)
    # Cells without room for their numbers are read by the scale.
    draw_map(analysis, cells, "test_mean", FULL / 3, bar=narrow, named=only_rate)
    cells.set_yticks([])
    for axes in (loss, miou):
        # A row of bars and the row of the map beside it are one.
        axes.set_ylim(len(variants) - 0.5, -0.5)
    loss.set_title("Test loss")
    miou.set_title("Test mIoU, %")
    cells.set_title("Test mIoU, % by rate" if only_rate else "Test mIoU, % by setting")
    there = set(frame["variant"])
    shown = [variant for variant in variants if variant in there]
    legend(figure, styles, shown, notes=chosen_notes(analysis))
    rule = RULE.format(confidence=100 * analysis.confidence)
    return finish(figure, analysis, f"{chosen_rule(analysis)} {rule}")
