"""The files of a data set before anything is decoded: pairs in splits, their bytes' digests, what they are, leakage."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from PIL import Image

from ablate.data.files.decode import Header, Unusable, read_header
from ablate.data.files.findings import Findings

Item = TypeVar("Item")
Result = TypeVar("Result")

IMAGES, MASKS = "data.images", "data.masks"


@dataclass(frozen=True)
class Pair:
    """An image and its mask, as paths relative to the root (with /), a name to show, and the group it belongs to."""

    image: str
    mask: str
    name: str
    group: str | None = None


@dataclass(frozen=True)
class Source:
    """A pair whose files were read once: SHA-256 of each, and their headers (None where a file is of no use)."""

    pair: Pair
    digests: tuple[str, str]
    image: Header | None
    mask: Header | None

    @property
    def usable(self) -> bool:
        """Whether both files may be decoded."""
        return self.image is not None and self.mask is not None


def in_threads(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """`work` of each item, in order, by a few threads: Pillow decodes and resizes outside of the interpreter's lock."""
    count = min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    with warnings.catch_warnings():
        # Sizes are checked here, against a limit that is an error.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        Image.init()  # once, before threads could do it at the same time
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(work, items))


def read_bytes(root: Path, path: str) -> bytes:
    """The bytes of a file; `Unusable` where it cannot be read."""
    try:
        return (root / path).read_bytes()
    except OSError as error:
        raise Unusable(f"that cannot be read ({error.strerror})") from None


def manifest(root: Path, splits: Mapping[str, Sequence[Pair]]) -> list[list[str | int]] | None:
    """Name, size, times and inode of every file: equal lists mean unchanged files. None where one is not there.

    The time of the last change of the inode is in it: writing to a file moves it even where the older time of
    modification is put back.
    """
    rows: list[list[str | int]] = []
    for split, pairs in splits.items():
        for pair in pairs:
            rows.append([split, pair.name, pair.group or ""])
            for path in (pair.image, pair.mask):
                try:
                    stat = (root / path).stat()
                except OSError:
                    return None
                rows.append([path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino])
    return rows


def inspect(root: Path, pairs: Sequence[Pair], findings: Findings) -> list[Source]:
    """Read every file once: digests and headers, and what the headers say against a pair."""
    sources = in_threads(lambda pair: _inspect(root, pair), pairs)
    for _, faults in sources:
        for name, fault, noun, cure in faults:
            findings.add(name, fault, noun=noun, key=IMAGES if noun == "image" else MASKS, cure=cure)
    return [source for source, _ in sources]


Fault = tuple[str, str, str, str]


def _inspect(root: Path, pair: Pair) -> tuple[Source, list[Fault]]:
    digests: list[str] = []
    headers: list[Header | None] = []
    faults: list[Fault] = []
    inside = os.path.realpath(root)
    for path, noun in ((pair.image, "image"), (pair.mask, "mask")):
        header, digest = None, ""
        try:
            if os.path.commonpath([inside, os.path.realpath(root / path)]) != inside:
                cure = "copy the file, or set root to the folder that really holds it"
                raise Unusable("that is a link out of the root", cure)
            data = read_bytes(root, path)
            digest = hashlib.sha256(data).hexdigest()
            header = read_header(data)
            if noun == "mask":
                _check_mask(header)
        except Unusable as error:
            faults.append((path, error.fault, noun, error.cure))
            header = None
        headers.append(header)
        digests.append(digest)
    image, mask = headers
    if image is not None and mask is not None:
        fault = _check_pair(image, mask)
        if fault is not None:
            name = f"{pair.image} ({_by(image.size)}, mask {_by(mask.size)})" if not fault[1] else pair.image
            faults.append((name, fault[0], "image", fault[1]))
            image = None
    return Source(pair, (digests[0], digests[1]), image, mask), faults


def _check_mask(header: Header) -> None:
    if header.lossy:
        raise Unusable("in a lossy format such as JPEG", "store masks as PNG: compression changes labels")
    if header.narrowed:
        raise Unusable("of 16 bits a colour", "store labels as 8-bit colours or as one channel of whole numbers")
    if header.depth == "float":
        raise Unusable("whose values are floating-point numbers", "store whole numbers")


def _check_pair(image: Header, mask: Header) -> tuple[str, str] | None:
    """What is wrong with a pair, and the cure ("" asks for the sizes to be shown)."""
    if image.orientation != mask.orientation:
        return "whose EXIF rotation their mask does not share", "turn the pixels upright and remove the EXIF tag"
    if image.size != mask.size:
        return "of another size than their mask", ""
    return None


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def check_leakage(splits: Mapping[str, Sequence[Source]], findings: Findings) -> None:
    """Images whose bytes are in two splits: what was trained on would be scored."""
    seen: dict[str, tuple[str, str]] = {}
    for split, sources in splits.items():
        for source in sources:
            digest = source.digests[0]
            if not digest:
                continue
            other, name = seen.setdefault(digest, (split, source.pair.image))
            if other != split:
                findings.add(
                    f"{source.pair.image} ({split}) = {name} ({other})",
                    "with the same bytes as one in another split",
                    key="data.split",
                    cure="keep one of each, or put equal images into one group",
                )


def check_groups(splits: Mapping[str, Sequence[Pair]], findings: Findings) -> None:
    """Groups (sequences, patients) with images in two splits."""
    places: dict[str, list[str]] = {}
    for split, pairs in splits.items():
        for group in dict.fromkeys(pair.group for pair in pairs if pair.group is not None):
            places.setdefault(group, []).append(split)
    for group, found in places.items():
        if len(found) > 1:
            findings.add(
                f"'{group}' ({', '.join(found)})",
                "with images in more than one split",
                noun="group",
                key="data.split",
                cure="keep each group in one split",
            )


def check_not_empty(splits: Mapping[str, Sequence[Pair]], findings: Findings) -> None:
    """Splits without an image."""
    for split, pairs in splits.items():
        if not pairs:
            findings.say(f"the split '{split}' has no image", key="data.split")
