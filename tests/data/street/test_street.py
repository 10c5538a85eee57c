"""The street scenes: a pure function of the seed, all classes everywhere, and no task for a classifier of colours."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ablate.data.dataset import CAMVID, IGNORE, Dataset, check_dataset, load_dataset
from ablate.data.street import VERSION, draw_scene, street
from ablate.data.street.palette import BICYCLIST, FENCE, PEDESTRIAN, POLE, SIGN
from ablate.errors import StudyError

# Changes where any pixel changes: raise VERSION then, because trials of the old pictures are other trials.
FROZEN = (1, "7e75ef04545920f29d1d151bb64c3da2f346c88969372a11aea0032067def386")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The data set as the benchmark takes it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ABLATE_CACHE", str(tmp_path_factory.mktemp("street")))
        return street()


def digest(dataset: Dataset) -> str:
    """SHA-256 over all pixels and labels."""
    total = hashlib.sha256()
    for split in dataset.splits.values():
        total.update(split.images.tobytes())
        total.update(split.masks.tobytes())
    return total.hexdigest()


def mean_iou(prediction: np.ndarray, target: np.ndarray) -> float:
    """IoU of each class over all labelled pixels, averaged over the classes."""
    valid = target != IGNORE
    counts = np.bincount(target[valid].astype(int) * 11 + prediction[valid], minlength=121).reshape(11, 11)
    hit = np.diag(counts)
    return float(np.mean(hit / (counts.sum(0) + counts.sum(1) - hit)))


def run_lengths(masks: np.ndarray, label: int) -> np.ndarray:
    """Lengths in pixels of all horizontal runs of a class."""
    inside = np.pad(masks == label, ((0, 0), (0, 0), (1, 1))).astype(np.int8)
    steps = np.diff(inside, axis=2).ravel()
    return np.flatnonzero(steps == -1) - np.flatnonzero(steps == 1)


def test_it_is_a_whole_data_set(scenes: Dataset) -> None:
    check_dataset(scenes)
    assert scenes.classes == tuple(CAMVID)
    assert scenes.size == (64, 96) and scenes.in_channels == 3
    assert [len(scenes.splits[split]) for split in ("train", "val", "test")] == [200, 48, 100]
    assert scenes.splits["val"].names[:2] == ("val_00000", "val_00001")
    assert all(split.groups is None for split in scenes.splits.values())
    assert all(0.2 < mean < 0.7 and std > 0.1 for mean, std in zip(scenes.mean, scenes.std, strict=True))


def test_pictures_of_this_version_are_known() -> None:
    assert (VERSION, digest(street(train=3, val=1, test=2))) == FROZEN
    assert street.version == VERSION  # type: ignore[attr-defined]


def test_another_process_draws_the_same_bits(tmp_path: Path) -> None:
    code = (
        "from ablate.data.street import street; from tests.data.street.test_street import digest;"
        "print(digest(street(size=(32, 48), train=4, val=2, test=2, seed=7)))"
    )
    root = str(Path(__file__).resolve().parents[3])
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONHASHSEED": "123", "PYTHONPATH": paths, "ABLATE_CACHE": str(tmp_path)}
    other = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == digest(street(size=(32, 48), train=4, val=2, test=2, seed=7))


def test_more_images_do_not_change_the_first(scenes: Dataset) -> None:
    few = street(train=2, val=3, test=1)
    for name, split in few.splits.items():
        np.testing.assert_array_equal(split.images, scenes.splits[name].images[: len(split)])
        np.testing.assert_array_equal(split.masks, scenes.splits[name].masks[: len(split)])


def test_what_was_drawn_once_is_read_from_the_cache(cache: Path) -> None:
    first = street(size=(32, 48), train=2, val=1, test=1)
    entries = list(cache.glob("*/meta.json"))
    again = street(size=(32, 48), train=2, val=1, test=1)
    assert len(entries) == 1 and list(cache.glob("*/meta.json")) == entries
    assert isinstance(again.splits["train"].images, np.memmap)
    assert digest(first) == digest(again)


def test_no_scene_occurs_twice(scenes: Dataset) -> None:
    masks = [mask.tobytes() for split in scenes.splits.values() for mask in split.masks]
    images = [image.tobytes() for split in scenes.splits.values() for image in split.images]
    assert len(set(masks)) == len(masks) == 348
    assert len(set(images)) == len(images)


def test_seeds_and_parameters_make_other_sets() -> None:
    first, second = (street(train=2, val=1, test=1, seed=seed) for seed in (0, 1))
    for split in ("train", "val", "test"):
        assert np.mean(first.splits[split].masks != second.splits[split].masks) > 0.05
    assert first.fingerprint == street(train=2, val=1, test=1).fingerprint
    others = [second, street(train=3, val=1, test=1), street(size=(32, 48), train=2, val=1, test=1)]
    assert len({first.fingerprint, *(other.fingerprint for other in others)}) == 4


def test_every_class_is_in_every_split_and_no_class_is_rare(scenes: Dataset) -> None:
    for split in scenes.splits.values():
        pixels = np.stack([np.bincount(mask.ravel(), minlength=256) for mask in split.masks])
        shares = pixels.sum(axis=0) / pixels.sum()
        assert shares[:11].min() > 0.015 and shares[:11].max() < 0.3
        assert 0 < shares[IGNORE] < 0.02
        seen = (pixels > 20).mean(axis=0)  # images with more than a speck of the class
        assert all(seen[label] > 0.4 for label in range(11))
        assert min(seen[PEDESTRIAN], seen[BICYCLIST], seen[SIGN], seen[FENCE]) > 0.6


def test_poles_and_pickets_are_thin(scenes: Dataset) -> None:
    masks = scenes.splits["test"].masks
    for label in (POLE, FENCE):
        lengths = run_lengths(masks, label)
        assert np.median(lengths) <= 2
        assert len(lengths) > 5000


def test_the_majority_class_scores_almost_nothing(scenes: Dataset) -> None:
    train = scenes.splits["train"].masks
    most = np.bincount(train[train != IGNORE]).argmax()
    target = scenes.splits["test"].masks
    assert mean_iou(np.full(target.shape, most), target) < 0.1


@pytest.mark.parametrize("balanced", [False, True])
def test_colour_alone_does_not_give_the_class(scenes: Dataset, balanced: bool) -> None:
    """The likeliest class of each of 4096 colours: more than any network of 1×1 convolutions can know of a pixel."""
    train, test = scenes.splits["train"], scenes.splits["test"]

    def colour(images: np.ndarray) -> np.ndarray:
        red, green, blue = np.moveaxis(images >> 4, -1, 0).astype(int)
        return red * 256 + green * 16 + blue

    valid = train.masks != IGNORE
    votes = np.bincount(colour(train.images)[valid] * 11 + train.masks[valid], minlength=4096 * 11).reshape(4096, 11)
    weights = 1 / votes.sum(axis=0) if balanced else np.ones(11)
    prediction = (votes * weights).argmax(axis=1)[colour(test.images)]
    score = mean_iou(prediction, test.masks)
    assert 0.1 < score < 0.3


@pytest.mark.parametrize("size", [(32, 32), (40, 160), (144, 64), (33, 47)])
def test_any_size_can_be_drawn(size: tuple[int, int]) -> None:
    dataset = street(size=size, train=6, val=1, test=1)
    check_dataset(dataset)
    assert dataset.size == size
    assert len(np.unique(dataset.splits["train"].masks)) >= 11


def test_a_larger_picture_shows_the_same_scene_with_more_detail() -> None:
    for index in range(3):
        small_image, small = draw_scene((64, 96), 0, "train", index)
        large_image, large = draw_scene((256, 384), 0, "train", index)
        assert np.mean(large[2::4, 2::4] == small) > 0.85
        # Not an enlargement: most blocks of 4×4 pixels hold a structure of their own, and more outlines are seen.
        blocks = large_image.reshape(64, 4, 96, 4, 3).astype(float)
        assert np.median(blocks.std(axis=(1, 3))) > 1.5
        assert np.abs(blocks.mean(axis=(1, 3)) - small_image).mean() < 16
        assert (np.diff(large) != 0).sum() > 4 * (np.diff(small) != 0).sum()


@pytest.mark.parametrize("setting", [{"size": [16, 96]}, {"size": [64, 2000]}, {"train": 0}, {"colour": True}])
def test_settings_out_of_range_are_refused(setting: dict, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=next(iter(setting))):
        load_dataset("street", setting, base=tmp_path)
