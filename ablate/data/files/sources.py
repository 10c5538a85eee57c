"""The files of a data set before they are decoded: listed, paired by patterns of names, read once, and compared."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import re
import stat
import unicodedata
import warnings
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TypeVar

from PIL import Image

from ablate.data.dataset import Findings, first_names
from ablate.data.files.header import OF_DAMAGE, Header, Unusable, read_header
from ablate.data.files.pixels import read_image
from ablate.errors import nearest
from ablate.parallel import usable_cores

Item = TypeVar("Item")
Result = TypeVar("Result")

IMAGES, MASKS = "data.images", "data.masks"
MOST_BYTES = 2 << 30  # of one file
LONGEST_NAME = 255
ARRAYS = ".npy"
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm", ".webp", ".jp2")
PLACEHOLDERS = ("stem", "parent", "split", "class")

_PLACEHOLDER = re.compile(r"\{(.*?)\}")
_BANDS = re.compile(r"\{([^{}]*,[^{}]*)\}")
_WILDCARD = re.compile(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])")
# The end of a pattern that leaves the ending of the file open: image/*, image/*.*, image/*.[jJ]*
_OPEN_ENDING = re.compile(r"\.[A-Za-z]*[*?\[][A-Za-z*?\[\]]*\Z|(?<=\*)\Z")
_AS_REGEX = {"**/": "((?:[^/]+/)*)", "**": "(.*)", "*": "([^/]*)", "?": "([^/])"}


@dataclass(frozen=True)
class Pair:
    """An image and its mask, as paths relative to the root (with /), a name to show, and the group it belongs to.

    `images` has several files where each band has one, `masks` where each class has one.
    """

    images: tuple[str, ...]
    masks: tuple[str, ...]
    name: str
    group: str | None = None

    @property
    def image(self) -> str:
        """The file that the image is known by."""
        return self.images[0]


@dataclass(frozen=True)
class Source:
    """A pair whose files were read once: SHA-256 of each, and the header of the image, with the bands of all its files.

    The header is None where the image cannot be used; `usable` says that both image and mask may be decoded.
    """

    pair: Pair
    digests: tuple[str, ...]
    image: Header | None
    usable: bool


# -- names ---------------------------------------------------------------------------------------------------------


def check_pattern(pattern: str, key: str, findings: Findings, *, allowed: Sequence[str] = PLACEHOLDERS) -> None:
    """Find why a pattern cannot be used: it must be relative, inside of the root, with known placeholders only."""
    parts = PurePosixPath(pattern).parts
    inside = bool(pattern) and not pattern.startswith("/") and ".." not in parts and "\0" not in pattern
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in parts):
        findings.say(f"expected names of at most {LONGEST_NAME} bytes, got a longer one", key=key)
        return
    if not inside:
        cure = "set root to the folder that holds both images and masks"
        findings.say(f"expected a pattern inside of the root, got '{pattern}'", key=key, cure=cure)
    for name in _PLACEHOLDER.findall(pattern):
        if name not in allowed:
            findings.say(f"unknown placeholder '{{{name}}}' in '{pattern}'", key=key, cure=nearest(name, allowed))


def pair_up(
    root: Path, images: str, masks: str, findings: Findings, *, known: Collection[str] = ()
) -> list[tuple[str, str]]:
    """Return pairs (image, mask) of paths relative to `root`, in `natural` order; what has no partner is a finding.

    `images` is a glob. `masks` is a glob too, or holds `{stem}` (the image's name without its ending) and perhaps
    `{parent}` (the image's folder relative to the root). Two globs are paired by stem, or by what their wildcards
    stand for where that pairs more files (`a/*_img.png` with `b/*_mask.png`). Hidden files are passed over; a file
    that is the mask of some image is not taken for an image, nor one that is `known` for the mask of another class,
    of which no partner is asked for either.
    """
    candidates = [path for path in _pictures(root, images) if path not in known]
    named = "{stem}" in masks or "{parent}" in masks
    mask_glob = _PLACEHOLDER.sub("*", masks) if named else masks
    present = set(_pictures(root, mask_glob))
    unclear: set[str] = set()
    if named:
        spelled = {_composed(path): path for path in present}
        wanted = {image: spelled.get(_composed(mask := _fill(masks, image)), mask) for image in candidates}
        fits = [mask for mask in wanted.values() if len(os.fsencode(PurePosixPath(mask).name)) <= LONGEST_NAME]
        present |= {mask for mask in fits if (root / mask).is_file()}
        taken = {mask for image, mask in wanted.items() if mask in present and mask != image}
        found = [image for image in candidates if image not in taken]
        partner = {image: wanted[image] for image in found if wanted[image] in present}
    else:
        found = [image for image in candidates if image not in present]
        partner, unclear = _by_key(found, sorted(present), images, masks)
        for path in sorted(unclear):
            cure = "say which mask is meant, such as masks: label/{stem}_mask.png"
            findings.add(path, "sharing a name, so that no pair is clear", noun="file", key=MASKS, cure=cure)
        found = [image for image in found if image not in unclear]
    # What has no partner is only a consequence where a pattern matches nothing.
    for pattern, matches, key in ((images, candidates, IMAGES), (mask_glob, present, MASKS)):
        if not matches:
            findings.say(f"no file in {root} matches '{pattern}'", key=key, cure=_what_is_there(root, pattern))
    if not candidates or not present:
        return []
    if found and not partner:
        looked = f"'{masks}' is filled in for each image" if named else "they are paired by their names without ending"
        findings.say(f"no image of '{images}' has a mask among '{masks}'", key=MASKS, cure=looked)
        return []
    fault, cure = "without a mask", "add the masks, or move these images out of the folder"
    if known:  # one file a class
        fault, cure = f"without a mask '{masks}'", "store an empty mask where the class is absent"
    for image in found:
        if image not in partner:
            findings.add(image, fault, key=MASKS, cure=cure)
    for mask in sorted(present.difference(partner.values(), unclear, found, known)):
        findings.add(mask, "without an image", noun="mask", key=IMAGES, cure="add the images, or move these masks out")
    return sorted(partner.items(), key=lambda pair: natural(pair[0]))


def of_bands(pattern: str) -> list[str]:
    """Return the pattern of each band's files, in the order of the bands, of one such as ``image/*_{B02,B03}.tif``.

    Of a pattern without bands it is that pattern alone.
    """
    found = _BANDS.search(pattern)
    words = found[1].split(",") if found else []
    return [_BANDS.sub(word, pattern, count=1) for word in words] or [pattern]


def bands_of(path: str, pattern: str) -> tuple[str, ...]:
    """Return the files of an image's bands, of which `path` fits the first of `of_bands(pattern)`."""
    if not (found := _BANDS.search(pattern)):
        return (path,)
    words = found[1].split(",")
    before, after = (_regex(part).pattern for part in (pattern[: found.start()], pattern[found.end() :]))
    parts = re.fullmatch(f"(?P<before>{before}){re.escape(words[0])}(?P<after>{after})", path)
    assert parts is not None
    return tuple(f"{parts['before']}{word}{parts['after']}" for word in words)


def natural(path: str) -> tuple[list[str | int], str]:
    """Return the key that sorts by the numbers in names, so that frame 2 comes before frame 10."""
    parts = [int(part) if index % 2 else part for index, part in enumerate(re.split(r"([0-9]+)", path))]
    return parts, path  # "1" and "01" differ in the path alone


def list_files(root: Path, pattern: str) -> list[str]:
    """Return the files under `root` that match the glob, as paths relative to it with /, in `natural` order.

    Hidden files are passed over; links to files and folders are followed.
    """
    if "**" in pattern:
        regex = _regex(pattern)
        return sorted((path for path in _walk(root) if regex.fullmatch(path)), key=natural)
    places = [path.relative_to(root) for path in root.glob(pattern) if not path.is_dir()]
    shown = [place.as_posix() for place in places if not any(part.startswith(".") for part in place.parts)]
    return sorted(shown, key=natural)


def _pictures(root: Path, pattern: str) -> list[str]:
    """Return `list_files`; of a pattern that leaves the ending open without notes, Thumbs.db and their like."""
    files = list_files(root, pattern)
    known = [path for path in files if path.lower().endswith((*SUFFIXES, ARRAYS))]
    return known if known and _OPEN_ENDING.search(pattern) else files


def _walk(root: Path) -> Iterator[str]:
    """Give every file below `root` but the hidden ones; each folder once, whatever links lead to it."""
    seen = {os.path.realpath(root)}
    for place, folders, names in os.walk(root, followlinks=True):
        near = PurePosixPath(Path(place).relative_to(root))
        real = {name: os.path.realpath(root / near / name) for name in folders if not name.startswith(".")}
        folders[:] = sorted(name for name, path in real.items() if path not in seen)
        seen.update(real.values())
        yield from ((near / name).as_posix() for name in names if not name.startswith("."))


def _what_is_there(root: Path, pattern: str) -> str:
    """Return the cure for a pattern that matches nothing: what would match."""
    if "[" in pattern and list_files(root, pattern.replace("[", "[[]")):
        return "brackets stand for one of the letters inside them; write [[] for a bracket"
    paths = [PurePosixPath(path) for path in itertools.islice(_walk(root), 10_000)]
    there = sorted({(path.parent / f"*{path.suffix}").as_posix() for path in paths})
    near = nearest(pattern, there)
    return near if len(there) <= 12 or near.startswith("did") else f"there is {first_names(there)}"


def _by_key(
    images: Sequence[str], masks: Sequence[str], image_glob: str, mask_glob: str
) -> tuple[dict[str, str], set[str]]:
    """Return the pairs of two globs, and the files whose partner is not clear.

    By stem or by wildcards, whichever pairs more; by stem where it makes no difference.
    """
    ways = [_match(images, masks, {path: _composed(PurePosixPath(path).stem) for path in (*images, *masks)})]
    ours, theirs = (_regex(_OPEN_ENDING.sub("", _composed(glob))) for glob in (image_glob, mask_glob))
    if ours.groups == theirs.groups:
        sides = ((ours, image_glob, images), (theirs, mask_glob, masks))
        found = {path: regex.fullmatch(_subject(path, glob)) for regex, glob, paths in sides for path in paths}
        ways.append(_match(images, masks, {path: match.groups() if match else path for path, match in found.items()}))
    return max(ways, key=lambda way: len(way[0]))


def _composed(text: str) -> str:
    """Return a name with each accented letter as one character: macOS stores "ü" as two in some names."""
    return unicodedata.normalize("NFC", text)


def _subject(path: str, pattern: str) -> str:
    """Return what the wildcards of a pattern are matched with: no ending where the pattern leaves that open."""
    return _composed(path.removesuffix(PurePosixPath(path).suffix) if _OPEN_ENDING.search(pattern) else path)


def _match(
    images: Sequence[str], masks: Sequence[str], keys: Mapping[str, Hashable]
) -> tuple[dict[str, str], set[str]]:
    alike: dict[Hashable, tuple[list[str], list[str]]] = {}
    for side, paths in enumerate((images, masks)):
        for path in paths:
            alike.setdefault(keys[path], ([], []))[side].append(path)
    pairs = {left[0]: right[0] for left, right in alike.values() if len(left) == len(right) == 1}
    several = [(*left, *right) for left, right in alike.values() if left and right and len(left) + len(right) > 2]
    return pairs, set(itertools.chain(*several))


def _regex(pattern: str) -> re.Pattern[str]:
    parts = []
    for part in _WILDCARD.split(pattern):
        if part.startswith("[") and part.endswith("]"):
            parts.append(f"([{'^' if part[1] == '!' else ''}{re.escape(part[1:-1].lstrip('!'))}])".replace(r"\-", "-"))
        else:
            parts.append(_AS_REGEX.get(part) or re.escape(part))
    return re.compile("".join(parts))


def _fill(pattern: str, image: str) -> str:
    path = PurePosixPath(image)
    return PurePosixPath(pattern.replace("{stem}", path.stem).replace("{parent}", str(path.parent))).as_posix()


# -- contents ------------------------------------------------------------------------------------------------------


def in_threads(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Return `work` of each item, in order, by a few threads: Pillow decodes outside of the interpreter's lock."""
    with warnings.catch_warnings():
        # Sizes are checked here, against a limit that is an error.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        Image.init()  # once, before threads could do it at the same time
        with ThreadPoolExecutor(usable_cores()) as pool:
            return list(pool.map(work, items))


def read_bytes(root: Path, path: str, digest: str | None = None) -> bytes:
    """Return the bytes of a regular file of a sane size; `Unusable` where it cannot be read.

    With a `digest`, bytes of another SHA-256 are refused: what is decoded is what was fingerprinted.
    """
    try:
        # Without waiting: opening a pipe that nobody writes to would never end.
        descriptor = os.open(root / path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as handle:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise Unusable("that is no regular file", OF_DAMAGE)
            if status.st_size > MOST_BYTES:
                raise Unusable(f"of more than {MOST_BYTES >> 30} GiB", "cut it into tiles")
            data = handle.read(MOST_BYTES)
    except OSError as error:
        if error.errno == errno.ENOENT and (root / path).is_symlink():
            cure = "fetch what it stands for (such as git annex get or dvc pull)"
            raise Unusable("that is a link to a file that is not there", cure) from None
        raise Unusable(f"that cannot be read ({error.strerror})") from None
    if digest is not None and hashlib.sha256(data).hexdigest() != digest:
        raise Unusable("that changed while the study was read", "run again")
    return data


def manifest(root: Path, splits: Mapping[str, Sequence[Pair]]) -> list[list[str | int]] | None:
    """Return name, size, times and inode of every file: equal lists mean unchanged files. None where one is missing.

    The time of the last change of the inode is in it: writing to a file moves it even where the older time of
    modification is put back.
    """
    rows: list[list[str | int]] = []
    for split, pairs in splits.items():
        for pair in pairs:
            rows.append([split, pair.name, pair.group or ""])
            for path in (*pair.images, *pair.masks):
                try:
                    found = (root / path).stat()
                except OSError:
                    return None
                rows.append([path, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino])
    return rows


def inspect(root: Path, pairs: Sequence[Pair], findings: Findings) -> list[Source]:
    """Return every pair with its files read once: digests and headers; what these say against a pair is a finding."""
    sources = in_threads(lambda pair: _inspect(root, pair), pairs)
    for _, faults in sources:
        for name, noun, error in faults:
            note_fault(findings, name, noun, error)
    return [source for source, _ in sources]


def note_fault(findings: Findings, path: str, noun: str, error: Unusable) -> None:
    """Add what makes a file of no use, an "image" or a "mask", to the findings."""
    findings.add(path, error.fault, noun=noun, key=IMAGES if noun == "image" else MASKS, cure=error.cure)


def _inspect(root: Path, pair: Pair) -> tuple[Source, list[tuple[str, str, Unusable]]]:
    digests: list[str] = []
    headers: list[Header | None] = []
    faults: list[tuple[str, str, Unusable]] = []
    for path, noun in (*((path, "image") for path in pair.images), *((path, "mask") for path in pair.masks)):
        header, digest = None, ""
        try:
            data = read_bytes(root, path)
            digest = hashlib.sha256(data).hexdigest()
            header = read_header(data)
            if noun == "mask" and header.unfit is not None:
                raise Unusable(*header.unfit)
        except Unusable as error:
            faults.append((path, noun, error))
            header = None
        headers.append(header)
        digests.append(digest)
    bands, masks = headers[: len(pair.images)], headers[len(pair.images) :]
    image = bands[0] if all(bands) else None
    if image is not None and bands[1:]:
        kinds = {(band.size, band.depth, band.orientation) for band in bands if band is not None}
        if len(kinds) > 1:
            faults.append((pair.image, "image", Unusable("whose bands differ in size, bits or rotation")))
        image = replace(image, bands=sum(band.bands for band in bands if band)) if len(kinds) == 1 else None
    if image is not None and all(masks):
        own = image.orientation, image.size
        # The mask of one class that differs, if any.
        other = next((mask for mask in masks if mask is not None and (mask.orientation, mask.size) != own), image)
        if other.orientation != image.orientation:
            cure = "turn the pixels upright and remove the EXIF tag"
            faults.append((pair.image, "image", Unusable("whose EXIF rotation their mask does not share", cure)))
        elif other.size != image.size:
            shown = f"{pair.image} ({image.size[0]}x{image.size[1]}, mask {other.size[0]}x{other.size[1]})"
            cure = "is the mask turned, or another image's? put it right, or move both out of the folder"
            faults.append((shown, "image", Unusable("of another size than their mask", cure)))
        image = image if other is image else None
    return Source(pair, tuple(digests), image, image is not None and all(masks)), faults


def leaks(root: Path, splits: Mapping[str, Sequence[Source]]) -> dict[str, list[tuple[str, str]]]:
    """Return the images whose bytes are in two splits, as (image, split) by digest: what was trained on is scored.

    Images of one value all over, such as the empty tiles at the border of a scan, are equal without showing anything.
    """
    places: dict[str, list[tuple[str, str]]] = {}
    files: dict[str, tuple[str, ...]] = {}
    for split, sources in splits.items():
        for source in sources:
            if source.image is not None:
                digest = "".join(source.digests[: len(source.pair.images)])
                places.setdefault(digest, []).append((source.pair.image, split))
                files[source.pair.image] = source.pair.images
    shared = {digest: found for digest, found in places.items() if len({split for _, split in found}) > 1}
    return {digest: found for digest, found in shared.items() if not _is_blank(root, files[found[0][0]])}


def _is_blank(root: Path, paths: Sequence[str]) -> bool:
    try:
        pixels = [read_image(read_bytes(root, path)) for path in paths]
    except Unusable:
        return True  # said where it is decoded
    return all(bool((band == band[:1, :1]).all()) for band in pixels)
