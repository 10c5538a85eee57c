"""Many small images as one durable file: zips of index PNGs (predictions, targets) and JPEGs (test images); arrays."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from ablate.errors import ResultsError
from ablate.measure.segmentation import resize_labels
from ablate.records.files import read_file

# The earliest time a zip can hold: the same arrays give the same bytes whenever they are packed.
_EPOCH = (1980, 1, 1, 0, 0, 0)
_JPEG_QUALITY = 92
# The end of the name of an array of counts in the form of `pack_counts`.
_LEAN = "_target_fp_fn"
# The most that one file of a results folder may unpack to: a few megabytes of a stranger's can hold any number of
# zeros.
MAX_BYTES = 2**31
PANEL_IMAGES = 8
_DAMAGED = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


def panel_indices(count: int, images: int = PANEL_IMAGES) -> list[int]:
    """Return the test images that every panel shows: evenly spread over `count`, the same for all variants."""
    return [int(index) for index in np.linspace(0, count - 1, min(images, count)).round()]


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the arrays `names` of an .npz; raises `ResultsError` for one that is damaged, too large, or lacks them."""
    try:
        with _open(path) as archive:
            return {name: _array(archive, name) for name in names}
    except KeyError as error:
        raise ResultsError(f"it lacks {error}", file=str(path)) from None
    except _DAMAGED as error:
        raise ResultsError(f"its arrays cannot be read ({error})", file=str(path)) from None


def pack_counts(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return an .npz of the counts tp, fp, fn (N, C, 3) and losses in `arrays`, not compressed, as xz packs them best.

    The pixels of the target, the same in all trials, stand in place of tp, and like lies beside like: (3, C, N).
    `read_arrays` gives the counts again.
    """
    lean = {}
    for name, array in arrays.items():
        if array.ndim == 3:
            tp, fp, fn = np.moveaxis(array, -1, 0)
            array = np.stack([tp + fn, fp, fn]).swapaxes(1, 2)
            array = array.astype(np.uint16 if array.max(initial=0) < 2**16 else np.uint32, order="C")
            name += _LEAN
        lean[name] = array
    buffer = io.BytesIO()
    np.savez(buffer, **lean)  # type: ignore[arg-type]
    return buffer.getvalue()


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    if f"{name}{_LEAN}.npy" in archive.namelist():
        lean = _array(archive, name + _LEAN)
        # Two of them, as int64, may be no more than what a file may unpack to.
        if lean.ndim != 3 or len(lean) != 3 or lean.dtype.kind != "u" or 16 * lean.size > MAX_BYTES:
            raise ValueError(f"{name}{_LEAN} of {lean.dtype} {lean.shape} holds no counts, or too many")
        counts = lean.T.astype(np.int64, order="C")
        counts[..., 0] -= counts[..., 2]
        return counts
    if f"{name}.npy" not in archive.namelist():
        raise KeyError(name)
    with archive.open(f"{name}.npy") as member:
        array = np.asarray(np.lib.format.read_array(member, allow_pickle=False))
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} of {array.dtype} holds no numbers")
    return array


def pack(arrays: Iterable[np.ndarray]) -> bytes:
    """Return a zip of the uint8 arrays (H, W) as greyscale PNGs `00000.png`, ...; equal input gives equal bytes."""
    return _zip((_encode(np.asarray(array), "PNG"), "png") for array in arrays)


def unpack_maps(path: Path, indices: Sequence[int] | None = None) -> np.ndarray | list[np.ndarray]:
    """Return the maps of a zip by `pack`, all or those at `indices`.

    uint8 (N, H, W) where they are of one size, else a list of N maps (h, w).
    """
    found = _images(path, indices)
    return _stack(path, found) if len({image.shape for image in found}) <= 1 else found


def unpack_some(path: Path, indices: Sequence[int]) -> np.ndarray:
    """Return the images at `indices`, in that order, to be looked at: uint8 (len(indices), H, W).

    Of a zip whose images differ in size each is brought to the size of the largest, label by label, so that they
    can stand in one sheet; `unpack_maps` gives them as they are. Others are not decoded.
    """
    found = _images(path, indices)
    stat = path.stat()
    sizes = _sizes(path, stat.st_mtime_ns, stat.st_size)
    if len(sizes) < 2:
        return _stack(path, found)
    largest = max(sizes, key=lambda size: (size[0] * size[1], size))
    return np.stack([resize_labels(image, largest) for image in found]) if found else _stack(path, found)


@lru_cache(maxsize=64)
def _sizes(path: Path, *_version: int) -> frozenset[tuple[int, int]]:
    """Return height and width of the PNGs of a zip, from their headers; damaged ones are left out."""
    found = set()
    with _open(path) as archive:
        for name in archive.namelist():
            try:
                data = archive.read(name)  # the whole of it, so that its checksum is looked at
            except _DAMAGED:
                continue
            found.add((int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")))
    return frozenset(found)


def pack_images(images: Iterable[np.ndarray]) -> bytes:
    """Return a zip of uint8 images (H, W, 3), or (H, W, 1) and (H, W) for grey, as JPEGs `00000.jpg`, ...

    For people to look at, never to compute with: JPEG (of quality 92) is lossy. Of other numbers of channels the first
    three are shown, or the first alone where there are two.
    """
    return _zip((_encode(_as_rgb(np.asarray(image)), "JPEG"), "jpg") for image in images)


def unpack_image(path: Path, index: int) -> np.ndarray:
    """Return the image at `index` of a zip by `pack_images`: uint8 (H, W, 3)."""
    with _open(path) as archive:
        return _decode(archive, path, index, "jpg", "RGB")


def count(path: Path) -> int:
    """Return how many images the zip holds."""
    with _open(path) as archive:
        return len(archive.namelist())


def _as_rgb(image: np.ndarray) -> np.ndarray:
    if image.ndim == 2:
        image = image[..., None]
    return np.repeat(image[..., :1], 3, axis=2) if image.shape[2] < 3 else image[..., :3]


def _encode(array: np.ndarray, kind: str) -> bytes:
    if array.dtype != np.uint8 or array.ndim != (2 if kind == "PNG" else 3):
        raise ValueError(f"cannot pack {array.dtype} {array.shape} as {kind}")
    buffer = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(array))
    if kind == "PNG":
        image.save(buffer, "PNG")
    else:
        image.save(buffer, "JPEG", quality=_JPEG_QUALITY)
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


def _open(path: Path) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(io.BytesIO(read_file(path)))
    except FileNotFoundError:
        raise ResultsError("there is no such file", file=str(path)) from None
    except _DAMAGED as error:
        raise ResultsError(f"not a readable zip ({error})", file=str(path)) from None
    if sum(item.file_size for item in archive.infolist()) > MAX_BYTES:
        raise ResultsError(f"expected a zip of at most {MAX_BYTES:,} bytes unpacked, got more", file=str(path))
    return archive


def _decode(archive: zipfile.ZipFile, path: Path, index: int, suffix: str, mode: str) -> np.ndarray:
    member = f"{index:05d}.{suffix}"
    try:
        with Image.open(io.BytesIO(archive.read(member)), formats=("PNG", "JPEG")) as image:
            return np.asarray(image.convert(mode) if image.mode != mode else image)
    except KeyError:
        raise ResultsError(f"there is no image {member} in it", file=str(path)) from None
    except (*_DAMAGED, Image.DecompressionBombError) as error:
        raise ResultsError(f"image {member} cannot be read ({error})", file=str(path)) from None


def _images(path: Path, indices: Sequence[int] | None) -> list[np.ndarray]:
    found, total = [], 0
    with _open(path) as archive:
        for index in range(len(archive.namelist())) if indices is None else indices:
            found.append(_decode(archive, path, int(index), "png", "L"))
            total += found[-1].nbytes
            if total > MAX_BYTES:
                raise ResultsError(f"expected images of at most {MAX_BYTES:,} bytes, got more", file=str(path))
    return found


def _stack(path: Path, images: list[np.ndarray]) -> np.ndarray:
    if not images:
        return np.zeros((0, 0, 0), np.uint8)
    if len({image.shape for image in images}) > 1:
        raise ResultsError("its images differ in size", file=str(path))
    return np.stack(images)
