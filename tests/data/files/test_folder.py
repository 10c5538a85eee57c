"""Folders of images and masks: what can be read is read right, what cannot be is named."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ablate.data.dataset import IGNORE, Dataset, as_bytes, check_dataset, load_dataset
from ablate.data.files import assemble, existing_root, folder
from ablate.errors import DataError
from tests.data.pictures import cells, png, save, tiff


def problems(load: Callable[..., Dataset], **changes: Any) -> list[str]:
    """Return the lines that tell what is wrong."""
    with pytest.raises(DataError) as caught:
        load(**changes)
    return str(caught.value).splitlines()


@pytest.mark.usefixtures("membrane")
def test_a_grey_folder_with_masks_of_0_and_255(load: Callable[..., Dataset]) -> None:
    dataset = load(ignore=[128])
    check_dataset(dataset)
    assert (dataset.name, dataset.classes, dataset.in_channels, dataset.size) == (
        "folder",
        ("membrane", "cell"),
        1,
        (24, 32),
    )
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 14, "val": 3, "test": 3}
    names = sorted(name for split in dataset.splits.values() for name in split.names)
    assert names == [f"{index:02d}" for index in range(20)]
    for split in dataset.splits.values():
        assert split.groups is None
        for name, image, mask in zip(split.names, split.images, split.masks, strict=True):
            grey, stored = cells(int(name))
            np.testing.assert_array_equal(image[..., 0], grey)
            np.testing.assert_array_equal(mask, stored // 255)
    pixels = dataset.splits["train"].images / 255
    assert dataset.mean == pytest.approx((pixels.mean(),)) and dataset.std == pytest.approx((pixels.std(),))
    assert len(dataset.files) == 40 and "image/00.png" in dataset.files


def test_resizing_and_ignored_labels(membrane: Path, load: Callable[..., Dataset]) -> None:
    stored = np.full((24, 32), 255, np.uint8)
    stored[:, :16], stored[:12, 16:] = 0, 128
    for path in (membrane / "label").iterdir():
        save(path, stored)
    dataset = load(ignore=[128], size=[12, 16], channels=3)
    assert dataset.size == (12, 16) and dataset.in_channels == 3
    mask = dataset.splits["test"].masks[0]
    assert (mask[:, :8] == 0).all() and (mask[:6, 8:] == IGNORE).all() and (mask[6:, 8:] == 1).all()


@pytest.mark.usefixtures("membrane")
def test_the_second_time_nothing_is_decoded(load: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch) -> None:
    first = load()
    monkeypatch.setattr(assemble, "inspect", lambda *_: pytest.fail("the files were read again"))
    second = load()
    assert second.fingerprint == first.fingerprint and second.files == first.files and second.mean == first.mean
    np.testing.assert_array_equal(first.splits["val"].masks, second.splits["val"].masks)


def test_a_changed_file_is_noticed_and_named(membrane: Path, load: Callable[..., Dataset]) -> None:
    first = load()
    path = membrane / "image" / "03.png"
    before = path.stat()
    image, _ = cells(3)
    image[0, 0] ^= 1
    data = path.read_bytes()
    save(path, image)
    # The same size and the old time of modification do not hide it.
    assert abs(len(data) - path.stat().st_size) < 20
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    second = load()
    assert second.fingerprint != first.fingerprint
    assert [name for name in first.files if first.files[name] != second.files[name]] == ["image/03.png"]


def test_the_fingerprint_is_of_contents_and_settings_and_not_of_the_place(
    membrane: Path, load: Callable[..., Dataset], tmp_path: Path
) -> None:
    first = load()
    shutil.copytree(membrane, tmp_path / "elsewhere")
    assert load(root="elsewhere").fingerprint == first.fingerprint
    for path in membrane.rglob("*.png"):
        path.touch()
    assert load().fingerprint == first.fingerprint
    assert load(size=[12, 16]).fingerprint != first.fingerprint
    assert load(classes={"cell": 255, "membrane": 0}).fingerprint != first.fingerprint
    assert load(split={"train": 0.7, "val": 0.15, "test": 0.15, "seed": 1}).fingerprint != first.fingerprint


def test_groups_are_never_divided_and_are_kept(membrane: Path, load: Callable[..., Dataset]) -> None:
    for index in range(20):
        for part in ("image", "label"):
            (membrane / part / f"{index:02d}.png").rename(membrane / part / f"p{index % 5}_{index:02d}.png")
    dataset = load(group=r"^(\w+?)_")
    owners = {name: set(split.groups or ()) for name, split in dataset.splits.items()}
    assert sorted(owner for found in owners.values() for owner in found) == ["p0", "p1", "p2", "p3", "p4"]
    fold = load(group=r"^(\w+?)_", split={"folds": 5, "fold": 1})
    assert [len(fold.splits[name]) for name in ("train", "val", "test")] == [12, 4, 4]
    assert len(set(fold.splits["test"].groups or ())) == 1


def test_folders_and_lists_as_splits(membrane: Path, load: Callable[..., Dataset], tmp_path: Path) -> None:
    lists = {"train": [f"{index:02d}" for index in range(10)], "val": ["10.png", "11"], "test": "test.txt"}
    (tmp_path / "test.txt").write_text("image/12.png\n13\n")
    dataset = load(split=lists)
    assert dataset.splits["val"].names == ("10", "11") and dataset.splits["test"].names == ("12", "13")
    for index, part in enumerate(["train"] * 12 + ["val"] * 4 + ["test"] * 4):
        for kind in ("image", "label"):
            target = tmp_path / "parts" / part / kind / f"{index:02d}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(membrane / kind / target.name, target)
    folders = {"train": "train", "val": "val", "test": "test"}
    by_folder = load(root="parts", split=folders)
    assert [len(by_folder.splits[name]) for name in folders] == [12, 4, 4]
    by_pattern = load(root="parts", images="{split}/image/*.png", masks="{split}/label/{stem}.png", split=folders)
    assert by_pattern.fingerprint == by_folder.fingerprint


def test_colour_images_with_colour_masks_in_other_formats(load: Callable[..., Dataset], tmp_path: Path) -> None:
    sky, road, void = (128, 128, 128), (128, 64, 128), (0, 0, 0)
    for index in range(3):
        _, mask = cells(index)
        colour = np.where((mask == 0)[..., None], sky, road).astype(np.uint8)
        colour[:2] = void
        save(tmp_path / "set" / f"{index}.jpg", colour // 2 + 60 + index)
        save(tmp_path / "set" / f"{index}_L.tif", colour)
    dataset = load(
        images="*.jpg", masks="{stem}_L.tif", classes={"sky": list(sky), "road": "#804080"}, ignore=[list(void)]
    )
    assert dataset.in_channels == 3 and dataset.palette == (sky, road)
    for split in dataset.splits.values():
        _, mask = cells(int(split.names[0]))
        wanted = mask // 255
        wanted[:2] = IGNORE
        np.testing.assert_array_equal(split.masks[0], wanted)


def test_palette_masks_bring_their_colours(membrane: Path, load: Callable[..., Dataset]) -> None:
    for path in (membrane / "label").iterdir():
        picture = Image.fromarray(np.asarray(Image.open(path)) // 255, "P")
        picture.putpalette([1, 2, 3, 200, 100, 50])
        picture.save(path)
    assert load(classes=["membrane", "cell"]).palette == ((1, 2, 3), (200, 100, 50))
    assert load(classes=["membrane", "cell"], palette={"cell": "#ffffff"}).palette[1] == (255, 255, 255)
    by_colour = load(classes={"cell": [200, 100, 50], "membrane": [1, 2, 3]})
    assert by_colour.palette == ((200, 100, 50), (1, 2, 3))


def test_sixteen_bits_are_windowed_by_the_training_images(membrane: Path, load: Callable[..., Dataset]) -> None:
    for path in (membrane / "image").iterdir():
        # 12 bits of a microscope in 16: by 65,535 all would be nearly black.
        save(path, np.asarray(Image.open(path)).astype(np.uint16) * 16)
    pixels = load().splits["train"].images
    assert pixels.dtype == np.uint16
    assert (pixels.min(), pixels.max()) == (0, 65_535)
    assert pixels.std() > 60 * 257
    fixed = load(window=[0, 4080])
    grey, _ = cells(int(fixed.splits["val"].names[0]))
    np.testing.assert_array_equal(fixed.splits["val"].images[0, ..., 0], grey.astype(np.uint16) * 257)
    assert fixed.white == 65_535
    assert fixed.mean == pytest.approx((fixed.splits["train"].images / 65_535).mean(), rel=1e-12)
    for path in (membrane / "label").iterdir():
        save(path, np.asarray(Image.open(path)).astype(np.uint16) * 200)
    assert load(classes={"membrane": 0, "cell": 51_000}).num_classes == 2


def test_other_images_or_other_masks_than_one_size(membrane: Path, load: Callable[..., Dataset]) -> None:
    for name in ("00", "01"):
        image, mask = cells(int(name), (30, 40))
        save(membrane / "image" / f"{name}.png", image)
        save(membrane / "label" / f"{name}.png", mask)
    assert problems(load) == ["data.size: the images have 2 sizes (24x32, 30x40); give a size"]
    assert load(size=[24, 32]).size == (24, 32)


@pytest.mark.fault(24, "images and masks are found and read")
def test_blanks_quotes_unicode_and_long_paths(membrane: Path, load: Callable[..., Dataset], tmp_path: Path) -> None:
    place = tmp_path / ("a 'b' \"ü\" [x] " + "y" * 150) / "z*"
    place.parent.mkdir()
    shutil.move(membrane, place)
    assert load(root=str(place)).num_classes == 2
    assert load(root=str(place.relative_to(tmp_path))).num_classes == 2


# What is wrong with the folder, and how the one line about it starts and goes on.


def jpeg_mask(root: Path) -> None:
    for name in ("00", "01"):
        save(root / "label" / f"{name}.jpg", cells(int(name))[1])
        (root / "label" / f"{name}.png").unlink()


def truncated(root: Path) -> None:
    path = root / "image" / "04.png"
    path.write_bytes(path.read_bytes()[:-120])


def truncated_jpeg(root: Path) -> None:
    (root / "image" / "04.png").unlink()
    save(root / "image" / "04.jpg", cells(4)[0])
    path = root / "image" / "04.jpg"
    path.write_bytes(path.read_bytes()[:-30])


def rotated(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    save(root / "image" / "05.png", cells(5)[0], exif=exif.tobytes())


def dangling(root: Path) -> None:
    (root / "image" / "06.png").unlink()
    (root / "image" / "06.png").symlink_to(root / "image" / "nowhere.png")


def piped(root: Path) -> None:
    (root / "image" / "06.png").unlink()
    os.mkfifo(root / "image" / "06.png")


def huge(root: Path) -> None:
    with (root / "image" / "06.png").open("r+b") as handle:
        handle.truncate((2 << 30) + 1)  # sparse: it takes no room


def one_value(root: Path) -> None:
    for path in (root / "label").iterdir():
        save(path, np.where(np.asarray(Image.open(path)) == 0, 0, 255).astype(np.uint8))


def strange(root: Path) -> None:
    for name in ("07", "08"):
        mask = cells(int(name))[1]
        mask[0, :3] = 77
        save(root / "label" / f"{name}.png", mask)


def resized(root: Path) -> None:
    save(root / "label" / "09.png", cells(9, (24, 30))[1])


def copied(root: Path) -> None:
    for index in range(1, 20):
        shutil.copy(root / "image" / "00.png", root / "image" / f"{index:02d}.png")


def unlabelled(root: Path) -> None:
    for path in (root / "label").iterdir():
        save(path, np.full((24, 32), 99, np.uint8))


def in_colour(root: Path) -> None:
    save(root / "label" / "10.png", np.dstack([cells(10)[1], cells(11)[1], cells(12)[1]]))


def narrowed(root: Path) -> None:
    (root / "label" / "11.png").write_bytes(png(np.ones((24, 32, 3), np.uint16), 16))


def emptied(root: Path) -> None:
    for path in [*(root / "image").iterdir(), *(root / "label").iterdir()]:
        path.unlink()


@pytest.mark.parametrize(
    ("fault", "settings", "expected"),
    [
        (
            jpeg_mask,
            {"masks": "label/*"},
            "data.masks: 2 masks in a lossy format such as JPEG: label/00.jpg, label/01.jpg; store masks as PNG",
        ),
        (truncated, {}, "data.images: 1 image that cannot be read (truncated): image/04.png"),
        (truncated_jpeg, {"images": "image/*"}, "data.images: 1 image that cannot be read (truncated): image/04.jpg"),
        (rotated, {}, "data.images: 1 image whose EXIF rotation their mask does not share: image/05.png"),
        (dangling, {}, "data.images: 1 image that is a link to a file that is not there: image/06.png; fetch what"),
        (piped, {}, "data.images: 1 image that is no regular file: image/06.png"),
        (huge, {}, "data.images: 1 image of more than 2 GiB: image/06.png"),
        (
            one_value,
            {"ignore": [0], "classes": {"dirt": 7, "cell": 255}},
            "data.classes: all labelled pixels are 'cell', so that any network scores 100 %",
        ),
        (strange, {}, "data.classes: label 77 in 2 masks (6 pixels), expected 0, 255: label/07.png, label/08.png"),
        (resized, {}, "data.images: 1 image of another size than their mask: image/09.png (24x32, mask 24x30)"),
        (copied, {}, "data.split: "),
        (unlabelled, {"ignore": [99]}, "data.split: the split 'train' has no labelled pixel"),
        (in_colour, {}, "data.masks: 1 mask in colour, while 'classes' names values: label/10.png; map each class"),
        (narrowed, {}, "data.masks: 1 mask of 16 bits a colour: label/11.png"),
        (emptied, {}, "data.images: no file in "),
    ],
)
@pytest.mark.fault("D3", "one line each, naming the files and the cure; nothing is trained")
def test_bad_input_gives_one_line_each(
    membrane: Path, load: Callable[..., Dataset], fault: Callable[[Path], None], settings: dict[str, Any], expected: str
) -> None:
    fault(membrane)
    found = problems(load, **settings)
    assert [line for line in found if line.startswith(expected)], found
    assert problems(load, **settings) == found


@pytest.mark.fault("D5", "refused as leakage")
def test_equal_images_in_two_splits_are_leakage(membrane: Path, load: Callable[..., Dataset]) -> None:
    lists = {"train": ["00", "01"], "val": ["02"], "test": ["03"]}
    shutil.copy(membrane / "image" / "01.png", membrane / "image" / "03.png")
    assert problems(load, split=lists) == [
        "data.split: 1 image with the same bytes as one in another split: image/03.png (test) = image/01.png (train);"
        " keep one of each, or all in one split"
    ]
    shutil.copy(membrane / "image" / "00.png", membrane / "image" / "01.png")
    assert len(load(split={**lists, "test": ["04"]}).splits["train"]) == 2


@pytest.mark.usefixtures("membrane")
@pytest.mark.fault("D5", "refused as leakage")
def test_a_group_in_two_splits_is_leakage(load: Callable[..., Dataset]) -> None:
    lists = {"train": ["00", "10"], "val": ["01", "02"], "test": ["11", "12"]}
    assert problems(load, split=lists, group="^(.)") == [
        "data.split: 2 groups with images in more than one split: '0' (train, val), '1' (train, test);"
        " keep each group in one split"
    ]


@pytest.mark.usefixtures("membrane")
@pytest.mark.fault("D6", "refused, naming the split")
def test_an_empty_split(load: Callable[..., Dataset]) -> None:
    assert problems(load, split={"train": ["00"], "val": ["01"], "test": []}) == [
        "data.split: the split 'test' has no image"
    ]


def test_all_problems_at_once(membrane: Path, load: Callable[..., Dataset]) -> None:
    for fault in (truncated, rotated, dangling, strange, resized, in_colour):
        fault(membrane)
    (membrane / "label" / "19.png").unlink()
    (membrane / "image" / "18.png").unlink()
    found = problems(load)
    assert len(found) == 8
    for name in ("04", "05", "06", "07", "09", "10", "18", "19"):
        assert sum(f"/{name}.png" in line for line in found) == 1, name


@pytest.mark.usefixtures("membrane")
def test_wrong_settings_are_all_named_before_any_file_is_read(load: Callable[..., Dataset]) -> None:
    found = problems(
        load,
        images="/abs/*.png",
        masks="label/{stm}.png",
        classes={"a": 0, "b": 0},
        split={"train": 0.9, "val": 0.9, "test": 0.1},
        group="(",
        window=[3, 3],
    )
    assert [line.split(":")[0] for line in found] == [
        "data.classes.b",
        "data.split",
        "data.group",
        "data.images",
        "data.masks",
        "data.window",
    ]


def test_images_without_a_common_range_need_a_window(membrane: Path, load: Callable[..., Dataset]) -> None:
    for path in list((membrane / "image").iterdir()):
        save(path.with_suffix(".tif"), np.asarray(Image.open(path)).astype(np.float32) / 255)
        path.unlink()
    assert problems(load, images="image/*.tif") == [
        "data.window: the images hold values that have no common range;"
        " give the range that is shown as black to white, such as window: [0, 4095]"
    ]
    dataset = load(images="image/*.tif", window=[0, 1])
    grey, _ = cells(int(dataset.splits["val"].names[0]))
    np.testing.assert_array_equal(dataset.splits["val"].images[0, ..., 0], grey.astype(np.uint16) * 257)


@pytest.mark.fault("D1", "the nearest folder that exists is named")
def test_a_missing_root_names_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "file").touch()
    assert existing_root("here", tmp_path) == tmp_path / "here"
    assert existing_root(str(tmp_path / "here"), Path("/")) == tmp_path / "here"
    with pytest.raises(
        DataError, match=rf"no folder {tmp_path}/here/x/y \(the nearest that exists is {tmp_path}/here\)"
    ):
        existing_root("here/x/y", tmp_path)
    with pytest.raises(DataError, match=f"expected a folder, got the file {tmp_path}/file"):
        existing_root("file", tmp_path)


def test_sixteen_bit_colour_keeps_its_values(membrane: Path, load: Callable[..., Dataset]) -> None:
    for path in (membrane / "image").iterdir():
        grey = np.asarray(Image.open(path)).astype(np.uint16) * 16
        path.write_bytes(png(np.dstack([grey, grey // 2, 4095 - grey]), 16))
    plain, fixed = load(), load(window=[0, 4095])
    assert plain.in_channels == 3
    assert (plain.splits["train"].images.min(), plain.splits["train"].images.max()) == (0, 65_535)
    grey = cells(int(fixed.splits["val"].names[0]))[0].astype(int) * 16
    expected = np.rint(np.dstack([grey, grey // 2, 4095 - grey]) * (65_535 / 4095))
    np.testing.assert_array_equal(fixed.splits["val"].images[0], expected)
    shown = as_bytes(fixed.splits["val"].images[0])
    assert shown.dtype == np.uint8
    np.testing.assert_array_equal(shown[..., 0], grey // 16)
    assert load(size=[12, 16]).splits["val"].images.dtype == np.uint16
    assert load(channels=1).in_channels == 1


def test_all_bands_of_a_multi_band_image_are_channels(membrane: Path, load: Callable[..., Dataset]) -> None:
    for path in list((membrane / "image").iterdir()):
        grey = np.asarray(Image.open(path))
        bands = tiff(np.dstack([grey, grey, grey, 255 - grey]), photometric="rgb", extrasamples=[0])
        path.with_suffix(".tif").write_bytes(bands)
        path.unlink()
    dataset = load(images="image/*.tif")
    image = dataset.splits["val"].images[0]
    assert (dataset.in_channels, image.dtype) == (4, np.uint8)
    np.testing.assert_array_equal(image[..., 3], 255 - image[..., 0])
    assert as_bytes(image).shape == (24, 32, 3)
    assert problems(load, images="image/*.tif", channels=3) == [
        "data.channels: expected images that have 3, got 20 of 4; leave out channels, or drop bands"
    ]
    (membrane / "image" / "00.tif").write_bytes(tiff(cells(0)[0]))
    assert problems(load, images="image/*.tif") == [
        "data.channels: expected one number of bands in all images, got 1 of 1, 19 of 4;"
        " leave out channels, or drop bands"
    ]


def test_arrays_of_many_bands_are_images_and_keep_their_16_bits(membrane: Path, load: Callable[..., Dataset]) -> None:
    for path in list((membrane / "image").iterdir()):
        grey = np.asarray(Image.open(path)).astype(np.uint16)
        np.save(path.with_suffix(".npy"), np.dstack([grey + 256 * band for band in range(5)]))
        path.unlink()
        label = membrane / "label" / path.name
        np.save(label.with_suffix(".npy"), np.asarray(Image.open(label)))
        label.unlink()
    dataset = load(images="image/*.npy", masks="label/*.npy", window=[0, 65_535])
    image = dataset.splits["val"].images[0]
    assert (dataset.in_channels, image.dtype) == (5, np.uint16)
    np.testing.assert_array_equal(image[..., 4], image[..., 0] + 1024)
    assert as_bytes(image).shape == (24, 32, 3)
    assert set(np.unique(dataset.splits["val"].masks)) == {0, 1}
    np.save(membrane / "image" / "00.npy", np.zeros((5, 24, 32), np.uint16))
    (problem,) = problems(load, images="image/*.npy", masks="label/*.npy")
    assert problem == (
        "data.images: 1 image that is an array of the shape (5, 24, 32): image/00.npy;"
        " store it as (height, width, bands), with at most 16 bands"
    )


def test_linked_folders_and_files_are_read(membrane: Path, load: Callable[..., Dataset], tmp_path: Path) -> None:
    plain = load()
    store = membrane.rename(tmp_path / "store")
    (membrane / "image").mkdir(parents=True)
    (membrane / "label").symlink_to(store / "label", target_is_directory=True)
    for path in (store / "image").iterdir():  # as git annex lays them: a link for each file
        (membrane / "image" / path.name).symlink_to(Path("../../store/image") / path.name)
    (membrane / "again").symlink_to(membrane, target_is_directory=True)
    (membrane / "all").symlink_to(store / "image", target_is_directory=True)
    assert load().fingerprint == plain.fingerprint
    assert len(load(images="all/**/*.png").splits["train"]) == 14
    (store / "image" / "03.png").write_bytes((store / "image" / "04.png").read_bytes())
    assert load().fingerprint != plain.fingerprint


def test_a_pattern_that_matches_nothing_says_what_is_there(membrane: Path, load: Callable[..., Dataset]) -> None:
    assert problems(load, images="images/*.png") == [
        f"data.images: no file in {membrane} matches 'images/*.png'; did you mean 'image/*.png'?"
    ]
    assert problems(load, masks="labels/*.png") == [
        f"data.masks: no file in {membrane} matches 'labels/*.png'; did you mean 'label/*.png'?"
    ]
    (membrane / "image").rename(membrane / "image [v1]")
    assert problems(load, images="image [v1]/*.png") == [
        f"data.images: no file in {membrane} matches 'image [v1]/*.png';"
        " brackets stand for one of the letters inside them; write [[] for a bracket"
    ]
    assert len(load(images="image [[]v1]/*.png").splits["train"]) == 14


def test_equal_blank_tiles_are_no_leakage(membrane: Path, load: Callable[..., Dataset]) -> None:
    for name in range(12):
        save(membrane / "image" / f"{name:02d}.png", np.zeros((24, 32), np.uint8))
    plain = load()
    assert [len(split) for split in plain.splits.values()] == [14, 3, 3]
    lists = {"train": ["00", "01", "12"], "val": ["02", "13"], "test": ["03", "14"]}
    assert len(load(split=lists).splits["train"]) == 3


def test_copies_of_an_image_are_dealt_to_one_split(membrane: Path, load: Callable[..., Dataset]) -> None:
    before = load()
    (first, *_), (other, *_) = before.splits["train"].names, before.splits["test"].names
    shutil.copy(membrane / "image" / f"{first}.png", membrane / "image" / f"{other}.png")
    for _ in range(2):  # decoded, and from the cache
        dataset = load()
        owner = {name: split for split, part in dataset.splits.items() for name in part.names}
        assert owner[first] == owner[other]
        assert len(owner) == 20
        for split in dataset.splits.values():
            for name, mask in zip(split.names, split.masks, strict=True):
                np.testing.assert_array_equal(mask, cells(int(name))[1] // 255)


def test_a_channel_without_spread_is_only_shifted(membrane: Path, load: Callable[..., Dataset]) -> None:
    for path in (membrane / "image").iterdir():
        grey = np.asarray(Image.open(path))
        save(path, np.dstack([np.full_like(grey, 77), grey, np.zeros_like(grey)]))
    for _ in range(2):
        dataset = load()
        assert (dataset.std[0], dataset.std[2]) == (1.0, 1.0)
        assert dataset.std[1] < 0.5
        assert dataset.mean[0] == pytest.approx(77 / 255)


@pytest.mark.usefixtures("membrane")
def test_one_class_is_refused_and_no_cure_leads_there(load: Callable[..., Dataset]) -> None:
    assert problems(load, classes={"cell": 255}, ignore=[0]) == [
        "data.classes: one class leaves nothing to tell apart, any network scores 100 %;"
        " name the background as a class, such as background: 0"
    ]
    assert problems(load, classes={"0": "membrane", "255": "cell"}) == [
        "data.classes: expected names to values, got values to names;"
        " write each name before what masks store, such as ground: 0"
    ]


@pytest.mark.fault(32, "a file that changes while it is read is refused by name")
def test_a_file_that_changes_while_it_is_read_is_refused(
    membrane: Path, load: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(*arguments: Any) -> list[assemble.Source]:
        found = inspect(*arguments)
        save(membrane / "image" / "05.png", cells(99)[0])
        return found

    inspect = assemble.inspect
    monkeypatch.setattr(assemble, "inspect", changed)
    assert problems(load) == ["data.images: 1 image that changed while the study was read: image/05.png; run again"]


@pytest.mark.fault(32, "data that differ from those of the driver are refused")
def test_data_that_changed_since_the_run_began_are_refused(membrane: Path, tmp_path: Path) -> None:
    settings = {"root": "set", "images": "image/*.png", "masks": "label/*.png", "classes": {"membrane": 0, "cell": 255}}
    before = load_dataset("folder", settings, base=tmp_path)
    assert load_dataset("folder", settings, base=tmp_path, expected=before.fingerprint).files == before.files
    save(membrane / "image" / "05.png", cells(99)[0])
    with pytest.raises(DataError, match="the files of the data set 'folder' changed while the study runs; put them"):
        load_dataset("folder", settings, base=tmp_path, expected=before.fingerprint)


@pytest.mark.usefixtures("membrane")
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"root": "x" * 300}, "data.root: no path of a folder"),
        ({"root": "~nobody-of-this-name/set"}, "data.root: no path of a folder"),
        ({"images": f"{'x' * 300}/*.png"}, "data.images: expected names of at most 255 bytes"),
        ({"masks": "label/" + "x" * 240 + "{stem}_mask.png"}, "data.masks: no file in"),
        ({"split": {"train": "x" * 300, "val": "v", "test": "t"}}, "data.split.train: there is no folder"),
        ({"split": {"train": "x" * 300 + ".txt", "val": ["0"], "test": ["1"]}}, "data.split.train: there is no file"),
    ],
)
def test_names_that_cannot_be_are_said(load: Callable[..., Dataset], changes: dict[str, Any], expected: str) -> None:
    assert problems(load, **changes)[0].startswith(expected)


def test_masks_of_many_values_look_interpolated(membrane: Path, load: Callable[..., Dataset]) -> None:
    path = sorted(membrane.glob("label/*"))[0]
    with Image.open(path) as mask:
        save(path, np.arange(np.asarray(mask).size).reshape(np.asarray(mask).shape).astype(np.uint8))
    with pytest.raises(DataError, match="values without a meaning, which look interpolated or lossy; store labels"):
        load()


def test_forgotten_classes_are_proposed(membrane: Path) -> None:
    settings = {"root": str(membrane), "images": "image/*.png", "masks": "label/{stem}.png"}
    cure = folder.proposals["classes"](settings, membrane)  # type: ignore[attr-defined]
    assert cure.startswith("the masks hold 0, 255; write classes: {background: 0, foreground: 255}")
    assert folder.proposals["classes"]({"root": "nowhere"}, membrane) == ""  # type: ignore[attr-defined]


@pytest.mark.parametrize("images", ["image/*_{B2,B3,B8,B4}.png", "{B2,B3,B8,B4}/*.png"])
def test_bands_in_files_of_their_own(images: str, tmp_path: Path) -> None:
    pattern = images.replace("{B2,B3,B8,B4}", "{0}").replace("*", "{1}")
    bands = np.random.default_rng(0).integers(0, 60_000, (20, 24, 32, 4)).astype(np.uint16)
    for number in range(20):
        save(tmp_path / f"label/{number}.png", cells(number)[1])
        for word, band in zip(("B2", "B3", "B8", "B4"), np.moveaxis(bands[number], 2, 0), strict=True):
            save(tmp_path / pattern.format(word, number), band)
    settings: dict[str, Any] = {"root": ".", "masks": "label/*.png", "classes": {"a": 0, "b": 255}, "base": tmp_path}
    dataset = folder(images=images, **settings, window=(0, 65_535))
    check_dataset(dataset)
    assert dataset.in_channels == 4 and len(dataset.files) == 100
    for split in dataset.splits.values():
        for name, image in zip(split.names, split.images, strict=True):
            np.testing.assert_array_equal(image, bands[int(name.removesuffix("_B2"))])
    gone, other = (tmp_path / pattern.format("B8", number) for number in (3, 4))
    gone.unlink()
    save(other, np.zeros((24, 32), np.uint8))
    with pytest.raises(DataError) as caught:
        folder(images=images, **settings)
    assert f"1 band missing: {gone.relative_to(tmp_path)}; add the file" in str(caught.value)
    assert "1 image whose bands differ in size, bits or rotation: " in str(caught.value)
    with pytest.raises(DataError, match=r"expected up to 16 different bands, got image/\*_B2.png, image"):
        folder(images="image/*_{B2,B2}.png", **settings)
