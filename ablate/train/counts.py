"""Per-image counts of true and false positives and false negatives, on whichever device the predictions are."""

from __future__ import annotations

import torch
from torch import Tensor


def image_counts(preds: Tensor, target: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Counts int64 (N, num_classes, 3) = tp, fp, fn of `preds` and `target` (N, H, W); ignored targets are left out."""
    count = preds.shape[0]
    labelled = target != ignore_index
    if preds.is_cuda:
        # bincount is neither fast nor deterministic on CUDA; products of zeros and ones are exact in any precision
        # and their sums in float32 up to 2^24 pixels an image.
        truth = torch.nn.functional.one_hot(torch.where(labelled, target, 0).long(), num_classes)
        truth = (truth * labelled.unsqueeze(-1)).flatten(1, 2).float()
        guess = torch.nn.functional.one_hot(preds.long(), num_classes).flatten(1, 2).float()
        confusion = (truth.transpose(1, 2) @ guess).long()
    else:
        image = torch.arange(count).view(-1, 1, 1)
        cell = (image * num_classes + target.long()) * num_classes + preds.long()
        confusion = torch.bincount(cell[labelled], minlength=count * num_classes**2)
        confusion = confusion.view(count, num_classes, num_classes)
    tp = confusion.diagonal(dim1=1, dim2=2)
    return torch.stack([tp, confusion.sum(1) - tp, confusion.sum(2) - tp], dim=-1)


def mean_iou(counts: Tensor) -> float:
    """Dataset mean IoU of per-image counts (N, C, 3): summed, then divided; a class that is nowhere is left out."""
    tp, fp, fn = counts.sum(0).double().unbind(-1)
    union = tp + fp + fn
    return float((tp[union > 0] / union[union > 0]).mean()) if bool((union > 0).any()) else float("nan")
