"""A data set as the rest of the package sees it: decoded arrays in splits, with names, a fingerprint and statistics."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ablate.data.rng import permutation
from ablate.errors import AblateError, DataError, Problem
from ablate.measure.segmentation import class_pixels
from ablate.registry import DATASETS
from ablate.study.components import create
from ablate.study.spec import SubsetSpec
from ablate.wording import count_of

IGNORE = 255
# Of a mask whose pixels may bear several classes: one bit each, and the value 255 stands for ignored.
MOST_MULTILABEL = 7
SPLITS = ("train", "val", "test")
# Classes and colours of the CamVid benchmark as SegNet uses it, which the built-in street scenes share.
CAMVID = {
    "Sky": (128, 128, 128),
    "Building": (128, 0, 0),
    "Pole": (192, 192, 128),
    "Road": (128, 64, 128),
    "Pavement": (60, 40, 222),
    "Tree": (128, 128, 0),
    "SignSymbol": (192, 128, 128),
    "Fence": (64, 64, 128),
    "Car": (64, 0, 128),
    "Pedestrian": (64, 64, 0),
    "Bicyclist": (0, 128, 192),
}
SHOWN = 3  # names in a message before "and 9 more"


@dataclass(frozen=True)
class Split:
    """One split: images uint8 or uint16 (N, H, W, channels), masks uint8 (N, H, W) of class indices or `IGNORE`.

    In a multilabel data set a mask holds sums of 2^class instead, over the classes that a pixel bears; 0 is none.

    The arrays are in memory or memory-mapped read-only. `groups` names the sequence or patient of each image; None
    says that the images are independent of each other.
    """

    images: np.ndarray
    masks: np.ndarray
    names: tuple[str, ...]
    groups: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Dataset:
    """The splits `train`, `val` and `test` of one data set, all images of one size and type.

    `palette` has an RGB colour (0..255) for each class. `fingerprint` is the SHA-256 over all that was read, over
    version and parameters of a generated set, or over the arrays of a plugin's set (`load_dataset` sees to that);
    `files` maps relative file names to their SHA-256 (empty for a generated set), so that a run can say which changed.
    `multilabel` says that a pixel may bear several of at most `MOST_MULTILABEL` classes, or none.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    splits: Mapping[str, Split]
    fingerprint: str
    files: Mapping[str, str] = field(default_factory=dict)
    # Known beforehand where the arrays come from the cache; computed on first use otherwise.
    stored_moments: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    # The stored values that became black and white, where the images were not taken as they are.
    window: tuple[float, float] | None = None
    # Gives the test masks at their own size where that is another than the images'; asked for only where they are
    # scored there (`measure.native`).
    native: Callable[[], Sequence[np.ndarray]] | None = field(default=None, compare=False, repr=False)
    multilabel: bool = False

    def pixels_of_classes(self, split: str) -> np.ndarray:
        """Return how many pixels of a split bear each class, and last how many are ignored: int64 (classes + 1,)."""
        labels = np.zeros(256, dtype=np.int64)
        for mask in self.splits[split].masks:
            labels += np.bincount(np.asarray(mask).ravel(), minlength=256)
        counts = class_pixels(labels, self.num_classes, multilabel=self.multilabel)
        return np.append(counts, labels[IGNORE])

    def native_test_masks(self) -> Sequence[np.ndarray]:
        """Return the masks of the test split at their own size, uint8 (h, w) each; sizes may differ.

        Those of the split itself where the data set keeps no others, as a generated one. Raises `DataError` where a
        file cannot be read any more.
        """
        return list(self.splits["test"].masks) if self.native is None else self.native()

    @property
    def num_classes(self) -> int:
        """Number of classes, without the ignored label."""
        return len(self.classes)

    @property
    def in_channels(self) -> int:
        """Channels of an image."""
        return int(self.splits["train"].images.shape[3])

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of every image, in pixels."""
        height, width = self.splits["train"].masks.shape[1:]
        return int(height), int(width)

    @property
    def white(self) -> int:
        """The value of an image that stands for 1.0: 255, or 65,535 where images have 16 bits."""
        return int(np.iinfo(self.splits["train"].images.dtype).max)

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel over all training pixels, as a fraction (0..1)."""
        return self._moments[0]

    @property
    def std(self) -> tuple[float, ...]:
        """Divisor that normalises each channel, as a fraction (0..1).

        The standard deviation (population) over all training pixels; 1 for a channel without spread, which so becomes
        0 everywhere instead of not a number.
        """
        return tuple(value if value > 0 else 1.0 for value in self._moments[1])

    @cached_property
    def _moments(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return self.stored_moments or moments(self.splits["train"].images)


@dataclass
class Findings:
    """Faults of a data set, gathered so that one line tells a kind of fault, its count and three names."""

    _kinds: dict[tuple[str, str, str, str], list[str]] = field(default_factory=dict)
    _plain: list[Problem] = field(default_factory=list)

    def add(self, name: str, fault: str, *, noun: str = "image", key: str = "data", cure: str = "") -> None:
        """Add one thing (an image, a mask) called `name` that has `fault`, a phrase such as "without a mask"."""
        self._kinds.setdefault((noun, fault, key, cure), []).append(name)

    def say(self, message: str, *, key: str = "data", cure: str = "") -> None:
        """Add a fault that is not about single files."""
        self._plain.append(Problem(message, key=key, cure=cure))

    def __bool__(self) -> bool:
        return bool(self._kinds or self._plain)

    def problems(self) -> list[Problem]:
        """Return one problem for each kind: "12 images without a mask: a, b, c and 9 more"."""
        found = list(self._plain)
        for (noun, fault, key, cure), names in self._kinds.items():
            many = noun if len(names) == 1 else f"{noun}s"
            found.append(Problem(f"{len(names):,} {many} {fault}: {first_names(names)}", key=key, cure=cure))
        return found

    def stop(self) -> None:
        """Raise `DataError` with all that was found, where anything was."""
        if self:
            raise DataError(self.problems())


def first_names(names: Sequence[str]) -> str:
    """Return the first three names, and how many more there are."""
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest:,} more" if rest > 0 else "")


def moments(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and population standard deviation of each channel of images (N, H, W, C), as fractions.

    Computed from the exact histogram, so that neither the order of the images nor rounding can change them.
    """
    white = int(np.iinfo(images.dtype).max)
    counts = np.zeros((images.shape[3], white + 1), dtype=np.int64)
    for image in images:
        for channel in range(images.shape[3]):
            counts[channel] += np.bincount(image[..., channel].ravel(), minlength=white + 1)
    values = np.arange(white + 1) / float(white)
    total = counts.sum(axis=1)
    mean = counts @ values / total
    # A difference of two nearly equal sums is no spread: one value gives exactly none.
    spread = (counts > 0).sum(axis=1) > 1
    variance = np.where(spread, np.maximum(counts @ values**2 / total - mean**2, 0.0), 0.0)
    return tuple(map(float, mean)), tuple(map(float, np.sqrt(variance)))


def as_bytes(images: np.ndarray) -> np.ndarray:
    """Return images (..., C) as they are looked at: uint8 (..., 1 or 3), the first one or three of their channels."""
    images = images[..., : 3 if images.shape[-1] >= 3 else 1]
    return images if images.dtype == np.uint8 else (images >> 8).astype(np.uint8)


def load_dataset(name: str, settings: Mapping[str, Any], *, base: Path, expected: str | None = None) -> Dataset:
    """Return the data set registered as `name`, made with `settings`; relative paths start at the folder `base`.

    The fingerprint of a plugin's set is made from its arrays, whatever the plugin says. With `expected`, the
    fingerprint of the same data set in another process, another one is refused: what is scored must be what was
    trained on. Raises `StudyError` for an unknown name and for settings that the data set does not take, `PluginError`
    where a plugin fails, `DataError` for data that cannot be used or are not those that are expected.
    """
    part = {key: value for key, value in settings.items() if key in SubsetSpec.model_fields}
    settings = {key: value for key, value in settings.items() if key not in part}
    try:
        dataset = create(DATASETS, {"name": name, **settings}, base=base)
    except AblateError:
        raise
    except Exception as error:
        if DATASETS.source(name) == "ablate":
            raise
        raise DATASETS.broken(name, error) from error
    if not isinstance(dataset, Dataset):
        raise DataError(f"data set '{name}' gave a {type(dataset).__name__}, not a Dataset", key="data.name")
    if DATASETS.source(name) != "ablate":
        check_dataset(dataset)
        splits = {
            key: replace(split, images=_plain(split.images), masks=_plain(split.masks))
            for key, split in dataset.splits.items()
        }
        dataset = replace(dataset, splits=splits, fingerprint=content_digest(dataset))
    if part:
        dataset = take_part(dataset, **SubsetSpec.model_validate(part).model_dump())
    if expected is not None and dataset.fingerprint != expected:
        if dataset.files:
            message = f"the files of the data set '{name}' changed while the study runs"
            raise DataError(message, key="data", cure="put them back, or run into another folder with --out")
        message = f"the data set '{name}' is another each time it is made (by the SHA-256 of its arrays)"
        raise DataError(message, key="data.name", cure="seed what it draws")
    return dataset


def content_digest(dataset: Dataset) -> str:
    """Return the SHA-256 over all that a data set holds: arrays, names, groups, classes, and its own fingerprint."""
    total = hashlib.sha256()
    for key, split in sorted(dataset.splits.items()):
        shape = [str(split.images.dtype), split.images.shape, split.names, split.groups]
        total.update(json.dumps([key, *shape]).encode())
        for rows in (split.images, split.masks):
            for row in rows:  # one after the other, so that a mapped array need not fit into memory
                total.update(np.ascontiguousarray(row).data)
    several = ["multilabel"] if dataset.multilabel else []
    total.update(json.dumps([dataset.fingerprint, dataset.classes, *several]).encode())
    return total.hexdigest()


def check_dataset(dataset: Dataset) -> None:
    """Raise `DataError` with all the ways in which a data set (such as a plugin's) breaks what `Dataset` promises."""
    problems: list[str] = []
    absent = [split for split in SPLITS if split not in dataset.splits]
    if absent:
        problems.append(f"no split called {' or '.join(absent)}")
    if not all(isinstance(name, str) for name in dataset.classes) or len(set(dataset.classes)) < dataset.num_classes:
        problems.append("expected different names (text) for the classes")
    if len(dataset.palette) != dataset.num_classes:
        problems.append(f"{len(dataset.palette)} palette colours for {dataset.num_classes} classes")
    wrong = [colour for colour in dataset.palette if not _is_colour(colour)]
    if wrong:
        problems.append(f"palette: expected three whole numbers 0..255 for each class, got {wrong[0]!r}")
    if dataset.multilabel and not 2 <= dataset.num_classes <= MOST_MULTILABEL:
        problems.append(
            f"{dataset.num_classes} classes; expected 2 to {MOST_MULTILABEL} where a pixel may bear several"
        )
    elif not 2 <= dataset.num_classes < IGNORE:
        problems.append(f"{dataset.num_classes} classes; expected 2 to {IGNORE - 1}: one leaves nothing to tell apart")
    shapes, seen, several = set(), np.zeros(256, dtype=np.int64), dataset.multilabel
    for name, split in dataset.splits.items():
        found, counts = _check_split(name, split, dataset.num_classes, multilabel=several)
        problems += found
        if not found:
            seen += counts
            shapes.add((split.images.shape[1:], str(split.images.dtype)))
    if len(shapes) > 1:
        problems.append(f"the splits differ in image shape or type: {sorted(shapes)}")
    if not problems and not several and np.count_nonzero(seen[: dataset.num_classes]) == 1:
        problems.append(only_one_class(dataset.classes[int(seen[: dataset.num_classes].argmax())]))
    if problems:
        raise DataError(Problem(f"data set '{dataset.name}': {text}", key="data") for text in problems)


def without_class(split: str, *, multilabel: bool) -> str:
    """Return what is wrong with a split in which no class occurs."""
    return f"the split '{split}' has no {'pixel that bears a class' if multilabel else 'labelled pixel'}"


def only_one_class(name: str) -> str:
    """Return what is wrong with masks in which a single class occurs."""
    return f"all labelled pixels are '{name}', so that any network scores 100 %: nothing is left to tell apart"


def _is_colour(colour: Any) -> bool:
    whole = isinstance(colour, tuple | list) and all(isinstance(part, int | np.integer) for part in colour)
    return whole and len(colour) == 3 and all(0 <= part <= 255 for part in colour)


def _check_split(name: str, split: Split, num_classes: int, *, multilabel: bool) -> tuple[list[str], np.ndarray]:
    """Return what is wrong with a split, and how many of its pixels have each label, int64 (256,)."""
    images, masks, counts = split.images, split.masks, np.zeros(256, dtype=np.int64)
    labels = 1 << num_classes if multilabel else num_classes
    for noun, array in (("images", images), ("masks", masks)):
        if not isinstance(array, np.ndarray):
            return [f"{name} {noun} are a {type(array).__name__}; expected a NumPy array"], counts
    if images.dtype not in (np.uint8, np.uint16) or images.ndim != 4 or not images.shape[3]:
        shown = f"{name} images are {images.dtype} {images.shape}"
        return [f"{shown}; expected uint8 or uint16 (N, H, W, channels)"], counts
    if masks.dtype != np.uint8 or masks.shape != images.shape[:3]:
        return [f"{name} masks are {masks.dtype} {masks.shape}; expected uint8 {images.shape[:3]}"], counts
    if len(split.names) != len(images) or (split.groups is not None and len(split.groups) != len(images)):
        return [f"{name} has {len(images)} images and another number of names or groups"], counts
    if not all(isinstance(text, str) for text in (*split.names, *(split.groups or ()))):
        return [f"{name} has names or groups that are not text"], counts
    if not images.size:
        return [f"{name} is empty"], counts
    for mask in masks:
        counts += np.bincount(mask.ravel(), minlength=256)
    wrong = [int(value) for value in np.flatnonzero(counts) if labels <= value != IGNORE]
    if wrong:
        return [f"{name} masks hold {wrong[:3]}; expected 0..{labels - 1} or {IGNORE} (ignored)"], counts
    if not class_pixels(counts, num_classes, multilabel=multilabel).any():
        return [without_class(name, multilabel=multilabel)], counts
    return [], counts


def _plain(array: np.ndarray) -> np.ndarray:
    """Return an array that torch can take: no negative strides, bytes in the machine's order."""
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return np.ascontiguousarray(array) if min(array.strides) < 0 else array


# --- a part of the training split, nested: the smaller part is in every larger one ----------------------------------

# Below so many groups whole ones are too coarse a part: of each recording its first images are taken instead.
LEAST_GROUPS = 10


def take_part(dataset: Dataset, fraction: float, steps: Literal["equal", "epochs"]) -> Dataset:
    """Return the data set with about `fraction` of its training images; val and test stay as they are.

    Images are drawn at random, the same for every seed of a study; of a data set with groups, whole groups; of one with
    few groups (recordings), the first images of each. With steps "equal" the part is repeated up to the number of
    images there were, so that an epoch has as many steps, each image with augmentations of its own.

    Raises `DataError` for a part that bears no class or, where a pixel bears one, a single class.
    """
    split = dataset.splits["train"]
    chosen = part_of(split, fraction)
    if len(chosen) == len(split):
        return dataset
    rows = np.resize(chosen, len(split)) if steps == "equal" else chosen
    groups = None if split.groups is None else tuple(split.groups[row] for row in rows)
    part = Split(split.images[rows], split.masks[rows], tuple(split.names[row] for row in rows), groups)
    text = f"{dataset.fingerprint} {chosen.tolist()} {len(rows)}"
    fingerprint = hashlib.sha256(text.encode()).hexdigest()
    taken = replace(dataset, splits={**dataset.splits, "train": part}, fingerprint=fingerprint, stored_moments=None)
    borne = [label for label, count in zip(dataset.classes, taken.pixels_of_classes("train"), strict=False) if count]
    if len(borne) < (1 if dataset.multilabel else 2):
        found = f"the class '{borne[0]}' alone" if borne else "no class"
        message = f"the {count_of(len(chosen), 'training image')} of this part bear {found}"
        raise DataError(message, key="data.fraction", cure="take a larger part")
    return taken


def part_of(split: Split, fraction: float) -> np.ndarray:
    """Return the indices of the training images that are taken, in the order of the split: int64, at least one."""
    wanted = max(1, round(fraction * len(split)))
    if split.groups is None:
        return np.sort(permutation(0, 0, len(split))[:wanted])
    members = {name: np.flatnonzero([group == name for group in split.groups]) for name in dict.fromkeys(split.groups)}
    if len(members) < LEAST_GROUPS:
        firsts = [rows[: max(1, round(fraction * len(rows)))] for rows in members.values()]
        return np.sort(np.concatenate(firsts))
    names = list(members)
    order = [members[names[place]] for place in permutation(0, 0, len(names))]
    sizes = np.cumsum([len(rows) for rows in order])
    return np.sort(np.concatenate(order[: 1 + int(np.abs(sizes - wanted).argmin())]))
