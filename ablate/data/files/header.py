"""The header of an image file: what it holds, which library reads it without changing a value, or why none does.

Pillow decodes whatever it gives back unchanged. Of 16-bit colour it keeps one byte of two, so both are asked for in
turn; TIFFs of which it would drop bands or change values are read by tifffile; what neither reads right is refused.
An image of many bands may also be a NumPy array (height, width, bands) in a `.npy` file.
"""

from __future__ import annotations

import contextlib
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import tifffile
from PIL import Image, ImageFile, UnidentifiedImageError

# Only formats that Pillow decodes itself: others (such as EPS) would start programs.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "PPM", "WEBP", "JPEG2000")
LOSSLESS = ("PNG", "TIFF", "BMP", "GIF", "PPM")
MOST_PIXELS = 89_478_485  # where Pillow begins to warn of a decompression bomb

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ARRAY_START = b"\x93NUMPY"
# The cure for a file that cannot be read.
OF_DAMAGE = "replace it, or remove it (of a data set, with its partner)"
MOST_BANDS = 16  # of an array; more are taken for a height or width in its place
# What tifffile decompresses by the standard library alone: none, Deflate (two numbers) and PackBits.
TIFF_COMPRESSIONS = (1, 8, 32946, 32773)

Depth = Literal["byte", "deep", "wide", "float"]
Reader = Literal["pillow", "two bytes", "tifffile", "numpy"]


class Unusable(Exception):
    """A file that cannot be used; the text is a phrase such as "that cannot be read (truncated)"."""

    def __init__(self, fault: str, cure: str = "") -> None:
        super().__init__(fault)
        self.fault = fault
        self.cure = cure


@dataclass(frozen=True)
class Header:
    """A file by its own words.

    `size` is (height, width) as shown, `bands` the number of channels without alpha (1 is grey, 3 is colour), `depth`
    the kind of the stored values (8 bits, 16 bits, other whole numbers, floating-point), `orientation` that of EXIF.
    `unfit` says why the file cannot be a mask, with the cure, or is None.
    """

    size: tuple[int, int]
    bands: int
    depth: Depth
    orientation: int
    reader: Reader
    unfit: tuple[str, str] | None


def read_header(data: bytes) -> Header:
    """Return the header, without decoding. Raises `Unusable` for what is no single image of a sane size."""
    with explained():
        if data.startswith(ARRAY_START):
            return _array_header(data)
        try:
            picture = open_picture(data)
        except UnidentifiedImageError:
            if data.startswith(TIFF_STARTS):
                return _tiff_header(data)
            raise
        with picture:
            if picture.size[0] * picture.size[1] > MOST_PIXELS:
                raise _too_large()
            frames = getattr(picture, "n_frames", 1)
            if frames > 1 and picture.format != "MPO":
                raise _several(frames)
            # Of big-endian numbers that are compressed, Pillow swaps the bytes once too often.
            swaps = data.startswith(b"MM") and picture.mode in ("I", "F")
            loses = picture.format == "TIFF" and (swaps or _loses_values(tiff_tags(picture)))
            return _tiff_header(data) if loses else _pillow_header(picture, data)


def _array_header(data: bytes) -> Header:
    handle = io.BytesIO(data)
    version = np.lib.format.read_magic(handle)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(handle)
    height, width, bands = shape if len(shape) == 3 else (*shape, 1) if len(shape) == 2 else (0, 0, 0)
    if not (height and width and 0 < bands <= MOST_BANDS):
        cure = f"store it as (height, width, bands), with at most {MOST_BANDS} bands"
        raise Unusable(f"that is an array of the shape {shape}", cure)
    if height * width > MOST_PIXELS:
        raise _too_large()
    if dtype.kind not in "buif":
        raise Unusable(f"that is an array of {dtype}", "store numbers")
    if handle.tell() + height * width * bands * dtype.itemsize > len(data):
        raise Unusable("that cannot be read (truncated)", OF_DAMAGE)
    return Header((height, width), bands, _depth(dtype), 1, "numpy", _unfit(_depth(dtype), bands))


def _depth(dtype: np.dtype[Any]) -> Depth:
    known: dict[str, Depth] = {"uint8": "byte", "bool": "byte", "uint16": "deep"}
    return "float" if dtype.kind == "f" else known.get(dtype.newbyteorder("=").name, "wide")


def _unfit(depth: Depth, bands: int = 1, white_is_zero: bool = False) -> tuple[str, str] | None:
    """Return why values stored so cannot be labels, with the cure; None where they can."""
    if depth == "float":
        return "whose values are floating-point numbers", "store whole numbers"
    if bands > 1:
        return f"of {bands} bands", "store the labels as one band of whole numbers"
    return ("of which 0 is white (MinIsWhite)", "store the labels with 0 as black") if white_is_zero else None


def open_picture(data: bytes) -> ImageFile.ImageFile:
    """Return the file as Pillow sees it, not yet decoded."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise _too_large() from None


def orientation_of(picture: Image.Image) -> int:
    """Return the EXIF orientation, 1 (upright) to 8; what the standard does not know counts as upright."""
    value = picture.getexif().get(0x0112, 1)
    return value if value in range(2, 9) else 1


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn whatever the decoders raise on damaged files into `Unusable`."""
    try:
        yield
    except Unusable:
        raise
    except Exception as error:
        text = str(error)
        reason = "not an image of a known format" if "cannot identify" in text else text or type(error).__name__
        # The number of missing bytes differs from file to file and would make each a fault of its own kind.
        reason = "truncated" if "truncated" in reason else reason
        raise Unusable(f"that cannot be read ({reason})", OF_DAMAGE) from None


def _pillow_header(picture: ImageFile.ImageFile, data: bytes) -> Header:
    (width, height), mode, kind = picture.size, picture.mode, picture.format
    orientation = orientation_of(picture)
    if orientation >= 5 and kind != "TIFF":  # of a TIFF Pillow tells the size as shown
        width, height = height, width
    depth: Depth = "deep" if mode.startswith("I;16") else "wide" if mode == "I" else "float" if mode == "F" else "byte"
    grey = depth != "byte" or mode in ("1", "L", "LA", "La")
    bits, white_is_zero = 8, False
    if kind == "PNG":
        bits = data[24]
        grey_alpha = bits == 16 and data[25] == 4
        grey = grey or grey_alpha
    elif kind == "TIFF":
        tags = tiff_tags(picture)
        bits, white_is_zero = max(tags[258]), tags[262] == (0,)
        if mode == "LAB" or (mode == "CMYK" and bits > 8):
            raise Unusable(f"of {bits} bits in the colours of {mode}", "convert it to RGB")
        if white_is_zero and depth in ("wide", "float"):
            raise Unusable("of which 0 is white, with 32 bits", "store it with 0 as black")
    elif scale := _scale(picture, data):
        raise Unusable(f"{scale}, which would be scaled", "save it as PNG or TIFF")
    two_bytes = bits == 16 and depth == "byte"
    unfit: tuple[str, str] | None
    if kind not in LOSSLESS or picture.info.get("compression") in ("jpeg", "webp"):
        unfit = "in a lossy format such as JPEG", "store masks as PNG: compression changes labels"
    elif two_bytes:
        unfit = "of 16 bits a colour", "store labels as 8-bit colours or as one channel of whole numbers"
    elif bits in (2, 4) and mode == "L":
        unfit = f"of {bits} bits a pixel, which may be labels or shades of grey", "store the labels with 8 bits"
    else:
        unfit = _unfit(depth, white_is_zero=white_is_zero)
    reader: Reader = "two bytes" if two_bytes else "pillow"
    return Header((height, width), 1 if grey else 3, "deep" if two_bytes else depth, orientation, reader, unfit)


def _scale(picture: ImageFile.ImageFile, data: bytes) -> str:
    """Return which values of the file Pillow would scale to 8 or 16 bits, "" where none."""
    grey = picture.mode in ("L", "I", "I;16")
    if picture.format == "JPEG2000":
        # Of the size segment (ISO/IEC 15444-1, A.5.1) the first component's bits less one, and a sign.
        bits = (data[data.index(b"\xff\x4f\xff\x51") + 42] & 127) + 1
        return "" if bits == 8 or (bits == 16 and grey) else f"of {bits} bits a channel in JPEG 2000"
    if picture.format == "PPM" and picture.tile[0].codec_name.startswith("ppm") and picture.mode != "1":
        greatest = (picture.tile[0].args or (None,))[-1]
        return "" if greatest == 255 or (greatest == 65_535 and grey) else f"whose greatest value is {greatest}"
    return ""


# -- TIFF ----------------------------------------------------------------------------------------------------------


def tiff_tags(picture: Any) -> dict[int, tuple[int, ...]]:
    """Return the tags of a TIFF that say how values are stored, each as a tuple, with the standard's defaults."""
    usual: dict[int, Any] = {258: (1,), 262: 1, 277: 1, 284: 1, 338: (), 339: (1,)}
    found = {tag: picture.tag_v2.get(tag, value) for tag, value in usual.items()}
    return {tag: tuple(value) if isinstance(value, tuple | list) else (value,) for tag, value in found.items()}


def _loses_values(tags: dict[int, tuple[int, ...]]) -> bool:
    """Return whether Pillow would drop bands of a TIFF or change its values."""
    bits, extra, samples = max(tags[258]), tags[338], tags[277][0]
    unnamed = samples - len(extra) not in (1, 3) and tags[262] != (5,)
    more_bands = unnamed or len(extra) > 1 or (len(extra) == 1 and extra[0] not in (1, 2))
    scattered = bits > 8 and samples > 1 and (tags[284] == (2,) or 1 in extra)
    return more_bands or scattered or (bits == 8 and 2 in tags[339])


@contextlib.contextmanager
def tiff_page(data: bytes) -> Iterator[tuple[tifffile.TiffPage, list[int], int]]:
    """Give the one page of a TIFF, its channels that are no alpha (extra samples of kind 1 or 2), its orientation.

    Raises `Unusable` where its values have another meaning than brightness.
    """
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        if len(file.pages) != 1:
            raise _several(len(file.pages))
        page = file.pages.first
        if page.axes not in ("YX", "YXS", "SYX") or page.photometric not in (0, 1, 2) or page.dtype is None:
            raise Unusable("that stores neither grey values nor RGB nor bands", "convert it to RGB or to grey")
        if page.photometric == 0 and page.dtype.kind != "u":
            raise Unusable("of which 0 is white, with signed numbers", "store it with 0 as black")
        if page.compression not in TIFF_COMPRESSIONS:
            name = getattr(page.compression, "name", page.compression)
            raise Unusable(f"of values that are compressed by {name}", "store it uncompressed or with Deflate")
        _check_parts(page, page.dtype.itemsize, data)
        first, turned = page.samplesperpixel - len(page.extrasamples), page.tags.valueof(274, 1)
        kinds = [0] * first + [int(kind) for kind in page.extrasamples]
        bands = [index for index, kind in enumerate(kinds) if kind not in (1, 2)]
        yield page, bands, int(turned) if turned in range(2, 9) else 1


def _check_parts(page: tifffile.TiffPage, itemsize: int, data: bytes) -> None:
    """Raise `Unusable` where a page, or a part of it, unpacks to more than its place: a bomb would fill the memory."""
    rows, columns = (page.tilelength, page.tilewidth) if page.is_tiled else (page.imagelength, page.imagewidth)
    part = rows * columns * page.samplesperpixel * itemsize
    whole = page.imagelength * page.imagewidth * page.samplesperpixel
    if max(whole, part // 8) > MOST_PIXELS or len(page.dataoffsets) > len(data):
        raise _too_large()
    if page.compression in (8, 32946):
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            if len(zlib.decompressobj().decompress(data[offset : offset + count], part + 1)) > part:
                raise _too_large()


def _tiff_header(data: bytes) -> Header:
    with tiff_page(data) as (page, bands, orientation):
        depth = _depth(page.dtype) if page.dtype is not None else "wide"
        size = (page.imagelength, page.imagewidth) if orientation < 5 else (page.imagewidth, page.imagelength)
        unfit = _unfit(depth, page.samplesperpixel, page.photometric == 0)
        return Header(size, len(bands), depth, orientation, "tifffile", unfit)


def _too_large() -> Unusable:
    return Unusable(f"of more than {MOST_PIXELS:,} pixels", "cut it into tiles")


def _several(count: int) -> Unusable:
    cure = "store each image in a file of its own; the bands of one as the planes of a TIFF, or in a .npy"
    return Unusable(f"holding several images, such as {count}", cure)
