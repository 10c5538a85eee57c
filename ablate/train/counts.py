"""Per-image counts of true and false positives and false negatives, on whichever device the predictions are."""

from __future__ import annotations

import torch
from torch import Tensor


def image_counts(preds: Tensor, target: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Counts int64 (N, num_classes, 3) = tp, fp, fn of `preds` and `target` (N, H, W); ignored targets are left out."""
    if preds.is_cuda:
        return counts_by_comparison(preds, target, num_classes, ignore_index)
    count = preds.shape[0]
    labelled = target != ignore_index
    image = torch.arange(count).view(-1, 1, 1)
    cell = (image * num_classes + target.long()) * num_classes + preds.long()
    confusion = torch.bincount(cell[labelled], minlength=count * num_classes**2)
    confusion = confusion.view(count, num_classes, num_classes)
    tp = confusion.diagonal(dim1=1, dim2=2)
    return torch.stack([tp, confusion.sum(1) - tp, confusion.sum(2) - tp], dim=-1)


def counts_by_comparison(preds: Tensor, target: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """What `image_counts` gives, the way that suits a GPU: there `bincount` is slow and a boolean index waits.

    Each class is compared with all pixels, and truths are added up as whole numbers: exact for any number of pixels,
    the same in any order of addition, and without a word to the host.
    """
    classes = torch.arange(num_classes, device=preds.device).view(1, -1, 1)
    labels = target.flatten(1).unsqueeze(1)
    guess = (preds.flatten(1).unsqueeze(1) == classes) & (labels != ignore_index)
    truth = labels == classes
    tp = (guess & truth).sum(-1)
    return torch.stack([tp, guess.sum(-1) - tp, truth.sum(-1) - tp], dim=-1)


def mean_iou(counts: Tensor) -> float:
    """Dataset mean IoU of per-image counts (N, C, 3): summed, then divided; a class that is nowhere is left out."""
    tp, fp, fn = counts.sum(0).double().unbind(-1)
    union = tp + fp + fn
    return float((tp[union > 0] / union[union > 0]).mean()) if bool((union > 0).any()) else float("nan")
