"""Losses of a segmentation network, by name, and the one guard against batches in which nothing counts."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ablate.errors import StudyError
from ablate.models.foreign import imported

LossFunction = Callable[..., Tensor]
# Losses of which a part is computed on the host, so that no step of theirs can be captured on a GPU.
ON_THE_HOST = ("cross_entropy_boundary",)


@dataclass(frozen=True)
class Loss:
    """A loss function with what it is told of the data.

    A pixel counts unless it is ignored or its class has weight 0; a multilabel one, unless it is ignored or all classes
    have. Where none of a batch counts, a mean over pixels is 0/0 and would pass for divergence: here such a batch has
    the loss 0 with no gradient, whatever the function.
    """

    function: LossFunction
    num_classes: int
    ignore_index: int
    class_weights: Tensor | None = None
    multilabel: bool = False

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of the batch, a scalar: logits (N, C, H, W), target integer (N, H, W)."""
        nothing = ~self.counts(target).any()
        # Computed on a stand-in where nothing counts, then multiplied by 0: 0/0 would reach the gradients as NaN.
        weights = None if self.class_weights is None else self.class_weights.masked_fill(nothing, 1.0)
        loss = self.function(
            logits,
            target.masked_fill(nothing, 0),
            num_classes=self.num_classes,
            ignore_index=self.ignore_index,
            class_weights=weights,
        )
        return loss * (~nothing).to(loss.dtype)

    def counts(self, target: Tensor) -> Tensor:
        """Return which pixels count: bool, of the target's shape."""
        labelled = target != self.ignore_index
        if self.class_weights is None:
            return labelled
        if self.multilabel:
            return labelled & (self.class_weights > 0).any()
        return labelled & (self.class_weights > 0)[torch.where(labelled, target, 0).long()]

    def weight(self, target: Tensor) -> Tensor:
        """Return what a batch weighs in a mean over its pixels: how many count, each as much as its class."""
        labelled = target != self.ignore_index
        if self.class_weights is None or self.multilabel:
            return labelled.sum().float()
        return (self.class_weights[torch.where(labelled, target, 0).long()] * labelled).sum()

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
    soft, truth = _shares(logits, target, num_classes, ignore_index)
    overlap = (soft * truth).sum((0, 1, 2))
    total = soft.sum((0, 1, 2)) + truth.sum((0, 1, 2))
    return 1 - _class_mean(2 * overlap / total.clamp_min(1e-6), truth, class_weights)


def _shares(logits: Tensor, target: Tensor, num_classes: int, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Return the softmax and the one-hot truth, float32 (N, H, W, C) each, both 0 where a pixel is ignored."""
    labelled = (target != ignore_index).unsqueeze(-1)
    known = target.masked_fill(target == ignore_index, 0).long()
    truth = functional.one_hot(known, num_classes).float() * labelled
    return logits.float().softmax(1).permute(0, 2, 3, 1) * labelled, truth


def _class_mean(scores: Tensor, truth: Tensor, class_weights: Tensor | None) -> Tensor:
    """Return the (weighted) mean of a score of each class (C,) over the classes that occur in `truth` (N, H, W, C)."""
    weight = (truth.sum((0, 1, 2)) > 0).float()
    if class_weights is not None:
        weight = weight * class_weights
    return (weight * scores).sum() / weight.sum().clamp_min(1e-6)


def cross_entropy_dice(logits: Tensor, target: Tensor, **of_data: Any) -> Tensor:
    """Return the sum of `cross_entropy` and `dice`, in equal parts."""
    return cross_entropy(logits, target, **of_data) + dice(logits, target, **of_data)


# --- a pixel may bear several classes: `target` holds sums of 2^class ------------------------------------------------


def multilabel_loss(function: LossFunction) -> LossFunction:
    """Return the form of a loss that judges each class by itself; raises `StudyError` where there is none.

    A plugin's loss has one where it takes the keyword `multilabel`: it is then called with True, and with targets
    (N, H, W) of sums of 2^class, `ignore_index` where a pixel is ignored.
    """
    if function in _OF_EACH_CLASS:
        return _OF_EACH_CLASS[function]
    if takes_multilabel(function):
        return partial(function, multilabel=True)
    message = "this loss knows one class a pixel, while pixels of this data set may bear several"
    cure = "take cross_entropy, dice, cross_entropy_dice or a plugin's loss with the keyword multilabel"
    raise StudyError(message, key="train.loss", cure=cure)


def takes_multilabel(function: LossFunction) -> bool:
    """Return whether a loss says by its keyword `multilabel` that it judges pixels of several classes, too."""
    return "multilabel" in inspect.signature(function).parameters


def class_planes(labels: Tensor, num_classes: int) -> Tensor:
    """Return which classes each pixel bears, 0 or 1 (N, C, H, W), of sums of 2^class (N, H, W)."""
    classes = torch.arange(num_classes, device=labels.device).view(1, -1, 1, 1)
    return labels.unsqueeze(1) >> classes & 1


def _planes(target: Tensor, num_classes: int, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Return which classes each pixel bears, float32 (N, C, H, W), and which pixels count, float32 (N, 1, H, W)."""
    counts = (target != ignore_index).unsqueeze(1).float()
    return class_planes(target, num_classes).float() * counts, counts


def binary_cross_entropy(
    logits: Tensor, target: Tensor, *, num_classes: int, ignore_index: int, class_weights: Tensor | None = None
) -> Tensor:
    """Return the binary cross entropy of each class's sigmoid in nats, the mean over labelled pixels and classes.

    `logits` (N, C, H, W), `target` sums of 2^class (N, H, W); `class_weights` (C,) weight the mean over the classes.
    """
    truth, counts = _planes(target, num_classes, ignore_index)
    losses = functional.binary_cross_entropy_with_logits(logits.float(), truth, reduction="none") * counts
    of_classes = losses.sum((0, 2, 3)) / counts.sum()
    weights = torch.ones_like(of_classes) if class_weights is None else class_weights
    return (weights * of_classes).sum() / weights.sum()


def binary_dice(
    logits: Tensor, target: Tensor, *, num_classes: int, ignore_index: int, class_weights: Tensor | None = None
) -> Tensor:
    """Return the soft Dice loss of each class's sigmoid, otherwise as `dice`; shapes as `binary_cross_entropy`."""
    truth, counts = _planes(target, num_classes, ignore_index)
    soft = logits.float().sigmoid() * counts
    scores = 2 * (soft * truth).sum((0, 2, 3)) / (soft + truth).sum((0, 2, 3)).clamp_min(1e-6)
    return 1 - _class_mean(scores, truth.permute(0, 2, 3, 1), class_weights)


def binary_cross_entropy_dice(logits: Tensor, target: Tensor, **of_data: Any) -> Tensor:
    """Return the sum of `binary_cross_entropy` and `binary_dice`, in equal parts."""
    return binary_cross_entropy(logits, target, **of_data) + binary_dice(logits, target, **of_data)


_OF_EACH_CLASS: dict[LossFunction, LossFunction] = {
    cross_entropy: binary_cross_entropy,
    dice: binary_dice,
    cross_entropy_dice: binary_cross_entropy_dice,
}


# --- computed by MONAI ----------------------------------------------------------------------------------------------


def _monai(loss: str, **settings: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a loss of MONAI, a function of scores and one-hot truth (N, C, H, W)."""
    made: Callable[[Tensor, Tensor], Tensor] = getattr(imported("monai.losses", "loss", "train.loss"), loss)(**settings)
    return made


def focal(
    logits: Tensor,
    target: Tensor,
    *,
    num_classes: int,
    ignore_index: int,
    class_weights: Tensor | None = None,
    gamma: float = 2.0,
) -> Tensor:
    """Return the focal loss, the mean of (1 - p)^gamma · -log p over the labelled pixels (Lin et al., ICCV 2017).

    Computed by MONAI. Shapes as `cross_entropy`, which it equals at `gamma` 0; `class_weights` weight the pixels.
    """
    _, truth = _shares(logits, target, num_classes, ignore_index)
    truth = truth if class_weights is None else truth * class_weights
    # The loss of a pixel is proportional to its truth: one that is ignored, all zeros, adds nothing.
    of_pixels = _monai("FocalLoss", gamma=gamma, use_softmax=True, reduction="none")
    return of_pixels(logits.float(), truth.permute(0, 3, 1, 2)).sum() / truth.sum()


def tversky(
    logits: Tensor,
    target: Tensor,
    *,
    num_classes: int,
    ignore_index: int,
    class_weights: Tensor | None = None,
    alpha: float = 0.3,
    beta: float = 0.7,
) -> Tensor:
    """Return 1 - mean over the classes present in the batch of tp / (tp + alpha·fp + beta·fn), of soft counts.

    Computed by MONAI, after Salehi et al. (MLMI 2017); alpha = beta = 0.5 is `dice`. With `beta` above `alpha` a missed
    pixel costs more than a false alarm. Shapes and `class_weights` as in `dice`.
    """
    soft, truth = _shares(logits, target, num_classes, ignore_index)
    of_classes = _monai("TverskyLoss", alpha=alpha, beta=beta, batch=True, reduction="none")
    losses = of_classes(soft.permute(0, 3, 1, 2), truth.permute(0, 3, 1, 2)).flatten()
    return _class_mean(losses, truth, class_weights)


def generalized_dice(
    logits: Tensor, target: Tensor, *, num_classes: int, ignore_index: int, class_weights: Tensor | None = None
) -> Tensor:
    """Return the generalized Dice loss, classes weighted by 1 / (their pixels)² (Sudre et al., DLMIA 2017).

    Computed by MONAI, over the batch. Shapes as `cross_entropy`. Raises `StudyError` for `class_weights`.
    """
    if class_weights is not None:
        message = "the generalized Dice loss weighs classes by their size itself, and takes no weights"
        raise StudyError(message, key="train.class_weights", cure="remove class_weights, or take loss: dice")
    soft, truth = _shares(logits, target, num_classes, ignore_index)
    of_batch = _monai("GeneralizedDiceLoss", batch=True)
    return of_batch(soft.permute(0, 3, 1, 2), truth.permute(0, 3, 1, 2))


def cross_entropy_boundary(
    logits: Tensor,
    target: Tensor,
    *,
    num_classes: int,
    ignore_index: int,
    class_weights: Tensor | None = None,
    weight: float = 0.01,
) -> Tensor:
    """Return `cross_entropy` plus `weight` times the boundary loss of Kervadec et al. (MIDL 2019), computed by MONAI.

    The latter is the mean over labelled pixels and classes of the predicted share times the signed distance (pixels)
    from the class's boundary in the target, negative inside; `class_weights` weight the mean over the classes. Alone it
    has a trivial minimum, so it comes beside a loss of pixels. Shapes as `cross_entropy`.
    """
    pixels = cross_entropy(
        logits, target, num_classes=num_classes, ignore_index=ignore_index, class_weights=class_weights
    )
    soft, truth = _shares(logits, target, num_classes, ignore_index)
    weights = truth.new_ones(num_classes) if class_weights is None else class_weights
    mean = _monai("BoundaryLoss")((soft * weights).permute(0, 3, 1, 2), truth.permute(0, 3, 1, 2))
    # Its mean is over all pixels and classes; here those that are ignored, and weights, count in the divisor.
    return pixels + weight * mean * truth.numel() / (truth.sum() * weights.sum())
