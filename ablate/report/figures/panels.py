"""Figures of test images: all variants on the same ones, the telling ones, crops, gates, and a variant's own panel."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ablate.analysis.analyse import Analysis
from ablate.records.images import panel_indices
from ablate.records.paint import centred, enlarge, error_tile, fitted, mosaic, overlay, reduce, with_outline
from ablate.registry import register_figure
from ablate.report.figures import marks, theme
from ablate.report.figures.theme import FULL, canvas, plain
from ablate.report.format import percent, short_names, shorten
from ablate.report.gallery import (
    RUN_SHOWN,
    Crop,
    Gallery,
    gallery,
    image_scores,
    predictions,
    read_maps,
    telling_images,
)
from ablate.report.lookup import NotDrawn, frequent_classes, order, setting_label, shown_trials

# Pixels of the longer side of a tile in a printed figure.
TILE = 320
TALLEST = 8.2  # inches, so that a sheet with its rule fits a page
FINEST = 400  # pixels an inch, more than any of the formats shows
MOST_NAMED = 36  # classes of a legend
NUMBERS = "Number in an image: mIoU of that image, %. Palest grey in a truth: not scored."


@register_figure("panels", title="All variants on the same test images", section="predictions", order=0)
def panels(analysis: Analysis) -> Figure:
    """Draw all variants on the same eight test images."""
    shown = gallery(analysis)
    rule = f"Evenly spaced test images, the same for all variants. {RUN_SHOWN} {NUMBERS}"
    chosen = panel_indices(shown.count)
    return _comparison(analysis, shown, chosen, [f"image {index}" for index in chosen], rule)


@register_figure("telling", title="Best, median, worst and most disagreed upon", section="predictions", order=10)
def telling(analysis: Analysis) -> Figure:
    """Draw all variants on the best, the median, the worst and the most disagreed upon test image."""
    shown = gallery(analysis)
    found = telling_images(image_scores(analysis))
    if not found:
        raise NotDrawn("no variant has scored the test images")
    rule = (
        "Best, median and worst test image by its mIoU averaged over the variants shown; disputed: the largest range "
        f"of its mIoU between variants; in brackets the image's place in the split. {RUN_SHOWN} {NUMBERS}"
    )
    heads = [f"{word} ({index})" for word, index in found.items()]
    return _comparison(analysis, shown, list(found.values()), heads, rule)


@register_figure("crops", title="Crops around thin structures", section="predictions", order=20)
def crops(analysis: Analysis) -> Figure:
    """Draw zoomed windows around thin structures: image, truth and every variant."""
    shown = gallery(analysis)
    windows = shown.crops()
    if not windows:
        raise NotDrawn(analysis.no_detail or "the test images hold no thin structures")
    found = predictions(analysis, shown, [window.index for window in windows])
    names = ["where", "image", "truth", *found]
    # Enlarged, so that the whole image beside them is still to be recognised; of many variants no more pixels than the
    # tallest sheet shows.
    times = max(1, ceil(TILE / 2 / windows[0].width))
    times = min(times, max(1, ceil(FINEST * TALLEST / (len(names) * windows[0].height))))
    size = windows[0].height * times, windows[0].width * times
    columns = []
    for place, window in enumerate(windows):
        image, target = shown.image(window.index), shown.target(window.index)
        cuts = [image, shown.palette[target], *(shown.palette[labels[place]] for labels in found.values())]
        columns.append([_where(image, window, size), *(enlarge(window.cut(tile), times) for tile in cuts)])
    rows = [list(row) for row in zip(*columns, strict=True)]
    rule = (
        "Windows with the most pixels of thin structures (what an opening with a disc of 6 px at a 600 px diagonal "
        f"removes), at most one of an image. {RUN_SHOWN} Palest grey in a truth: not scored."
    )
    heads = [f"test image {window.index}" for window in windows]
    return tile_sheet(analysis, shown, rows, names, heads, rule, width=min(FULL, 0.95 + 1.5 * len(windows)))


@register_figure("gates", title="Attention gates over the image", section="predictions", order=30)
def gates(analysis: Analysis) -> Figure:
    """Draw what each attention gate lets through on the fixed test images, one row a gate."""
    shown = gallery(analysis)
    paths = {variant: shown.results.trial(trial).path for variant, trial in shown_trials(analysis).items()}
    found = {variant: maps for variant, path in paths.items() if (maps := read_maps(path / "gates.npz"))}
    if not found:
        raise NotDrawn("no shown trial has stored maps of attention gates")
    chosen = panel_indices(shown.count)
    images = [reduce(shown.image(index), TILE // 2, labels=False) for index in chosen]
    colours = (255 * matplotlib.colormaps["cividis"](np.arange(256))[:, :3]).astype(np.uint8)
    rows, names, short = [images], ["image"], short_names(list(found), 12)
    for variant in order(analysis):
        for gate, attention in sorted(found.get(variant, {}).items(), key=lambda item: marks.layer_depth(item[0])):
            if len(attention) == len(images):
                low, high = (float(end) for end in np.percentile(attention, (2, 98)))
                stretched = (attention - low) / max(high - low, 1e-6)
                rows.append([overlay(image, alpha, colours) for image, alpha in zip(images, stretched, strict=True)])
                name = shorten(gate.removesuffix(".gate"), 12)
                whose = "" if len(found) == 1 else f"{short[variant]}\n"
                names.append(f"{whose}{name}\n{low:.2f} to {high:.2f}")
    if len(rows) == 1:
        raise NotDrawn("the stored maps are not of the test images that are shown")
    settings = ", ".join(f"{variant} at {setting_label(analysis, analysis.own_best[variant])}" for variant in found)
    rule = (
        f"Attention α of every gate ({settings}) over the image in grey, from dark blue (low) to yellow (high); α "
        "lets the skip through, 0 = shut, 1 = open. Every gate is shown over its own range, from its 2nd to its 98th "
        f"percentile on these images, written beside it. {RUN_SHOWN}"
    )
    return tile_sheet(analysis, shown, rows, names, list(map(str, chosen)), rule, classes=False)


def _where(image: np.ndarray, window: Crop, size: tuple[int, int]) -> np.ndarray:
    """Return the whole image with the window outlined, in a tile of `size`, with its own proportions."""
    small = fitted(image, size)
    scale = small.shape[1] / image.shape[1]
    place = (scale * length for length in (window.top, window.left, window.height, window.width))
    return centred(with_outline(small, *place), size)


def variant_panel(analysis: Analysis, variant: str) -> Figure:
    """Draw the fixed test images of one variant: image, truth, prediction, error, one row an image."""
    shown = gallery(analysis)
    chosen = panel_indices(shown.count)
    trial = shown_trials(analysis).get(variant)
    labels = None if trial is None else shown.predictions(trial, chosen)
    if labels is None:
        raise NotDrawn(f"no trial of {variant} has stored its predictions")
    rows, numbers = [], []
    scores = image_scores(analysis).get(variant)
    for index, prediction in zip(chosen, labels, strict=True):
        numbers.append(["", "", _number(scores, index), ""])
        error = error_tile(shown.image(index), shown.target(index), prediction, shown.ignore_index)
        rows.append([*_tiles(shown, index, [prediction], TILE), reduce(error, TILE, labels=False)])
    names = [f"{index}\n{shorten(shown.name(index), 12)}" for index in chosen]
    rule = (
        f"{variant} at {setting_label(analysis, analysis.own_best[variant])}. {RUN_SHOWN} The same evenly spaced "
        f"test images for every variant. Error: wrong pixels red on the faded image. {NUMBERS}"
    )
    return tile_sheet(analysis, shown, rows, names, ["image", "truth", "prediction", "error"], rule, numbers=numbers)


def _tiles(shown: Gallery, index: int, predicted: Sequence[np.ndarray], most: int) -> list[np.ndarray]:
    """Return a test image, its truth and what was predicted of it as tiles of at most so many pixels a side."""
    painted = (reduce(shown.palette[labels], most, labels=True) for labels in (shown.target(index), *predicted))
    return [reduce(shown.image(index), most, labels=False), *painted]


def _number(scores: np.ndarray | None, index: int) -> str:
    """Return what is written into a predicted image: its mIoU."""
    score = np.nan if scores is None else scores[index]
    return percent(score, 0) if np.isfinite(score) else ""


def _comparison(analysis: Analysis, shown: Gallery, chosen: Sequence[int], heads: Sequence[str], rule: str) -> Figure:
    """Draw one column an image, one row each for image, truth and the variants."""
    found = predictions(analysis, shown, chosen)
    most = TILE if len(chosen) <= 4 else TILE // 2
    maps = zip(*found.values(), strict=True)
    columns = [_tiles(shown, index, own, most) for index, own in zip(chosen, maps, strict=True)]
    rows = [list(row) for row in zip(*columns, strict=True)]
    scores = image_scores(analysis)
    numbers = [[""] * len(chosen)] * 2 + [
        [_number(scores.get(variant), index) for index in chosen] for variant in found
    ]
    return tile_sheet(analysis, shown, rows, ["image", "truth", *found], heads, rule, numbers=numbers)


def tile_sheet(
    analysis: Analysis,
    shown: Gallery,
    rows: list[list[np.ndarray]],
    names: Sequence[str],
    heads: Sequence[str],
    rule: str,
    *,
    width: float = FULL,
    classes: bool = True,
    numbers: Sequence[Sequence[str]] = (),
) -> Figure:
    """Draw a mosaic with its rows and columns named and a legend of the classes beneath.

    `numbers` are short texts, one a tile, written into its lower right corner.
    """
    gap = max(1, rows[0][0].shape[1] // 40)
    sheet = mosaic(rows, gap)
    tile_high, tile_wide = rows[0][0].shape[0] + gap, rows[0][0].shape[1] + gap
    short = short_names([name for name in names if "\n" not in name], 13)
    labels = [plain(short.get(name, name)) for name in names]
    left = 0.14 + 0.068 * max(len(line) for label in labels for line in label.split("\n"))
    labels_named = frequent_classes(analysis, MOST_NAMED) if classes else []
    named = [shown.classes[label] for label in labels_named]
    called = short_names(named, 16)
    high = (width - left) * sheet.shape[0] / sheet.shape[1]
    if high > TALLEST:
        # A sheet that would not fit a page becomes narrower, with the same proportions.
        width, high = left + (width - left) * TALLEST / high, TALLEST
    per_line = max(1, int(width * 72 / (6.5 * 0.6 * max(map(len, called.values()), default=1) + 26)))
    lines = ceil(len(named) / per_line)
    above, below = 0.22, 0.118 * lines + 0.11
    figure = canvas(width, above + high + below)
    figure.set_layout_engine("none")
    rest = len(shown.classes) - len(named)
    more = f" Named: the {len(named)} classes with most pixels; {rest} more are drawn." if named and rest else ""
    marks.finish(figure, analysis, rule + more)
    # Room that the caption's warning takes at the foot.
    total = figure.get_figheight()
    foot = total - above - high - below
    axes = figure.add_axes((left / width, (foot + below) / total, 1 - left / width, high / total))
    # Every format keeps the pixels themselves: labels must not be mixed.
    axes.imshow(sheet, aspect="auto", interpolation="none")
    axes.set_axis_off()
    for place, label in enumerate(labels):
        y = 1 - (place * tile_high + (tile_high - gap) / 2) / sheet.shape[0]
        axes.annotate(label, (-0.06 / (width - left), y), xycoords="axes fraction", ha="right", va="center", size=7)
    box = {"facecolor": theme.PAPER, "edgecolor": "none", "pad": 0.8, "alpha": 0.85}
    written = [(y, x, text) for y, texts in enumerate(numbers) for x, text in enumerate(texts) if text]
    for y, x, text in written:
        at = ((x + 1) * tile_wide - gap) / sheet.shape[1], 1 - ((y + 1) * tile_high - gap) / sheet.shape[0]
        axes.annotate(
            text, at, xytext=(-1.5, 1.5), xycoords="axes fraction", textcoords="offset points", ha="right",
            va="bottom", size=6, bbox=box,
        )  # fmt: skip
    room = int((width - left) / len(heads) * 72 / (7 * 0.58))
    if max(map(len, heads)) > room:
        # Narrow columns: the number says which image it is.
        heads = [head.removeprefix("test ").removeprefix("image ") for head in heads]
    for place, head in enumerate(heads):
        at = (place * tile_wide + (tile_wide - gap) / 2) / sheet.shape[1], 1 + 0.05 / high
        axes.annotate(plain(shorten(head, max(4, room))), at, xycoords="axes fraction", ha="center", size=7)
    if named:
        colours = shown.class_colours[labels_named] / 255
        figure.legend(
            [Patch(facecolor=colour, edgecolor=theme.MUTED, linewidth=0.4) for colour in colours],
            [plain(called[name]) for name in named],
            loc="lower left",
            bbox_to_anchor=(0.06 / width, foot / total),
            ncols=ceil(len(named) / lines),
            fontsize=6.5,
            handlelength=1.0,
            handleheight=0.8,
            columnspacing=1.0,
            borderaxespad=0.25,
            borderpad=0.1,
            labelspacing=0.25,
        )
    return figure
