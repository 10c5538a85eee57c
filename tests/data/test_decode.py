import io
import zlib

import numpy as np
import pytest
from PIL import Image

from ablate.data.decode import (
    Unusable,
    image_array,
    mask_codes,
    read_header,
    read_picture,
    resize_image,
    resize_mask,
    stored_palette,
)
from ablate.data.findings import Findings
from ablate.data.labels import Labels, read_labels


def encoded(picture: Image.Image | np.ndarray, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    (Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture).save(buffer, kind, **options)
    return buffer.getvalue()


def labels_of(classes) -> Labels:
    labels = read_labels(classes, [], None, Findings())
    assert labels is not None
    return labels


GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
COLOUR = np.stack([GREY, 255 - GREY, GREY // 2], axis=2)
VALUES = labels_of({"a": 0, "b": 255})
COLOURS = labels_of({"red": [255, 0, 0], "grey": [7, 7, 7]})


@pytest.mark.parametrize(
    ("pixels", "kind", "depth", "lossy"),
    [
        (GREY, "PNG", "grey", False),
        (GREY > 100, "PNG", "grey", False),
        (COLOUR, "PNG", "colour", False),
        (COLOUR, "BMP", "colour", False),
        (COLOUR, "JPEG", "colour", True),
        (COLOUR, "WEBP", "colour", True),
        (GREY, "TIFF", "grey", False),
        (GREY.astype(np.uint16) * 200, "PNG", "deep", False),
        (GREY.astype(np.uint16) * 200, "TIFF", "deep", False),
        (GREY.astype(np.int32) - 100, "TIFF", "wide", False),
        (GREY.astype(np.float32), "TIFF", "float", False),
    ],
)
def test_the_header_says_what_a_file_is(pixels, kind, depth, lossy):
    header = read_header(encoded(pixels, kind))
    assert (header.size, header.depth, header.lossy, header.orientation) == ((6, 8), depth, lossy, 1)


def test_a_jpeg_inside_of_a_tiff_is_lossy():
    assert read_header(encoded(COLOUR, "TIFF", compression="jpeg")).lossy
    assert not read_header(encoded(COLOUR, "TIFF", compression="tiff_lzw")).lossy


def test_exif_rotation_turns_pixels_and_size():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(COLOUR, "PNG", exif=exif.tobytes())
    assert (read_header(data).size, read_header(data).orientation) == ((8, 6), 6)
    np.testing.assert_array_equal(np.asarray(read_picture(data)), np.rot90(COLOUR, -1))


def test_every_truncation_of_the_pixels_is_noticed():
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    for kind in ("PNG", "JPEG"):
        data = encoded(noise, kind)
        for cut in range(0, len(data) - 100, 97):
            with pytest.raises(Unusable, match="cannot be read"):
                read_header(data[:cut])
                read_picture(data[:cut])


def test_what_is_no_single_sane_image_is_refused():
    for junk in (b"", b"\x89PNG\r\n\x1a\n", b"hello" * 100, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"):
        with pytest.raises(Unusable, match=r"cannot be read \(not an image of a known format\)"):
            read_header(junk)
    stack = io.BytesIO()
    frames = [Image.fromarray(GREY) for _ in range(3)]
    frames[0].save(stack, "TIFF", save_all=True, append_images=frames[1:])
    with pytest.raises(Unusable, match="several pictures, such as 3"):
        read_header(stack.getvalue())


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 40_000])
def test_a_decompression_bomb_is_refused_by_its_header(side):
    bomb = bytearray(encoded(np.zeros((1, 1), np.uint8)))
    bomb[16:24] = side.to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bytes(bomb[12:29])).to_bytes(4, "big")
    with pytest.raises(Unusable, match="of more than 89,478,485 pixels"):
        read_header(bytes(bomb))


def test_grey_and_colour_convert_as_documented():
    np.testing.assert_array_equal(image_array(Image.fromarray(GREY), 1, None)[..., 0], GREY)
    np.testing.assert_array_equal(image_array(Image.fromarray(GREY), 3, None), np.repeat(GREY[..., None], 3, axis=2))
    np.testing.assert_array_equal(image_array(Image.fromarray(COLOUR), 3, None), COLOUR)
    luma = COLOUR @ np.array([0.299, 0.587, 0.114])
    assert np.abs(image_array(Image.fromarray(COLOUR), 1, None)[..., 0] - luma).max() <= 1
    alpha = np.dstack([COLOUR, GREY])
    np.testing.assert_array_equal(image_array(Image.fromarray(alpha), 3, None), COLOUR)


def test_a_window_maps_stored_values_to_bytes():
    deep = np.array([[0, 1000, 1500, 2000, 65_535]], np.uint16)
    assert image_array(Image.fromarray(deep), 1, (1000, 2000))[0, :, 0].tolist() == [0, 0, 128, 255, 255]
    real = np.array([[-1.0, 0.0, 0.5, np.nan, np.inf]], np.float32)
    assert image_array(Image.fromarray(real), 1, (0.0, 1.0))[0, :, 0].tolist() == [0, 0, 128, 0, 255]
    assert image_array(Image.fromarray(GREY), 3, (0, 235)).max() == 255


def test_masks_of_values():
    mask = (GREY > 100).astype(np.uint8) * 255
    for stored in (mask, mask > 0, np.repeat(mask[..., None], 3, axis=2), mask.astype(np.uint16)):
        np.testing.assert_array_equal(mask_codes(read_picture(encoded(stored)), VALUES), mask)
    np.testing.assert_array_equal(mask_codes(Image.fromarray(mask > 0), labels_of({"a": 0, "b": 1})), mask // 255)
    opaque = np.dstack([mask, mask, mask, np.full_like(mask, 255)])
    np.testing.assert_array_equal(mask_codes(Image.fromarray(opaque), VALUES), mask)
    high = mask.astype(np.uint16) * 200
    np.testing.assert_array_equal(mask_codes(read_picture(encoded(high)), VALUES), high)
    signed = mask.astype(np.int32) - 1
    np.testing.assert_array_equal(mask_codes(read_picture(encoded(signed, "TIFF")), VALUES), signed)


def test_masks_of_colours():
    red = np.zeros((2, 3, 3), np.uint8)
    red[:, 1:] = (255, 0, 0)
    assert mask_codes(Image.fromarray(red), COLOURS).tolist() == [[0, 0xFF0000, 0xFF0000]] * 2
    assert mask_codes(Image.fromarray(np.full((1, 2), 7, np.uint8)), COLOURS).tolist() == [[0x070707] * 2]
    with pytest.raises(Unusable, match="in colour, while 'classes' names values"):
        mask_codes(Image.fromarray(red), VALUES)


def test_palette_masks_count_by_index_or_by_colour():
    picture = Image.fromarray(np.array([[0, 1], [1, 2]], np.uint8), "P")
    picture.putpalette([7, 7, 7, 255, 0, 0, 9, 9, 9])
    stored = read_picture(encoded(picture))
    by_index = labels_of(["x", "y", "z"])
    assert mask_codes(stored, by_index).tolist() == [[0, 1], [1, 2]]
    assert stored_palette(stored, by_index) == ((7, 7, 7), (255, 0, 0), (9, 9, 9))
    assert stored_palette(stored, VALUES) is None
    assert mask_codes(stored, COLOURS).tolist() == [[0x070707, 0xFF0000], [0xFF0000, 0x090909]]


def test_masks_without_whole_labels_are_refused():
    half = np.dstack([GREY, GREY, GREY, GREY])
    with pytest.raises(Unusable, match="transparent pixels"):
        mask_codes(Image.fromarray(half), VALUES)
    with pytest.raises(Unusable, match="floating-point"):
        mask_codes(Image.fromarray(GREY.astype(np.float32)), VALUES)


def test_an_image_is_averaged_and_a_mask_is_picked():
    stripes = np.tile(np.array([0, 200], np.uint8), (8, 8))
    small = resize_image(stripes[..., None], (4, 4))
    # Antialiased: without it every second column would give 0 or 200.
    assert small.shape == (4, 4, 1) and small.min() > 60 and small.max() < 140
    assert set(np.unique(resize_mask(stripes, (5, 7)))) == {0, 200}
    labels = np.arange(9, dtype=np.uint8).reshape(3, 3)
    np.testing.assert_array_equal(resize_mask(labels, (6, 6)), np.kron(labels, np.ones((2, 2), np.uint8)))
    np.testing.assert_array_equal(resize_mask(np.kron(labels, np.ones((3, 3), np.uint8)), (3, 3)), labels)
    assert resize_mask(labels, (3, 3)) is labels and resize_image(COLOUR, (6, 8)) is COLOUR
    wide = np.asarray(Image.fromarray(labels).resize((7, 5), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(resize_mask(labels, (5, 7)), wide)
