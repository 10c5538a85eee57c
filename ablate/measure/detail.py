"""Fine detail: scores near label boundaries, on thin structures and, as their opposite, in the interior.

Widths are stated for an image diagonal of 600 pixels (480 × 360) and scaled to the label maps that are scored.
An ignored pixel counts nowhere, but it ends the region of a class like any other label; predictions are ignored
wherever the target is, so that no boundary is asked of a model where the target knows none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from ablate.measure.segmentation import (
    IGNORE_INDEX,
    check_maps,
    chunks,
    counts_from_histogram,
    divide,
    mask_ignored,
    nan_mean,
)

REFERENCE_DIAGONAL = 600.0
BOUNDARY_WIDTHS = (3, 12)
TRIMAP_WIDTHS = (1, 3, 5, 10)
THIN_DIAMETERS = (3, 6)
# A class with fewer target pixels of a kind in the whole split says nothing about that kind, and has no weight in it.
LEAST_PIXELS = 100
# Pixels, and cells of joint histograms, that are counted at once: what the processor's cache holds.
_AT_ONCE = 1 << 16
# Places and those to their right, below, and below on either side: every pair of the eight neighbours once.
_NEIGHBOURS = (
    (np.s_[:, :, :-1], np.s_[:, :, 1:]),
    (np.s_[:, :-1], np.s_[:, 1:]),
    (np.s_[:, :-1, :-1], np.s_[:, 1:, 1:]),
    (np.s_[:, :-1, 1:], np.s_[:, 1:, :-1]),
)


def scaled_width(width: float, shape: tuple[int, int], *, at_least: int = 1) -> int:
    """Return the pixels on a map of `shape` (H, W) for a width stated at a diagonal of 600 px.

    max(at_least, round(width · diagonal / 600)).
    """
    return max(at_least, round(width * float(np.hypot(*shape)) / REFERENCE_DIAGONAL))


def boundary_distance(labels: np.ndarray, limit: int, *, border: bool) -> np.ndarray:
    """Return the chessboard distance of each pixel to the nearest other label: uint8 (N, H, W), at most `limit` + 1.

    A pixel at distance d is exactly what the d-fold erosion of its class mask with a 3×3 square removes first, for
    all classes at once. With `border` the outside of the image counts as another label, as boundary IoU has it.
    """
    if not 1 <= limit < 255:
        raise ValueError(f"limit must be between 1 and 254 pixels, got {limit}")
    distance = np.ones(labels.shape, dtype=np.uint8)
    for part in chunks(labels):
        maps, near = labels[part], np.zeros(labels[part].shape, dtype=bool)
        if border:
            near[:, [0, -1], :] = True
            near[:, :, [0, -1]] = True
        for here, there in _NEIGHBOURS:
            differ = maps[here] != maps[there]
            near[here] |= differ
            near[there] |= differ
        # A pixel with another label at distance d has a pixel of distance 1 within d - 1: on the way there the label
        # changes. So the distance-1 pixels, grown by one ring at a time, give all further distances.
        for _ in range(limit):
            distance[part] += ~near
            near = _grow(near)
    return distance


def _grow(mask: np.ndarray) -> np.ndarray:
    """Dilate each image by a 3×3 square."""
    wide = mask.copy()
    wide[:, :, 1:] |= mask[:, :, :-1]
    wide[:, :, :-1] |= mask[:, :, 1:]
    grown = wide.copy()
    grown[:, 1:] |= wide[:, :-1]
    grown[:, :-1] |= wide[:, 1:]
    return grown


def layer_of(distance: np.ndarray, widths: Sequence[int]) -> np.ndarray:
    """Count how many of the ascending `widths` each distance exceeds: uint8 in the shape of `distance` (uint8)."""
    return np.searchsorted(widths, np.arange(256), side="left").astype(np.uint8)[distance]


def disc(diameter: int) -> np.ndarray:
    """Return the offsets (dy, dx), int (P, 2) from 0, of the pixels whose centres lie within a disc of that diameter.

    The centre lies between pixels where the diameter is even: 2 is the 2×2 square, 3 the 3×3 square, 6 a 6×6 square
    without its corners.
    """
    axis = np.arange(diameter) - (diameter - 1) / 2
    inside = axis[:, None] ** 2 + axis[None, :] ** 2 <= (diameter / 2) ** 2
    return np.argwhere(inside)


def thin_pixels(labels: np.ndarray, diameter: int) -> np.ndarray:
    """Find the pixels that an opening of their own class mask with a disc of `diameter` pixels removes: bool (N, H, W).

    These are the pixels that no disc covers which holds their label only. The image is continued beyond its border
    by repetition, so that the border makes nothing thin.
    """
    thin = np.empty(labels.shape, dtype=bool)
    offsets = disc(diameter)
    margin = diameter - 1
    for part in chunks(labels):
        padded = np.pad(labels[part], ((0, 0), (margin, margin), (margin, margin)), mode="edge")
        height, width = padded.shape[1] - margin, padded.shape[2] - margin
        first = padded[:, offsets[0, 0] : offsets[0, 0] + height, offsets[0, 1] : offsets[0, 1] + width]
        uniform = np.ones(first.shape, dtype=bool)
        for dy, dx in offsets[1:]:
            uniform &= padded[:, dy : dy + height, dx : dx + width] == first
        covered = np.zeros_like(labels[part], dtype=bool)
        for dy, dx in offsets:
            covered |= uniform[:, margin - dy : height - dy, margin - dx : width - dx]
        thin[part] = ~covered
    return thin


class DetailTarget:
    """The target's side of every detail measure, computed once for all trials that are scored against it.

    `target` is an integer label map (N, H, W) with classes 0 … num_classes - 1 and `ignore_index`. `boundary_widths`
    and `trimap_widths` are the widths on these maps, ascending: fewer than stated where several scale to the same.
    """

    def __init__(self, target: np.ndarray, num_classes: int, ignore_index: int = IGNORE_INDEX) -> None:
        self.target = check_maps(target, target, num_classes, ignore_index)[1]
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.shape = self.target.shape[1], self.target.shape[2]
        self.boundary_widths = sorted({scaled_width(width, self.shape) for width in BOUNDARY_WIDTHS})
        self.trimap_widths = sorted({scaled_width(width, self.shape) for width in TRIMAP_WIDTHS})

    @cached_property
    def labels(self) -> np.ndarray:
        """Return the target as uint8 with the label C where ignored."""
        return mask_ignored(np.zeros_like(self.target), self.target, self.num_classes, self.ignore_index)[1]

    @cached_property
    def layers(self) -> np.ndarray:
        """Return each pixel's cell in the joint histogram of `detail_counts`, for a prediction of layer 0 and label 0.

        Cells are numbered (trimap layer, target layer, preds layer, target label, preds label), the last fastest. A
        pixel's layer is the number of widths that its distance exceeds: to the nearest other target label for
        trimaps, to that or the border for the layers of target and preds.
        """
        border, trimap = (
            layer_of(boundary_distance(self.labels, widths[-1], border=border), widths)
            for widths, border in ((self.boundary_widths, True), (self.trimap_widths, False))
        )
        labels, depth = self.num_classes + 1, len(self.boundary_widths) + 1
        cells = (len(self.trimap_widths) + 1) * depth * depth * labels * labels
        code: np.ndarray = trimap.astype(np.uint16 if cells <= 1 << 16 else np.uint32)
        for factor, part in ((depth, border), (depth, None), (labels, self.labels), (labels, None)):
            code = code * code.dtype.type(factor)
            if part is not None:
                code = code + part
        return code

    @cached_property
    def thin(self) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Return the labelled pixels on thin structures, by `thin_3` and `thin_6`, three arrays (P,) each.

        Their flat index, their label, and their cell image · num_classes + label.
        """
        found = {}
        for diameter in THIN_DIAMETERS:
            thin = thin_pixels(self.labels, scaled_width(diameter, self.shape, at_least=2))
            pixel = np.flatnonzero(thin & (self.labels < self.num_classes))
            label = self.labels.ravel()[pixel]
            found[f"thin_{diameter}"] = pixel, label, pixel // math.prod(self.shape) * self.num_classes + label
        return found

    def masked(self, preds: np.ndarray) -> np.ndarray:
        """Return predictions as uint8 (N, H, W) with the label C where the target is ignored; ValueError if unfit."""
        preds = np.asarray(preds)
        preds = preds[None] if preds.ndim == 2 else preds
        if preds.shape != self.target.shape:
            raise ValueError(f"preds {preds.shape} and target {self.target.shape} differ in shape")
        return mask_ignored(preds, self.target, self.num_classes, self.ignore_index)[0]


def detail_counts(preds: np.ndarray, against: DetailTarget) -> dict[str, np.ndarray]:
    """Count every detail measure at its default widths, per image and class.

    Keys are `boundary_3 boundary_12 trimap_1 trimap_3 trimap_5 trimap_10 interior` (N, C, 3) and `thin_3 thin_6`
    (N, C, 2), named by the width at a diagonal of 600. On small maps several widths scale to the same pixels; their
    counts are then equal.

    - boundary: tp, fp, fn of the bands of each mask, the mask minus its d-fold erosion by a 3×3 square, the outside of
      the image counted as outside the mask; `mean_iou` of the counts is boundary IoU (Cheng et al. 2021, arXiv
      2103.16562), summed over images before dividing.
    - trimap: among the pixels within the width of a pixel with another target label, on either side (as in the trimap
      test of Chen et al., ECCV 2018, arXiv 1802.02611, section 4.4); the border of the image is no boundary.
    - interior: among the pixels in no boundary band of the target, so that all variants are scored on the same ones.
      Classes too thin to have an interior are absent from the target here, and so from a mean over classes.
    - thin: hit and all target pixels that an opening with a disc of the diameter removes from its class mask
      (`thin_pixels`). The disc has at least two pixels across: one would remove nothing.

    Counted together, every pixel is put into one joint histogram of labels and distances.
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
    cells = len(preds) * against.num_classes
    for name, (pixel, label, cell) in against.thin.items():
        hit = np.bincount(cell[preds.ravel()[pixel] == label], minlength=cells)
        total = np.bincount(cell, minlength=cells)
        counts[name] = np.stack([hit, total], axis=-1).reshape(len(preds), against.num_classes, 2)
    return counts


def _of_bands(tables: np.ndarray, near: int) -> np.ndarray:
    """Return tp, fp, fn (N, C, 3) of the first `near` layers of target and preds.

    `tables` are (N, target layer, preds layer, C + 1, C + 1). A pixel in one band only is a miss or a false alarm
    whatever its label is in the other.
    """
    tp = np.diagonal(tables[:, :near, :near].sum(axis=(1, 2)), axis1=1, axis2=2)[:, :-1]
    predicted = tables[:, :, :near].sum(axis=(1, 2, 3))[:, :-1]
    labelled = tables[:, :near].sum(axis=(1, 2, 4))[:, :-1]
    return np.stack([tp, predicted - tp, labelled - tp], axis=-1)


class DetailTargets:
    """The target's side of every detail measure for maps of any sizes, computed once for all trials.

    `target` is a stack (N, H, W) or a sequence of N maps (h, w) of classes 0 … num_classes - 1 and `ignore_index`.
    Maps of one size are counted together (`DetailTarget`).
    """

    def __init__(
        self, target: np.ndarray | Sequence[np.ndarray], num_classes: int, ignore_index: int = IGNORE_INDEX
    ) -> None:
        self.num_classes, self.count = num_classes, len(target)
        self._places: dict[tuple[int, ...], list[int]] = {}
        for place, labels in enumerate(target):
            self._places.setdefault(labels.shape, []).append(place)
        self._parts = {
            shape: DetailTarget(np.stack([target[place] for place in places]), num_classes, ignore_index)
            for shape, places in self._places.items()
        }

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Return the sizes (height, width) of the maps, each once, the smallest diagonal first."""
        return sorted((part.shape for part in self._parts.values()), key=lambda shape: float(np.hypot(*shape)))

    @property
    def pixels(self) -> int:
        """Return how many pixels all maps have together."""
        return sum(part.target.size for part in self._parts.values())

    def counts(self, preds: np.ndarray | Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Count every detail measure per image and class, as `detail_counts`, in the order of the images.

        Raises ValueError where the predictions are of another number or size than the targets.
        """
        if len(preds) != self.count:
            raise ValueError(f"{len(preds)} predictions for {self.count} targets")
        found: dict[str, np.ndarray] = {}
        for shape, places in self._places.items():
            if any(preds[place].shape != shape for place in places):
                raise ValueError("preds and target differ in shape")
            own = np.stack([preds[place] for place in places])
            for name, table in detail_counts(own, self._parts[shape]).items():
                whole = found.setdefault(name, np.zeros((self.count, *table.shape[1:]), table.dtype))
                whole[places] = table
        return found


def mean_recall(counts: np.ndarray) -> np.ndarray:
    """Return the mean recall over the classes that have thin pixels: (...) from hit and all pixels (..., C, 2)."""
    return nan_mean(divide(counts[..., 0], counts[..., 1]))


def with_enough_pixels(counts: np.ndarray) -> np.ndarray:
    """Return the counts of detail measures with those of classes of fewer than `LEAST_PIXELS` target pixels set to 0.

    `counts` are tp, fp, fn (N, ..., C, 3), or hit and all pixels (N, ..., C, 2), and the pixels those of all N images,
    so that the classes in a mean are the same for every run and every drawing of images.
    """
    whole = counts.sum(axis=0)
    pixels = whole[..., 1] if counts.shape[-1] == 2 else whole[..., 0] + whole[..., 2]
    return np.where((pixels >= LEAST_PIXELS)[..., None], counts, 0)
