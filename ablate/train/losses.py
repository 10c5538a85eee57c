"""Losses of a segmentation network, by name, and the one guard against batches in which nothing counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

LossFunction = Callable[..., Tensor]


@dataclass(frozen=True)
class Loss:
    """A loss function with what it is told of the data.

    A pixel counts unless it is ignored or its class has weight 0. Where none of a batch counts, a mean over pixels is
    0/0 and would pass for divergence: here such a batch has the loss 0 with no gradient, whatever the function.
    """

    function: LossFunction
    num_classes: int
    ignore_index: int
    class_weights: Tensor | None = None

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of the batch, a scalar: logits (N, C, H, W), target integer (N, H, W)."""
        nothing = ~self.counts(target).any()
        # Computed on a stand-in where nothing counts, then multiplied by 0: 0/0 would reach the gradients as NaN.
        weights = None if self.class_weights is None else self.class_weights.masked_fill(nothing, 1.0)
        loss = self._value(logits, target.masked_fill(nothing, 0), weights)
        return loss * (~nothing).to(loss.dtype)

    def counts(self, target: Tensor) -> Tensor:
        """Return which pixels count: bool, of the target's shape."""
        labelled = target != self.ignore_index
        if self.class_weights is None:
            return labelled
        return labelled & (self.class_weights > 0)[torch.where(labelled, target, 0).long()]

    def of_each_image(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return each image's own loss (N,), independent of its batch; NaN for one without a labelled pixel."""
        if logits.is_cuda and self.function is cross_entropy:
            flat = logits.float().permute(0, 2, 3, 1).reshape(-1, self.num_classes)
            sums, norms = pixel_sums(
                flat, target.reshape(-1).long(), self.class_weights, self.ignore_index, len(target)
            )
            losses = sums / norms.masked_fill(norms == 0, 1.0)
        else:
            losses = torch.stack([self(logits[i : i + 1], target[i : i + 1]) for i in range(len(target))])
        labelled = (target != self.ignore_index).flatten(1).any(1)
        return losses.masked_fill(~labelled, float("nan"))

    def _value(self, logits: Tensor, target: Tensor, class_weights: Tensor | None) -> Tensor:
        return self.function(
            logits,
            target,
            num_classes=self.num_classes,
            ignore_index=self.ignore_index,
            class_weights=class_weights,
        )


def cross_entropy(
    logits: Tensor, target: Tensor, *, num_classes: int, ignore_index: int, class_weights: Tensor | None = None
) -> Tensor:
    """Return the pixel-wise cross entropy in nats, averaged over the labelled pixels of the batch.

    `logits` (N, C, H, W), `target` integer (N, H, W).
    """
    # In float32, because a sum over a million pixels is not safe in bfloat16.
    if logits.is_cuda:
        # Flattened, because the two-dimensional kernel has no deterministic form on CUDA; and summed by itself,
        # because the kernel that takes the mean along with it runs on a single multiprocessor.
        flat = logits.float().permute(0, 2, 3, 1).reshape(-1, num_classes)
        sums, norms = pixel_sums(flat, target.reshape(-1).long(), class_weights, ignore_index, 1)
        return sums[0] / norms[0]
    # On a CPU the softmax over a dozen classes is five times as fast along planes as along the last dimension.
    return functional.cross_entropy(
        logits.contiguous().float(), target.long(), class_weights, ignore_index=ignore_index
    )


def pixel_sums(
    flat: Tensor, labels: Tensor, class_weights: Tensor | None, ignore_index: int, parts: int
) -> tuple[Tensor, Tensor]:
    """Return the summed cross entropy and the summed weight of each of `parts` equal runs of pixels, (parts,) each.

    `flat` holds logits (pixels, C), `labels` int64 (pixels,). The quotient is the weighted mean.
    """
    losses = functional.cross_entropy(flat, labels, class_weights, ignore_index=ignore_index, reduction="none")
    labelled = labels != ignore_index
    if class_weights is None:
        weights = labelled.to(losses.dtype)
    else:
        weights = class_weights[torch.where(labelled, labels, 0)] * labelled
    return losses.view(parts, -1).sum(1), weights.view(parts, -1).sum(1)


def dice(
    logits: Tensor, target: Tensor, *, num_classes: int, ignore_index: int, class_weights: Tensor | None = None
) -> Tensor:
    """Return the soft Dice loss: 1 - mean over the classes present in the batch of 2·Σpt / (Σp + Σt).

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
    """Return the sum of `cross_entropy` and `dice`, in equal parts."""
    kinds = (cross_entropy, dice)
    parts = [
        kind(logits, target, num_classes=num_classes, ignore_index=ignore_index, class_weights=class_weights)
        for kind in kinds
    ]
    return parts[0] + parts[1]
