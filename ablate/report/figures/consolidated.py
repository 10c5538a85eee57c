"""The consolidated figure: everything a reader of one figure should see of a study, on a page or in a column."""

from __future__ import annotations

from matplotlib.figure import Figure

from ablate.analysis.analyse import Analysis
from ablate.registry import register_figure
from ablate.report import lookup
from ablate.report.figures.bars import draw_bars
from ablate.report.figures.maps import MOST_NUMBERS, NARROWEST, draw_map
from ablate.report.figures.marks import draw_curve_panels, finish, looks, losses_rule
from ablate.report.figures.theme import FULL, canvas, legend

RULE = (
    "Above: mean over the seeds{alive}, band from the lowest to the highest seed{dead}. "
    "{below} there, dots are seeds, lines and ± {confidence:.0f} % intervals ({kinds}mIoU: seeds and images); {map}: "
    "mean test mIoU of every cell{zero}, the framed setting is the chosen one."
)
# Of a narrower figure the panels stand below one another.
NARROW = 5.0


@register_figure("consolidated", title="Consolidated results", section="consolidated", order=0)
def consolidated(analysis: Analysis) -> Figure:
    """Draw curves, test loss and test mIoU with intervals, and the map over variant × learning rate, in one figure."""
    return draw_consolidated(analysis, FULL)


def draw_consolidated(analysis: Analysis, width: float) -> Figure:
    """Draw the consolidated figure in so many inches; a narrow one without the losses of validation and test."""
    frame = lookup.epochs_at_own_best(analysis)
    if frame.empty:
        raise lookup.NotDrawn("no trial at a chosen setting has finished an epoch")
    variants, narrow = lookup.order(analysis), width < NARROW
    rows = 0.25 * max(3, len(variants))
    below = 0.75 + rows
    if narrow:
        figure = canvas(width, 2.0 + 2 * below)
        upper, *lower = figure.subfigures(3, 1, height_ratios=[2.0, below, below], squeeze=False).ravel()
        draw_curve_panels(analysis, upper.subplots(1, 2), frame, (0, 2))
        loss, (miou, cells) = None, (part.subplots() for part in lower)
    else:
        figure = canvas(width, 2.3 + below)
        upper, under = figure.subfigures(2, 1, height_ratios=[2.2, below], squeeze=False).ravel()
        draw_curve_panels(analysis, upper.subplots(1, 3), frame)
        loss, miou, cells = under.subplots(1, 3, width_ratios=[1, 1, 1.2])
        column, title = lookup.loss_column(analysis)
        draw_bars(analysis, loss, column)
        loss.set_title(title)
    draw_bars(analysis, miou, "test_mean_iou")
    columns = max(1, *map(len, lookup.own_settings(analysis).values()))
    wide = width - 1.2 if narrow else width / 3
    crowded = wide / columns < NARROWEST or columns * len(variants) > MOST_NUMBERS
    named = lookup.only_rate(analysis) and not lookup.searched(analysis)
    # Cells without room for their numbers are read by the scale.
    draw_map(analysis, cells, "test_mean", wide, bar=crowded, named=named)
    for axes in () if loss is None else (loss, miou):
        # A row of bars and the row of the map beside it are one.
        axes.set_ylim(len(variants) - 0.5, -0.5)
    for axes in () if narrow else (miou, cells):
        axes.set_yticks([])
    miou.set_title("Test mIoU, %")
    cells.set_title("Test mIoU, % by rate" if named else "Test mIoU, % by setting")
    legend(figure, looks(analysis), lookup.among(analysis, frame["variant"]), notes=lookup.chosen_notes(analysis))
    diverged = bool((analysis.frames.trials["status"] == "diverged").any())
    rule = RULE.format(
        alive=" that did not diverge" * diverged,
        dead=", × a diverged seed" * diverged,
        zero=", a diverged seed counting 0 (×1)" * diverged,
        below="Middle: test mIoU" if narrow else "Below: test loss and test mIoU",
        kinds="" if narrow else "loss: t over seeds; ",
        map="below" if narrow else "right",
        confidence=100 * analysis.confidence,
    )
    return finish(figure, analysis, f"{lookup.chosen_rule(analysis)} {rule}{losses_rule(analysis)}")
