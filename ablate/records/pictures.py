"""Many small pictures as one durable file: zips of index PNGs (predictions, targets) and of JPEGs (test images)."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from ablate.errors import ResultsError
from ablate.records.files import read_whole
from ablate.records.members import Members

# The earliest time a zip can hold: the same arrays give the same bytes whenever they are packed.
_EPOCH = (1980, 1, 1, 0, 0, 0)
_JPEG_QUALITY = 92


PANEL_IMAGES = 8


def panel_indices(count: int, images: int = PANEL_IMAGES) -> list[int]:
    """The test images that every panel shows: evenly spread over `count`, the same for all variants."""
    return [int(index) for index in np.linspace(0, count - 1, min(images, count)).round()]


def pack(arrays: Iterable[np.ndarray]) -> bytes:
    """A zip of the uint8 arrays (H, W) as greyscale PNGs `00000.png`, `00001.png`, ...; equal input, equal bytes."""
    return _zip((_encode(np.asarray(array), "PNG"), "png") for array in arrays)


def unpack(path: Path) -> np.ndarray:
    """All pictures of a zip by `pack`, of one size: uint8 (N, H, W). Raises `ResultsError` for a damaged file."""
    return _read(path, None)


def unpack_maps(path: Path, indices: Sequence[int] | None = None) -> np.ndarray | list[np.ndarray]:
    """Pictures of a zip by `pack`, all or those at `indices`, which may differ in size.

    uint8 (N, H, W) where they are of one size, else a list of N maps (h, w).
    """
    found = _pictures(path, indices)
    return _stack(path, found) if len({picture.shape for picture in found}) <= 1 else found


def unpack_some(path: Path, indices: Sequence[int]) -> np.ndarray:
    """The pictures at `indices`, in that order, to be looked at: uint8 (len(indices), H, W).

    Of a zip whose pictures differ in size each is brought to the size of the largest, label by label, so that they
    can stand in one sheet; `unpack_maps` gives them as they are. Others are not decoded.
    """
    found = _pictures(path, indices)
    stat = path.stat()
    sizes = _sizes(path, stat.st_mtime_ns, stat.st_size)
    if len(sizes) < 2:
        return _stack(path, found)
    largest = max(sizes, key=lambda size: (size[0] * size[1], size))
    return np.stack([_nearest(picture, largest) for picture in found]) if found else _stack(path, found)


@lru_cache(maxsize=64)
def _sizes(path: Path, *version: int) -> frozenset[tuple[int, int]]:
    """Height and width of the PNGs of a zip, from their headers; damaged ones are left out."""
    found = set()
    members = _open(path)
    for name in members:
        try:
            data = members[name]  # the whole of it, so that its checksum is looked at
        except zipfile.BadZipFile:
            continue
        found.add((int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")))
    return frozenset(found)


def _nearest(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    rows, columns = ((np.arange(new) * 2 + 1) * old // (2 * new) for old, new in zip(picture.shape, size, strict=True))
    return picture[rows[:, None], columns[None, :]]


def pack_images(images: Iterable[np.ndarray]) -> bytes:
    """A zip of uint8 images (H, W, 3), or (H, W, 1) and (H, W) for grey, as JPEGs `00000.jpg`, ... of quality 92.

    For people to look at, never to compute with: JPEG is lossy. Of other numbers of channels the first three are
    shown, or the first alone where there are two.
    """
    return _zip((_encode(_as_rgb(np.asarray(image)), "JPEG"), "jpg") for image in images)


def unpack_image(path: Path, index: int) -> np.ndarray:
    """The image at `index` of a zip by `pack_images`: uint8 (H, W, 3)."""
    return _decode(_open(path), path, index, "jpg", "RGB")


def count(path: Path) -> int:
    """How many pictures the zip holds."""
    return len(_open(path))


def _as_rgb(image: np.ndarray) -> np.ndarray:
    if image.ndim == 2:
        image = image[..., None]
    return np.repeat(image[..., :1], 3, axis=2) if image.shape[2] < 3 else image[..., :3]


def _encode(array: np.ndarray, kind: str) -> bytes:
    if array.dtype != np.uint8 or array.ndim != (2 if kind == "PNG" else 3):
        raise ValueError(f"cannot pack {array.dtype} {array.shape} as {kind}")
    buffer = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(array))
    if kind == "PNG":
        picture.save(buffer, "PNG")
    else:
        picture.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()


def _zip(members: Iterable[tuple[bytes, str]]) -> bytes:
    buffer = io.BytesIO()
    # Stored, not deflated: PNG and JPEG are compressed already.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for index, (data, suffix) in enumerate(members):
            info = zipfile.ZipInfo(f"{index:05d}.{suffix}", date_time=_EPOCH)
            info.external_attr = 0o644 << 16
            info.create_system = 3
            archive.writestr(info, data)
    return buffer.getvalue()


def _open(path: Path) -> Members:
    try:
        return Members(read_whole(path))
    except FileNotFoundError:
        raise ResultsError("there is no such file", file=str(path)) from None
    except (OSError, zipfile.BadZipFile) as error:
        raise ResultsError(f"not a readable zip of pictures ({error})", file=str(path)) from None


def _decode(members: Members, path: Path, index: int, suffix: str, mode: str) -> np.ndarray:
    member = f"{index:05d}.{suffix}"
    try:
        with Image.open(io.BytesIO(members[member])) as picture:
            return np.asarray(picture.convert(mode) if picture.mode != mode else picture)
    except KeyError:
        raise ResultsError(f"there is no picture {member} in it", file=str(path)) from None
    except (OSError, ValueError, SyntaxError, zipfile.BadZipFile) as error:
        raise ResultsError(f"picture {member} cannot be read ({error})", file=str(path)) from None


def _pictures(path: Path, indices: Sequence[int] | None) -> list[np.ndarray]:
    members = _open(path)
    chosen = range(len(members)) if indices is None else indices
    return [_decode(members, path, int(index), "png", "L") for index in chosen]


def _read(path: Path, indices: Sequence[int] | None) -> np.ndarray:
    return _stack(path, _pictures(path, indices))


def _stack(path: Path, pictures: list[np.ndarray]) -> np.ndarray:
    if not pictures:
        return np.zeros((0, 0, 0), np.uint8)
    if len({picture.shape for picture in pictures}) > 1:
        raise ResultsError("its pictures differ in size", file=str(path))
    return np.stack(pictures)
