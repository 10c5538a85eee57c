"""A network over a whole split: per-image loss and counts, at the size trained at or at the masks' own size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ablate.data.dataset import IGNORE
from ablate.measure import segmentation
from ablate.train.batches import DeviceSplit
from ablate.train.losses import class_planes
from ablate.train.network import Network, predicted, upsampled


@dataclass(frozen=True)
class Evaluation:
    """The scores of a network on a split.

    `image_losses` float64 (N, 1 or 2), the loss of each image and, where the loss is another, its cross entropy: NaN
    for an image without a labelled pixel; `counts` int64 (N, C, 3) = tp, fp, fn; `preds` uint8 (N, H, W) or None.
    """

    image_losses: np.ndarray
    counts: np.ndarray
    preds: np.ndarray | None = None

    @property
    def losses(self) -> np.ndarray:
        """The loss of each image, float64 (N,)."""
        return self.image_losses[:, 0]

    @property
    def loss(self) -> float:
        """Mean over the images that have a labelled pixel; NaN or infinity where a prediction is not finite."""
        return self._mean(self.losses)

    @property
    def cross_entropy(self) -> float | None:
        """The mean of the cross entropy likewise; None where it is the loss itself."""
        return self._mean(self.image_losses[:, 1]) if self.image_losses.shape[1] > 1 else None

    def _mean(self, losses: np.ndarray) -> float:
        # An image without a labelled pixel has no loss; where pixels may bear no class, one without a class has.
        scored = losses[~np.isnan(losses) | (self.counts[:, :, ::2].sum((1, 2)) > 0)]
        return float(scored.mean()) if len(scored) else float("nan")

    @property
    def mean_iou(self) -> float:
        """Dataset mean IoU, a fraction."""
        return float(segmentation.mean_iou(self.counts, axis=0))


@torch.no_grad()
def score(
    network: Network, split: DeviceSplit, batch_size: int, *, keep_preds: bool = False
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return losses, counts and predictions as in `Evaluation`, of every image of `split`; waits for no device.

    The network is in evaluation mode while this runs.
    """
    was_training = network.model.training
    network.model.eval()
    losses, counts, preds = [], [], []
    for images, masks, real in split.in_order(batch_size):
        guess, *of_images = network.predict(images, masks)
        losses.append(torch.stack(of_images, dim=1)[:real].double())
        counts.append(image_counts(guess[:real], masks[:real], network.num_classes, multilabel=network.multilabel))
        if keep_preds:
            # A copy: a captured prediction writes every batch to the same place.
            preds.append(guess[:real].clone())
    network.model.train(was_training)
    return torch.cat(losses), torch.cat(counts), torch.cat(preds) if keep_preds else None


def evaluate(network: Network, split: DeviceSplit, batch_size: int, *, keep_preds: bool = False) -> Evaluation:
    """Score `network` on `split` as `score` does, and wait for the device once, at the end."""
    losses, counts, preds = score(network, split, batch_size, keep_preds=keep_preds)
    return Evaluation(losses.cpu().numpy(), counts.cpu().numpy(), None if preds is None else preds.cpu().numpy())


@torch.no_grad()
def evaluate_native(
    network: Network, split: DeviceSplit, masks: Sequence[np.ndarray], batch_size: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Score `network` (in evaluation mode while this runs) on `split`, whose masks at their own size are `masks`.

    Returns the counts int64 (N, C, 3) = tp, fp, fn and the predictions, uint8 (h, w) of each image, at each mask's
    own size. The images enter at the size that is trained at. Their logits are upsampled bilinearly (pixel centres
    aligned, as mmseg and torchvision score) to (h, w) of each mask, and labels are taken from them there: to enlarge
    predictions instead would draw every boundary in steps of the smaller grid.
    """
    was_training = network.model.training
    network.model.eval()
    counts, preds, index = [], [], 0
    for images, _, real in split.in_order(batch_size):
        for row in network.logits(images).float()[:real]:
            mask = torch.from_numpy(np.array(masks[index])).to(row.device)[None]
            guess = predicted(upsampled(row[None], mask.shape[1:]), multilabel=network.multilabel)
            counts.append(image_counts(guess, mask, network.num_classes, multilabel=network.multilabel).cpu())
            preds.append(guess[0].cpu().numpy())
            index += 1
    network.model.train(was_training)
    return torch.cat(counts).numpy(), preds


def image_counts(preds: Tensor, target: Tensor, num_classes: int, *, multilabel: bool = False) -> Tensor:
    """Return the counts int64 (N, num_classes, 3) = tp, fp, fn of `preds` and `target` (N, H, W), on their device.

    Ignored targets are left out. `multilabel` labels are sums of 2^class, and a pixel counts for each class.
    """
    if multilabel:
        labelled = (target != IGNORE).unsqueeze(1)
        maps = (class_planes(labels, num_classes).bool() & labelled for labels in (preds, target))
        return _overlap(*(planes.flatten(2) for planes in maps))
    if preds.is_cuda:
        return counts_by_comparison(preds, target, num_classes)
    counts = segmentation.image_counts(preds.numpy(), target.numpy(), num_classes, IGNORE)
    return torch.from_numpy(counts)


def counts_by_comparison(preds: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Return what `image_counts` gives, the way that suits a GPU: there `bincount` is slow and a boolean index waits.

    Each class is compared with all pixels, and truths are added up as whole numbers: exact for any number of pixels,
    the same in any order of addition, and without a word to the host.
    """
    classes = torch.arange(num_classes, device=preds.device).view(1, -1, 1)
    labels = target.flatten(1).unsqueeze(1)
    guess = (preds.flatten(1).unsqueeze(1) == classes) & (labels != IGNORE)
    return _overlap(guess, labels == classes)


def _overlap(guess: Tensor, truth: Tensor) -> Tensor:
    """Return tp, fp, fn, int64 (N, C, 3), of what counts, bool (N, C, pixels)."""
    tp = (guess & truth).sum(-1)
    return torch.stack([tp, guess.sum(-1) - tp, truth.sum(-1) - tp], dim=-1)
