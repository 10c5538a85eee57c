"""Headers: what a file says it holds, and what is refused before anything is decoded."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ablate.data.files.header import Unusable, read_header
from ablate.data.files.pixels import read_image
from tests.data.pictures import array, encoded, png, tiff

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
COLOUR = np.stack([GREY, 255 - GREY, GREY // 2], axis=2)
MANY = np.zeros((6, 8, 5), np.uint8)
DEEP = GREY.astype(np.uint16) * 250 + 7


@pytest.mark.parametrize(
    ("data", "bands", "depth", "fit"),
    [
        (encoded(GREY), 1, "byte", True),
        (encoded(GREY > 100), 1, "byte", True),
        (encoded(COLOUR), 3, "byte", True),
        (encoded(COLOUR, "BMP"), 3, "byte", True),
        (encoded(COLOUR, "JPEG"), 3, "byte", False),
        (encoded(COLOUR, "WEBP"), 3, "byte", False),
        (encoded(GREY, "TIFF"), 1, "byte", True),
        (encoded(DEEP), 1, "deep", True),
        (encoded(DEEP, "TIFF"), 1, "deep", True),
        (encoded(GREY.astype(np.int32) - 100, "TIFF"), 1, "wide", True),
        (encoded(GREY.astype(np.float32), "TIFF"), 1, "float", False),
        (encoded(COLOUR, "TIFF", compression="jpeg"), 3, "byte", False),
        (encoded(COLOUR, "TIFF", compression="tiff_lzw"), 3, "byte", True),
        (png(DEEP, 16), 1, "deep", True),
        (png(np.dstack([DEEP, DEEP]), 16), 1, "deep", False),
        (png(np.dstack([DEEP, DEEP, DEEP]), 16), 3, "deep", False),
        (png(np.dstack([DEEP, DEEP, DEEP, DEEP]), 16), 3, "deep", False),
        (png(GREY // 100, 2), 1, "byte", False),
        (tiff(COLOUR.astype(np.uint16), photometric="rgb"), 3, "deep", False),
        (tiff(np.dstack([COLOUR, GREY]), photometric="rgb", extrasamples=[0]), 4, "byte", False),
        (tiff(np.dstack([COLOUR, GREY]), photometric="rgb", extrasamples=[2]), 3, "byte", True),
        (tiff(np.dstack([GREY, GREY]), photometric="minisblack", planarconfig="contig"), 2, "byte", False),
        (tiff(GREY, photometric="miniswhite"), 1, "byte", False),
        (tiff(GREY.astype(np.int8)), 1, "wide", True),
        (tiff(GREY.astype(np.uint64)), 1, "wide", True),
        (tiff(GREY.astype(np.float64)), 1, "float", False),
        (array(GREY), 1, "byte", True),
        (array(GREY > 100), 1, "byte", True),
        (array(MANY.astype(">u2")), 5, "deep", False),
        (array(MANY.astype(np.int16)), 5, "wide", False),
        (array(GREY.astype(np.float32)), 1, "float", False),
    ],
)
def test_the_header_says_what_a_file_is(data: bytes, bands: int, depth: str, fit: bool) -> None:
    header = read_header(data)
    assert (header.size, header.bands, header.depth, header.orientation) == ((6, 8), bands, depth, 1)
    assert (header.unfit is None) == fit


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (array(np.zeros((5, 20, 30))), r"an array of the shape \(5, 20, 30\)"),
        (array(np.zeros(5)), r"an array of the shape \(5,\)"),
        (array(np.zeros((6, 0))), r"an array of the shape \(6, 0\)"),
        (array(np.zeros((6, 8), complex)), "an array of complex128"),
        (array(np.array([[None]])), "an array of object"),
        (array(MANY)[:-1], "truncated"),
        (array(MANY)[:40], "cannot be read"),
        (array(MANY).replace(b"(6, 8, 5)", b"(60000, 8000, 5)"), "cannot be read|more than"),
    ],
)
def test_arrays_that_are_no_images(data: bytes, fault: str) -> None:
    with pytest.raises(Unusable, match=fault):
        read_header(data)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize(("orientation", "turns"), [(3, 2), (6, -1), (8, 1)])
def test_exif_rotation_turns_pixels_and_size(kind: str, orientation: int, turns: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(COLOUR, kind, exif=exif.tobytes() if kind == "PNG" else exif)
    shown = np.rot90(COLOUR, turns)
    assert (read_header(data).size, read_header(data).orientation) == (shown.shape[:2], orientation)
    np.testing.assert_array_equal(read_image(data), shown)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_tifffile_reads_is_turned_as_pillow_turns(orientation: int) -> None:
    turned = (274, 3, 1, orientation, True)
    bands = tiff(np.dstack([COLOUR, GREY]), photometric="rgb", extrasamples=[0], extratags=[turned])
    colour = tiff(COLOUR, photometric="rgb", extratags=[turned])
    assert read_header(bands).size == read_header(colour).size
    np.testing.assert_array_equal(read_image(bands)[..., :3], read_image(colour))


def test_every_truncation_of_the_pixels_is_noticed() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    for data in (encoded(noise), encoded(noise, "JPEG"), png(noise.astype(np.uint16) * 257, 16)):
        for cut in range(0, len(data) - 100, 97):
            with pytest.raises(Unusable, match="cannot be read"):
                read_image(data[:cut])


def test_what_is_no_single_sane_image_is_refused() -> None:
    for junk in (b"", b"\x89PNG\r\n\x1a\n", b"hello" * 100, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"):
        with pytest.raises(Unusable, match=r"cannot be read \(not an image of a known format\)"):
            read_header(junk)
    stack = io.BytesIO()
    frames = [Image.fromarray(GREY) for _ in range(3)]
    frames[0].save(stack, "TIFF", save_all=True, append_images=frames[1:])
    with pytest.raises(Unusable, match="several images, such as 3"):
        read_header(stack.getvalue())
    volume = tiff(np.zeros((3, 6, 8, 5), np.uint8), photometric="minisblack", planarconfig="contig")
    with pytest.raises(Unusable, match="several images, such as 3"):
        read_header(volume)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"P5 8 6 100\n" + bytes(48), "whose greatest value is 100, which would be scaled"),
        (b"P2 2 1 7\n0 7\n", "whose greatest value is 7, which would be scaled"),
        (b"P6 2 1 65535\n" + bytes(12), "whose greatest value is 65535, which would be scaled"),
        (encoded(DEEP // 16, "JPEG2000"), None),
        (tiff(GREY.astype(np.int16), photometric="miniswhite"), "of which 0 is white"),
        (tiff(GREY.astype(np.float32), photometric="miniswhite"), "of which 0 is white"),
        (encoded(Image.new("LAB", (8, 6)), "TIFF"), "of 8 bits in the colours of LAB"),
        (tiff(np.zeros((6, 8, 4), np.uint16), photometric="separated"), "of 16 bits in the colours of CMYK"),
        (tiff(MANY, photometric="minisblack", planarconfig="contig", compression="lzma"), "compressed by LZMA"),
    ],
)
def test_values_that_would_be_changed_are_refused_by_name(data: bytes, fault: str | None) -> None:
    if fault is None:
        assert read_header(data).depth == "deep"
        return
    with pytest.raises(Unusable, match=fault):
        read_header(data)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 40_000])
@pytest.mark.fault("D4", "refused by its header")
def test_a_decompression_bomb_is_refused_by_its_header(side: int) -> None:
    bomb = bytearray(encoded(np.zeros((1, 1), np.uint8)))
    bomb[16:24] = side.to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bytes(bomb[12:29])).to_bytes(4, "big")
    with pytest.raises(Unusable, match="of more than 89,478,485 pixels"):
        read_header(bytes(bomb))


@pytest.mark.fault(34, "an image that unpacks to more than its place is refused")
def test_a_strip_that_unpacks_to_more_than_its_place_is_refused() -> None:
    data = tiff(MANY, photometric="minisblack", planarconfig="contig", compression="zlib")
    bomb = zlib.compress(bytes(50_000_000), 9)
    at = len(data)
    for tag, value in ((273, at), (279, len(bomb))):  # where the only strip lies, and how long it is
        place = data.index(struct.pack("<HH", tag, 4)) if struct.pack("<HH", tag, 4) in data else -1
        place = place if place >= 0 else data.index(struct.pack("<HH", tag, 3))
        data = data[:place] + struct.pack("<HHII", tag, 4, 1, value) + data[place + 12 :]
    with pytest.raises(Unusable, match="of more than"):
        read_header(data + bomb)
