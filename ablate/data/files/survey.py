"""Look at images and masks before anything is known of them: sizes, bits, label values, duplicates, groups."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from os.path import commonprefix
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ImageColor

from ablate.data.dataset import CAMVID, MOST_MULTILABEL, Findings
from ablate.data.files.header import Unusable
from ablate.data.files.labels import OTHERS, Labels
from ablate.data.files.layout import Layout, find_group
from ablate.data.files.pixels import read_mask
from ablate.data.files.sources import Pair, in_threads, inspect, list_files, read_bytes

MOST_MASKS = 2000  # of more, so many are looked at, evenly spaced
# Masks of semantic classes hold few values; more are shades (interpolated, lossy) or numbers of objects.
MANY_VALUES = 64
# Of many colours those are classes that more than this part of all pixels has, this part of them inside of areas.
SEEN, SOLID = 0.002, 0.1
MANY_THIN = 8  # colours of a pixel's width
IGNORED = 255  # what many data sets store where nothing is scored
NAME_FILES = ("classes.txt", "class_names.txt", "labels.txt", "codes.txt", "labelmap.txt")


@dataclass(frozen=True)
class LabelValues:
    """The content of masks: values, or colours (r << 16 | g << 8 | b), with pixels and the masks that hold each.

    `inside`: the pixels whose neighbours to all sides hold the same value.
    """

    coloured: bool
    pixels: Mapping[int, int]
    masks: Mapping[int, int]
    faults: tuple[str, ...] = ()
    inside: Mapping[int, int] = field(default_factory=dict)

    @property
    def looks(self) -> str:
        """The look of the values: "classes", "shades" (interpolated or lossy) or "objects" (numbered one by one)."""
        # Of few colours, too, most are thin only where borders were smoothed.
        thin = len(self.pixels) - len(self._areas)
        smoothed = self.coloured and bool(self.inside) and thin > max(MANY_THIN, len(self.pixels) / 2)
        if len(self.pixels) <= MANY_VALUES and not smoothed:
            return "classes"
        values, total = sorted(self.pixels), sum(self.pixels.values())
        top = sum(sorted(self.pixels.values())[-2:]) / total
        ends = {values[0], values[-1]} <= set(sorted(self.pixels, key=lambda code: -self.pixels[code])[:2])
        # Objects are numbered from 1: a mask that holds a number holds all the smaller ones.
        numbered = not self.coloured and all(self.masks[a] >= self.masks[b] for a, b in pairwise(values))
        return "shades" if not numbered or (ends and top > 0.5) else "objects"

    @property
    def plain(self) -> list[int]:
        """The values, of shades, that are classes: colours that fill areas, else the two commonest values.

        A mixed colour lies between two areas, a pixel or two wide, and is rare.
        """
        filled = [code for code in self._areas if self.coloured and self.share(code) > SEEN]
        return sorted(filled if len(filled) > 1 else sorted(self.pixels, key=lambda code: -self.pixels[code])[:2])

    @property
    def _areas(self) -> list[int]:
        """The values of which more than a thin border lies inside of areas."""
        return [code for code, count in self.pixels.items() if self.inside.get(code, 0) > SOLID * count]

    def share(self, code: int) -> float:
        """Return the part of all pixels that hold a value."""
        return self.pixels.get(code, 0) / max(1, sum(self.pixels.values()))

    def shown(self, code: int | str) -> str:
        """Return a value as a study file writes it: 255, "#800000", or others."""
        return f'"#{code:06x}"' if self.coloured and isinstance(code, int) else str(code)


@dataclass(frozen=True)
class Survey:
    """All that is known of a folder once its files were read: see `survey`.

    `classes` and `ignore` are as a study file writes them. Where a pixel may bear several classes, `classes` has bits,
    or words in the names of files of one class each; `of_words` is what the files of each word store.
    """

    layout: Layout
    sizes: Mapping[tuple[int, int], int]
    bands: Mapping[int, int]
    depths: Mapping[str, int]
    labels: LabelValues
    names: Mapping[int, str]
    group: str | None
    copies: int
    problems: tuple[str, ...] = ()
    classes: Mapping[str, Any] = field(default_factory=dict)
    ignore: tuple[int | str, ...] = ()
    of_words: Mapping[str, LabelValues] = field(default_factory=dict)

    @property
    def multilabel(self) -> bool:
        """True where a pixel may bear several classes."""
        return any(isinstance(code, str | dict) for code in self.classes.values())

    def share(self, code: Any) -> float:
        """Return the part of all pixels that bear the class which `classes` writes as `code`."""
        if isinstance(code, str):
            return self.of_words[code].share(1) + self.of_words[code].share(255)
        if isinstance(code, int):
            return self.labels.share(code)
        bearing = [value for value in self.labels.pixels if value >> code["bit"] & 1 and value not in self.ignore]
        return sum(map(self.labels.share, bearing))


def survey(root: Path, layout: Layout) -> Survey:
    """Read every file of `layout` once and return what it shows.

    `copies` counts images whose bytes another image has, too; `problems` are files that cannot be used.
    """
    findings = Findings()
    sources = inspect(root, [Pair((image,), (mask,), image) for image, mask in layout.all_pairs()], findings)
    headers = [source.image for source in sources if source.image is not None]
    labels = label_values(root, [mask for _, mask in layout.all_pairs()])
    parts = {role: [image for image, _ in pairs] for role, pairs in layout.pairs.items()}
    classes, ignore = propose_classes(labels, names := class_names(root, labels))
    pattern, of_words = files_of_classes(root, layout)
    if of_words:
        layout = replace(layout, masks=pattern, rivals=())
        classes, ignore = {word: word for word in of_words}, ()
    elif bits := find_bits(labels, names):
        classes = {names.get(bit, f"class_{bit}"): {"bit": bit.bit_length() - 1} for bit in bits}
        ignore = (IGNORED,) if IGNORED in labels.pixels else ()
    if layout.masks.startswith("{split}annot/") and set(labels.pixels) == set(range(len(CAMVID) + 1)):
        # CamVid in the layout of the SegNet tutorial, whose last label is "void".
        names = dict(enumerate(CAMVID))
        classes, ignore = {name: code for code, name in names.items()}, (len(CAMVID),)
    said = tuple(map(str, findings.problems()))
    return Survey(
        layout=layout,
        sizes=Counter(header.size for header in headers),
        bands=Counter(header.bands for header in headers),
        depths=Counter(header.depth for header in headers),
        labels=labels,
        names=names,
        group=find_group([image for images in parts.values() for image in images], parts),
        copies=len(sources) - len({source.digests[0] for source in sources}),
        problems=(*said, *(fault for fault in labels.faults if fault.partition(":")[0] not in " ".join(said))),
        classes=classes,
        ignore=ignore,
        of_words=of_words,
    )


def sums_of(labels: LabelValues, names: Mapping[int, str]) -> list[int]:
    """Return the powers of two whose sums all values of the masks are; else none.

    None either where values count up without a gap, as 0, 1, 2, 3, or a sum has a name of its own.
    """
    values = sorted(value for value in labels.pixels if value != IGNORED)
    bits = [value for value in values if value.bit_count() == 1]
    sums = [value for value in values if value.bit_count() > 1]
    plain = labels.coloured or {b - a for a, b in pairwise(values)} <= {1} or any(value in names for value in sums)
    fits = 2 <= len(bits) <= MOST_MULTILABEL and not any(value & ~sum(bits) for value in sums)
    return bits if fits and sums and not plain else []


def find_bits(labels: LabelValues, names: Mapping[int, str]) -> list[int]:
    """Return those of `sums_of` where masks hardly store anything else, so that a pixel may bear several classes.

    Classes numbered in equal steps, a few of them absent, are such sums as well: 0 to 10 without 7, 0 to 192 by 32. So
    the values must leave out half of the numbers up to the highest, in steps of one, and also in steps of their common
    divisor unless there a whole bit is absent, as in 0, 2, 8, 10.
    """
    bits = sums_of(labels, names)
    values = [value for value in labels.pixels if value != IGNORED] if bits else []
    step = math.gcd(*values)
    top = max(values, default=0)
    sparse = top + 1 > 2 * len(values)
    stepped = bool(bits) and len(bits) == (top // step).bit_length() and top // step + 1 <= 2 * len(values)
    return bits if sparse and not stepped else []


def files_of_classes(root: Path, layout: Layout) -> tuple[str, dict[str, LabelValues]]:
    """Return the pattern with {class} of masks of one file a class, and by the word there what the files store.

    Those are masks of the same images that differ in one word of their names and hold 0 and 1, or 0 and 255. Of others
    nothing is returned.
    """
    globs = sorted((layout.masks, *layout.rivals))
    head = re.sub(r"[^\W_]+\Z", "", commonprefix(globs))  # noqa: RUF071 - signs are meant; words are not cut
    ends = [glob[len(head) :][::-1] for glob in globs]
    tail = re.sub(r"\A[^\W_]+", "", commonprefix(ends)[::-1])  # noqa: RUF071
    words = {glob[len(head) : len(glob) - len(tail)]: glob.replace("{split}", "*") for glob in globs}
    if not 2 <= len(words) <= MOST_MULTILABEL or not all(re.fullmatch(r"[^/\\*?\[\]{}]+", word) for word in words):
        return "", {}
    found = {word: label_values(root, list_files(root, glob)) for word, glob in words.items()}
    if any(one.faults or set(one.pixels) not in ({0, 1}, {0, IGNORED}) for one in found.values()):
        return "", {}
    return f"{head}{{class}}{tail}", found


def label_values(root: Path, masks: Sequence[str]) -> LabelValues:
    """Return what the masks store; of more than `MOST_MASKS` so many are read, evenly spaced."""
    masks = [masks[int(place)] for place in np.unique(np.linspace(0, len(masks) - 1, min(len(masks), MOST_MASKS)))]
    found = in_threads(lambda mask: _counted(root, mask, coloured=False), masks)
    coloured = any(isinstance(one, str) and "in colour" in one for one in found)
    if coloured:
        found = in_threads(lambda mask: _counted(root, mask, coloured=True), masks)
    pixels: Counter[int] = Counter()
    held: Counter[int] = Counter()
    inside: Counter[int] = Counter()
    faults: dict[str, list[str]] = {}
    for mask, one in zip(masks, found, strict=True):
        if isinstance(one, str):
            faults.setdefault(one, []).append(mask)
        else:
            pixels.update(one[0])
            inside.update(one[1])
            held.update(one[0].keys())
    texts = (f"{len(names):,} masks {fault}: {names[0]}" for fault, names in faults.items())
    return LabelValues(coloured, pixels, held, tuple(texts), inside)


def _counted(root: Path, mask: str, *, coloured: bool) -> tuple[dict[int, int], dict[int, int]] | str:
    """Return the pixels of every value of a mask, all and those inside of areas, or why there are none."""
    try:
        codes = read_mask(read_bytes(root, mask), Labels((), None, coloured, {}))
    except Unusable as error:
        return error.fault
    middle = codes[1:-1, 1:-1]
    sides = (codes[:-2, 1:-1], codes[2:, 1:-1], codes[1:-1, :-2], codes[1:-1, 2:])
    found = (np.unique(part, return_counts=True) for part in (codes, middle[np.all([middle == sides], axis=(0, 1))]))
    every, inside = (dict(zip(values.tolist(), counts.tolist(), strict=True)) for values, counts in found)
    return every, inside


def class_names(root: Path, labels: LabelValues) -> dict[int, str]:
    """Return names of values from a text file that lies beside the data, such as classes.txt; else none.

    A line is a name alone (numbered from 0), with a value, or with the three numbers of a colour.
    """
    for place in (root, root.parent):
        for file in NAME_FILES:
            try:
                lines = (place / file).read_text(encoding="utf-8-sig").splitlines()[: MANY_VALUES * 4]
            except (OSError, UnicodeDecodeError):
                continue
            names = {}
            for number, line in enumerate(line for line in lines if line.strip() and not line.startswith("#")):
                numbers = [int(part) for part in re.findall(r"(?<![A-Za-z_\d])\d+(?![A-Za-z_\d])", line)]
                name = re.sub(r"[\s:;,|]+", " ", re.sub(r"(?<![A-Za-z_\d])\d+(?![A-Za-z_\d])", "", line)).strip()
                code = _code(numbers[-3:]) if labels.coloured and len(numbers) >= 3 else [*numbers, number][0]
                names[code] = name
            if set(names) & set(labels.pixels):
                return {code: name for code, name in names.items() if name}
    return {}


def _code(numbers: Sequence[int]) -> int:
    return numbers[0] << 16 | numbers[1] << 8 | numbers[2]


def propose_classes(labels: LabelValues, names: Mapping[int, str]) -> tuple[dict[str, Any], tuple[int | str, ...]]:
    """Return `classes` and `ignore` for what masks store: names that are known, else plain ones to be changed.

    Of shades the plain ones are classes and all others are ignored; of numbered objects 0 is the background and all
    else one class; 255 beside small numbers is ignored, as in PASCAL VOC.
    """
    shades = labels.looks == "shades"
    codes = labels.plain if shades else sorted(labels.pixels)
    if labels.looks == "objects":
        return {"background": codes[0], "object": codes[1:]}, ()
    ignore: tuple[int | str, ...] = (OTHERS,) if shades else ()
    if not shades and not labels.coloured and len(codes) > 2 and codes[-1] == IGNORED and codes[-2] < IGNORED - 1:
        codes, ignore = codes[:-1], (IGNORED,)
    known = {_code(ImageColor.getrgb(name)): name for name in list(ImageColor.colormap)}
    classes: dict[str, Any] = {}
    for place, code in enumerate(codes):
        if code in names:
            name = names[code]
        elif code == 0:
            name = "background"
        elif len(codes) == 2:
            name = "foreground" if place else "background"
        else:
            name = known.get(code, f"class_{code:06x}") if labels.coloured else f"class_{code}"
        classes[name if name not in classes else f"{name}_{code}"] = code
    return classes, ignore
