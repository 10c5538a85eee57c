"""Counts on the device against the reference implementation in measure/."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ablate.measure import segmentation
from ablate.train.counts import counts_by_comparison, image_counts, mean_iou


@pytest.mark.parametrize("classes", [2, 11])
def test_counts_equal_the_reference(classes: int) -> None:
    rng = np.random.default_rng(1)
    preds = rng.integers(0, classes, (4, 9, 7)).astype(np.uint8)
    target = rng.integers(0, classes, (4, 9, 7)).astype(np.uint8)
    target[1] = 255
    target[2, :3] = 255
    expected = segmentation.image_counts(preds, target, classes)
    got = image_counts(torch.from_numpy(preds), torch.from_numpy(target), classes, 255)
    np.testing.assert_array_equal(got.numpy(), expected)
    on_gpus = counts_by_comparison(torch.from_numpy(preds), torch.from_numpy(target), classes, 255)
    assert on_gpus.dtype == torch.int64
    np.testing.assert_array_equal(on_gpus.numpy(), expected)


def test_mean_iou_leaves_out_what_is_nowhere() -> None:
    counts = torch.tensor([[[2, 1, 1], [0, 0, 0]], [[2, 0, 2], [0, 0, 0]]])
    assert mean_iou(counts) == pytest.approx(4 / 8)
