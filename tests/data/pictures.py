"""Made-up images for the tests: written by Pillow, tifffile or by hand, read by the package."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image


def save(path: Path, pixels: np.ndarray, **options: Any) -> None:
    """Write an image, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def encoded(picture: Image.Image | np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    """Return the bytes of a file that Pillow writes."""
    buffer = io.BytesIO()
    (Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture).save(buffer, kind, **options)
    return buffer.getvalue()


def array(pixels: np.ndarray) -> bytes:
    """Return the bytes of a NumPy file."""
    buffer = io.BytesIO()
    np.save(buffer, pixels)
    return buffer.getvalue()


def tiff(pixels: np.ndarray, **options: Any) -> bytes:
    """Return the bytes of a TIFF that tifffile writes."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def png(pixels: np.ndarray, bits: int) -> bytes:
    """Return a PNG of values (H, W) or (H, W, 1 to 4) with any number of bits a channel, which Pillow cannot write."""
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    height, width, channels = pixels.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    if bits < 8:
        ones = (pixels[..., 0, None] >> np.arange(bits - 1, -1, -1)) & 1
        rows = np.packbits(ones.reshape(height, -1).astype(np.uint8), axis=1)
        lines = [b"\0" + row.tobytes() for row in rows]
    else:
        lines = [b"\0" + row.astype(">u2" if bits == 16 else np.uint8).tobytes() for row in pixels]
    header = struct.pack(">IIBBBBB", width, height, bits, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"".join(lines))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def cells(seed: int, size: tuple[int, int] = (24, 32)) -> tuple[np.ndarray, np.ndarray]:
    """A grey image of cells between membranes and its mask: 0 on membranes, 255 in cells."""
    draw = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    membrane = np.sin(rows / 3 + seed) + np.sin(columns / 4 + 2 * seed) > 0.9
    grey = np.where(membrane, 60, 180) + draw.integers(-20, 21, size)
    return grey.astype(np.uint8), np.where(membrane, 0, 255).astype(np.uint8)


def shapes(seed: int, size: tuple[int, int] = (24, 32)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image of a red disc and a blue box that may overlap, and where either is."""
    draw = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    disc = (rows - draw.uniform(7, 17)) ** 2 + (columns - draw.uniform(7, 25)) ** 2 < draw.uniform(4, 7) ** 2
    top, left = draw.integers(0, 14), draw.integers(0, 20)
    box = (rows >= top) & (rows < top + 10) & (columns >= left) & (columns < left + 12)
    image = draw.integers(30, 80, (*size, 3))
    image[..., 0] += 120 * disc
    image[..., 2] += 120 * box
    return image.astype(np.uint8), disc, box


def save_shapes(root: Path, count: int) -> None:
    """Write so many of `shapes` as image/, as bit planes bits/ (2^1 and 2^3), and as files/ of one a class."""
    for index in range(count):
        image, disc, box = shapes(index)
        save(root / f"image/{index:02}.png", image)
        save(root / f"bits/{index:02}.png", (2 * disc + 8 * box).astype(np.uint8))
        for name, plane in (("disc", disc), ("box", box)):
            save(root / f"files/{index:02}_{name}.png", 255 * plane.astype(np.uint8))
