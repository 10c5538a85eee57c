"""From pairs of files to a `Dataset`: everything is checked, decoded and resized once, and kept in the cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import PIL

from ablate.data import cache
from ablate.data.dataset import IGNORE, Dataset, Findings, Split, first_names, moments, only_one_class, without_class
from ablate.data.files.header import Unusable
from ablate.data.files.labels import UNKNOWN, Colour, Labels, drawn_colours
from ablate.data.files.pixels import REVISION, image_array, read_image, read_mask, resize_image, stored_palette
from ablate.data.files.sources import MASKS, Pair, Source, in_threads, inspect, leaks, manifest, note_fault, read_bytes
from ablate.errors import DataError
from ablate.measure.segmentation import class_pixels, resize_labels

LAYOUT = 4  # raised where entries of the cache are made in another way
# More values that have no meaning are shades of grey and no forgotten classes.
MANY_UNKNOWN = 32
# Values below and above which the window of 16-bit images is put where none is given: parts of the training pixels.
WINDOW_PARTS = (0.001, 0.999)

Splits = Mapping[str, Sequence[Pair]]
Deal = Callable[[Mapping[str, str]], Splits]
# Of masks of one file a class: the path, whether pixels bear the class, and whether pixels are ignored.
Planes = tuple[tuple[str, bool, bool], ...]


@dataclass(frozen=True)
class Recipe:
    """All that decides the values of the arrays besides the files themselves."""

    labels: Labels
    size: tuple[int, int] | None
    channels: Literal["auto", 1, 3] = "auto"
    window: tuple[float, float] | None = None

    def document(self) -> dict[str, Any]:
        """Return the recipe as JSON values, for the fingerprint."""
        more: dict[str, Any] = {"multilabel": self.labels.words} if self.labels.multilabel else {}
        more |= {} if self.labels.unnamed == UNKNOWN else {"unnamed": self.labels.unnamed}
        return more | {
            "revision": REVISION,
            "size": self.size,
            "channels": self.channels,
            "window": self.window,
            "classes": self.labels.classes,
            "coloured": self.labels.coloured,
            "table": sorted(self.labels.table.items()),
        }


def assemble_dataset(
    name: str, root: Path, splits: Splits, recipe: Recipe, findings: Findings, deal: Deal | None = None
) -> Dataset:
    """Return the data set of `splits`; raise `DataError` with everything in `findings` and all that is found here.

    Unchanged files (size, times, inode) are not read again; changed ones change the fingerprint, which is the SHA-256
    over the recipe and the splits' names, groups and digests, and never over where the files lie. Where copies of an
    image are in two splits, `deal` is given their digests by image to deal them out together; without it they are
    leakage.
    """
    for split, pairs in splits.items():
        if not pairs:
            findings.say(f"the split '{split}' has no image", key="data.split")
    rows = manifest(root, splits)
    question = _digest([LAYOUT, str(root), recipe.document(), recipe.labels.palette, PIL.__version__, rows])
    answer = cache.recall(question) if rows is not None and not findings else None
    entry = cache.load(str(answer.get("entry"))) if answer else None
    if answer is None or entry is None:
        answer, entry = _read(root, splits, recipe, findings, deal)
        if rows is not None:
            cache.remember(question, answer)
    by_image = {pair.image: pair for pairs in splits.values() for pair in pairs}
    splits = {split: [by_image[image] for image in images] for split, images in answer["splits"].items()}
    (arrays, document), labels, files = entry, recipe.labels, answer["files"]
    made = {}
    for split, pairs in splits.items():
        groups = tuple(pair.group for pair in pairs if pair.group is not None)
        names = tuple(pair.name for pair in pairs)
        made[split] = Split(arrays[f"{split}_images"], arrays[f"{split}_masks"], names, groups or None)
    mean, std = document["moments"]
    return Dataset(
        name=name,
        classes=labels.classes,
        palette=tuple((red, green, blue) for red, green, blue in document["palette"]),
        splits=made,
        fingerprint=answer["fingerprint"],
        files=files,
        stored_moments=(tuple(mean), tuple(std)),
        window=tuple(document["window"]) if document["window"] else None,
        native=partial(_native_masks, root, splits["test"], labels, files, answer["fingerprint"]),
        multilabel=labels.multilabel,
    )


def _read(
    root: Path, splits: Splits, recipe: Recipe, findings: Findings, deal: Deal | None
) -> tuple[dict[str, Any], tuple[cache.Arrays, dict[str, Any]]]:
    """Return what the cache is to remember of the splits as they are dealt, and its entry, from the files."""
    every = [pair for pairs in splits.values() for pair in pairs]
    read = {source.pair.image: source for source in inspect(root, every, findings)}
    sources = {split: [read[pair.image] for pair in pairs] for split, pairs in splits.items()}
    copies = leaks(root, sources)
    if copies and deal is not None:
        splits = deal({image: digest for digest, found in copies.items() for image, _ in found})
        sources = {split: [read[pair.image] for pair in pairs] for split, pairs in splits.items()}
    elif copies:
        for (first, home), *others in copies.values():
            for image, split in others:
                if split != home:
                    shown, cure = f"{image} ({split}) = {first} ({home})", "keep one of each, or all in one split"
                    findings.add(shown, "with the same bytes as one in another split", key="data.split", cure=cure)
    work = _Decoding(root, sources, recipe, findings)
    if findings:
        # All problems at once: what can be decoded is looked at, though nothing is kept.
        work.run(cache.Allocate(), findings)
        findings.stop()

    def build(allocate: cache.Allocate) -> dict[str, Any]:
        work.run(allocate, findings)
        findings.stop()
        return {"moments": moments(allocate.arrays["train_images"]), "palette": work.palette(), "window": work.window}

    parts = {
        split: [[item.pair.name, item.pair.group, *item.digests] for item in items] for split, items in sources.items()
    }
    fingerprint = _digest([recipe.document() | work.beyond_bytes(), parts])
    # Another version of Pillow may round differently: its arrays are an entry of their own.
    key = _digest([LAYOUT, fingerprint, PIL.__version__, recipe.labels.palette])
    answer = {
        "entry": key,
        "fingerprint": fingerprint,
        "files": {
            path: digest
            for item in read.values()
            for path, digest in zip((*item.pair.images, *item.pair.masks), item.digests, strict=True)
        },
        "splits": {split: [pair.image for pair in pairs] for split, pairs in splits.items()},
    }
    return answer, cache.fill(key, build)


class _Decoded(NamedTuple):
    """A decoded pair: what is wrong with it, its labels without a meaning, and the classes that occur in its mask."""

    fault: tuple[str, str, Unusable] | None = None
    unknown: tuple[tuple[int, str, int], ...] = ()
    seen: tuple[int, ...] | None = None
    planes: Planes = ()


class _Decoding:
    """Decoding of all splits with what is common to them: size, channels, bits and window."""

    def __init__(self, root: Path, sources: Mapping[str, Sequence[Source]], recipe: Recipe, findings: Findings) -> None:
        self.root, self.sources, self.labels = root, sources, recipe.labels
        every = [item for items in sources.values() for item in items]
        self.depths = {item.image.depth for item in every if item.image is not None}
        self.deep = bool(self.depths - {"byte"})
        self.size = _common_size(every, recipe, findings)
        self.channels = _channels(every, recipe, findings)
        self.window = recipe.window or self._window(findings)

    def beyond_bytes(self) -> dict[str, Any]:
        """Return what the fingerprint says of data that are no 8-bit grey or colour."""
        bits = {"bits": 16} if self.deep else {}
        return bits if self.channels in (1, 3) else {**bits, "bands": self.channels}

    def run(self, allocate: cache.Allocate, findings: Findings) -> None:
        """Fill the arrays `<split>_images` and `<split>_masks`; what is wrong in the pixels is a finding."""
        unknown: dict[int, list[tuple[str, int]]] = {}
        classes: set[int] = set()
        planes: list[Planes] = []
        bare: list[str] = []
        complete = True
        for split, sources in self.sources.items():
            kind = np.uint16 if self.deep else np.uint8
            images = allocate(f"{split}_images", (len(sources), *self.size, self.channels), kind)
            masks = allocate(f"{split}_masks", (len(sources), *self.size))
            usable = [index for index, source in enumerate(sources) if source.usable]
            results = in_threads(partial(self._one, sources=sources, images=images, masks=masks), usable)
            for result in results:
                if result.fault is not None:
                    note_fault(findings, *result.fault)
                for code, path, count in result.unknown:
                    unknown.setdefault(code, []).append((path, count))
                classes.update(result.seen or ())
                planes.append(result.planes)
            whole = len(usable) == len(sources) > 0
            complete = complete and whole and all(result.seen is not None for result in results)
            if whole and not any(result.seen is None or result.seen for result in results):
                bare.append(split)
        # A split without a class may be a mere consequence of a class that is lost.
        if not (complete and self._say_lost(planes, findings)):
            for split in bare:
                findings.say(without_class(split, multilabel=self.labels.multilabel), key="data.split")
        if complete and len(classes) == 1 and not self.labels.multilabel:
            cure = "name what else there is, such as the background, as a class"
            findings.say(only_one_class(self.labels.classes[classes.pop()]), key="data.classes", cure=cure)
        self._say_unknown(unknown, findings)

    def _one(self, index: int, sources: Sequence[Source], images: np.ndarray, masks: np.ndarray) -> _Decoded:
        """Decode pair `index` into its place."""
        pair, digests = sources[index].pair, sources[index].digests
        path, noun = pair.image, "image"
        try:
            bands = []
            for path, digest in zip(pair.images, digests, strict=False):
                bands.append(read_image(read_bytes(self.root, path, digest)))
            pixels = bands[0] if len(bands) == 1 else np.concatenate(bands, axis=2)
            pixels = image_array(pixels, self.channels, self.window, self.deep)
            if pixels.shape[2] == self.channels:  # another number of bands was said before
                images[index] = resize_image(pixels, self.size)
            noun, parts = "mask", []
            for path, digest in zip(pair.masks, digests[len(bands) :], strict=True):
                codes = read_mask(read_bytes(self.root, path, digest), self.labels)
                # Checked before resizing: a rare label must not slip through between the kept pixels.
                parts.append(self.labels.apply(codes))
                strange = parts[-1] == UNKNOWN
                if strange.any():
                    values, counts = np.unique(codes[strange], return_counts=True)
                    return _Decoded(unknown=tuple((int(v), path, int(n)) for v, n in zip(values, counts, strict=True)))
        except Unusable as error:
            return _Decoded(fault=(path, noun, error))
        masks[index] = resize_labels(self.labels.joined(parts), self.size)
        labels = np.bincount(masks[index].ravel(), minlength=256)
        seen = class_pixels(labels, len(self.labels.classes), multilabel=self.labels.multilabel)
        planes: Planes = ()
        if self.labels.words:
            marks = [(bool((part == 1).any()), bool((part == IGNORE).any())) for part in parts]
            planes = tuple((path, *mark) for path, mark in zip(pair.masks, marks, strict=True))
        return _Decoded(seen=tuple(map(int, np.flatnonzero(seen))), planes=planes)

    def _say_lost(self, planes: Sequence[Planes], findings: Findings) -> bool:
        """Say which classes have masks of only 0 and ignored values, and return whether there are any."""
        cure = "store 1 (or 255) where the class is"
        if self.labels.table.get(255) == IGNORE:
            cure = "take 255 out of 'ignore', or store 1 where the class is"
        lost = False
        for name, masks in zip(self.labels.classes, zip(*planes, strict=True), strict=False):
            ignoring = sorted(path for path, _, ignores in masks if ignores)
            if not ignoring or any(bears for _, bears, _ in masks):
                continue
            lost = True
            for path in ignoring:
                fault = f"of the class '{name}' with only 0 and values of 'ignore'"
                findings.add(path, fault, noun="mask", key="data.ignore", cure=cure)
        return lost

    def _say_unknown(self, unknown: Mapping[int, list[tuple[str, int]]], findings: Findings) -> None:
        """Say the three commonest labels that have no meaning, how often and where, and what is allowed."""
        totals = Counter({code: sum(count for _, count in found) for code, found in unknown.items()})
        if len(totals) > MANY_UNKNOWN:
            message = f"{len(totals):,} values without a meaning, which look interpolated or lossy"
            cure = "store labels without smoothing or compressing them as pictures"
            cure += "; or write ignore: [others]" * (not self.labels.multilabel)
            findings.say(f"the masks hold {message}", key="data.classes", cure=cure)
            return
        for code, pixels in totals.most_common(3):
            paths = [path for path, _ in unknown[code]]
            masks = f"{len(paths):,} mask{'s' if len(paths) > 1 else ''} ({pixels:,} pixels)"
            findings.say(
                f"label {self.labels.shown(code)} in {masks}, expected {self.labels.allowed}: {first_names(paths)}",
                key="data.classes",
                cure="name it in 'ignore'" if self.labels.words else "name it in 'classes' or in 'ignore'",
            )
        if len(totals) > 3:
            findings.say(f"{len(totals) - 3:,} more labels that have no meaning", key="data.classes")

    def palette(self) -> tuple[Colour, ...]:
        """Return the classes' colours: as the settings say, else as the first training mask stores them, else any."""
        if self.labels.palette is not None:
            return self.labels.palette
        first = read_bytes(self.root, self.sources["train"][0].pair.masks[0])
        return stored_palette(first, self.labels) or drawn_colours(self.labels.classes)

    def _window(self, findings: Findings) -> tuple[float, float] | None:
        """Return the window of 16-bit images for which none is given: between two quantiles of all training pixels."""
        if self.depths & {"wide", "float"}:
            cure = "give the range that is shown as black to white, such as window: [0, 4095]"
            findings.say("the images hold values that have no common range", key="data.window", cure=cure)
            return (0.0, 1.0)
        if "deep" not in self.depths:
            return None
        if len(self.depths) > 1:
            findings.say("some images have 16 bits and some have 8", key="data.window", cure="give a window for all")
            return (0.0, 65_535.0)
        counts = np.zeros(65_536, dtype=np.int64)
        for path in (path for item in self.sources["train"] if item.usable for path in item.pair.images):
            with contextlib.suppress(Unusable):  # reported where it is decoded
                pixels = read_image(read_bytes(self.root, path))
                counts += np.bincount(pixels.ravel(), minlength=65_536)
        share = np.cumsum(counts) / max(counts.sum(), 1)
        low, high = (int(np.searchsorted(share, part)) for part in WINDOW_PARTS)
        return float(low), float(max(high, low + 1))


def _common_size(sources: Sequence[Source], recipe: Recipe, findings: Findings) -> tuple[int, int]:
    """Return the size asked for, else the one that all images have."""
    if recipe.size is not None:
        return recipe.size
    sizes = Counter(source.image.size for source in sources if source.image is not None)
    if len(sizes) > 1:
        shown = first_names([f"{height}x{width}" for (height, width), _ in sizes.most_common()])
        findings.say(f"the images have {len(sizes)} sizes ({shown})", key="data.size", cure="give a size")
    return min(sizes, default=(1, 1))


def _channels(sources: Sequence[Source], recipe: Recipe, findings: Findings) -> int:
    """Return the channels asked for, else those of the images: 3 where some are in colour, or their number of bands."""
    bands = Counter(source.image.bands for source in sources if source.image is not None)
    others = set(bands) - {1, 3}
    if others and (len(bands) > 1 or recipe.channels != "auto"):
        shown = ", ".join(f"{count:,} of {number}" for number, count in sorted(bands.items()))
        wanted = "one number of bands in all images" if len(bands) > 1 else f"images that have {recipe.channels}"
        findings.say(f"expected {wanted}, got {shown}", key="data.channels", cure="leave out channels, or drop bands")
    if recipe.channels != "auto":
        return recipe.channels
    return max(others) if others else max(bands, default=1)


def _native_masks(
    root: Path, pairs: Sequence[Pair], labels: Labels, files: Mapping[str, str], fingerprint: str
) -> list[np.ndarray]:
    """Return class indices of each pair's mask, uint8 (h, w) at the size that is stored, in the order of `pairs`.

    They are decoded once and kept in the cache as one row of pixels. `files` are the digests that the fingerprint is
    made of: a mask of other bytes is refused with `DataError`, so that what is scored is what was fingerprinted. Every
    label has a meaning, for that was checked when the data set was assembled.
    """

    def decoded(pair: Pair) -> np.ndarray:
        parts = []
        for path in pair.masks:
            try:
                parts.append(labels.apply(read_mask(read_bytes(root, path, files[path]), labels)))
            except Unusable as error:
                raise DataError(f"a mask {error.fault}", file=path, key=MASKS, cure=error.cure) from None
        return labels.joined(parts)

    def build(allocate: cache.Allocate) -> dict[str, Any]:
        masks = in_threads(decoded, pairs)
        allocate("masks", (sum(mask.size for mask in masks),))[:] = np.concatenate([mask.ravel() for mask in masks])
        return {"sizes": [list(mask.shape) for mask in masks]}

    key = _digest(["native", LAYOUT, fingerprint, PIL.__version__])
    arrays, document = cache.fill(key, build)
    ends = np.cumsum([height * width for height, width in document["sizes"]])
    rows = np.split(arrays["masks"], ends[:-1])
    return [row.reshape(size) for row, size in zip(rows, document["sizes"], strict=True)]


def _digest(document: Any) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
