"""Parts of the training split: nested, with groups together, and of the same length where steps are equal."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ablate.data.dataset import Dataset, Split, load_dataset, part_of, take_part
from ablate.errors import DataError

SETTINGS = {"size": [32, 32], "train": 10, "val": 2, "test": 2}
FRACTIONS = (0.1, 0.3, 0.5, 1.0)


def split(groups: list[str] | None, count: int = 40) -> Split:
    empty = np.zeros((count, 2, 2), np.uint8)
    names = tuple(f"image{index}" for index in range(count))
    return Split(empty[..., None], empty, names, tuple(groups) if groups else None)


@pytest.mark.parametrize(
    "groups",
    [None, [f"patient{index // 2}" for index in range(40)], [f"film{index // 20}" for index in range(40)]],
    ids=["images", "patients", "films"],
)
def test_a_smaller_part_is_in_every_larger_one_and_of_about_its_share(groups: list[str] | None) -> None:
    parts = [set(part_of(split(groups), fraction).tolist()) for fraction in FRACTIONS]
    assert all(small < large for small, large in pairwise(parts))
    assert [len(part) for part in parts] == [4, 12, 20, 40]


def test_many_groups_are_kept_whole_and_of_few_the_first_images_are_taken() -> None:
    patients = [f"patient{index // 2}" for index in range(40)]
    chosen = part_of(split(patients), 0.3)
    assert all(
        patients.count(patients[index]) == sum(patients[i] == patients[index] for i in chosen) for index in chosen
    )
    films = part_of(split([f"film{index // 20}" for index in range(40)]), 0.1)
    assert films.tolist() == [0, 1, 20, 21]


def test_the_least_part_is_one_image() -> None:
    assert len(part_of(split(None), 0.001)) == 1


def test_equal_steps_repeat_the_part_and_epochs_leave_it(tmp_path: Path) -> None:
    whole = load_dataset("street", SETTINGS, base=tmp_path)
    equal, epochs = (
        load_dataset("street", {**SETTINGS, "fraction": 0.3, "steps": steps}, base=tmp_path)
        for steps in ("equal", "epochs")
    )
    assert [len(made.splits["train"]) for made in (whole, equal, epochs)] == [10, 10, 3]
    assert set(equal.splits["train"].names) == set(epochs.splits["train"].names)
    assert len({made.fingerprint for made in (whole, equal, epochs)}) == 3
    for name in ("val", "test"):
        assert np.array_equal(whole.splits[name].masks, equal.splits[name].masks)
    rows = [whole.splits["train"].names.index(name) for name in epochs.splits["train"].names]
    assert np.array_equal(epochs.splits["train"].images, whole.splits["train"].images[rows])


@pytest.mark.parametrize(
    ("multilabel", "said"),
    [
        (False, "the 4 training images of this part bear the class 'a' alone"),
        (True, "of this part bear no class; take"),
    ],
)
def test_a_part_that_leaves_nothing_to_learn_is_refused(multilabel: bool, said: str) -> None:
    whole = split([f"film{index // 20}" for index in range(40)])
    whole.masks[10:20] = 1
    whole.masks[30:] = 2
    colours = ((0, 0, 0), (0, 0, 9), (0, 9, 9))
    data = Dataset("made", ("a", "b", "c"), colours, {"train": whole}, "0", multilabel=multilabel)
    with pytest.raises(DataError, match=f"data.fraction: .*{said}"):
        take_part(data, 0.1, "equal")
    assert len(take_part(data, 0.6, "epochs").splits["train"]) == 24
