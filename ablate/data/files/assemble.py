"""From pairs of files to a `Dataset`: everything is checked, decoded and resized once, and kept in the cache."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL

from ablate.data import cache
from ablate.data.dataset import IGNORE, Dataset, Split, moments
from ablate.data.files.decode import (
    REVISION,
    Unusable,
    image_array,
    mask_codes,
    read_picture,
    resize_image,
    resize_mask,
    stored_palette,
)
from ablate.data.files.findings import Findings, first_names
from ablate.data.files.labels import UNKNOWN, Colour, Labels, distinct_colours
from ablate.data.files.native import native_masks
from ablate.data.files.sources import (
    IMAGES,
    MASKS,
    Pair,
    Source,
    check_leakage,
    check_not_empty,
    in_threads,
    inspect,
    manifest,
    read_bytes,
)

# Values below and above which the window of 16-bit images is put where none is given: parts of the training pixels.
WINDOW_PARTS = (0.001, 0.999)


@dataclass(frozen=True)
class Recipe:
    """How files become arrays: all that decides their values besides the files themselves."""

    labels: Labels
    size: tuple[int, int] | None
    channels: Literal["auto", 1, 3] = "auto"
    window: tuple[float, float] | None = None

    def document(self) -> dict[str, Any]:
        """The recipe as JSON values, for the fingerprint."""
        return {
            "revision": REVISION,
            "size": self.size,
            "channels": self.channels,
            "window": self.window,
            "classes": self.labels.classes,
            "coloured": self.labels.coloured,
            "table": sorted(self.labels.table.items()),
        }


def assemble(
    name: str, root: Path, splits: Mapping[str, Sequence[Pair]], recipe: Recipe, findings: Findings
) -> Dataset:
    """The data set of `splits`; raises `DataError` with everything in `findings` and all that is found here.

    Unchanged files (size, times, inode) are not read again; changed ones change the fingerprint, which is the SHA-256
    over the recipe and the splits' names, groups and digests, and never over where the files lie.
    """
    check_not_empty(splits, findings)
    rows = manifest(root, splits)
    question = _digest([str(root), recipe.document(), recipe.labels.palette, PIL.__version__, rows])
    if not findings and rows is not None:
        answer = cache.recall(question)
        entry = cache.load(str(answer.get("entry"))) if answer else None
        if answer and entry:
            return _dataset(name, root, splits, recipe, answer["fingerprint"], answer["files"], entry)

    every = [(split, pair) for split, pairs in splits.items() for pair in pairs]
    read = inspect(root, [pair for _, pair in every], findings)
    sources: dict[str, list[Source]] = {split: [] for split in splits}
    for (split, _), source in zip(every, read, strict=True):
        sources[split].append(source)
    check_leakage(sources, findings)
    size = _common_size(read, recipe, findings)
    channels = _channels(read, recipe)
    window = _window(root, sources, recipe, findings)
    work = _Decoding(root, sources, recipe.labels, size, channels, window)
    if findings:
        # All problems at once: what can be decoded is looked at, though nothing is kept.
        work.run(lambda split, shape: np.empty(shape, np.uint8), findings)
        findings.stop()

    parts = {
        split: [[item.pair.name, item.pair.group, *item.digests] for item in items] for split, items in sources.items()
    }
    fingerprint = _digest([recipe.document(), parts])
    files = {path: digest for item in read for path, digest in zip(_paths(item.pair), item.digests, strict=True)}
    # Another version of Pillow may round differently: its arrays are an entry of their own.
    key = _digest([fingerprint, PIL.__version__, recipe.labels.palette])

    def build(allocate: cache.Allocate) -> dict[str, Any]:
        arrays = work.run(allocate, findings)
        findings.stop()
        return {"moments": moments(arrays["train_images"]), "palette": work.palette(sources)}

    entry = cache.fill(key, build)
    if rows is not None:
        cache.remember(question, {"entry": key, "fingerprint": fingerprint, "files": files})
    return _dataset(name, root, splits, recipe, fingerprint, files, entry)


class _Decoding:
    """Decoding of all splits with what is common to them."""

    def __init__(
        self,
        root: Path,
        sources: Mapping[str, Sequence[Source]],
        labels: Labels,
        size: tuple[int, int],
        channels: int,
        window: tuple[float, float] | None,
    ) -> None:
        self.root, self.sources, self.labels = root, sources, labels
        self.size, self.channels, self.window = size, channels, window

    def run(self, allocate: cache.Allocate, findings: Findings) -> cache.Arrays:
        """Arrays `<split>_images` and `<split>_masks`, with what is wrong in the pixels in `findings`."""
        arrays: cache.Arrays = {}
        unknown: dict[int, list[tuple[str, int]]] = {}
        for split, sources in self.sources.items():
            images = allocate(f"{split}_images", (len(sources), *self.size, self.channels))
            masks = allocate(f"{split}_masks", (len(sources), *self.size))
            arrays |= {f"{split}_images": images, f"{split}_masks": masks}
            usable = [index for index, source in enumerate(sources) if source.usable]
            results = in_threads(partial(self._one, sources=sources, images=images, masks=masks), usable)
            for faults, codes, _ in results:
                for path, fault, noun, cure in faults:
                    findings.add(path, fault, noun=noun, key=IMAGES if noun == "image" else MASKS, cure=cure)
                for code, path, count in codes:
                    unknown.setdefault(code, []).append((path, count))
            if len(usable) == len(sources) > 0 and not any(labelled for _, _, labelled in results):
                findings.say(f"the split '{split}' has no labelled pixel", key="data.split")
        self._say_unknown(unknown, findings)
        return arrays

    def _one(
        self, index: int, sources: Sequence[Source], images: np.ndarray, masks: np.ndarray
    ) -> tuple[list[tuple[str, str, str, str]], list[tuple[int, str, int]], bool]:
        """Decode pair `index` into its place; its faults, its unknown labels, whether it has any labelled pixel."""
        pair = sources[index].pair
        path, noun = pair.image, "image"
        try:
            picture = read_picture(read_bytes(self.root, path))
            images[index] = resize_image(image_array(picture, self.channels, self.window), self.size)
            path, noun = pair.mask, "mask"
            codes = mask_codes(read_picture(read_bytes(self.root, path)), self.labels)
        except Unusable as error:
            return [(path, error.fault, noun, error.cure)], [], True
        # Checked before resizing: a rare label must not slip through between the kept pixels.
        mask = self.labels.apply(codes)
        strange = mask == UNKNOWN
        if strange.any():
            values, counts = np.unique(codes[strange], return_counts=True)
            return [], [(int(value), path, int(count)) for value, count in zip(values, counts, strict=True)], True
        masks[index] = resize_mask(mask, self.size)
        return [], [], bool((masks[index] != IGNORE).any())

    def _say_unknown(self, unknown: Mapping[int, list[tuple[str, int]]], findings: Findings) -> None:
        """The three commonest labels that have no meaning, with how often and where, and what is allowed."""
        totals = Counter({code: sum(count for _, count in found) for code, found in unknown.items()})
        for code, pixels in totals.most_common(3):
            paths = [path for path, _ in unknown[code]]
            masks = f"{len(paths):,} mask{'s' if len(paths) > 1 else ''} ({pixels:,} pixels)"
            findings.say(
                f"label {self.labels.shown(code)} in {masks}, expected {self.labels.allowed}: {first_names(paths)}",
                key="data.classes",
                cure="name it in 'classes' or in 'ignore'",
            )
        if len(totals) > 3:
            findings.say(f"{len(totals) - 3:,} more labels that have no meaning", key="data.classes")

    def palette(self, sources: Mapping[str, Sequence[Source]]) -> tuple[Colour, ...]:
        """The classes' colours: as the settings say, else as the first training mask stores them, else any."""
        if self.labels.palette is not None:
            return self.labels.palette
        first = read_picture(read_bytes(self.root, sources["train"][0].pair.mask))
        return stored_palette(first, self.labels) or distinct_colours(len(self.labels.classes))


def _common_size(sources: Sequence[Source], recipe: Recipe, findings: Findings) -> tuple[int, int]:
    """The size asked for, else the one that all images have."""
    if recipe.size is not None:
        return recipe.size
    sizes = Counter(source.image.size for source in sources if source.image is not None)
    if len(sizes) > 1:
        shown = first_names([f"{height}x{width}" for (height, width), _ in sizes.most_common()])
        findings.say(f"the images have {len(sizes)} sizes ({shown})", key="data.size", cure="give a size")
    return min(sizes, default=(1, 1))


def _channels(sources: Sequence[Source], recipe: Recipe) -> int:
    if recipe.channels != "auto":
        return recipe.channels
    return 3 if any(source.image is not None and source.image.depth == "colour" for source in sources) else 1


def _window(
    root: Path, sources: Mapping[str, Sequence[Source]], recipe: Recipe, findings: Findings
) -> tuple[float, float] | None:
    """The window asked for; for 16-bit images without one, that between two quantiles of all training pixels."""
    if recipe.window is not None:
        return recipe.window
    every = [item for items in sources.values() for item in items if item.image is not None]
    depths = {item.image.depth for item in every if item.image is not None}
    if depths & {"wide", "float"}:
        findings.say(
            "the images hold 32-bit values, which have no common range",
            key="data.window",
            cure="give the range that is shown as black to white, such as window: [0, 4095]",
        )
        return (0.0, 1.0)
    if "deep" not in depths:
        return None
    if len(depths) > 1:
        findings.say("some images have 16 bits and some have 8", key="data.window", cure="give a window for all")
        return (0.0, 65_535.0)
    counts = np.zeros(65_536, dtype=np.int64)
    for item in sources["train"]:
        if item.usable:
            try:
                pixels = np.asarray(read_picture(read_bytes(root, item.pair.image)))
            except Unusable:
                continue  # reported where it is decoded
            counts += np.bincount(pixels.ravel(), minlength=65_536)
    share = np.cumsum(counts) / max(counts.sum(), 1)
    low, high = (int(np.searchsorted(share, part)) for part in WINDOW_PARTS)
    return float(low), float(max(high, low + 1))


def _dataset(
    name: str,
    root: Path,
    splits: Mapping[str, Sequence[Pair]],
    recipe: Recipe,
    fingerprint: str,
    files: Mapping[str, str],
    entry: tuple[cache.Arrays, dict[str, Any]],
) -> Dataset:
    arrays, document = entry
    made = {}
    for split, pairs in splits.items():
        groups = tuple(pair.group for pair in pairs if pair.group is not None)
        made[split] = Split(
            arrays[f"{split}_images"],
            arrays[f"{split}_masks"],
            tuple(pair.name for pair in pairs),
            groups if groups else None,
        )
    mean, std = document["moments"]
    return Dataset(
        name=name,
        classes=recipe.labels.classes,
        palette=tuple((red, green, blue) for red, green, blue in document["palette"]),
        splits=made,
        fingerprint=fingerprint,
        files=dict(files),
        stored_moments=(tuple(mean), tuple(std)),
        native=partial(native_masks, root, splits["test"], recipe.labels, dict(files), fingerprint),
    )


def _paths(pair: Pair) -> tuple[str, str]:
    return pair.image, pair.mask


def _digest(document: Any) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
