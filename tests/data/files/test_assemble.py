"""Masks at their own size: the stored labels, decoded once, and only those that were fingerprinted."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ablate.data.dataset import Dataset, load_dataset
from ablate.errors import DataError
from tests.data.pictures import cells, save


def expected(dataset: Dataset) -> list[np.ndarray]:
    return [np.where(cells(int(name))[1] == 0, 0, 1) for name in dataset.splits["test"].names]


@pytest.mark.usefixtures("membrane")
def test_they_are_the_stored_masks_in_the_order_of_the_test_split(load: Callable[..., Dataset]) -> None:
    dataset = load(size=[16, 16])
    masks = dataset.native_test_masks()
    assert [mask.shape for mask in masks] == [(24, 32)] * 3
    for mask, truth in zip(masks, expected(dataset), strict=True):
        assert mask.dtype == np.uint8 and (mask == truth).all()
    assert dataset.splits["test"].masks.shape == (3, 16, 16)


def test_sizes_may_differ(membrane: Path, load: Callable[..., Dataset]) -> None:
    for index in range(0, 20, 2):
        image, mask = cells(index, (40, 20))
        save(membrane / "image" / f"{index:02d}.png", image)
        save(membrane / "label" / f"{index:02d}.png", mask)
    dataset = load(size=[16, 16])
    for name, mask in zip(dataset.splits["test"].names, dataset.native_test_masks(), strict=True):
        truth = cells(int(name), (24, 32) if int(name) % 2 else (40, 20))[1]
        assert (mask == np.where(truth == 0, 0, 1)).all()


def test_they_are_decoded_once(membrane: Path, load: Callable[..., Dataset], cache: Path) -> None:
    before = load(size=[16, 16])
    first = before.native_test_masks()
    entries = set(cache.iterdir())
    again = load(size=[16, 16])
    shutil.rmtree(membrane / "label")  # whoever decodes again fails
    for left, right in zip(first, again.native_test_masks(), strict=True):
        assert (left == right).all()
    assert set(cache.iterdir()) == entries
    assert not first[0].flags.writeable


@pytest.mark.fault(32, "a mask that has changed is refused")
def test_a_mask_that_changed_since_it_was_fingerprinted_is_refused(
    membrane: Path, load: Callable[..., Dataset]
) -> None:
    dataset = load(size=[16, 16])
    path = membrane / "label" / f"{dataset.splits['test'].names[0]}.png"
    save(path, cells(99)[1])
    with pytest.raises(DataError, match=r"data.masks: a mask that changed while the study was read; run again"):
        dataset.native_test_masks()


def test_a_generated_set_has_no_other_size(tmp_path: Path) -> None:
    dataset = load_dataset("street", {"size": [32, 48], "train": 2, "val": 2, "test": 3}, base=tmp_path)
    assert (np.stack(dataset.native_test_masks()) == dataset.splits["test"].masks).all()
