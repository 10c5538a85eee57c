from dataclasses import replace

import numpy as np
import pytest

from ablate.data.dataset import IGNORE, Dataset, Split, check_dataset, load_dataset, moments
from ablate.errors import DataError, StudyError
from ablate.registry import DATASETS


def tiny(**changes) -> Dataset:
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (4, 6, 8, 3), dtype=np.uint8)
    masks = draw.integers(0, 2, (4, 6, 8), dtype=np.uint8)
    split = Split(images, masks, ("a", "b", "c", "d"))
    splits = {"train": split, "val": split, "test": split}
    return replace(Dataset("tiny", ("x", "y"), ((0, 0, 0), (9, 9, 9)), splits, "00"), **changes)


def test_properties_follow_the_arrays():
    dataset = tiny()
    check_dataset(dataset)
    assert (dataset.num_classes, dataset.in_channels, dataset.size, len(dataset.splits["val"])) == (2, 3, (6, 8), 4)
    pixels = dataset.splits["train"].images / 255
    assert dataset.mean == pytest.approx(pixels.mean(axis=(0, 1, 2)), rel=1e-12)
    assert dataset.std == pytest.approx(pixels.std(axis=(0, 1, 2)), rel=1e-9)
    assert tiny(stored_moments=((0.5,), (0.25,))).std == (0.25,)


def test_moments_of_constant_and_reordered_images():
    assert moments(np.full((2, 3, 3, 1), 51, np.uint8)) == ((0.2,), (0.0,))
    images = np.random.default_rng(1).integers(0, 256, (9, 5, 5, 2), dtype=np.uint8)
    assert moments(images) == moments(images[::-1])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"palette": ((0, 0, 0),)}, "1 palette colours for 2 classes"),
        ({"classes": (), "palette": ()}, "0 classes; expected 1 to 254"),
        ({"splits": {"train": tiny().splits["train"]}}, "no split called val or test"),
    ],
)
def test_a_plugin_that_breaks_the_contract_is_told_how(changes, expected):
    with pytest.raises(DataError, match=expected):
        check_dataset(tiny(**changes))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"images": np.zeros((4, 6, 8, 3), np.float32)}, r"test images are float32 \(4, 6, 8, 3\); expected uint8"),
        ({"masks": np.zeros((4, 6, 9), np.uint8)}, r"test masks are uint8 \(4, 6, 9\); expected uint8 \(4, 6, 8\)"),
        ({"masks": np.full((4, 6, 8), 2, np.uint8)}, r"test masks hold \[2\]; expected 0..1 or 255"),
        ({"masks": np.full((4, 6, 8), IGNORE, np.uint8)}, "test has no labelled pixel"),
        ({"names": ("a",)}, "test has 4 images and another number of names or groups"),
        ({"groups": ("a",)}, "another number of names or groups"),
        (
            {"images": np.zeros((4, 7, 8, 3), np.uint8), "masks": np.zeros((4, 7, 8), np.uint8)},
            r"differ in image shape: \[\(6, 8, 3\), \(7, 8, 3\)\]",
        ),
    ],
)
def test_a_split_that_breaks_the_contract_is_told_how(changes, expected):
    dataset = tiny()
    splits = {**dataset.splits, "test": replace(dataset.splits["test"], **changes)}
    with pytest.raises(DataError, match=expected):
        check_dataset(replace(dataset, splits=splits))


@pytest.fixture
def plugin(monkeypatch):
    monkeypatch.setattr(DATASETS, "_entries", dict(DATASETS._entries))

    def register(factory):
        DATASETS.register("mine")(factory)

    return register


def test_a_plugin_is_called_with_typed_settings_and_the_base_if_it_asks(plugin, tmp_path):
    seen = {}

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


def test_what_a_plugin_returns_is_checked(plugin, tmp_path):
    def mine(*, broken: bool = True) -> Dataset:
        return tiny(palette=()) if broken else None  # type: ignore[return-value]

    plugin(mine)
    with pytest.raises(DataError, match="data set 'tiny': 0 palette colours for 2 classes"):
        load_dataset("mine", {}, base=tmp_path)
    with pytest.raises(DataError, match="data set 'mine' gave a NoneType, not a Dataset"):
        load_dataset("mine", {"broken": False}, base=tmp_path)
