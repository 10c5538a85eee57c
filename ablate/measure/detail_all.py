"""Every measure of fine detail of one stack of predictions, from one joint histogram of labels and distances."""

from __future__ import annotations

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
    for index, cell in enumerate(against.layers):
        code = layer[index] * step
        code += cell
        code += preds[index]
        table = np.bincount(code.ravel(), minlength=int(np.prod(shape))).reshape(shape)
        # An image at a time: with many classes the tables of all would not fit.
        for name, place in at_border.items():
            counts[name][index] = _of_bands(table.sum(axis=0), place + 1)
        for name, place in at_trimap.items():
            counts[name][index] = counts_from_histogram(table[: place + 1].sum(axis=(0, 1, 2)))
        counts["interior"][index] = counts_from_histogram(table[:, -1].sum(axis=(0, 1)))
    thin = {f"thin_{d}": thin_hits(preds, against, scaled_width(d, against.shape, at_least=2)) for d in THIN_DIAMETERS}
    return counts | thin


def _of_bands(table: np.ndarray, near: int) -> np.ndarray:
    """tp, fp, fn (C, 3) of the first `near` layers of target and preds: a table (target layer, preds layer, C+1, C+1).

    A pixel in one band only is a miss or a false alarm whatever its label is in the other.
    """
    tp = np.diagonal(table[:near, :near].sum(axis=(0, 1)))[:-1]
    predicted = table[:, :near].sum(axis=(0, 1, 2))[:-1]
    labelled = table[:near].sum(axis=(0, 1, 3))[:-1]
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
