"""A network over a whole split: per-image loss and counts, and the predictions where they are wanted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ablate.data.dataset import IGNORE
from ablate.train.batches import DeviceSplit
from ablate.train.counts import image_counts, mean_iou
from ablate.train.readback import Readback
from ablate.train.step import Network


@dataclass(frozen=True)
class Evaluation:
    """What a network scores on a split.

    `losses` float64 (N,), NaN for an image without a labelled pixel; `counts` int64 (N, C, 3) = tp, fp, fn;
    `preds` uint8 (N, H, W) or None.
    """

    losses: np.ndarray
    counts: np.ndarray
    preds: np.ndarray | None

    @property
    def loss(self) -> float:
        """Mean over the images that have a labelled pixel; NaN or infinity where a prediction is not finite."""
        scored = self.losses[self.counts[:, :, ::2].sum((1, 2)) > 0]
        return float(scored.mean()) if len(scored) else float("nan")

    @property
    def mean_iou(self) -> float:
        """Dataset mean IoU, a fraction."""
        return mean_iou(torch.from_numpy(self.counts))


@dataclass(frozen=True)
class Scores:
    """An evaluation that may still be under way on the device: tensors as in `Evaluation`."""

    losses: Tensor
    counts: Tensor
    preds: Tensor | None

    def tensors(self) -> list[Tensor]:
        """Those that are there, in the order that `evaluation` takes them."""
        return [part for part in (self.losses, self.counts, self.preds) if part is not None]


@torch.no_grad()
def score(network: Network, split: DeviceSplit, batch_size: int, *, keep_preds: bool = False) -> Scores:
    """Score `network` (in evaluation mode while this runs) on every image of `split`; waits for no device."""
    was_training = network.model.training
    network.model.eval()
    losses, counts, preds = [], [], []
    for images, masks, real in split.in_order(batch_size):
        guess, loss = network.predict(images, masks)
        losses.append(loss[:real].double())
        counts.append(image_counts(guess[:real], masks[:real], network.num_classes, IGNORE))
        if keep_preds:
            # A copy: a recorded step writes every batch to the same place.
            preds.append(guess[:real].clone())
    network.model.train(was_training)
    return Scores(torch.cat(losses), torch.cat(counts), torch.cat(preds) if keep_preds else None)


def evaluation(losses: Tensor, counts: Tensor, preds: Tensor | None = None) -> Evaluation:
    """What was scored, from tensors on the CPU."""
    return Evaluation(losses.numpy(), counts.numpy(), None if preds is None else preds.numpy())


def evaluate(network: Network, split: DeviceSplit, batch_size: int, *, keep_preds: bool = False) -> Evaluation:
    """`score`, and wait for it: one read at the end."""
    return evaluation(*Readback(score(network, split, batch_size, keep_preds=keep_preds).tensors()).wait())
