"""Pixels and labels: what is stored is what is read, whatever the container, or there is an error that says why."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ablate.data.dataset import IGNORE, Findings
from ablate.data.files.header import MOST_PIXELS, Unusable
from ablate.data.files.labels import UNKNOWN, Labels, read_labels
from ablate.data.files.pixels import image_array, read_image, read_mask, resize_image, stored_palette
from ablate.measure.segmentation import resize_labels
from tests.data.pictures import encoded, png, tiff


def labels_of(classes: object, ignore: list[int] | None = None) -> Labels:
    labels = read_labels(classes, ignore or [], None, Findings())  # type: ignore[arg-type]
    assert labels is not None
    return labels


GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
COLOUR = np.stack([GREY, 255 - GREY, GREY // 2], axis=2)
DEEP = np.random.default_rng(0).integers(0, 65_536, (6, 8, 4), dtype=np.uint16)
VALUES = labels_of({"a": 0, "b": 255})
COLOURS = labels_of({"red": [255, 0, 0], "grey": [7, 7, 7]})


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encoded(GREY), GREY[..., None]),
        (encoded(GREY > 100), (GREY > 100)[..., None] * np.uint8(255)),
        (encoded(COLOUR), COLOUR),
        (encoded(np.dstack([COLOUR, GREY])), COLOUR),
        (encoded(np.dstack([GREY, 255 - GREY])), GREY[..., None]),
        (png(DEEP[..., 0], 16), DEEP[..., :1]),
        (png(DEEP[..., :2], 16), DEEP[..., :1]),
        (png(DEEP[..., :3], 16), DEEP[..., :3]),
        (png(DEEP, 16), DEEP[..., :3]),
        (tiff(DEEP[..., :3], photometric="rgb"), DEEP[..., :3]),
        (tiff(DEEP[..., :3], photometric="rgb", byteorder=">"), DEEP[..., :3]),
        (tiff(DEEP[..., :3], photometric="rgb", compression="zlib", predictor=True), DEEP[..., :3]),
        (tiff(DEEP[..., :3], photometric="rgb", tile=(16, 16)), DEEP[..., :3]),
        (tiff(np.moveaxis(DEEP[..., :3], 2, 0), photometric="rgb", planarconfig="separate"), DEEP[..., :3]),
        (tiff(DEEP, photometric="rgb", extrasamples=[2]), DEEP[..., :3]),
        (tiff(DEEP, photometric="rgb", extrasamples=[0]), DEEP),
        (tiff(DEEP, photometric="rgb", extrasamples=[1]), DEEP[..., :3]),
        (tiff(DEEP[..., :2], photometric="minisblack", planarconfig="contig"), DEEP[..., :2]),
        (tiff(np.dstack([COLOUR] * 2), photometric="minisblack", planarconfig="contig"), np.dstack([COLOUR, COLOUR])),
        (tiff(np.dstack([COLOUR, GREY]), photometric="rgb", extrasamples=[0]), np.dstack([COLOUR, GREY])),
        (tiff(DEEP[..., 0], photometric="miniswhite"), 65_535 - DEEP[..., :1]),
        (tiff(GREY, photometric="miniswhite"), 255 - GREY[..., None]),
        (tiff(DEEP[..., 0].astype(np.uint32) << 16), DEEP[..., :1].astype(np.uint32) << 16),
        (tiff(DEEP[..., 0].astype(np.uint32) << 16, byteorder=">"), DEEP[..., :1].astype(np.uint32) << 16),
        (tiff(GREY.astype(np.int8)), GREY[..., None].astype(np.int8)),
        (tiff(DEEP[..., 0].astype(np.float64)), DEEP[..., :1].astype(np.float64)),
    ],
)
def test_the_pixels_are_those_that_are_stored(data: bytes, expected: np.ndarray) -> None:
    found = read_image(data)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype


def test_grey_and_colour_convert_as_documented() -> None:
    np.testing.assert_array_equal(image_array(GREY[..., None], 1, None, False)[..., 0], GREY)
    np.testing.assert_array_equal(image_array(GREY[..., None], 3, None, False), np.repeat(GREY[..., None], 3, axis=2))
    np.testing.assert_array_equal(image_array(COLOUR, 3, None, False), COLOUR)
    luma = COLOUR @ np.array([0.299, 0.587, 0.114])
    assert np.abs(image_array(COLOUR, 1, None, False)[..., 0] - luma).max() <= 1
    deep = image_array(COLOUR.astype(np.uint16) * 257, 1, (0, 65_535), True)
    assert deep.dtype == np.uint16
    assert np.abs(deep[..., 0] / 257 - luma).max() < 0.01


def test_a_window_maps_stored_values_to_the_whole_range() -> None:
    deep = np.array([[[0], [1000], [1500], [2000], [65_535]]], np.uint16)
    assert image_array(deep, 1, (1000, 2000), True)[0, :, 0].tolist() == [0, 0, 32_768, 65_535, 65_535]
    real = np.array([[[-1.0], [0.0], [0.5], [np.nan], [np.inf]]], np.float32)
    assert image_array(real, 1, (0.0, 1.0), True)[0, :, 0].tolist() == [0, 0, 32_768, 0, 65_535]
    assert image_array(GREY[..., None], 3, (0, 235), False).max() == 255


def test_masks_of_values() -> None:
    mask = (GREY > 100).astype(np.uint8) * 255
    for stored in (mask, mask > 0, np.repeat(mask[..., None], 3, axis=2), mask.astype(np.uint16)):
        np.testing.assert_array_equal(read_mask(encoded(stored), VALUES), mask)
    np.testing.assert_array_equal(read_mask(encoded(mask > 0), labels_of({"a": 0, "b": 1})), mask // 255)
    opaque = np.dstack([mask, mask, mask, np.full_like(mask, 255)])
    np.testing.assert_array_equal(read_mask(encoded(opaque), VALUES), mask)
    high = mask.astype(np.uint16) * 200
    np.testing.assert_array_equal(read_mask(encoded(high), VALUES), high)
    signed = mask.astype(np.int32) - 1
    np.testing.assert_array_equal(read_mask(encoded(signed, "TIFF"), VALUES), signed)


def test_masks_of_colours() -> None:
    red = np.zeros((2, 3, 3), np.uint8)
    red[:, 1:] = (255, 0, 0)
    assert read_mask(encoded(red), COLOURS).tolist() == [[0, 0xFF0000, 0xFF0000]] * 2
    assert read_mask(encoded(np.full((1, 2), 7, np.uint8)), COLOURS).tolist() == [[0x070707] * 2]
    # No grey of 8 bits, so none of the colours: 0x700 would be another one if it were taken for a byte.
    deep = np.array([[7, 0x700]], np.uint16)
    assert read_mask(encoded(deep), COLOURS).tolist() == [[0x070707, -1]]
    assert COLOURS.apply(np.array([-1])).tolist() == [UNKNOWN]
    with pytest.raises(Unusable, match="in colour, while 'classes' names values"):
        read_mask(encoded(red), VALUES)


def test_palette_masks_count_by_index_or_by_colour() -> None:
    picture = Image.fromarray(np.array([[0, 1], [1, 2]], np.uint8), "P")
    picture.putpalette([7, 7, 7, 255, 0, 0, 9, 9, 9])
    stored = encoded(picture)
    by_index = labels_of(["x", "y", "z"])
    assert read_mask(stored, by_index).tolist() == [[0, 1], [1, 2]]
    assert stored_palette(stored, by_index) == ((7, 7, 7), (255, 0, 0), (9, 9, 9))
    assert stored_palette(stored, VALUES) is None
    assert stored_palette(encoded(GREY), by_index) is None
    assert read_mask(stored, COLOURS).tolist() == [[0x070707, 0xFF0000], [0xFF0000, 0x090909]]


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (encoded(np.dstack([GREY, GREY, GREY, GREY])), "transparent pixels"),
        (encoded(GREY.astype(np.float32), "TIFF"), "floating-point"),
        (encoded(COLOUR, "JPEG"), "in a lossy format"),
        (png(DEEP[..., :3], 16), "of 16 bits a colour"),
        (tiff(DEEP[..., :3], photometric="rgb"), "of 16 bits a colour"),
        (png(GREY // 100, 2), "of 2 bits a pixel"),
        (png(GREY // 100, 4), "of 4 bits a pixel"),
        (tiff(GREY, photometric="miniswhite"), "of which 0 is white"),
        (tiff(DEEP[..., 0], photometric="miniswhite"), "of which 0 is white"),
        (tiff(np.dstack([GREY, GREY]), photometric="minisblack", planarconfig="contig"), "of 2 bands"),
    ],
)
def test_masks_without_clear_labels_are_refused(data: bytes, fault: str) -> None:
    with pytest.raises(Unusable, match=fault):
        read_mask(data, VALUES)


TYPES = (np.bool_, np.uint8, np.uint16, np.uint32, np.uint64, np.int8, np.int16, np.int32, np.float32)
WRITERS = {
    "pillow PNG": lambda values: encoded(values),
    "pillow TIFF": lambda values: encoded(values, "TIFF", compression="tiff_lzw"),
    "palette": lambda values: encoded(Image.fromarray(values.astype(np.uint8), "L").convert("P")),
    "BMP": lambda values: encoded(values, "BMP"),
    "PGM": lambda values: encoded(values, "PPM"),
    "grey and alpha": lambda values: encoded(np.dstack([values, np.full_like(values, 255)])),
    "colour": lambda values: encoded(np.dstack([values] * 3)),
    "tifffile": lambda values: tiff(values),
    "big-endian": lambda values: tiff(values, byteorder=">", compression="zlib"),
    "white is zero": lambda values: tiff(values, photometric="miniswhite"),
    "two bands": lambda values: tiff(np.dstack([values, values]), photometric="minisblack", planarconfig="contig"),
    "1 bit": lambda values: png(values, 1),
    "2 bits": lambda values: png(values, 2),
    "4 bits": lambda values: png(values, 4),
    "16 bits": lambda values: png(values, 16),
}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    values=st.lists(st.integers(-2, 300) | st.sampled_from([1000, 65_535, 2**31, 2**32 - 1]), min_size=6, max_size=6),
    kind=st.sampled_from(TYPES),
    writer=st.sampled_from(sorted(WRITERS)),
    named=st.lists(st.integers(0, 300), min_size=3, max_size=5, unique=True),
)
def test_any_mask_gives_the_stated_labels_or_an_error(
    values: list[int], kind: type[np.generic], writer: str, named: list[int]
) -> None:
    stored = np.array(values).astype(kind).reshape(2, 3)
    if writer in ("PGM", "pillow TIFF") and (stored < 0).any():
        return  # Pillow wraps or clips negative numbers as it writes them
    try:
        data = WRITERS[writer](stored)
    except (TypeError, ValueError, OSError, KeyError, OverflowError):
        return  # the writer does not know such values
    *first, last = named
    labels = labels_of({f"class {code}": code for code in first}, [last])
    try:
        found = labels.apply(read_mask(data, labels))
    except Unusable:
        return
    written = stored.astype(np.int64)
    if stored.dtype == bool or writer in ("1 bit", "palette", "16 bits"):
        mask = {"1 bit": 1, "palette": 255, "16 bits": 65_535}.get(writer, 1)
        written = written & mask  # what the writer keeps of a larger number
    if (stored.dtype == bool and writer != "16 bits") or writer == "1 bit":
        written = written * (1 if writer == "palette" or 1 in labels.table else 255)
    meant = {code: index for index, code in enumerate(first)} | {last: IGNORE}
    expected = [[meant.get(int(value), UNKNOWN) for value in row] for row in written]
    assert found.tolist() == expected


@settings(max_examples=100, deadline=None)
@given(
    bands=st.integers(1, 6),
    kind=st.sampled_from([np.uint8, np.uint16, np.uint32, np.int8, np.int16, np.float32]),
    order=st.sampled_from("<>"),
    separate=st.booleans(),
    packed=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_bands_of_a_tiff_keep_their_values_or_give_an_error(
    bands: int, kind: type[np.generic], order: str, separate: bool, packed: bool, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    values = draw.integers(0, 2**32, (4, 5, bands), dtype=np.uint32).astype(kind)
    planes = np.moveaxis(values, 2, 0) if separate else values
    config = "separate" if separate else "contig"
    data = tiff(
        planes if bands > 1 else values[..., 0],
        photometric="minisblack",
        planarconfig=config if bands > 1 else None,
        byteorder=order,
        compression="zlib" if packed else None,
    )
    try:
        found = read_image(data)
    except Unusable:
        return
    np.testing.assert_array_equal(found, values)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_damage_to_a_file_is_an_error_or_an_array(data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from(DAMAGED))
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    for read in (read_image, lambda found: read_mask(found, VALUES)):
        try:
            found = read(bytes(damaged))
        except Unusable:
            continue
        assert 0 < found.size <= MOST_PIXELS * 8


DAMAGED = [
    encoded(GREY),
    png(DEEP[..., :3], 16),
    tiff(DEEP, photometric="rgb", extrasamples=[0], compression="zlib"),
    tiff(DEEP[..., 0].astype(np.uint32)),
    encoded(COLOUR, "TIFF"),
    encoded(COLOUR, "GIF"),
    encoded(COLOUR, "BMP"),
]


def test_an_image_is_averaged_and_a_mask_is_picked() -> None:
    stripes = np.tile(np.array([0, 200], np.uint8), (8, 8))
    small = resize_image(stripes[..., None], (4, 4))
    # Antialiased: without it every second column would give 0 or 200.
    assert small.shape == (4, 4, 1)
    assert small.min() > 60
    assert small.max() < 140
    assert set(np.unique(resize_labels(stripes, (5, 7)))) == {0, 200}
    labels = np.arange(9, dtype=np.uint8).reshape(3, 3)
    np.testing.assert_array_equal(resize_labels(labels, (6, 6)), np.kron(labels, np.ones((2, 2), np.uint8)))
    np.testing.assert_array_equal(resize_labels(np.kron(labels, np.ones((3, 3), np.uint8)), (3, 3)), labels)
    assert resize_labels(labels, (3, 3)) is labels
    assert resize_image(COLOUR, (6, 8)) is COLOUR
    wide = np.asarray(Image.fromarray(labels).resize((7, 5), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(resize_labels(labels, (5, 7)), wide)


def test_deep_images_and_many_bands_are_averaged_as_bytes_are() -> None:
    deep = resize_image(COLOUR.astype(np.uint16) * 257, (3, 4))
    assert deep.dtype == np.uint16
    assert np.abs(deep / 257 - resize_image(COLOUR, (3, 4))).max() <= 1
    bands = resize_image(np.dstack([COLOUR, GREY]), (3, 4))
    assert bands.dtype == np.uint8
    assert np.abs(bands[..., :3].astype(int) - resize_image(COLOUR, (3, 4))).max() <= 1
