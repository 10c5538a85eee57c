"""Losses of a segmentation network, by name."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def cross_entropy(
    logits: Tensor, target: Tensor, *, num_classes: int, ignore_index: int, class_weights: Tensor | None = None
) -> Tensor:
    """Pixel-wise cross entropy in nats, averaged over the labelled pixels of the batch.

    `logits` (N, C, H, W), `target` integer (N, H, W). NaN where no pixel is labelled.
    """
    # In float32, because a sum over a million pixels is not safe in bfloat16.
    if logits.is_cuda:
        # Flattened, because the two-dimensional kernel has no deterministic form on CUDA.
        flat = logits.float().permute(0, 2, 3, 1).reshape(-1, num_classes)
        return mean_of_pixels(flat, target.reshape(-1).long(), class_weights, ignore_index)
    # On a CPU the softmax over a dozen classes is five times as fast along planes as along the last dimension.
    return functional.cross_entropy(
        logits.contiguous().float(), target.long(), class_weights, ignore_index=ignore_index
    )


def mean_of_pixels(flat: Tensor, labels: Tensor, class_weights: Tensor | None, ignore_index: int) -> Tensor:
    """`functional.cross_entropy` of logits (N, C) and labels (N,), with the mean as a step of its own.

    The kernel that takes the mean along with it runs on a single multiprocessor of a GPU, both ways.
    """
    losses = functional.cross_entropy(flat, labels, class_weights, ignore_index=ignore_index, reduction="none")
    labelled = labels != ignore_index
    if class_weights is None:
        return losses.sum() / labelled.sum()
    return losses.sum() / (class_weights[torch.where(labelled, labels, 0)] * labelled).sum()


def dice(
    logits: Tensor, target: Tensor, *, num_classes: int, ignore_index: int, class_weights: Tensor | None = None
) -> Tensor:
    """Soft Dice loss: 1 - mean over the classes present in the batch of 2·Σpt / (Σp + Σt).

    After Milletari et al., "V-Net" (3DV 2016), with plain sums in the denominator. Shapes as `cross_entropy`;
    `class_weights` (C,) weight the mean over the classes.
    """
    labelled = target != ignore_index
    truth = functional.one_hot(torch.where(labelled, target, 0).long(), num_classes).float() * labelled.unsqueeze(-1)
    soft = logits.float().softmax(1).permute(0, 2, 3, 1) * labelled.unsqueeze(-1)
    overlap = (soft * truth).sum((0, 1, 2))
    total = soft.sum((0, 1, 2)) + truth.sum((0, 1, 2))
    weight = (truth.sum((0, 1, 2)) > 0).float()
    if class_weights is not None:
        weight = weight * class_weights
    score = 2 * overlap / total.clamp_min(1e-6)
    return 1 - (weight * score).sum() / weight.sum().clamp_min(1e-6)


def cross_entropy_dice(
    logits: Tensor, target: Tensor, *, num_classes: int, ignore_index: int, class_weights: Tensor | None = None
) -> Tensor:
    """The sum of `cross_entropy` and `dice`, in equal parts."""
    settings = {"num_classes": num_classes, "ignore_index": ignore_index, "class_weights": class_weights}
    return cross_entropy(logits, target, **settings) + dice(logits, target, **settings)  # type: ignore[arg-type]
