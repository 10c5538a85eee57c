"""From the bytes of an image file to arrays: the pixels of an image, the labels of a mask, and their resizing."""

from __future__ import annotations

import io
import re
import zlib

import numpy as np
from PIL import Image, ImageOps

from ablate.data.files.header import (
    Unusable,
    explained,
    open_picture,
    orientation_of,
    read_header,
    tiff_page,
    tiff_tags,
)
from ablate.data.files.labels import Labels

# Raised with every change here that changes a pixel of files that were read before: it is part of each fingerprint.
REVISION = 1


def read_image(data: bytes) -> np.ndarray:
    """Return the pixels (H, W, bands) in their stored type, turned as the EXIF orientation says; alpha is dropped.

    Palettes and other colour spaces become RGB. Raises `Unusable` where the file is damaged or cannot be read right.
    """
    reader = read_header(data).reader
    with explained():
        if reader in _READERS:
            return _READERS[reader](data)
        picture = _load(data)
        if picture.mode.startswith(("I", "F")):
            return _stored(picture)[..., None]
        if picture.mode == "La":  # grey multiplied by its alpha, which Pillow divides again
            picture = picture.convert("LA")
        grey = picture.mode in ("1", "L", "LA")
        pixels = np.asarray(picture.convert("L" if grey else "RGB"))
        return pixels[..., None] if grey else pixels


def image_array(pixels: np.ndarray, channels: int, window: tuple[float, float] | None, deep: bool) -> np.ndarray:
    """Return pixels (H, W, bands) as (H, W, channels), uint8 or, where `deep`, uint16.

    `window` (low, high) maps stored values linearly to the whole range, those outside to the ends; without one, 8-bit
    values are kept as they are. Colour becomes grey by ITU-R 601 luma, grey becomes colour by repetition.
    """
    if channels == 1 and pixels.shape[2] == 3:
        if pixels.dtype == np.uint8:
            pixels = np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
        else:
            pixels = (pixels @ np.array([0.299, 0.587, 0.114]))[..., None]
    if window is not None:
        (low, high), kind = window, np.uint16 if deep else np.uint8
        white = float(np.iinfo(kind).max)
        known = np.nan_to_num(pixels.astype(np.float64), nan=low, posinf=high, neginf=low)
        pixels = np.rint(((known - low) * (white / (high - low))).clip(0, white)).astype(kind)
    return np.repeat(pixels, channels, axis=2) if pixels.shape[2] == 1 < channels else pixels


def read_mask(data: bytes, labels: Labels) -> np.ndarray:
    """Return the labels stored in a mask as integers (H, W), in the code of `labels`: values, or colours.

    Palette images count by index where classes are values and by colour where they are colours. Raises `Unusable`
    where the file is damaged or holds no such labels.
    """
    header = read_header(data)
    if header.unfit is not None:
        raise Unusable(*header.unfit)
    with explained():
        if header.reader in _READERS:
            return _grey_codes(_READERS[header.reader](data)[..., 0], labels)
        return _mask_codes(_load(data), labels)


def stored_palette(data: bytes, labels: Labels) -> tuple[tuple[int, int, int], ...] | None:
    """Return the colours that a palette image stores for the classes, or None where it does not store them all."""
    with explained():
        if read_header(data).reader != "pillow" or labels.coloured or labels.multilabel:
            return None
        palette = _load(data).getpalette("RGB")
    colours = np.array(palette or [], dtype=int).reshape(-1, 3)
    first: dict[int, int] = {}
    for code, target in labels.table.items():
        first.setdefault(target, code)
    codes = [first[index] for index in range(len(labels.classes))]
    if max(codes) >= len(colours):
        return None
    return tuple((int(colours[code][0]), int(colours[code][1]), int(colours[code][2])) for code in codes)


def resize_image(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize uint8 or uint16 (H, W, C) to `size` (height, width).

    Bilinear with antialiasing (a support that grows with the scale).
    """
    if pixels.shape[:2] == size:
        return pixels
    shape, linear = size[::-1], Image.Resampling.BILINEAR
    if pixels.dtype == np.uint8 and pixels.shape[2] in (1, 3):
        picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        return np.asarray(picture.resize(shape, linear)).reshape(*size, -1)
    bands = [Image.fromarray(band.astype(np.float32)).resize(shape, linear) for band in np.moveaxis(pixels, 2, 0)]
    return np.rint(np.stack([np.asarray(band) for band in bands], axis=2)).astype(pixels.dtype)


def _load(data: bytes) -> Image.Image:
    """Return the decoded image, turned upright."""
    picture = open_picture(data)
    picture.load()  # verify() passes most truncated JPEGs: only decoding tells
    return ImageOps.exif_transpose(picture) if orientation_of(picture) != 1 else picture


def _two_bytes(data: bytes) -> np.ndarray:
    """Return 16-bit colour as uint16 (H, W, 1 or 3), where Pillow gives one byte of each value.

    It is asked for the first and then for the other; which weighs more is known from the one that it would have kept.
    """
    if data.startswith(b"\x89PNG") and data[25] == 4:
        # Grey with alpha has as many bytes as four 8-bit channels, and PNG's filters work on bytes.
        header = data[12:24] + b"\x08\x06" + data[26:29]
        data = data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:]
        pixels = np.asarray(_load(data)).astype(np.uint16)
        return pixels[..., :1] << 8 | pixels[..., 1:2]
    halves, kept = [], ""
    for order in "BL":
        picture = open_picture(data)
        for index, tile in enumerate(picture.tile):
            kept, *rest = tile.args if isinstance(tile.args, tuple) else (str(tile.args),)
            asked = re.sub(";16[BLN]", f";16{order}", kept)
            picture.tile[index] = tile._replace(args=(asked, *rest) if rest else asked)
        picture.load()
        upright = ImageOps.exif_transpose(picture) if orientation_of(picture) != 1 else picture
        halves.append(np.asarray(upright)[..., :3].astype(np.uint16))
    first, second = halves if ";16B" in kept else reversed(halves)
    return first << 8 | second


def _stored(picture: Image.Image) -> np.ndarray:
    """Return the values (H, W) of an image of one band as they are stored, and bright where they are high."""
    values = np.asarray(picture)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if picture.format == "TIFF":
        tags = tiff_tags(picture)
        if picture.mode == "I" and tags[339] == (1,):
            values = values.view(np.uint32)  # Pillow knows signed numbers of 32 bits only
        if tags[262] == (0,) and picture.mode.startswith("I;16"):
            values = 65_535 - values
    return values


def _mask_codes(picture: Image.Image, labels: Labels) -> np.ndarray:
    if "transparency" in picture.info or picture.mode in ("RGBA", "LA", "PA", "La"):
        picture = _opaque(picture)
    if picture.mode == "P" and labels.coloured:
        picture = picture.convert("RGB")
    if picture.mode in ("RGB", "CMYK", "YCbCr"):
        pixels = np.asarray(picture.convert("RGB"))
        if labels.coloured:
            wide = pixels.astype(np.int32)
            return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
        if (pixels == pixels[..., :1]).all():  # grey that was saved as colour
            return pixels[..., 0]
        cure = "map each class to its colour, such as sky: [128, 128, 128]"
        raise Unusable("in colour, while 'classes' names values", cure)
    values = _stored(picture)
    if values.dtype == bool:
        # An image of one bit is shown as 0 and 255; whichever of 1 and 255 the classes name is meant.
        values = values.astype(np.uint8) * (1 if 1 in labels.table else 255)
    return _grey_codes(values, labels)


def _grey_codes(values: np.ndarray, labels: Labels) -> np.ndarray:
    """Return values as codes; where labels are colours, those of a grey, and -1 for what is above 255."""
    if not labels.coloured:
        return values
    grey = values.astype(np.int64)
    return np.where((grey >= 0) & (grey < 256), grey << 16 | grey << 8 | grey, -1)


def _opaque(picture: Image.Image) -> Image.Image:
    if picture.mode == "P":
        return picture  # the index is the label whatever its colour's opacity
    if picture.mode.startswith("I"):
        raise Unusable("with a transparent value", "store the labels without transparency")
    alpha = np.asarray(picture.convert("LA" if picture.mode == "La" else "RGBA"))[..., -1]
    if alpha.min() < 255:
        raise Unusable("with transparent pixels", "store the labels without an alpha channel")
    return picture.convert("LA").convert("L") if picture.mode in ("L", "LA", "La") else picture.convert("RGB")


def _array_pixels(data: bytes) -> np.ndarray:
    """Return the bands of a NumPy file (H, W, bands) in their stored type; yes and no as 1 and 0."""
    pixels = np.load(io.BytesIO(data), allow_pickle=False)
    pixels = pixels.astype(np.uint8 if pixels.dtype == bool else pixels.dtype.newbyteorder("="), copy=False)
    return np.ascontiguousarray(pixels if pixels.ndim == 3 else pixels[..., None])


def _tiff_pixels(data: bytes) -> np.ndarray:
    """Return the bands of a TIFF (H, W, bands) in their stored type, upright and bright where they are high."""
    with tiff_page(data) as (page, bands, orientation):
        pixels = page.asarray()
        pixels = np.moveaxis(pixels, 0, 2) if page.axes == "SYX" else pixels
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels[..., bands]
        if page.photometric == 0:
            pixels = np.iinfo(pixels.dtype).max - pixels
    pixels = np.swapaxes(pixels, 0, 1) if orientation >= 5 else pixels
    pixels = pixels[::-1] if orientation in (3, 4, 7, 8) else pixels
    pixels = pixels[:, ::-1] if orientation in (2, 3, 6, 7) else pixels
    return np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder("="), copy=False))


_READERS = {"tifffile": _tiff_pixels, "numpy": _array_pixels, "two bytes": _two_bytes}
