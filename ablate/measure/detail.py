"""Fine detail: scores near label boundaries, on thin structures and, as their opposite, in the interior.

Widths are stated for an image diagonal of 600 pixels (480 × 360) and scaled to the label maps that are scored.
An ignored pixel counts nowhere, but it ends the region of a class like any other label; predictions are ignored
wherever the target is, so that no boundary is asked of a model where the target knows none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ablate.measure.segmentation import (
    IGNORE_INDEX,
    Axis,
    check_maps,
    chunks,
    counts_from_histogram,
    divide,
    joint_histogram,
    mask_ignored,
    nan_mean,
)

REFERENCE_DIAGONAL = 600.0
BOUNDARY_WIDTHS = (3, 12)
TRIMAP_WIDTHS = (1, 3, 5, 10)
THIN_DIAMETERS = (3, 6)


def scaled_width(width: float, shape: tuple[int, int], *, at_least: int = 1) -> int:
    """Pixels on a map of `shape` (H, W) for a width stated at a diagonal of 600 px.

    max(at_least, round(width · diagonal / 600)).
    """
    return max(at_least, round(width * float(np.hypot(*shape)) / REFERENCE_DIAGONAL))


def boundary_distance(labels: np.ndarray, limit: int, *, border: bool) -> np.ndarray:
    """Chessboard distance of each pixel to the nearest other label, uint8 (N, H, W), `limit` + 1 where beyond.

    A pixel at distance d is exactly what the d-fold erosion of its class mask with a 3×3 square removes first, for
    all classes at once. With `border` the outside of the image counts as another label, as boundary IoU has it.
    """
    if not 1 <= limit < 255:
        raise ValueError(f"limit must be between 1 and 254 pixels, got {limit}")
    distance = np.empty(labels.shape, dtype=np.uint8)
    for part in chunks(labels):
        distance[part] = _distance(labels[part], limit, border)
    return distance


def _distance(labels: np.ndarray, limit: int, border: bool) -> np.ndarray:
    near = np.zeros(labels.shape, dtype=bool)
    if border:
        near[:, [0, -1], :] = True
        near[:, :, [0, -1]] = True
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        here, there = _shifted(labels.shape, dy, dx)
        differ = labels[here] != labels[there]
        near[here] |= differ
        near[there] |= differ
    # A pixel with another label at distance d has a pixel of distance 1 within d - 1: on the way there the label
    # changes. So the distance-1 pixels, grown by one ring at a time, give all further distances.
    distance = np.ones(labels.shape, dtype=np.uint8)
    for _ in range(limit):
        distance += ~near
        near = _grow(near)
    return distance


def _shifted(shape: tuple[int, ...], dy: int, dx: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Index pairs (here, there) such that `there` is (dy, dx) away from `here`, both inside the image."""
    height, width = shape[1:]
    rows = slice(max(0, -dy), height - max(0, dy)), slice(max(0, dy), height - max(0, -dy))
    columns = slice(max(0, -dx), width - max(0, dx)), slice(max(0, dx), width - max(0, -dx))
    return (slice(None), rows[0], columns[0]), (slice(None), rows[1], columns[1])


def _grow(mask: np.ndarray) -> np.ndarray:
    """Dilation of each image by a 3×3 square."""
    wide = mask.copy()
    wide[:, :, 1:] |= mask[:, :, :-1]
    wide[:, :, :-1] |= mask[:, :, 1:]
    grown = wide.copy()
    grown[:, 1:] |= wide[:, :-1]
    grown[:, :-1] |= wide[:, 1:]
    return grown


def layer_of(distance: np.ndarray, widths: Sequence[int]) -> np.ndarray:
    """How many of the ascending `widths` each distance exceeds: uint8 in the shape of `distance` (uint8)."""
    return np.searchsorted(widths, np.arange(256), side="left").astype(np.uint8)[distance]


def disc(diameter: int) -> np.ndarray:
    """Offsets (dy, dx), int (P, 2) from 0, of the pixels whose centres lie within a disc of that diameter.

    The centre lies between pixels where the diameter is even: 2 is the 2×2 square, 3 the 3×3 square, 6 a 6×6 square
    without its corners.
    """
    axis = np.arange(diameter) - (diameter - 1) / 2
    inside = axis[:, None] ** 2 + axis[None, :] ** 2 <= (diameter / 2) ** 2
    return np.argwhere(inside)


def thin_pixels(labels: np.ndarray, diameter: int) -> np.ndarray:
    """Pixels that an opening of their own class mask with a disc of `diameter` pixels removes: bool (N, H, W).

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


@dataclass(frozen=True, eq=False)
class DetailTarget:
    """The target's side of every detail measure, computed once for all trials that are scored against it.

    `target` is an integer label map (N, H, W) with classes 0 … num_classes - 1 and `ignore_index`.
    """

    target: np.ndarray
    num_classes: int
    ignore_index: int = IGNORE_INDEX
    _thin: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        _, target = check_maps(self.target, self.target, self.num_classes, self.ignore_index)
        object.__setattr__(self, "target", target)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the maps."""
        return self.target.shape[1], self.target.shape[2]

    @property
    def limit(self) -> int:
        """The widest band of any measure, in pixels of these maps."""
        return scaled_width(max(*BOUNDARY_WIDTHS, *TRIMAP_WIDTHS), self.shape)

    @cached_property
    def labels(self) -> np.ndarray:
        """The target as uint8 with the label C where ignored."""
        return mask_ignored(np.zeros_like(self.target), self.target, self.num_classes, self.ignore_index)[1]

    @property
    def boundary_widths(self) -> list[int]:
        """The widths of boundary bands on these maps, ascending; fewer than stated where several scale to the same."""
        return sorted({scaled_width(width, self.shape) for width in BOUNDARY_WIDTHS})

    @property
    def trimap_widths(self) -> list[int]:
        """As `boundary_widths`, of trimaps."""
        return sorted({scaled_width(width, self.shape) for width in TRIMAP_WIDTHS})

    @cached_property
    def layers(self) -> np.ndarray:
        """Each pixel's cell in the joint histogram of `detail_counts`, for a prediction of layer 0 and label 0.

        Cells are numbered (trimap layer, target layer, preds layer, target label, preds label), the last fastest. A
        pixel's layer is the number of widths that its distance exceeds: to the nearest other target label for
        trimaps, to that or the border for the layers of target and preds.
        """
        border = layer_of(boundary_distance(self.labels, self.limit, border=True), self.boundary_widths)
        trimap = layer_of(boundary_distance(self.labels, self.limit, border=False), self.trimap_widths)
        labels, depth = self.num_classes + 1, len(self.boundary_widths) + 1
        cells = (len(self.trimap_widths) + 1) * depth * depth * labels * labels
        code: np.ndarray = trimap.astype(np.uint16 if cells <= 1 << 16 else np.uint32)
        for factor, part in ((depth, border), (depth, None), (labels, self.labels), (labels, None)):
            code = code * code.dtype.type(factor)
            if part is not None:
                code = code + part
        return code

    def thin(self, diameter: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The labelled pixels on structures thinner than `diameter` pixels of these maps, three arrays (P,).

        Their flat index, their label, and their cell image · num_classes + label.
        """
        if diameter not in self._thin:
            thin = thin_pixels(self.labels, diameter) & (self.labels < self.num_classes)
            pixel = np.flatnonzero(thin)
            label = self.labels.ravel()[pixel]
            cell = pixel // int(np.prod(self.shape)) * self.num_classes + label
            self._thin[diameter] = pixel, label, cell
        return self._thin[diameter]

    def masked(self, preds: np.ndarray) -> np.ndarray:
        """Predictions as uint8 (N, H, W) with the label C where the target is ignored; ValueError if unfit."""
        preds = np.asarray(preds)
        preds = preds[None] if preds.ndim == 2 else preds
        if preds.shape != self.target.shape:
            raise ValueError(f"preds {preds.shape} and target {self.target.shape} differ in shape")
        return mask_ignored(preds, self.target, self.num_classes, self.ignore_index)[0]


def _counts_within(preds: np.ndarray, against: DetailTarget, in_preds: np.ndarray, in_target: np.ndarray) -> np.ndarray:
    return counts_from_histogram(joint_histogram(preds, against.labels, against.num_classes, in_preds, in_target))


def thin_hits(preds: np.ndarray, against: DetailTarget, diameter: int) -> np.ndarray:
    """Hit and all target pixels (N, C, 2) that a disc of `diameter` pixels of these maps removes; masked preds."""
    pixel, label, cell = against.thin(diameter)
    size = len(preds) * against.num_classes
    total = np.bincount(cell, minlength=size)
    hit = np.bincount(cell[preds.ravel()[pixel] == label], minlength=size)
    return np.stack([hit, total], axis=-1).reshape(len(preds), against.num_classes, 2)


def boundary_counts(
    preds: np.ndarray, target: np.ndarray, num_classes: int, width: float = 3, ignore_index: int = IGNORE_INDEX
) -> np.ndarray:
    """tp, fp, fn of the boundary bands of each image and class: int64 (N, C, 3).

    The band of a mask is the mask minus its d-fold erosion by a 3×3 square, the outside of the image counted as
    outside the mask; d is `width` scaled. `mean_iou` of the counts is boundary IoU (Cheng et al., CVPR 2021),
    summed over images before dividing.
    """
    against = DetailTarget(target, num_classes, ignore_index)
    masked = against.masked(preds)
    scaled = scaled_width(width, against.shape)
    in_preds = boundary_distance(masked, scaled, border=True) <= scaled
    in_target = boundary_distance(against.labels, scaled, border=True) <= scaled
    return _counts_within(masked, against, in_preds, in_target)


def trimap_counts(
    preds: np.ndarray, target: np.ndarray, num_classes: int, width: float = 3, ignore_index: int = IGNORE_INDEX
) -> np.ndarray:
    """tp, fp, fn of each image and class among the pixels near a target boundary: int64 (N, C, 3).

    Counted are pixels within `width`, scaled, of a pixel with another target label, on either side (Kohli, Ladický
    and Torr, IJCV 2009, there called a trimap); the border of the image is no boundary.
    """
    against = DetailTarget(target, num_classes, ignore_index)
    scaled = scaled_width(width, against.shape)
    near = boundary_distance(against.labels, scaled, border=False) <= scaled
    return _counts_within(against.masked(preds), against, near, near)


def interior_counts(
    preds: np.ndarray, target: np.ndarray, num_classes: int, width: float = 12, ignore_index: int = IGNORE_INDEX
) -> np.ndarray:
    """tp, fp, fn of each image and class among the pixels in no boundary band of the target: int64 (N, C, 3).

    What is left of the target's masks after a `width`-fold (scaled) erosion; the predictions do not move the region,
    so all variants are scored on the same pixels. Classes too thin to have an interior are absent from the target
    here: score by `mean_iou(..., absent="target")`.
    """
    against = DetailTarget(target, num_classes, ignore_index)
    scaled = scaled_width(width, against.shape)
    far = boundary_distance(against.labels, scaled, border=True) > scaled
    return _counts_within(against.masked(preds), against, far, far)


def thin_counts(
    preds: np.ndarray, target: np.ndarray, num_classes: int, diameter: float = 3, ignore_index: int = IGNORE_INDEX
) -> np.ndarray:
    """Hit and all target pixels on thin structures of each image and class: int64 (N, C, 2).

    Thin is what an opening with a disc of `diameter`, scaled, removes from its class mask (`thin_pixels`). The disc
    has at least two pixels across: one would remove nothing, and two remove what is one pixel wide.
    """
    against = DetailTarget(target, num_classes, ignore_index)
    return thin_hits(against.masked(preds), against, scaled_width(diameter, against.shape, at_least=2))


def recall(counts: np.ndarray) -> np.ndarray:
    """Hit share of each class: float64 (..., C) from counts (..., C, 2); NaN where there is nothing to hit."""
    return divide(counts[..., 0], counts[..., 1])


def mean_recall(counts: np.ndarray, axis: Axis = None) -> np.ndarray:
    """Mean recall over the classes that have thin pixels; `axis` is summed before dividing, as in `mean_iou`."""
    return nan_mean(recall(counts if axis is None else counts.sum(axis=axis)))
