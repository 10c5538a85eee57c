"""Overlap of predicted and target label maps: counts of pixels, and the scores that follow from counts alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

IGNORE_INDEX = 255
TP, FP, FN = 0, 1, 2

Absent = Literal["both", "target"]
Axis = int | tuple[int, ...] | None

# Stacks are worked on a quarter of a million pixels at a time: the temporaries then stay in the processor's cache.
_CHUNK_PIXELS = 1 << 18


def chunks(labels: np.ndarray) -> Iterator[slice]:
    """Slices of the first axis of a stack (N, H, W) that hold about `_CHUNK_PIXELS` pixels, at least one image."""
    pixels = max(1, int(np.prod(labels.shape[1:])))
    size = max(1, _CHUNK_PIXELS // pixels)
    for start in range(0, len(labels), size):
        yield slice(start, start + size)


def check_maps(
    preds: np.ndarray, target: np.ndarray, num_classes: int, ignore_index: int
) -> tuple[np.ndarray, np.ndarray]:
    """Both label maps as stacks (N, H, W) of integers; one image (H, W) becomes a stack of one.

    Raises ValueError where shapes differ, a map is not of integers, or the target holds a label that is neither a
    class nor `ignore_index`. Predictions are judged where they are counted, for they may be anything where ignored.
    """
    preds, target = np.asarray(preds), np.asarray(target)
    if preds.shape != target.shape:
        raise ValueError(f"preds {preds.shape} and target {target.shape} differ in shape")
    if target.ndim not in (2, 3):
        raise ValueError(f"expected label maps of shape (N, H, W) or (H, W), got {target.shape}")
    if preds.dtype.kind not in "iu" or target.dtype.kind not in "iu":
        raise ValueError(f"expected integer label maps, got {preds.dtype} and {target.dtype}")
    if not 1 <= num_classes < 255:
        raise ValueError(f"num_classes must be between 1 and 254, got {num_classes}")
    if 0 <= ignore_index < num_classes:
        raise ValueError(f"ignore_index {ignore_index} is one of the {num_classes} classes")
    wrong = (target != ignore_index) & ((target < 0) | (target >= num_classes))
    if wrong.any():
        label = int(target[wrong][0])
        raise ValueError(f"target holds the label {label}, which is neither one of {num_classes} classes nor ignored")
    if target.ndim == 2:
        return preds[None], target[None]
    return preds, target


def joint_histogram(
    preds: np.ndarray,
    target: np.ndarray,
    num_classes: int,
    in_preds: np.ndarray | None = None,
    in_target: np.ndarray | None = None,
) -> np.ndarray:
    """Pixels of each image by pair of labels: int64 (N, C + 1, C + 1), rows target, columns preds.

    Both maps are uint8 (N, H, W) with labels 0 … C; the label C stands for "not here". Outside the bool masks
    `in_preds` and `in_target`, where given, that map counts as C.
    """
    width = num_classes + 1
    nowhere = np.uint8(num_classes)
    table = np.empty((len(target), width * width), dtype=np.int64)
    for part in chunks(target):
        rows = target[part] if in_target is None else np.where(in_target[part], target[part], nowhere)
        columns = preds[part] if in_preds is None else np.where(in_preds[part], preds[part], nowhere)
        # 255 labels squared still fit 16 bits, and the narrow type halves the traffic twice.
        pair = rows.astype(np.uint16)
        pair *= np.uint16(width)
        pair += columns
        for index, image in enumerate(pair, start=part.start):
            table[index] = np.bincount(image.ravel(), minlength=width * width)
    return table.reshape(-1, width, width)


def mask_ignored(
    preds: np.ndarray, target: np.ndarray, num_classes: int, ignore_index: int
) -> tuple[np.ndarray, np.ndarray]:
    """Both maps as uint8 in which the label C marks every pixel that the target ignores.

    Raises ValueError where the predictions hold something that is no class at a pixel that counts.
    """
    ignored = target == ignore_index
    outside = ((preds < 0) | (preds >= num_classes)) & ~ignored
    if outside.any():
        raise ValueError(f"preds hold the label {int(preds[outside][0])}, which is not one of {num_classes} classes")
    nowhere = np.uint8(num_classes)
    masked_preds, masked_target = preds.astype(np.uint8), target.astype(np.uint8)
    masked_preds[ignored] = nowhere
    masked_target[ignored] = nowhere
    return masked_preds, masked_target


def counts_from_histogram(histogram: np.ndarray) -> np.ndarray:
    """tp, fp, fn per class, int64 (..., C, 3), from joint histograms (..., C + 1, C + 1)."""
    inner = histogram[..., :-1, :-1]
    tp = np.diagonal(inner, axis1=-2, axis2=-1)
    predicted = histogram[..., :, :-1].sum(axis=-2)
    labelled = histogram[..., :-1, :].sum(axis=-1)
    return np.stack([tp, predicted - tp, labelled - tp], axis=-1)


def confusion_matrix(
    preds: np.ndarray, target: np.ndarray, num_classes: int, ignore_index: int = IGNORE_INDEX
) -> np.ndarray:
    """Confusion matrix over all pixels that count: int64 (C, C), rows target, columns preds.

    `preds` and `target` are integer label maps (N, H, W) or (H, W). Counts are exact at any size; a float32 matrix
    stops counting at 2^24. Raises ValueError for labels that are no class.
    """
    preds, target = check_maps(preds, target, num_classes, ignore_index)
    masked = mask_ignored(preds, target, num_classes, ignore_index)
    return joint_histogram(*masked, num_classes).sum(axis=0)[:-1, :-1]


def image_counts(
    preds: np.ndarray, target: np.ndarray, num_classes: int, ignore_index: int = IGNORE_INDEX
) -> np.ndarray:
    """Pixels tp, fp, fn of each image and class: int64 (N, C, 3).

    Sums over images are enough for every overlap score and every bootstrap over images. Pixels that the target
    ignores count nowhere. Raises ValueError for labels that are no class.
    """
    preds, target = check_maps(preds, target, num_classes, ignore_index)
    masked = mask_ignored(preds, target, num_classes, ignore_index)
    return counts_from_histogram(joint_histogram(*masked, num_classes))


def divide(numerator: np.ndarray, denominator: np.ndarray, defined: np.ndarray | None = None) -> np.ndarray:
    """Quotient as float64, NaN where the denominator is zero or `defined` says no."""
    where = denominator != 0 if defined is None else (denominator != 0) & defined
    return np.divide(numerator, denominator, out=np.full(np.shape(denominator), np.nan), where=where)


def nan_mean(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Mean of what is not NaN; NaN, without a warning, where nothing is."""
    known = ~np.isnan(values)
    return divide(np.where(known, values, 0.0).sum(axis=axis), known.sum(axis=axis))


def _defined(counts: np.ndarray, absent: Absent) -> np.ndarray:
    if absent == "both":
        return counts.sum(axis=-1) > 0
    return counts[..., TP] + counts[..., FN] > 0


def iou(counts: np.ndarray, *, absent: Absent = "both") -> np.ndarray:
    """Intersection over union tp / (tp + fp + fn) of each class: float64 (..., C) from counts (..., C, 3).

    NaN where a class is absent: from preds and target (`"both"`, as torchmetrics, mmseg and detectron2 have it), or
    already where the target lacks it (`"target"`).
    """
    return divide(counts[..., TP], counts.sum(axis=-1), _defined(counts, absent))


def dice(counts: np.ndarray, *, absent: Absent = "both") -> np.ndarray:
    """Dice score 2 tp / (2 tp + fp + fn) of each class: float64 (..., C) from counts (..., C, 3); NaN as in `iou`."""
    return divide(2 * counts[..., TP], counts.sum(axis=-1) + counts[..., TP], _defined(counts, absent))


def _total(counts: np.ndarray, axis: Axis) -> np.ndarray:
    return counts if axis is None else counts.sum(axis=axis)


def mean_iou(counts: np.ndarray, axis: Axis = None, *, absent: Absent = "both") -> np.ndarray:
    """Mean IoU over classes, a fraction: (...) from counts (..., C, 3).

    `axis` names the axes summed *before* dividing: `mean_iou(counts, axis=0)` of (N, C, 3) is the mean IoU of the
    data set that papers report. Without it every leading index is a set of its own. Absent classes are left out
    of the mean; `absent_classes` names them.
    """
    return nan_mean(iou(_total(counts, axis), absent=absent))


def mean_dice(counts: np.ndarray, axis: Axis = None, *, absent: Absent = "both") -> np.ndarray:
    """Mean Dice score over classes, a fraction; `axis` and absent classes as in `mean_iou`."""
    return nan_mean(dice(_total(counts, axis), absent=absent))


def pixel_accuracy(counts: np.ndarray, axis: Axis = None) -> np.ndarray:
    """Share of the counted pixels that bear the right label: (...) from counts (..., C, 3); `axis` as in `mean_iou`."""
    total = _total(counts, axis)
    return divide(total[..., TP].sum(axis=-1), (total[..., TP] + total[..., FN]).sum(axis=-1))


def absent_classes(counts: np.ndarray, classes: Sequence[str], *, absent: Absent = "both") -> tuple[str, ...]:
    """Names of the classes that a mean over the whole of `counts` (..., C, 3) leaves out."""
    total = counts.reshape(-1, *counts.shape[-2:]).sum(axis=0)
    if len(classes) != len(total):
        raise ValueError(f"{len(classes)} names for {len(total)} classes")
    return tuple(name for name, there in zip(classes, _defined(total, absent), strict=True) if not there)


def per_image_mean_iou(counts: np.ndarray) -> np.ndarray:
    """Mean IoU of each image over the classes in its target: float64 (N,) from counts (N, C, 3).

    NaN for an image of which every pixel is ignored. A class that is only predicted is left out here and counts as
    false positives elsewhere (Wang et al., NeurIPS 2023). Their code scores data of two classes by the foreground
    alone; here both classes count, so that a variant's score does not depend on which class comes first.
    """
    return nan_mean(iou(counts, absent="target"))


def mean_iou_over_images(counts: np.ndarray) -> float:
    """mIoU^I: the mean over images of `per_image_mean_iou`, a fraction (Wang et al., NeurIPS 2023)."""
    return float(nan_mean(per_image_mean_iou(counts)))


def mean_iou_over_classes(counts: np.ndarray) -> float:
    """mIoU^C: per class the mean IoU over the images whose target has it, then the mean over classes (ibid.).

    Unlike mIoU^I it gives a rare class the weight of a frequent one.
    """
    return float(nan_mean(nan_mean(iou(counts, absent="target"), axis=0)))


def worst_images_mean_iou(counts: np.ndarray, share: float = 0.1) -> float:
    """mIoU^I over the worst `share` of the images: the max(1, ⌊share·N⌋) of lowest mean IoU (ibid.); a fraction."""
    return float(_worst(per_image_mean_iou(counts), share))


def _worst(scores: np.ndarray, share: float) -> np.ndarray:
    """Mean over the worst `share` of what is not NaN, along the last axis: (...) from (..., N)."""
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share}")
    ordered = np.sort(scores, axis=-1).reshape(-1, scores.shape[-1])  # NaN comes last
    known = np.count_nonzero(~np.isnan(ordered), axis=1)
    # A share such as 0.29 of 100 is 28.999… in floating point.
    numbers = np.maximum(1, (share * known + 1e-9).astype(int))
    means = np.full(len(ordered), np.nan)
    for number in set(numbers.tolist()):
        means[numbers == number] = ordered[numbers == number][:, :number].mean(axis=1)
    return means.reshape(scores.shape[:-1])


def fine_means(counts: np.ndarray, share: float = 0.1) -> np.ndarray:
    """mIoU^I, mIoU^C and the mIoU^I of the worst `share`, as the three functions above give them, from one pass.

    float64 (..., 3) from counts (..., N, C, 3): the N images of one run, or of each of many.
    """
    quotients = iou(counts, absent="target")
    per_image = nan_mean(quotients)
    return np.stack([nan_mean(per_image), nan_mean(nan_mean(quotients, axis=-2)), _worst(per_image, share)], axis=-1)
