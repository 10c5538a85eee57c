"""Every measure of fine detail of one stack of predictions, from one joint histogram of labels and distances."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ablate.measure.detail import (
    BOUNDARY_WIDTHS,
    THIN_DIAMETERS,
    TRIMAP_WIDTHS,
    DetailTarget,
    boundary_distance,
    layer_of,
    mean_recall,
    scaled_width,
    thin_hits,
)
from ablate.measure.segmentation import Axis, counts_from_histogram, mean_iou

# Pixels, and cells of joint histograms, that are counted at once: what the processor's cache holds.
_AT_ONCE = 1 << 16


def detail_counts(preds: np.ndarray, against: DetailTarget) -> dict[str, np.ndarray]:
    """Counts of every detail measure at its default widths, per image and class.

    Keys are `boundary_3 boundary_12 trimap_1 trimap_3 trimap_5 trimap_10 interior` (N, C, 3) and `thin_3 thin_6`
    (N, C, 2), named by the width at a diagonal of 600. On small maps several widths scale to the same pixels; their
    counts are then equal. Each is what its function in `detail` gives alone; counted together, every pixel is put
    into a histogram once instead of seven times.
    """
    preds = against.masked(preds)
    borders, trimaps = against.boundary_widths, against.trimap_widths
    depth, labels = len(borders) + 1, against.num_classes + 1
    shape = (len(trimaps) + 1, depth, depth, labels, labels)
    at_border = {f"boundary_{w}": borders.index(scaled_width(w, against.shape)) for w in BOUNDARY_WIDTHS}
    at_trimap = {f"trimap_{w}": trimaps.index(scaled_width(w, against.shape)) for w in TRIMAP_WIDTHS}
    counts = {
        name: np.empty((len(preds), against.num_classes, 3), np.int64) for name in (*at_border, *at_trimap, "interior")
    }
    layer = layer_of(boundary_distance(preds, borders[-1], border=True), borders)
    step = against.layers.dtype.type(labels * labels)
    cells = math.prod(shape)
    # Small tables several images at a time; with many classes the tables of all would not fit.
    together = max(1, _AT_ONCE // max(cells, math.prod(against.shape)))
    for start in range(0, len(preds), together):
        part = slice(start, start + together)
        code = layer[part] * step
        code += against.layers[part]
        code += preds[part]
        images = len(code)
        places = code.reshape(images, -1) + np.arange(images)[:, None] * cells
        table = np.bincount(places.ravel(), minlength=images * cells).reshape(images, *shape)
        for name, place in at_border.items():
            counts[name][part] = _of_bands(table.sum(axis=1), place + 1)
        for name, place in at_trimap.items():
            counts[name][part] = counts_from_histogram(table[:, : place + 1].sum(axis=(1, 2, 3)))
        counts["interior"][part] = counts_from_histogram(table[:, :, -1].sum(axis=(1, 2)))
    thin = {f"thin_{d}": thin_hits(preds, against, scaled_width(d, against.shape, at_least=2)) for d in THIN_DIAMETERS}
    return counts | thin


def _of_bands(tables: np.ndarray, near: int) -> np.ndarray:
    """tp, fp, fn (N, C, 3) of the first `near` layers of target and preds.

    `tables` are (N, target layer, preds layer, C + 1, C + 1). A pixel in one band only is a miss or a false alarm
    whatever its label is in the other.
    """
    tp = np.diagonal(tables[:, :near, :near].sum(axis=(1, 2)), axis1=1, axis2=2)[:, :-1]
    predicted = tables[:, :, :near].sum(axis=(1, 2, 3))[:, :-1]
    labelled = tables[:, :near].sum(axis=(1, 2, 4))[:, :-1]
    return np.stack([tp, predicted - tp, labelled - tp], axis=-1)


def detail_scores(counts: Mapping[str, np.ndarray], axis: Axis = 0) -> dict[str, np.ndarray]:
    """The score of each entry of `detail_counts`: mean recall of thin structures, mean IoU of the others.

    `axis` is summed before dividing; interior classes without target pixels are left out. Fractions.
    """
    scores: dict[str, np.ndarray] = {}
    for name, table in counts.items():
        if name.startswith("thin"):
            scores[name] = mean_recall(table, axis)
        else:
            scores[name] = mean_iou(table, axis, absent="target" if name == "interior" else "both")
    return scores
