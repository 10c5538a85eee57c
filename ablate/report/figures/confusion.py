"""Which classes are taken for which: of every variant by itself, and against the baseline."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure

from ablate.analysis.analyse import Analysis
from ablate.errors import ResultsError
from ablate.measure.segmentation import confusion as count_confusion
from ablate.measure.segmentation import divide
from ablate.records.images import unpack_maps
from ablate.records.paint import enlarge
from ablate.registry import register_figure
from ablate.report import lookup
from ablate.report.figures.marks import finish, largest, panel_grid, percent_tick, subtitle, write_on_cells
from ablate.report.figures.theme import FULL, canvas, plain
from ablate.report.format import percent, short_names

# Classes of a figure, of more those with most pixels are shown; and classes whose cells have room for numbers.
MOST_CLASSES, MOST_NUMBERED = 30, 16
# Inches: the least size of a cell that is labelled, and of one that holds a number.
LABELLED, NUMBERED = 0.085, 0.165
# Inches: a panel of few classes, above which its sentence has room.
FEW = 2.0
TALLEST = 8.0
CELL = "Row: the class of a pixel in the target; column: the class predicted for it."


@lookup.once_an_analysis
def confusions(analysis: Analysis) -> dict[str, np.ndarray]:
    """Return by variant the share of each class's test pixels (row) that is predicted as each class: float64 (C, C).

    Counted over the seeds that the variant is judged by; raises `NotDrawn` where none has stored its predictions.
    """
    frames = analysis.frames
    if frames.multilabel:
        raise lookup.NotDrawn("a pixel may bear several classes, so that none is taken for another")
    trials = lookup.judged_trials(analysis)
    trials = trials[trials["status"] == "complete"]
    there = [frames.arrays[key].folder.predictions.is_file() for key in trials["key"]]
    counts: dict[str, np.ndarray] = {}
    for variant, key in zip(trials.loc[there, "variant"], trials.loc[there, "key"], strict=True):
        # The record is the truth about a trial; a damaged file of predictions costs its part of a figure only.
        with contextlib.suppress(ResultsError, ValueError):
            maps = zip(unpack_maps(frames.arrays[key].folder.predictions), frames.target, strict=True)
            shape = len(frames.class_names), frames.ignore_index
            counted = np.sum([count_confusion(preds, target, *shape) for preds, target in maps], axis=0)
            counts[variant] = counted + counts.get(variant, np.int64(0))
    if not counts:
        raise lookup.NotDrawn("no trial that decides has stored its predictions (predictions.zip)")
    shares = {
        v: divide(table, np.broadcast_to(table.sum(1, keepdims=True), table.shape)) for v, table in counts.items()
    }
    return {variant: shares[variant] for variant in lookup.among(analysis, shares)}


@register_figure("confusion", title="Confusion of classes", order=72)
def confusion(analysis: Analysis) -> Figure:
    """Draw the confusion matrix of every variant, each class as shares of its pixels."""
    rule = f"{CELL} Number: share of the row's pixels in %, blank below 0.5; a diagonal of 100 would be no error."
    return _sheet(analysis, confusions(analysis), rule, matplotlib.colormaps["Blues"], (0.0, 1.0), "most confused")


@register_figure("confusion_differences", title="Confusion of classes against the baseline", order=74)
def confusion_differences(analysis: Analysis) -> Figure:
    """Draw how the confusion matrix of every variant differs from the baseline's."""
    found = confusions(analysis)
    if analysis.baseline not in found or len(found) < 2:
        raise lookup.NotDrawn("the baseline and a variant have not both stored predictions")
    moved = {variant: share - found[analysis.baseline] for variant, share in found.items()}
    del moved[analysis.baseline]
    reach = max(0.05, *(float(np.nanmax(np.abs(change))) for change in moved.values()))
    rule = (
        f"{CELL} Number: share of the row's pixels less the baseline's, in points, blank below 0.5. Red: more errors "
        "than the baseline (off the diagonal more, on it less), blue: fewer. Descriptive."
    )
    return _sheet(analysis, moved, rule, matplotlib.colormaps["RdBu"], (-reach, reach), "largest change")


def _sheet(
    analysis: Analysis,
    tables: Mapping[str, np.ndarray],
    rule: str,
    colours: Colormap,
    limits: tuple[float, float],
    said: str,
) -> Figure:
    """Draw a matrix a variant; limits below zero mean differences, coloured by whether they are errors."""
    signed = limits[0] < 0
    names, shown = analysis.frames.class_names, lookup.frequent_classes(analysis, MOST_CLASSES)
    short = short_names([names[label] for label in shown], 13)
    labels = [plain(short[names[label]]) for label in shown]
    left = 0.16 + 0.062 * max(map(len, labels))
    # So many classes leave no room for numbers: a bar for the colours stands beside them.
    bar = 0.5 * (len(shown) > MOST_NUMBERED)
    columns, wide = _columns(len(tables), len(shown), FULL - left - bar - 0.15)
    rows_that_fit = max(1, int((TALLEST - left) / (wide + 0.42)))
    variants, left_out = [*tables], ""
    if len(variants) > columns * rows_that_fit:
        base = [v for v in variants if v == analysis.baseline]
        others = [v for v in variants if v not in base]
        others, left_out = largest(analysis, others, columns * rows_that_fit - len(base), "")
        variants = base + others
    lines = -(-len(variants) // columns)
    figure = canvas(left + columns * wide + bar + 0.15, lines * (wide + 0.42) + left)
    grid = panel_grid(figure, len(variants), columns, sharex=True, sharey=True)
    norm = Normalize(*limits)
    titles = short_names(variants, int(wide / 0.085))
    for axes, variant in zip(grid, variants, strict=True):
        table = tables[variant][np.ix_(shown, shown)]
        good = np.where(np.eye(len(shown), dtype=bool), table, -table) if signed else table
        painted = colours(norm(np.nan_to_num(good)))
        # Whole blocks of pixels: whatever a page or a viewer does to pictures, the cells stay apart.
        axes.imshow(enlarge(painted, 8), extent=(0, len(shown), len(shown), 0), aspect="auto", interpolation="none")
        if not bar:
            texts = np.array([[_number(value, signed) for value in row] for row in table], dtype=object)
            write_on_cells(axes, texts, painted.reshape(-1, 4), 6)
        axes.set_title(plain(titles[variant]))
        subtitle(axes, _largest_entry(table, labels, said, signed, int(wide / 0.062)))
        axes.grid(False)
        axes.tick_params(length=0, labelsize=6.5 if wide / len(shown) >= 0.11 else 6)
        ticks = np.arange(len(shown)) + 0.5
        axes.set_xticks(ticks, labels, rotation=90)
        axes.set_yticks(ticks, labels)
        # The lowest panel of a column may not be in the last line.
        axes.tick_params(axis="x", labelbottom=variants.index(variant) + columns >= len(variants))
    if bar:
        scale = figure.colorbar(ScalarMappable(norm, colours), ax=grid[:columns], fraction=0.03, aspect=40, pad=0.01)
        scale.ax.yaxis.set_major_formatter(percent_tick)
        scale.outline.set_visible(False)
        rule = rule.replace("Number:", "Colour:").replace(", blank below 0.5", "")
    more = f" Shown: the {len(shown)} of {len(names)} classes with most pixels." if len(shown) < len(names) else ""
    seeds = f"Each variant at its own best setting, {lookup.seeds_text(analysis)}, a diverged one left out."
    return finish(figure, analysis, f"{rule} {seeds}{more}{left_out}")


def _columns(panels: int, classes: int, room: float) -> tuple[int, float]:
    """Return the columns of a sheet, and how wide its panels are: so many that labels and numbers are readable."""
    least = NUMBERED if classes <= MOST_NUMBERED else LABELLED
    for columns in (3, 2, 1):
        wide = room / columns
        if wide / classes >= least and (columns <= max(1, panels - (panels == 4) * 2)):
            break
    return columns, min(wide, max(FEW, 0.34 * classes))


def _number(value: float, signed: bool) -> str:
    return percent(value, 0, sign=signed) if abs(value) >= 0.005 else ""


def _largest_entry(table: np.ndarray, labels: list[str], said: str, signed: bool, room: int) -> str:
    """Return the pair of classes that is confused most, or whose confusion differs most, as long as there is room."""
    off = np.where(np.eye(len(table), dtype=bool), 0.0, np.nan_to_num(table))
    row, column = np.unravel_index(np.abs(off).argmax(), off.shape)
    pair = f"{labels[row]} as {labels[column]} {percent(off[row, column], 0, sign=signed)}"
    full = f"{pair} {'points' if signed else '%'}"
    return next((text for text in (f"{said}: {full}", full) if len(text) <= room), pair)
