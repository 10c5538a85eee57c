"""Find the images and the masks of a folder that nobody has described: patterns of names, splits and groups."""

from __future__ import annotations

import glob
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path, PurePosixPath

import numpy as np

from ablate.data.dataset import SPLITS, Findings
from ablate.data.files.header import Unusable, read_header
from ablate.data.files.pixels import read_image
from ablate.data.files.sources import SUFFIXES, list_files, pair_up, read_bytes
from ablate.errors import DataError

MASK_WORDS = {"mask", "masks", "label", "labels", "annot", "annotation", "annotations", "seg", "segs", "gt", "target"}
MASK_WORDS |= {"targets", "truth", "lbl", "manual", "trimaps"}
IMAGE_WORDS = {"image", "images", "img", "imgs", "rgb", "raw", "photo", "photos", "input", "inputs", "scan", "im", "x"}
ROLES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"}
ROLES |= {"test": "test", "testing": "test"}
# Files are looked into to tell images from masks; and so many kinds of names are tried as either.
LOOKED_INTO, MOST_SERIES = 3, 10

# Files by the folders above them, as patterns, and by the ending of their names.
Places = dict[tuple[tuple[str, ...], str], list[PurePosixPath]]


@dataclass(frozen=True)
class Layout:
    """The places of images and masks: patterns and split as `data: {name: folder}` takes them, and the pairs found.

    `pairs` are (image, mask) by split where the split is one of folders, else under the one key "all". `unpaired` has
    the problems of files without a partner, `rivals` patterns of other files that are masks of the same images.
    """

    images: str
    masks: str
    split: Mapping[str, str] | None
    pairs: Mapping[str, Sequence[tuple[str, str]]]
    unpaired: tuple[str, ...] = ()
    rivals: tuple[str, ...] = ()

    def all_pairs(self) -> list[tuple[str, str]]:
        """Return the pairs of all splits, in order."""
        return [pair for pairs in self.pairs.values() for pair in pairs]


def find_layout(root: Path) -> Layout:
    """Return the patterns of image and mask names that pair most files below `root`.

    Names decide where they say "mask" or "image"; else what has fewer different values is the mask. Raises `DataError`
    where no two kinds of files pair up.
    """
    files = [PurePosixPath(path) for path in list_files(root, "**/*") if path.lower().endswith(SUFFIXES)]
    if not files:
        raise DataError("there is no image", file=str(root), cure=f"known are {', '.join(SUFFIXES)}")
    roles, series = _series(files)
    folders = roles if set(roles) == set(SPLITS) else None
    found: list[tuple[tuple[float, ...], Layout]] = []
    kinds = {patterns: _kind(root, paths) for patterns, paths in series.items()}
    for images, masks in permutations(series, 2):
        layout = _paired(root, images[0], masks[0], folders)
        if layout.unpaired or not layout.all_pairs():
            tried = [_paired(root, ours, theirs, folders) for ours in images for theirs in masks]
            layout = max(tried, key=lambda one: len(one.all_pairs()))
        if layout.all_pairs():
            worth = kinds[masks][0] - kinds[images][0], kinds[images][1] - kinds[masks][1]
            found.append(((len(layout.all_pairs()), *worth, -len(layout.unpaired)), layout))
    if not found:
        shown = "; ".join(f"{patterns[0]} ({len(paths):,})" for patterns, paths in series.items())
        cure = "write `images` and `masks` of a study file by hand (see studies/folder-example.yaml)"
        raise DataError(f"no images and masks pair up by their names among {shown}", file=str(root), cure=cure)
    best = max(found, key=lambda item: item[0])[1]
    own = dict(best.all_pairs()).keys()
    same = [layout for _, layout in found if dict(layout.all_pairs()).keys() == own]
    return replace(best, rivals=tuple(layout.masks for layout in same if layout.masks != best.masks))


def find_group(images: Sequence[str], parts: Mapping[str, Sequence[str]] | None = None) -> str | None:
    """Return the expression for `group` that best tells the patient or sequence in the images' names, or None.

    A folder that differs, or the first words of a name where these are shared by several images. At least three
    groups, none of which is in two of `parts` (splits).
    """
    expressions = [r"^([^/]+)/"] if all("/" in image for image in images) else []
    word, between = r"[^_\-. ]+", r"[_\-. ]"
    expressions += [f"^({between.join([word] * count)}){between}" for count in (1, 2, 3)]
    for expression in expressions:
        matches = [_searched(expression, image) for image in images]
        sizes = Counter(matches)
        if None in sizes or not 3 <= len(sizes) <= len(images) / 2 or max(sizes.values()) > 0.7 * len(images):
            continue
        homes = [{_searched(expression, image) for image in own} for own in (parts or {}).values()]
        if parts is None or sum(map(len, homes)) == len(sizes) > len(homes):
            return expression
    return None


def _searched(expression: str, image: str) -> str | None:
    match = re.search(expression, image if expression.endswith("/") else PurePosixPath(image).stem)
    return match[1] if match else None


def hint(text: str) -> int:
    """Return 1 where a name speaks of masks, -1 where it speaks of images, else 0."""
    words = set(re.split(r"[^a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", text).lower()))
    if words & MASK_WORDS or re.search(r"(mask|label|annot|segment|truth)", text.lower()):
        return 1
    return -1 if words & IMAGE_WORDS else 0


def _series(files: Sequence[PurePosixPath]) -> tuple[dict[str, str], dict[tuple[str, ...], list[str]]]:
    """Return the folders of splits by role, and the files by the patterns of their names, the most frequent ones."""
    roles: dict[str, str] = {}
    places: Places = defaultdict(list)
    for file in files:
        places[tuple(glob.escape(_without_split(part, roles)) for part in file.parent.parts), file.suffix].append(file)
    if set(roles) != set(SPLITS):  # fewer than three are no split: they are folders as others are
        places = defaultdict(list)
        for file in files:
            places[tuple(map(glob.escape, file.parent.parts)), file.suffix].append(file)
    # Several folders of one kind, such as one a patient, are one pattern.
    for depth in {len(parts) for parts, _ in places}:
        for place in range(depth):
            names = {parts[place] for parts, _ in places if len(parts) == depth}
            if any("{split}" in name or hint(name) for name in names):
                continue
            if len(names) > 2 or (len(names) == 2 and all(_without_split(name, {}) != name for name in names)):
                places = _starred(places, depth, place)
    series: dict[tuple[str, ...], list[str]] = {}
    endings: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for (parts, suffix), paths in places.items():
        for patterns, own in _named_alike(paths, suffix):
            placed = tuple("/".join([*parts, name]) for name in patterns)
            series[placed] = [path.as_posix() for path in own]
            endings[_without_ending(placed[0])].append(placed)
    for kinds in endings.values():
        # A camera's .JPG beside .jpeg are one kind, be there .png beside them or not: *.[Jj]*, or *.* for all of them.
        alike: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        for kind in kinds:
            alike[PurePosixPath(kind[0]).suffix[1:2].lower()].append(kind)
        for letter, several in {**alike, "": kinds}.items():
            ending = f".[{letter.upper()}{letter}]*" if letter else ".*"
            together = [PurePosixPath(path) for kind in several for path in series[kind]]
            if len(several) > 1 and len({path.with_suffix("") for path in together}) == len(together):
                heads = [list(map(_without_ending, kind)) for kind in several]
                shared = [head for head in heads[0] if all(head in others for others in heads)]
                series[tuple(head + ending for head in shared)] = [path.as_posix() for path in together]
    return roles, dict(sorted(series.items(), key=lambda item: -len(item[1]))[:MOST_SERIES])


def _without_ending(pattern: str) -> str:
    return pattern.removesuffix(PurePosixPath(pattern).suffix)


def _starred(places: Places, depth: int, place: int) -> Places:
    """Return `places` with a star for the folder at one place of the paths of one depth."""
    merged: Places = defaultdict(list)
    for (parts, suffix), paths in places.items():
        merged[(*parts[:place], "*", *parts[place + 1 :]) if len(parts) == depth else parts, suffix] += paths
    return merged


def _without_split(part: str, roles: dict[str, str]) -> str:
    """Return a folder's name with {split} in the place of "train" and its kin, which go into `roles`."""
    match = re.fullmatch(r"(.*?)(training|train|validation|valid|val|testing|test)(.*)", part, re.IGNORECASE)
    if match is None:
        return part
    before, word, after = match.groups()
    if any(rest.strip("_-. ") and not hint(rest) for rest in (before, after)):
        return part
    if roles.setdefault(ROLES[word.lower()], word) != word:
        return part
    return f"{before}{{split}}{after}"


def _named_alike(paths: Sequence[PurePosixPath], suffix: str) -> Iterator[tuple[list[str], list[PurePosixPath]]]:
    """Give the files of one folder by the first or last word of their names, where that tells kinds of files apart.

    Files of one kind fit several patterns: with the word that all their names share, the partners' may lack it.
    """
    plain = [f"*{suffix}"]
    for pattern, shape in ((r"[_\-. ]*[^\W\d_]+$", "*{}"), (r"^[^\W\d_]+[_\-. ]*", "{}*")):
        found = defaultdict(list)
        for path in paths:
            match = re.search(pattern, path.stem)
            found[match[0] if match else ""].append(path)
        if len(found) == 1:
            plain += [shape.format(glob.escape(word)) + suffix for word in found if word]
            continue
        telling = {word: own for word, own in found.items() if word and hint(word)}
        if {word.strip("_-. ").lower() for word in found} <= ROLES.keys():  # train0, val0: the splits, no kinds
            continue
        if not telling and 2 <= len(found) <= 4 and all(word and len(own) > 1 for word, own in found.items()):
            telling = dict(found)
            yield plain[:1], list(paths)  # or these words tell something else: benign_1, malignant_1
        if telling:
            rest = [path for word, own in found.items() if word not in telling for path in own]
            yield from (([shape.format(glob.escape(word)) + suffix], own) for word, own in telling.items())
            if rest:
                yield plain[:1], rest
            return
    yield plain, list(paths)


def _kind(root: Path, paths: Sequence[str]) -> tuple[int, float]:
    """Return what names say (`hint`), and how many different values a file holds, at the median of a few."""
    said = [hint(paths[0]), hint(PurePosixPath(paths[0]).name)]
    step = max(1, len(paths) // LOOKED_INTO)
    return max(said, key=abs), float(np.median([_values(root, path) for path in paths[::step][:LOOKED_INTO]]))


def _values(root: Path, path: str) -> float:
    try:
        data = read_bytes(root, path)
        pixels = read_image(data)
        lossy = read_header(data).unfit is not None
    except Unusable:
        return float("inf")
    return len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) + 1000 * lossy


def _paired(root: Path, images: str, masks: str, folders: Mapping[str, str] | None) -> Layout:
    findings = Findings()
    if folders is None:
        pairs = {"all": pair_up(root, images, masks, findings)}
    elif "{split}" in images and "{split}" in masks:
        pairs = {}
        for role in SPLITS:
            filled = [pattern.replace("{split}", folders[role]) for pattern in (images, masks)]
            pairs[role] = pair_up(root, filled[0], filled[1], findings)
    else:
        return Layout(images, masks, None, {})
    split = {role: folders[role] for role in SPLITS} if folders else None
    return Layout(images, masks, split, pairs, tuple(map(str, findings.problems())))
