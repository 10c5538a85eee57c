"""What a finished trial leaves beside its record: counts, predictions, weights."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ablate.records.files import write_atomic
from ablate.records.images import pack
from ablate.records.store import TrialFolder, finite
from ablate.train import checkpoint
from ablate.train.counts import mean_iou
from ablate.train.evaluate import Evaluation
from ablate.train.native import NativeScores

if TYPE_CHECKING:
    from ablate.train.state import Best

# The last state lets `--extend` go on instead of starting over; of a large model it would fill the disk.
LARGEST_LAST_STATE = 64 * 2**20


def write_outcome(
    folder: TrialFolder,
    best: Best,
    test: Evaluation,
    last: dict[str, Any] | None,
    gate_maps: dict[str, np.ndarray],
    native: NativeScores | None = None,
) -> dict[str, float | None]:
    """Write `images.npz`, `predictions.zip`, `best.pt`, `gates.npz` and (where given) `last.pt`; the test metrics.

    `gate_maps` holds each gate's α on the panel images, float16 (images, h, w). With `native` the counts, predictions
    and scores are those at the masks' own size; the loss is always that at the size trained at.
    """
    assert best.counts is not None and best.weights is not None and test.preds is not None
    counts, preds = (test.counts, test.preds) if native is None else (native.counts, native.preds)
    write_arrays(folder.images, val=best.counts, test=counts, test_loss=test.losses)
    if gate_maps:
        write_arrays(folder.gates, **gate_maps)
    write_atomic(folder.predictions, pack(preds))
    checkpoint.save_weights(folder.best, best.weights)
    if last is not None:
        write_atomic(folder.last, checkpoint.pack(last))
    tp, fp, fn = (counts[..., i].sum(0).astype(float) for i in range(3))
    there = tp + fp + fn > 0
    return {
        "test_loss": finite(test.loss),
        "test_mean_iou": mean_iou(torch.from_numpy(counts)),
        "test_dice": float((2 * tp[there] / (2 * tp + fp + fn)[there]).mean()),
        "test_pixel_accuracy": float(tp.sum() / (tp + fn).sum()),
    }


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write arrays as a compressed .npz, whole or not at all."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    write_atomic(path, buffer.getvalue())
