"""Where a data set is kept, and batches of it from there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ablate.train.batches import RESIDENT_SHARE, DeviceData, DeviceSplit, data_bytes, resident
from benchmarks.gpu_probe import random_data

DATA = random_data(3, 11, (8, 10), 5)


def test_bytes_are_those_of_all_splits() -> None:
    assert data_bytes(DATA) == 3 * 5 * 8 * 10 * (3 + 1)


def test_all_lanes_together_have_to_fit() -> None:
    free = int(3 * data_bytes(DATA) / RESIDENT_SHARE)
    assert [resident(DATA, workers, free) for workers in (1, 2, 4)] == [True, True, False]


@pytest.mark.parametrize("there", [True, False])
def test_a_batch_is_the_same_wherever_the_images_are(there: bool) -> None:
    split = DeviceSplit(DATA.splits["train"], torch.device("cpu"), resident=there)
    images, masks = split.take(np.array([4, 1]))
    np.testing.assert_array_equal(images.numpy(), DATA.splits["train"].images[[4, 1]])
    np.testing.assert_array_equal(masks.numpy(), DATA.splits["train"].masks[[4, 1]])


def test_the_last_batch_is_filled_up() -> None:
    batches = list(DeviceData(DATA, torch.device("cpu")).splits["val"].in_order(3))
    assert [(images.shape[0], real) for images, _, real in batches] == [(3, 3), (3, 2)]
    assert torch.equal(batches[1][0][1], batches[1][0][2])
