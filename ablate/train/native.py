"""Scores of the test split at the masks' own size: logits enlarged to each mask, the class chosen and counted there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ablate.data.dataset import IGNORE
from ablate.train.batches import DeviceSplit
from ablate.train.counts import image_counts
from ablate.train.step import Network


@dataclass(frozen=True)
class NativeScores:
    """`counts` int64 (N, C, 3) = tp, fp, fn, and `preds`, uint8 (h, w) of each image, at each mask's own size."""

    counts: np.ndarray
    preds: list[np.ndarray]


@torch.no_grad()
def score_native(network: Network, split: DeviceSplit, masks: Sequence[np.ndarray], batch_size: int) -> NativeScores:
    """Score `network` (in evaluation mode while this runs) on `split`, whose masks at their own size are `masks`.

    The images enter at the size that is trained at. Their logits are enlarged bilinearly (pixel centres aligned, as
    mmseg and torchvision score) to (h, w) of each mask, and the argmax is taken there: enlarging predictions
    instead would draw every boundary in steps of the smaller grid.
    """
    was_training = network.model.training
    network.model.eval()
    counts, preds, index = [], [], 0
    for images, _, real in split.in_order(batch_size):
        logits = network.logits(images).float()
        for row in logits[:real]:
            mask = torch.from_numpy(np.array(masks[index])).to(row.device)[None]
            guess = _enlarged(row[None], (mask.shape[1], mask.shape[2])).argmax(1).to(torch.uint8)
            counts.append(image_counts(guess, mask, network.num_classes, IGNORE).cpu())
            preds.append(guess[0].cpu().numpy())
            index += 1
    network.model.train(was_training)
    return NativeScores(torch.cat(counts).numpy(), preds)


def _enlarged(logits: Tensor, size: tuple[int, int]) -> Tensor:
    if logits.shape[2:] == size:
        return logits
    return torch.nn.functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)
