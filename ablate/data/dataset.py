"""What a data set is to the rest of the package: decoded arrays in splits, with names, a fingerprint and statistics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ablate.errors import DataError, Problem
from ablate.registry import DATASETS
from ablate.study.components import create

IGNORE = 255
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """One split: images uint8 (N, H, W, channels) and masks uint8 (N, H, W) of class indices or `IGNORE`.

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
    """The splits `train`, `val` and `test` of one data set, all images of one size.

    `palette` has an RGB colour (0..255) for each class. `fingerprint` is the SHA-256 over all that was read, or over
    version and parameters of a generated set; `files` maps relative file names to their SHA-256 (empty for a
    generated set), so that a run can say which files changed.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    splits: Mapping[str, Split]
    fingerprint: str
    files: Mapping[str, str] = field(default_factory=dict)
    # Known beforehand where the arrays come from the cache; computed on first use otherwise.
    stored_moments: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    # Gives the test masks at their own size where that is another than the images'; asked for only where they are
    # scored there (`measure.native`).
    native: Callable[[], Sequence[np.ndarray]] | None = field(default=None, compare=False, repr=False)

    def native_test_masks(self) -> Sequence[np.ndarray]:
        """The masks of the test split at their own size, uint8 (h, w) each; sizes may differ.

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
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel over all training pixels, as a fraction (0..1)."""
        return self._moments[0]

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation (population) of each channel over all training pixels, as a fraction (0..1)."""
        return self._moments[1]

    @cached_property
    def _moments(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return self.stored_moments or moments(self.splits["train"].images)


def moments(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and population standard deviation of each channel of uint8 images (N, H, W, C), as fractions.

    Computed from the exact histogram, so that neither the order of the images nor rounding can change them.
    """
    counts = np.zeros((images.shape[3], 256), dtype=np.int64)
    for image in images:
        for channel in range(images.shape[3]):
            counts[channel] += np.bincount(image[..., channel].ravel(), minlength=256)
    values = np.arange(256) / 255.0
    total = counts.sum(axis=1)
    mean = counts @ values / total
    variance = np.maximum(counts @ values**2 / total - mean**2, 0.0)
    return tuple(map(float, mean)), tuple(map(float, np.sqrt(variance)))


def load_dataset(name: str, settings: Mapping[str, Any], *, base: Path) -> Dataset:
    """The data set registered as `name`, made with `settings`; relative paths in them start at the folder `base`.

    Raises `StudyError` for an unknown name and for settings that the data set does not take, `DataError` for data that
    cannot be used.
    """
    dataset = create(DATASETS, {"name": name, **settings}, base=base)
    if not isinstance(dataset, Dataset):
        raise DataError(f"data set '{name}' gave a {type(dataset).__name__}, not a Dataset", key="data.name")
    if DATASETS.source(name) != "ablate":
        check_dataset(dataset)
    return dataset


def check_dataset(dataset: Dataset) -> None:
    """Raise `DataError` with all the ways in which a data set (such as a plugin's) breaks what `Dataset` promises."""
    problems: list[str] = []
    absent = [split for split in SPLITS if split not in dataset.splits]
    if absent:
        problems.append(f"no split called {' or '.join(absent)}")
    if len(dataset.palette) != dataset.num_classes:
        problems.append(f"{len(dataset.palette)} palette colours for {dataset.num_classes} classes")
    if not 1 <= dataset.num_classes < IGNORE:
        problems.append(f"{dataset.num_classes} classes; expected 1 to {IGNORE - 1}")
    shapes = set()
    for name, split in dataset.splits.items():
        found = _check_split(name, split, dataset.num_classes)
        problems += found
        if not found:
            shapes.add(split.images.shape[1:])
    if len(shapes) > 1:
        problems.append(f"the splits differ in image shape: {sorted(shapes)}")
    if problems:
        raise DataError(Problem(f"data set '{dataset.name}': {text}", key="data") for text in problems)


def _check_split(name: str, split: Split, num_classes: int) -> list[str]:
    images, masks = split.images, split.masks
    if images.dtype != np.uint8 or images.ndim != 4:
        return [f"{name} images are {images.dtype} {images.shape}; expected uint8 (N, H, W, channels)"]
    if masks.dtype != np.uint8 or masks.shape != images.shape[:3]:
        return [f"{name} masks are {masks.dtype} {masks.shape}; expected uint8 {images.shape[:3]}"]
    if len(split.names) != len(images) or (split.groups is not None and len(split.groups) != len(images)):
        return [f"{name} has {len(images)} images and another number of names or groups"]
    if not len(images):
        return [f"{name} is empty"]
    counts = np.zeros(256, dtype=np.int64)
    for mask in masks:
        counts += np.bincount(mask.ravel(), minlength=256)
    wrong = [int(value) for value in np.flatnonzero(counts) if num_classes <= value != IGNORE]
    if wrong:
        return [f"{name} masks hold {wrong[:3]}; expected 0..{num_classes - 1} or {IGNORE} (ignored)"]
    if counts[:num_classes].sum() == 0:
        return [f"{name} has no labelled pixel"]
    return []
