"""The contract of a data set, and what a plugin is told where it breaks it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablate.data.dataset import (
    IGNORE,
    Dataset,
    Findings,
    Split,
    as_bytes,
    check_dataset,
    first_names,
    load_dataset,
    moments,
)
from ablate.errors import DataError, PluginError, StudyError
from ablate.registry import DATASETS

Register = Callable[[Callable[..., Any]], None]


def tiny(**changes: Any) -> Dataset:
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (4, 6, 8, 3), dtype=np.uint8)
    masks = draw.integers(0, 2, (4, 6, 8), dtype=np.uint8)
    split = Split(images, masks, ("a", "b", "c", "d"))
    splits = {"train": split, "val": split, "test": split}
    return replace(Dataset("tiny", ("x", "y"), ((0, 0, 0), (9, 9, 9)), splits, "00"), **changes)


def test_properties_follow_the_arrays() -> None:
    dataset = tiny()
    check_dataset(dataset)
    assert (dataset.num_classes, dataset.in_channels, dataset.size, len(dataset.splits["val"])) == (2, 3, (6, 8), 4)
    pixels = dataset.splits["train"].images / 255
    assert dataset.mean == pytest.approx(pixels.mean(axis=(0, 1, 2)), rel=1e-12)
    assert dataset.std == pytest.approx(pixels.std(axis=(0, 1, 2)), rel=1e-9)
    assert tiny(stored_moments=((0.5,), (0.25,))).std == (0.25,)


def test_moments_of_constant_and_reordered_images() -> None:
    assert moments(np.full((2, 3, 3, 1), 51, np.uint8)) == ((0.2,), (0.0,))
    images = np.random.default_rng(1).integers(0, 256, (9, 5, 5, 2), dtype=np.uint8)
    assert moments(images) == moments(images[::-1])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"palette": ((0, 0, 0),)}, "1 palette colours for 2 classes"),
        ({"palette": ((0, 0, 0), "red")}, r"palette: expected three whole numbers 0\.\.255 for each class, got 'red'"),
        ({"palette": ((0, 0, 0), (0, 0, 256))}, r"0\.\.255 for each class, got \(0, 0, 256\)"),
        ({"classes": ("x", "x")}, "expected different names"),
        ({"classes": (), "palette": ()}, "0 classes; expected 2 to 254"),
        ({"splits": {"train": tiny().splits["train"]}}, "no split called val or test"),
    ],
)
def test_a_plugin_that_breaks_the_contract_is_told_how(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        check_dataset(tiny(**changes))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"images": np.zeros((4, 6, 8, 3), np.float32)},
            r"test images are float32 \(4, 6, 8, 3\); expected uint8 or uint16",
        ),
        ({"masks": np.zeros((4, 6, 9), np.uint8)}, r"test masks are uint8 \(4, 6, 9\); expected uint8 \(4, 6, 8\)"),
        ({"masks": np.full((4, 6, 8), 2, np.uint8)}, r"test masks hold \[2\]; expected 0..1 or 255"),
        ({"masks": np.full((4, 6, 8), IGNORE, np.uint8)}, "the split 'test' has no labelled pixel"),
        ({"names": (1, 2, 3, 4)}, "test has names or groups that are not text"),
        ({"images": [[0]]}, "test images are a list; expected a NumPy array"),
        ({"names": ("a",)}, "test has 4 images and another number of names or groups"),
        ({"groups": ("a",)}, "another number of names or groups"),
        (
            {"images": np.zeros((4, 7, 8, 3), np.uint8), "masks": np.zeros((4, 7, 8), np.uint8)},
            r"differ in image shape or type: \[\(\(6, 8, 3\), 'uint8'\), \(\(7, 8, 3\), 'uint8'\)\]",
        ),
    ],
)
def test_a_split_that_breaks_the_contract_is_told_how(changes: dict[str, Any], expected: str) -> None:
    dataset = tiny()
    splits = {**dataset.splits, "test": replace(dataset.splits["test"], **changes)}
    with pytest.raises(DataError, match=expected):
        check_dataset(replace(dataset, splits=splits))


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_a_split_in_which_no_pixel_bears_a_class_is_refused(name: str) -> None:
    dataset = replace(tiny(), multilabel=True)
    check_dataset(dataset)
    none = np.zeros_like(dataset.splits[name].masks)
    none[0, 0] = IGNORE
    splits = {**dataset.splits, name: replace(dataset.splits[name], masks=none)}
    with pytest.raises(DataError, match=f"the split '{name}' has no pixel that bears a class"):
        check_dataset(replace(dataset, splits=splits))


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Register:
    monkeypatch.setattr(DATASETS, "_entries", dict(DATASETS._entries))

    def register(factory: Callable[..., Any]) -> None:
        DATASETS.register("mine")(factory)

    return register


def test_a_plugin_is_called_with_typed_settings_and_the_base_if_it_asks(plugin: Register, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    def mine(*, size: tuple[int, int], base: object) -> Dataset:
        seen.update(size=size, base=base)
        return tiny()

    plugin(mine)
    assert load_dataset("mine", {"size": [6, 8]}, base=tmp_path).name == "tiny"
    assert seen == {"size": (6, 8), "base": tmp_path}
    with pytest.raises(StudyError, match=r"sise: expected a setting .* did you mean 'size'"):
        load_dataset("mine", {"sise": [6, 8]}, base=tmp_path)
    with pytest.raises(StudyError, match="unknown data set 'mien'; did you mean 'mine'"):
        load_dataset("mien", {}, base=tmp_path)


def test_what_a_plugin_returns_is_checked(plugin: Register, tmp_path: Path) -> None:
    def mine(*, broken: bool = True) -> Dataset:
        return tiny(palette=()) if broken else None  # type: ignore[return-value]

    plugin(mine)
    with pytest.raises(DataError, match="data set 'tiny': 0 palette colours for 2 classes"):
        load_dataset("mine", {}, base=tmp_path)
    with pytest.raises(DataError, match="data set 'mine' gave a NoneType, not a Dataset"):
        load_dataset("mine", {"broken": False}, base=tmp_path)


def test_one_line_for_a_kind_of_fault() -> None:
    findings = Findings()
    findings.stop()
    for name in "abcde":
        findings.add(name, "without a mask", key="data.masks", cure="add them")
    findings.add("z", "that cannot be read")
    findings.say("the split 'val' has no image", key="data.split")
    with pytest.raises(DataError) as caught:
        findings.stop()
    assert str(caught.value).splitlines() == [
        "data.split: the split 'val' has no image",
        "data.masks: 5 images without a mask: a, b, c and 2 more; add them",
        "data: 1 image that cannot be read: z",
    ]
    assert first_names(["a", "b", "c"]) == "a, b, c"


def test_moments_of_sixteen_bits_and_of_a_channel_without_spread() -> None:
    deep = np.random.default_rng(1).integers(0, 65_536, (5, 6, 7, 2), dtype=np.uint16)
    mean, std = moments(deep)
    assert mean == pytest.approx((deep / 65_535).mean(axis=(0, 1, 2)), rel=1e-12)
    assert std == pytest.approx((deep / 65_535).std(axis=(0, 1, 2)), rel=1e-9)
    dataset = tiny()
    images = dataset.splits["train"].images.copy()
    images[..., 1] = 77
    green = replace(dataset, splits={**dataset.splits, "train": replace(dataset.splits["train"], images=images)})
    assert green.std[1] == 1.0
    assert green.std[0] == dataset.std[0]


def test_masks_of_a_single_class_are_refused() -> None:
    dataset = tiny()
    masks = np.where(dataset.splits["train"].masks == 0, 0, IGNORE).astype(np.uint8)
    only = {name: replace(split, masks=masks) for name, split in dataset.splits.items()}
    with pytest.raises(DataError, match="all labelled pixels are 'x', so that any network scores 100 %"):
        check_dataset(replace(dataset, splits=only))


def test_an_error_of_a_plugin_is_one_line_with_its_place(plugin: Register, tmp_path: Path) -> None:
    def mine() -> Dataset:
        raise FileNotFoundError("cannot reach\nthe hub")

    plugin(mine)
    with pytest.raises(
        PluginError, match=r"test_dataset\.py:\d+: the data set 'mine': FileNotFoundError: cannot reach"
    ):
        load_dataset("mine", {}, base=tmp_path)


def test_arrays_that_run_backwards_become_plain_ones(plugin: Register, tmp_path: Path) -> None:
    splits = {name: replace(split, images=split.images[..., ::-1]) for name, split in tiny().splits.items()}

    def mine() -> Dataset:
        return tiny(splits=splits)

    plugin(mine)
    images = load_dataset("mine", {}, base=tmp_path).splits["test"].images
    assert images.flags.c_contiguous
    np.testing.assert_array_equal(images, splits["test"].images)


def test_the_fingerprint_of_a_plugin_is_that_of_its_arrays(plugin: Register, tmp_path: Path) -> None:
    draws = iter([0, 0, 1])

    def mine() -> Dataset:
        order = np.random.default_rng(next(draws)).permutation(4)
        split = tiny().splits["train"]
        part = replace(split, images=split.images[order], masks=split.masks[order])
        return tiny(splits={"train": part, "val": part, "test": part})

    plugin(mine)
    first = load_dataset("mine", {}, base=tmp_path)
    assert load_dataset("mine", {}, base=tmp_path, expected=first.fingerprint).fingerprint == first.fingerprint
    with pytest.raises(
        DataError, match=r"'mine' is another each time it is made \(by the SHA-256.*; seed what it draws"
    ):
        load_dataset("mine", {}, base=tmp_path, expected=first.fingerprint)


def test_images_are_looked_at_as_bytes() -> None:
    deep = np.array([[[0, 257, 65_535, 128]]], np.uint16)
    assert as_bytes(deep).tolist() == [[[0, 1, 255]]]
    assert as_bytes(deep[..., :2]).tolist() == [[[0]]]
    grey = np.zeros((2, 3, 1), np.uint8)
    assert as_bytes(grey).shape == (2, 3, 1)
