"""Overlap of predicted and target label maps: counts of pixels, and the scores that follow from counts alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ablate.measure import TrialArrays
from ablate.registry import register_measure

IGNORE_INDEX = 255
TP, FP, FN = 0, 1, 2

Axis = int | tuple[int, ...] | None

# Stacks are worked on a quarter of a million pixels at a time: the temporaries then stay in the processor's cache.
_CHUNK_PIXELS = 1 << 18


def chunks(labels: np.ndarray) -> Iterator[slice]:
    """Yield slices of the first axis of a stack (N, H, W) of about `_CHUNK_PIXELS` pixels, at least one image."""
    pixels = max(1, int(np.prod(labels.shape[1:])))
    size = max(1, _CHUNK_PIXELS // pixels)
    for start in range(0, len(labels), size):
        yield slice(start, start + size)


def check_maps(
    preds: np.ndarray, target: np.ndarray, num_classes: int, ignore_index: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return both label maps as stacks (N, H, W) of integers; one image (H, W) becomes a stack of one.

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


def resize_labels(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize labels (H, W) to `size` (height, width): the label at the centre of each new pixel, none ever mixed."""
    if mask.shape == size:
        return mask
    rows, columns = ((np.arange(new) * 2 + 1) * old // (2 * new) for old, new in zip(mask.shape, size, strict=True))
    return mask[rows[:, None], columns[None, :]]


def class_pixels(histogram: np.ndarray, num_classes: int, *, multilabel: bool) -> np.ndarray:
    """Return the pixels of each class, int64 (C,), from the number of pixels with each label, int64 (256,).

    `multilabel`: a label is a sum of 2^class over the classes that the pixel bears, and a pixel counts for each.
    """
    return histogram @ bit_planes(num_classes) if multilabel else histogram[:num_classes]


def bit_planes(num_classes: int) -> np.ndarray:
    """Return which classes each label of a multilabel mask stands for: int64 (256, C) of 0 and 1; none if ignored."""
    planes = np.arange(256)[:, None] >> np.arange(num_classes) & 1
    planes[IGNORE_INDEX] = 0
    return planes


def joint_histogram(preds: np.ndarray, target: np.ndarray, num_classes: int) -> np.ndarray:
    """Count the pixels of each image by their pair of labels: int64 (N, C + 1, C + 1), rows target, columns preds.

    Both maps are uint8 (N, H, W) with labels 0 … C; the label C stands for "not here".
    """
    width = num_classes + 1
    table = np.empty((len(target), width * width), dtype=np.int64)
    for part in chunks(target):
        # 255 labels squared still fit 16 bits, and the narrow type halves the traffic twice.
        pair = target[part].astype(np.uint16)
        pair *= np.uint16(width)
        pair += preds[part]
        for index, image in enumerate(pair, start=part.start):
            table[index] = np.bincount(image.ravel(), minlength=width * width)
    return table.reshape(-1, width, width)


def mask_ignored(
    preds: np.ndarray, target: np.ndarray, num_classes: int, ignore_index: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return both maps as uint8 in which the label C marks every pixel that the target ignores.

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
    """Return tp, fp, fn per class, int64 (..., C, 3), from joint histograms (..., C + 1, C + 1)."""
    inner = histogram[..., :-1, :-1]
    tp = np.diagonal(inner, axis1=-2, axis2=-1)
    predicted = histogram[..., :, :-1].sum(axis=-2)
    labelled = histogram[..., :-1, :].sum(axis=-1)
    return np.stack([tp, predicted - tp, labelled - tp], axis=-1)


def image_counts(
    preds: np.ndarray, target: np.ndarray, num_classes: int, ignore_index: int = IGNORE_INDEX
) -> np.ndarray:
    """Count the pixels tp, fp, fn of each image and class: int64 (N, C, 3).

    Sums over images are enough for every overlap score and every bootstrap over images. Pixels that the target
    ignores count nowhere. Raises ValueError for labels that are no class.
    """
    preds, target = check_maps(preds, target, num_classes, ignore_index)
    masked = mask_ignored(preds, target, num_classes, ignore_index)
    return counts_from_histogram(joint_histogram(*masked, num_classes))


def confusion(preds: np.ndarray, target: np.ndarray, num_classes: int, ignore_index: int = IGNORE_INDEX) -> np.ndarray:
    """Count the pixels of label maps by target class (rows) and predicted class (columns): int64 (C, C).

    Pixels that the target ignores count nowhere. Raises ValueError for labels that are no class.
    """
    masked = mask_ignored(*check_maps(preds, target, num_classes, ignore_index), num_classes, ignore_index)
    return np.asarray(joint_histogram(*masked, num_classes).sum(axis=0)[:-1, :-1])


def divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return the quotient as float64, NaN where the denominator is zero."""
    return np.divide(numerator, denominator, out=np.full(np.shape(denominator), np.nan), where=denominator != 0)


def nan_mean(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the mean of what is not NaN along an axis; NaN, without a warning, where nothing is."""
    known = ~np.isnan(values)
    if values.shape[axis] and known.all():
        return np.asarray(values.mean(axis=axis))
    return divide(np.where(known, values, 0.0).sum(axis=axis), known.sum(axis=axis))


def _of_target(numerator: np.ndarray, denominator: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the quotient of each class of which the target has pixels, NaN for the others."""
    there = counts[..., TP] + counts[..., FN] > 0
    return np.divide(numerator, denominator, out=np.full(np.shape(denominator), np.nan), where=there)


def iou(counts: np.ndarray) -> np.ndarray:
    """Return the intersection over union tp / (tp + fp + fn) of each class: float64 (..., C) from counts (..., C, 3).

    NaN where the target has no pixel of the class, whatever is predicted, so that the set of classes in a mean is the
    same for every run. torchmetrics, mmseg and detectron2 let a class that is only predicted count as 0: there a few
    wrong pixels of a class that is not in the split move the mean by its whole share.
    """
    return _of_target(counts[..., TP], counts[..., TP] + counts[..., FP] + counts[..., FN], counts)


def dice(counts: np.ndarray) -> np.ndarray:
    """Return the Dice score 2 tp / (2 tp + fp + fn) of each class, in the shapes of `iou`, NaN as there."""
    twice = 2 * counts[..., TP]
    return _of_target(twice, twice + counts[..., FP] + counts[..., FN], counts)


def mean_iou(counts: np.ndarray, axis: Axis = None) -> np.ndarray:
    """Return the mean IoU over the classes in the target, a fraction: (...) from counts (..., C, 3).

    `axis` names the axes summed *before* dividing: `mean_iou(counts, axis=0)` of (N, C, 3) is the mean IoU of the
    data set that papers report. Without it every leading index is a set of its own.
    """
    return nan_mean(iou(_total(counts, axis)))


def mean_dice(counts: np.ndarray, axis: Axis = None) -> np.ndarray:
    """Return the mean Dice score over the classes in the target, a fraction; `axis` as in `mean_iou`."""
    return nan_mean(dice(_total(counts, axis)))


def pixel_accuracy(counts: np.ndarray, axis: Axis = None) -> np.ndarray:
    """Return the share of the counted pixels that bear the right label; shapes and `axis` as in `mean_iou`."""
    total = _total(counts, axis)
    return divide(total[..., TP].sum(axis=-1), (total[..., TP] + total[..., FN]).sum(axis=-1))


def _total(counts: np.ndarray, axis: Axis) -> np.ndarray:
    return counts if axis is None else counts.sum(axis=axis)


def per_image_mean_iou(counts: np.ndarray) -> np.ndarray:
    """Return the mean IoU of each image over the classes in its target: float64 (N,) from counts (N, C, 3).

    NaN for an image of which every pixel is ignored. A class that is only predicted is left out here and counts as
    false positives elsewhere (Wang et al. 2023, arXiv 2310.19252). Their code scores data of two classes by the
    foreground alone; here both classes count, so that a variant's score does not depend on which class comes first.
    """
    return nan_mean(iou(counts))


def mean_iou_over_images(counts: np.ndarray) -> float:
    """Return mIoU^I: the mean over images of `per_image_mean_iou`, a fraction (Wang et al., NeurIPS 2023)."""
    return float(nan_mean(per_image_mean_iou(counts)))


def mean_iou_over_classes(counts: np.ndarray) -> float:
    """Return mIoU^C: per class the mean IoU over the images whose target has it, then the mean over classes (ibid.).

    Unlike mIoU^I it gives a rare class the weight of a frequent one.
    """
    return float(nan_mean(nan_mean(iou(counts), axis=0)))


def worst_images_mean_iou(counts: np.ndarray, share: float = 0.1) -> float:
    """Return mIoU^I over the worst `share` of the images: the max(1, ⌊share·N⌋) of lowest mean IoU (ibid.)."""
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share}")
    scores = per_image_mean_iou(counts)
    ordered = np.sort(scores[~np.isnan(scores)])
    # A share such as 0.29 of 100 is 28.999… in floating point.
    worst = ordered[: max(1, int(share * len(ordered) + 1e-9))]
    return float(worst.mean()) if len(worst) else float("nan")


@register_measure("test_mean_iou_images", title="mean IoU over images", section="quality", order=10, if_diverged=0.0)
def _over_images(trial: TrialArrays) -> float:
    return mean_iou_over_images(trial.counts["test"])


@register_measure(
    "test_mean_iou_classes", title="mean IoU over classes and images", section="quality", order=20, if_diverged=0.0
)
def _over_classes(trial: TrialArrays) -> float:
    return mean_iou_over_classes(trial.counts["test"])


@register_measure(
    "test_worst_images", title="mean IoU of the worst tenth of the images", section="quality", order=30, if_diverged=0.0
)
def _worst_images(trial: TrialArrays) -> float:
    return worst_images_mean_iou(trial.counts["test"])
