"""Panels of test images: a variant's own, all variants on the same images, the telling images, zoomed crops, gates."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from math import ceil
from weakref import WeakKeyDictionary

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from ablate.analysis.analyse import Analysis
from ablate.errors import ResultsError
from ablate.measure.segmentation import per_image_mean_iou
from ablate.records.store import Results
from ablate.registry import register_figure
from ablate.report import style
from ablate.report.figures.common import (
    NotDrawn,
    at_own_best,
    finish,
    main_trials,
    once_an_analysis,
    order,
    setting_label,
)
from ablate.report.panels import (
    Chosen,
    Crop,
    Gallery,
    fixed_images,
    mosaic,
    reduce,
    telling_images,
    with_window,
)
from ablate.report.sheet import show_sheet
from ablate.report.style import FULL, canvas, percent, plain, short_names, shorten

# Pixels of the longer side of a tile in a printed figure.
TILE = 480
TALLEST = 8.2  # inches, so that a sheet with its rule fits a page
FINEST = 400  # pixels an inch, more than any of the formats shows
RUN_SHOWN = "Shown of each variant: its own best setting, the seed with the median validation mIoU."
NUMBERS = "Number in a picture: mIoU of that image, %. Palest grey in a truth: not scored."


def gallery(analysis: Analysis) -> Gallery:
    """The pictures of the study; `NotDrawn` where there are none."""
    if analysis not in _galleries:
        _galleries[analysis] = Gallery(Results(analysis.frames.path))
    shown = _galleries[analysis]
    if not shown.there:
        raise NotDrawn("the results folder holds no test images")
    return shown


# Several figures show the same images: they are read once for an analysis, and forgotten with it.
_galleries: WeakKeyDictionary[Analysis, Gallery] = WeakKeyDictionary()


@once_an_analysis
def shown_trials(analysis: Analysis) -> dict[str, str]:
    """The trial whose pictures stand for each variant: of its own best cell the seed of median val mIoU."""
    rows = at_own_best(main_trials(analysis), analysis)
    rows = rows[rows["status"] == "complete"].sort_values(["val_mean_iou", "seed"], kind="stable")
    shown = {}
    for variant in order(analysis):
        own = rows[rows["variant"] == variant]
        if len(own):
            shown[variant] = str(own["name"].iloc[(len(own) - 1) // 2])
    return shown


def predictions(analysis: Analysis, pictures: Gallery, chosen: Sequence[Chosen]) -> dict[str, np.ndarray]:
    """Predictions (n, H, W) of the chosen images for each variant whose shown trial stored them."""
    found = {}
    for variant, trial in shown_trials(analysis).items():
        labels = pictures.predictions(trial, [one.index for one in chosen])
        if labels is not None:
            found[variant] = labels
    if not found:
        raise NotDrawn("no shown trial has stored its predictions")
    return found


def variant_panel(analysis: Analysis, variant: str) -> Figure:
    """The fixed test images of one variant: image, truth, prediction, error, one row an image."""
    pictures = gallery(analysis)
    chosen = fixed_images(pictures.count)
    trial = shown_trials(analysis).get(variant)
    labels = None if trial is None else pictures.predictions(trial, [one.index for one in chosen])
    if labels is None:
        raise NotDrawn(f"no trial of {variant} has stored its predictions")
    rows, marks = [], []
    scores = image_scores(analysis).get(variant)
    for one, prediction in zip(chosen, labels, strict=True):
        marks.append(["", "", _mark(scores, one), ""])
        image, target = pictures.image(one.index), pictures.target(one.index)
        tiles = [
            image,
            pictures.colorize(target),
            pictures.colorize(prediction),
            pictures.error(image, target, prediction),
        ]
        rows.append([reduce(tile, TILE, labels=place in (1, 2)) for place, tile in enumerate(tiles)])
    names = [f"{one.index}\n{shorten(pictures.name(one.index), 12)}" for one in chosen]
    rule = (
        f"{variant} at {setting_label(analysis, analysis.own_best[variant])}. {RUN_SHOWN} The same evenly spaced "
        f"test images for every variant. Error: wrong pixels red on the faded image. {NUMBERS}"
    )
    return tile_sheet(analysis, pictures, rows, names, ["image", "truth", "prediction", "error"], rule, marks=marks)


def _mark(scores: np.ndarray | None, one: Chosen) -> str:
    """What is written into a predicted picture: the mIoU of its image."""
    score = np.nan if scores is None else scores[one.index]
    return percent(score, 0) if np.isfinite(score) else ""


@register_figure("panels")
def panels(analysis: Analysis) -> Figure:
    """All variants on the same eight test images."""
    pictures = gallery(analysis)
    rule = f"Evenly spaced test images, the same for all variants. {RUN_SHOWN} {NUMBERS}"
    return _comparison(analysis, pictures, fixed_images(pictures.count), rule)


@register_figure("telling")
def telling(analysis: Analysis) -> Figure:
    """All variants on the best, the median, the worst and the most disagreed upon test image."""
    pictures = gallery(analysis)
    chosen = telling_images(image_scores(analysis))
    if not chosen:
        raise NotDrawn("no variant has scored the test images")
    rule = (
        "Best, median and worst test image by its mIoU averaged over the variants shown; most disagreed upon: the "
        f"largest range of its mIoU between variants; in brackets the image's place in the split. {RUN_SHOWN} {NUMBERS}"
    )
    heads = [f"{one.why.partition(':')[0]} ({one.index})" for one in chosen]
    return _comparison(analysis, pictures, chosen, rule, heads)


@once_an_analysis
def image_scores(analysis: Analysis) -> dict[str, np.ndarray]:
    """MIoU of every test image (N,) by the shown trial of each variant."""
    frames = analysis.frames
    key_of = dict(zip(frames.trials["name"], frames.trials["key"], strict=True))
    scores = {}
    for variant, trial in shown_trials(analysis).items():
        # A trial whose counts are damaged has no scores to choose images by.
        with contextlib.suppress(ResultsError):
            scores[variant] = per_image_mean_iou(frames.counts(key_of[trial])["test"])
    return scores


@register_figure("crops")
def crops(analysis: Analysis) -> Figure:
    """Zoomed windows around thin structures: image, truth and every variant."""
    pictures = gallery(analysis)
    windows = pictures.crops()
    if not windows:
        raise NotDrawn("the test images hold no thin structures")
    chosen = [Chosen(window.index, "") for window in windows]
    found = predictions(analysis, pictures, chosen)
    rows, names = [], ["where", "image", "truth", *found]
    # Enlarged, so that the whole image beside them is still to be recognised.
    times = max(1, ceil(TILE / 2 / windows[0].width))
    # Of many variants no more pixels than the tallest sheet shows.
    times = min(times, max(1, ceil(FINEST * TALLEST / (len(names) * windows[0].height))))
    size = windows[0].height * times, windows[0].width * times
    for place, window in enumerate(windows):
        image, target = pictures.image(window.index), pictures.target(window.index)
        cuts = [image, pictures.colorize(target), *(pictures.colorize(labels[place]) for labels in found.values())]
        rows.append(
            [
                _fit(image, window, size),
                *(np.kron(window.cut(tile), np.ones((times, times, 1), np.uint8)) for tile in cuts),
            ]
        )
    across = [list(column) for column in zip(*rows, strict=True)]
    rule = (
        "Windows with the most pixels of thin structures (what an opening with a disc of 6 px at a 600 px diagonal "
        f"removes), at most one of an image. {RUN_SHOWN} Palest grey in a truth: not scored."
    )
    heads = [f"test image {window.index}" for window in windows]
    return tile_sheet(analysis, pictures, across, names, heads, rule, width=min(FULL, 0.95 + 1.5 * len(windows)))


def _fit(tile: np.ndarray, window: Crop, size: tuple[int, int]) -> np.ndarray:
    """The whole image with the window outlined, in a tile of the crops' size, with its own proportions."""
    scale = min(size[0] / tile.shape[0], size[1] / tile.shape[1])
    resized = Image.fromarray(tile).resize(
        (max(1, int(tile.shape[1] * scale)), max(1, int(tile.shape[0] * scale))), Image.Resampling.LANCZOS
    )
    small = with_window(np.asarray(resized), window, scale)
    sheet = np.full((*size, 3), 255, np.uint8)
    top, left = (size[0] - small.shape[0]) // 2, (size[1] - small.shape[1]) // 2
    sheet[top : top + small.shape[0], left : left + small.shape[1]] = small
    return sheet


def _comparison(
    analysis: Analysis, pictures: Gallery, chosen: Sequence[Chosen], rule: str, heads: list[str] | None = None
) -> Figure:
    """One column an image, one row each for image, truth and the variants."""
    found = predictions(analysis, pictures, chosen)
    most = TILE if len(chosen) <= 4 else TILE // 2
    rows = [
        [reduce(pictures.image(one.index), most, labels=False) for one in chosen],
        [reduce(pictures.colorize(pictures.target(one.index)), most, labels=True) for one in chosen],
        *([reduce(pictures.colorize(tile), most, labels=True) for tile in labels] for labels in found.values()),
    ]
    scores = image_scores(analysis)
    marks = [[""] * len(chosen)] * 2 + [[_mark(scores.get(variant), one) for one in chosen] for variant in found]
    heads = heads or [f"image {one.index}" for one in chosen]
    return tile_sheet(analysis, pictures, rows, ["image", "truth", *found], heads, rule, marks=marks)


def tile_sheet(
    analysis: Analysis,
    pictures: Gallery,
    rows: list[list[np.ndarray]],
    names: Sequence[str],
    heads: Sequence[str],
    rule: str,
    *,
    width: float = FULL,
    classes: bool = True,
    marks: Sequence[Sequence[str]] = (),
) -> Figure:
    """A mosaic with its rows and columns named and a legend of the classes beneath.

    `marks` are short texts, one a tile, written into its lower right corner.
    """
    gap = max(1, rows[0][0].shape[1] // 40)
    sheet = mosaic(rows, gap)
    tile_high, tile_wide = rows[0][0].shape[0] + gap, rows[0][0].shape[1] + gap
    short = short_names([name for name in names if "\n" not in name], 13)
    labels = [plain(short.get(name, name)) for name in names]
    left = 0.14 + 0.068 * max(len(line) for label in labels for line in label.split("\n"))
    named = list(pictures.classes) if classes else []
    called = short_names(named, 16)
    per_line = max(1, int(width * 72 / (6.5 * 0.6 * max(map(len, called.values()), default=1) + 26)))
    lines = ceil(len(named) / per_line)
    above, below = 0.22, 0.16 * lines + 0.08
    high = (width - left) * sheet.shape[0] / sheet.shape[1]
    if high > TALLEST:
        # A sheet that would not fit a page becomes narrower, with the same proportions.
        width, high = left + (width - left) * TALLEST / high, TALLEST
    figure = canvas(width, above + high + below)
    figure.set_layout_engine("none")
    axes = figure.add_axes(
        (left / width, below / (above + high + below), 1 - left / width, high / (above + high + below))
    )
    show_sheet(axes, sheet)
    axes.set_axis_off()
    for place, label in enumerate(labels):
        y = 1 - (place * tile_high + (tile_high - gap) / 2) / sheet.shape[0]
        axes.annotate(label, (-0.06 / (width - left), y), xycoords="axes fraction", ha="right", va="center", size=7)
    for y, texts in enumerate(marks):
        for x, text in enumerate(texts):
            if text:
                at = (
                    (x * tile_wide + tile_wide - gap) / sheet.shape[1],
                    1 - (y * tile_high + tile_high - gap) / len(sheet),
                )
                box = {"facecolor": style.PAPER, "edgecolor": "none", "pad": 0.8, "alpha": 0.85}
                axes.annotate(
                    text,
                    at,
                    xytext=(-1.5, 1.5),
                    xycoords="axes fraction",
                    textcoords="offset points",
                    ha="right",
                    va="bottom",
                    size=6,
                    bbox=box,
                )
    room = int((width - left) / len(heads) * 72 / (7 * 0.58))
    if max(map(len, heads)) > room:
        # Narrow columns: the number says which image it is.
        heads = [head.removeprefix("test ").removeprefix("image ") for head in heads]
    for place, head in enumerate(heads):
        x = (place * tile_wide + (tile_wide - gap) / 2) / sheet.shape[1]
        axes.annotate(
            plain(shorten(head, max(4, room))), (x, 1 + 0.05 / high), xycoords="axes fraction", ha="center", size=7
        )
    if named:
        colours = pictures.palette[: len(named)] / 255
        figure.legend(
            [Patch(facecolor=colour, edgecolor=style.MUTED, linewidth=0.4) for colour in colours],
            [plain(called[name]) for name in named],
            loc="lower left",
            bbox_to_anchor=(0.06 / width, 0.0),
            ncols=ceil(len(named) / lines),
            fontsize=6.5,
            handlelength=1.0,
            handleheight=0.8,
            columnspacing=1.0,
            borderaxespad=0.25,
            borderpad=0.1,
            labelspacing=0.25,
        )
    return _footed(figure, analysis, rule)


def _footed(figure: Figure, analysis: Analysis, rule: str) -> Figure:
    """`finish` for a figure whose axes have fixed places: all of them move up by what the rule takes."""
    before = figure.get_figheight()
    finish(figure, analysis, rule)
    after = figure.get_figheight()
    extra = (after - before) / after
    for axes in figure.axes:
        box = axes.get_position()
        axes.set_position((box.x0, extra + box.y0 * (1 - extra), box.width, box.height * (1 - extra)))
    for legend in figure.legends:
        legend.set_bbox_to_anchor((0.06 / figure.get_figwidth(), extra), transform=figure.transFigure)
    return figure
