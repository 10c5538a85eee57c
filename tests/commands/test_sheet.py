"""A data set as it is looked at: frequencies, leaks, and a sheet of images under their masks."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from ablate.commands.sheet import half_blocks, leaks, print_data, write_sheet
from ablate.data.dataset import IGNORE, Dataset, Split
from ablate.errors import ResultsError

SIZE = (8, 12)


@pytest.fixture
def data() -> Dataset:
    """Two, one and one grey images of two classes, of which one is nowhere in val."""
    draw = np.random.default_rng(0)
    splits = {}
    for name, count in (("train", 2), ("val", 1), ("test", 1)):
        masks = np.zeros((count, *SIZE), np.uint8)
        masks[:, :, 6:] = 0 if name == "val" else 1
        masks[:, 0] = IGNORE
        names = tuple(f"{name}{index}" for index in range(count))
        images = draw.integers(0, 256, (count, *SIZE, 1), dtype=np.uint8)
        splits[name] = Split(images, masks, names, tuple(name for _ in names))
    return Dataset("made", ("ground", "thing"), ((0, 0, 0), (255, 0, 0)), splits, "0" * 64)


def test_frequencies_are_of_classes_and_ignored_pixels(data: Dataset) -> None:
    assert data.pixels_of_classes("train").tolist() == [84, 84, 24]
    assert data.pixels_of_classes("val").tolist() == [84, 0, 12]
    several = dataclasses.replace(data, multilabel=True)  # 0 is no class, 1 the first one alone
    assert several.pixels_of_classes("train").tolist() == [84, 0, 24]
    console = Console(record=True, width=100)
    print_data(several, console)
    assert "a pixel may bear several" in console.export_text()


def test_leaks_are_equal_images_and_shared_groups(data: Dataset) -> None:
    assert leaks(data) == []
    train, test = data.splits["train"], data.splits["test"]
    copied = dataclasses.replace(test, images=train.images[:1], groups=("train",))
    lines = leaks(dataclasses.replace(data, splits={**data.splits, "test": copied}))
    assert lines == [
        "1 image in more than one split, such as train0 (train) and test0 (test)",
        "1 group in more than one split: train",
    ]


def test_the_sheet_and_the_words(data: Dataset, tmp_path: Path) -> None:
    write_sheet(data, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.mode == "RGB" and sheet.width > 6 * SIZE[1] and sheet.height > 6 * SIZE[0]
    out = io.StringIO()
    print_data(data, Console(file=out, width=120))
    text = out.getvalue()
    assert "made: 2 / 1 / 1 images (train / val / test) at 8 × 12, 1 channel of 8 bits" in text
    assert "none in val" in text and "(ignored)" in text and "no image and no group is in two splits" in text


def test_an_image_is_two_rows_of_pixels_a_line() -> None:
    text = half_blocks(np.zeros((5, 4, 3), np.uint8), 80)
    assert text.plain == "▀▀▀▀\n▀▀▀▀\n"


def test_the_sheet_follows_no_link(data: Dataset, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "sheet.png").symlink_to(tmp_path / "mine")
    with pytest.raises(ResultsError, match="a symbolic link"):
        write_sheet(data, tmp_path / "sheet.png")
    assert (tmp_path / "mine").read_text() == "precious"
