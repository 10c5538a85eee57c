"""A network over a whole split: per-image loss and counts, and the predictions where they are wanted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ablate.data.dataset import IGNORE
from ablate.train.batches import DeviceSplit
from ablate.train.counts import image_counts, mean_iou
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


@torch.no_grad()
def evaluate(network: Network, split: DeviceSplit, batch_size: int, *, keep_preds: bool = False) -> Evaluation:
    """Score `network` (in evaluation mode while this runs) on every image of `split`."""
    was_training = network.model.training
    network.model.eval()
    losses, counts, preds = [], [], []
    for images, masks, real in split.in_order(batch_size):
        guess, loss = network.predict(images, masks)
        losses.append(loss[:real].double())
        counts.append(image_counts(guess[:real], masks[:real], network.num_classes, IGNORE))
        if keep_preds:
            preds.append(guess[:real])
    network.model.train(was_training)
    # One read at the end: nothing above waits for the device.
    return Evaluation(
        losses=torch.cat(losses).cpu().numpy(),
        counts=torch.cat(counts).cpu().numpy(),
        preds=torch.cat(preds).cpu().numpy() if keep_preds else None,
    )
