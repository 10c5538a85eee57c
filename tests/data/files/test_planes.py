"""Masks whose pixels bear several classes: a file or a bit for each gives the same planes; faults are one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablate.data.dataset import IGNORE, Dataset, check_dataset
from ablate.data.files import folder
from ablate.errors import DataError
from tests.data.pictures import save, save_shapes, shapes

FILES: dict[str, Any] = {"masks": "files/{stem}_{class}.png", "classes": ["disc", "box"]}
BITS: dict[str, Any] = {"masks": "bits/*.png", "classes": {"disc": {"bit": 1}, "box": {"bit": 3}}}


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Dataset]:
    """Overlapping shapes in a folder, as the data set with the given settings."""
    save_shapes(tmp_path, 20)
    return lambda **settings: folder(root=".", images="image/*.png", base=tmp_path, **settings)


@pytest.mark.parametrize("settings", [FILES, BITS])
def test_a_file_or_a_bit_for_each_class(load: Callable[..., Dataset], settings: dict[str, Any]) -> None:
    dataset = load(**settings)
    check_dataset(dataset)
    assert dataset.multilabel and dataset.classes == ("disc", "box")
    overlap = 0
    for split in dataset.splits.values():
        for name, mask in zip(split.names, split.masks, strict=True):
            _, disc, box = shapes(int(name))
            np.testing.assert_array_equal(mask, disc + 2 * box)
            overlap += int((disc & box).sum())
    assert overlap  # pixels of both classes
    discs = sum(int(shapes(int(name))[1].sum()) for name in dataset.splits["val"].names)
    assert dataset.pixels_of_classes("val")[0] == discs


def test_names_for_files_and_a_pixel_that_one_file_ignores(load: Callable[..., Dataset], tmp_path: Path) -> None:
    for index in range(20):
        plane = shapes(index)[2].astype(np.uint8)
        plane[:4] = 128
        save(tmp_path / f"files/{index:02}_box.png", plane)
    named = {"round": "disc", "square": "box"}
    dataset = load(masks="files/*_{class}.png", classes=named, ignore=[128], size=[12, 16])
    assert dataset.classes == ("round", "square")
    for mask in dataset.splits["train"].masks:
        assert (mask[:2] == IGNORE).all() and (mask[2:] < 4).all()
    assert all((mask[:4] == IGNORE).all() and mask.shape == (24, 32) for mask in dataset.native_test_masks())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"masks": "bits/*.png", "classes": {"disc": {"bit": 1}, "box": 3}},
            "data.classes.box: expected a bit, such as",
        ),
        ({"masks": "bits/*.png", "classes": {"disc": {"bit": 1}, "box": {"bit": 16}}}, "expected a bit, such as"),
        ({"masks": "bits/*.png", "classes": {"disc": {"bit": 1}, "box": {"bit": 1}}}, "bit 1 stands for both 'disc'"),
        ({"masks": "bits/*.png", "classes": {"disc": {"bit": 1}, "box": {"bit": 2}}}, "label 8 in "),
        ({**BITS, "ignore": [2]}, "data.ignore: the value 2 stands for classes, too"),
        ({**BITS, "classes": {f"c{bit}": {"bit": bit} for bit in range(8)}}, "expected 2 to 7 classes where a pixel"),
        ({**FILES, "classes": ["disc", "bow"]}, "matches 'files/*_bow.png'"),
        ({**FILES, "classes": {"disc": 0, "box": 1}}, "data.classes.disc: expected what stands for the class in its"),
        ({**FILES, "classes": ["disc"]}, "expected 2 to 7 classes where a pixel may bear several, got 1"),
    ],
)
def test_a_fault_is_one_line(load: Callable[..., Dataset], settings: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError) as caught:
        load(**settings)
    assert said in str(caught.value)


@pytest.mark.parametrize("lost", [["box"], ["disc", "box"]])
def test_a_class_is_not_lost_to_ignored_values(load: Callable[..., Dataset], tmp_path: Path, lost: list[str]) -> None:
    for path in tmp_path.glob("files/*.png"):
        if path.stem[3:] not in lost:
            save(path, shapes(int(path.stem[:2]))[1].astype(np.uint8))
    with pytest.raises(DataError) as caught:
        load(**FILES, ignore=[255])
    told = "files/00_{0}.png, files/01_{0}.png, files/02_{0}.png and 17 more"
    cure = "take 255 out of 'ignore', or store 1 where the class is"
    assert sorted(map(str, caught.value.problems)) == sorted(
        f"data.ignore: 20 masks of the class '{name}' with only 0 and values of 'ignore': {told.format(name)}; {cure}"
        for name in lost
    )


@pytest.mark.parametrize("masks", ["files/{stem}_{class}.png", "files/*_{class}.png"])
def test_a_class_whose_name_ends_in_that_of_another(load: Callable[..., Dataset], tmp_path: Path, masks: str) -> None:
    for path in tmp_path.glob("files/*_box.png"):
        path.rename(path.with_name(path.name.replace("box", "big_disc")))
    for classes in (["disc", "big_disc"], ["big_disc", "disc"]):
        dataset = load(masks=masks, classes=classes)
        weights = [1, 2] if classes[0] == "disc" else [2, 1]
        for name, mask in zip(dataset.splits["train"].names, dataset.splits["train"].masks, strict=True):
            np.testing.assert_array_equal(mask, np.tensordot(weights, shapes(int(name))[1:], axes=1))
    (tmp_path / "files/20_big_disc.png").write_bytes((tmp_path / "files/19_big_disc.png").read_bytes())
    with pytest.raises(DataError, match=r"1 mask without an image: files/20_big_disc\.png; add the images"):
        load(masks=masks, classes=["disc", "big_disc"])
    (tmp_path / "files/20_big_disc.png").rename(tmp_path / "files/03_big_big_disc.png")
    (tmp_path / "image/03_big.png").write_bytes((tmp_path / "image/04.png").read_bytes())
    with pytest.raises(DataError, match=r"1 mask that fits several images and classes: files/03_big_disc\.png"):
        load(masks=masks, classes=["disc", "big_disc"])


def test_other_values_of_a_file_are_named(load: Callable[..., Dataset], tmp_path: Path) -> None:
    save(tmp_path / "files/03_box.png", np.full((24, 32), 7, np.uint8))
    save(tmp_path / "files/04_box.png", np.zeros((9, 9), np.uint8))
    (tmp_path / "files/05_box.png").unlink()
    with pytest.raises(DataError) as caught:
        load(**FILES)
    assert "04.png (24x32, mask 9x9)" in str(caught.value)
    cure = "store an empty mask where the class is absent"
    assert f"1 image without a mask 'files/{{stem}}_box.png': image/05.png; {cure}" in str(caught.value)
    said = "label 7 in 1 mask (768 pixels), expected 0, 1, 255: files/03_box.png; name it in 'ignore'"
    assert said in str(caught.value)
