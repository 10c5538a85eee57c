"""From the bytes of an image file to arrays: what it is, its pixels as uint8, the labels stored in a mask."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from ablate.data.files.labels import Labels

# Raised with every change here that changes a pixel: it is part of each fingerprint.
REVISION = 1

# Only formats that Pillow decodes itself: others (such as EPS) would start programs.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "PPM", "WEBP", "JPEG2000")
LOSSLESS = ("PNG", "TIFF", "BMP", "GIF", "PPM")
MOST_PIXELS = 89_478_485  # where Pillow begins to warn of a decompression bomb
_ORIENTATION = 0x0112

Depth = Literal["grey", "colour", "deep", "wide", "float"]


class Unusable(Exception):
    """A file that cannot be used; the text is a phrase such as "that cannot be read (truncated)"."""

    def __init__(self, fault: str, cure: str = "") -> None:
        super().__init__(fault)
        self.fault = fault
        self.cure = cure


@dataclass(frozen=True)
class Header:
    """What a file says about itself: (height, width) as shown, mode, EXIF orientation, kind of its values."""

    size: tuple[int, int]
    depth: Depth
    orientation: int
    lossy: bool
    narrowed: bool  # 16 bits a colour, of which Pillow keeps the upper eight


def read_header(data: bytes) -> Header:
    """The header, without decoding. Raises `Unusable` for what is no single image of a sane size."""
    try:
        return _header(data)
    except Unusable:
        raise
    except Exception as error:  # Pillow's parsers raise anything on damaged files
        raise _unreadable(error) from None


def read_picture(data: bytes) -> Image.Image:
    """The decoded picture, turned as its EXIF orientation says. Raises `Unusable` where it is damaged."""
    try:
        picture = _open(data)
        # verify() passes most truncated JPEGs: only decoding tells.
        picture.load()
        return ImageOps.exif_transpose(picture) if _orientation(picture) != 1 else picture
    except Unusable:
        raise
    except Exception as error:  # Pillow's decoders raise anything on damaged files
        raise _unreadable(error) from None


def image_array(picture: Image.Image, channels: int, window: tuple[float, float] | None) -> np.ndarray:
    """Pixels as uint8 (H, W, channels).

    `window` (low, high) maps stored values linearly to 0..255, those outside to the ends; without one, 8-bit values
    are kept as they are. Colour becomes grey by ITU-R 601 luma, grey becomes colour by repetition, alpha is dropped.
    """
    if _depth(picture) in ("grey", "colour"):
        pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
    else:
        pixels = np.asarray(picture)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if window is not None:
        low, high = window
        scaled = (np.nan_to_num(pixels.astype(np.float64), nan=low, posinf=high, neginf=low) - low) * (
            255.0 / (high - low)
        )
        pixels = np.rint(scaled.clip(0, 255)).astype(np.uint8)
    return np.repeat(pixels, channels, axis=2) if pixels.shape[2] < channels else pixels


def mask_codes(picture: Image.Image, labels: Labels) -> np.ndarray:
    """The labels stored in a mask as integers (H, W), in the code of `labels`: values, or colours.

    Palette pictures count by index where classes are values and by colour where they are colours. Raises `Unusable`
    where the picture holds no such labels.
    """
    if "transparency" in picture.info or picture.mode in ("RGBA", "LA", "PA"):
        picture = _opaque(picture)
    if picture.mode == "P" and labels.coloured:
        picture = picture.convert("RGB")
    if picture.mode in ("RGB", "CMYK", "YCbCr", "LAB", "HSV"):
        return _colour_codes(np.asarray(picture.convert("RGB")), labels)
    if picture.mode.startswith("F"):
        raise Unusable("whose values are floating-point numbers", "store whole numbers")
    values = np.asarray(picture)
    if values.dtype == bool:
        # A picture of one bit is shown as 0 and 255; whichever of 1 and 255 the classes name is meant.
        values = values.astype(np.uint8) * (1 if 1 in labels.table else 255)
    if labels.coloured:
        grey = values.astype(np.int64)
        return grey << 16 | grey << 8 | grey
    return values


def stored_palette(picture: Image.Image, labels: Labels) -> tuple[tuple[int, int, int], ...] | None:
    """The colours that a palette picture stores for the classes, where it stores them all."""
    if picture.mode != "P" or labels.coloured:
        return None
    colours = np.array(picture.getpalette("RGB") or [], dtype=int).reshape(-1, 3)
    first: dict[int, int] = {}
    for code, target in labels.table.items():
        first.setdefault(target, code)
    codes = [first[index] for index in range(len(labels.classes))]
    if max(codes) >= len(colours):
        return None
    return tuple((int(colours[code][0]), int(colours[code][1]), int(colours[code][2])) for code in codes)


def resize_image(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 (H, W, C) to `size` (height, width): bilinear with antialiasing (a support that grows with the scale)."""
    if pixels.shape[:2] == size:
        return pixels
    height, width = size
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR)).reshape(height, width, -1)


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Labels (H, W) to `size` (height, width): the label at the centre of each new pixel, none ever mixed."""
    if mask.shape == size:
        return mask
    rows, columns = ((np.arange(new) * 2 + 1) * old // (2 * new) for old, new in zip(mask.shape, size, strict=True))
    return mask[rows[:, None], columns[None, :]]


def _header(data: bytes) -> Header:
    with _open(data) as picture:
        width, height = picture.size
        if width * height > MOST_PIXELS:
            raise Unusable(f"of more than {MOST_PIXELS:,} pixels", "cut it into tiles")
        frames = getattr(picture, "n_frames", 1)
        if frames > 1 and picture.format != "MPO":
            raise Unusable(f"holding several pictures, such as {frames}", "store each picture in a file of its own")
        orientation = _orientation(picture)
        if orientation in (5, 6, 7, 8):
            width, height = height, width
        lossy = picture.format not in LOSSLESS or picture.info.get("compression") in ("jpeg", "webp")
        # Bytes 24 and 25 of a PNG are its bits a channel and its colour type (0 is grey).
        narrowed = picture.format == "PNG" and data[24] == 16 and data[25] != 0
        return Header((height, width), _depth(picture), orientation, lossy, narrowed)


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise Unusable(f"of more than {MOST_PIXELS:,} pixels", "cut it into tiles") from None


def _orientation(picture: Image.Image) -> int:
    """EXIF orientation 1 (upright) to 8; what the standard does not know counts as upright, as it does for Pillow."""
    value = picture.getexif().get(_ORIENTATION, 1)
    return value if value in range(2, 9) else 1


def _unreadable(error: Exception) -> Unusable:
    text = str(error)
    reason = "not an image of a known format" if "cannot identify" in text else text or type(error).__name__
    # The number of missing bytes differs from file to file and would make each a fault of its own kind.
    reason = "truncated" if "truncated" in reason else reason
    return Unusable(f"that cannot be read ({reason})", "replace or remove it together with its partner")


def _depth(picture: Image.Image) -> Depth:
    mode = picture.mode
    if mode.startswith("I;16"):
        return "deep"
    if mode == "I":
        return "wide"
    if mode.startswith("F"):
        return "float"
    return "grey" if mode in ("1", "L", "LA", "La") else "colour"


def _opaque(picture: Image.Image) -> Image.Image:
    if picture.mode == "P" and "transparency" in picture.info:
        return picture  # the index is the label whatever its colour's opacity
    alpha = np.asarray(picture.convert("RGBA"))[..., 3]
    if alpha.min() < 255:
        raise Unusable("with transparent pixels", "store the labels without an alpha channel")
    return picture.convert("L" if picture.mode == "LA" else "RGB")


def _colour_codes(pixels: np.ndarray, labels: Labels) -> np.ndarray:
    if labels.coloured:
        wide = pixels.astype(np.int32)
        return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    if (pixels == pixels[..., :1]).all():  # grey that was saved as colour
        return pixels[..., 0]
    raise Unusable(
        "in colour, while 'classes' names values",
        "map each class to its colour, such as sky: [128, 128, 128]",
    )
