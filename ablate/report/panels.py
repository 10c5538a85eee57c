"""The pictures of the report: which test images are shown, their tiles (image, truth, prediction, error), crops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ablate.errors import ResultsError
from ablate.measure.detail import scaled_width, thin_pixels
from ablate.records import images as pictures
from ablate.records.store import Results, read_json

SHOWN = 8
CROPS = 4
_IGNORED = (235, 237, 240)
_WRONG = (179, 38, 30)


@dataclass(frozen=True)
class Chosen:
    """A test image that is shown, and why."""

    index: int
    why: str


@dataclass(frozen=True)
class Crop:
    """A window (top, left, height, width) of test image `index` around thin structures."""

    index: int
    top: int
    left: int
    height: int
    width: int

    def cut(self, tile: np.ndarray) -> np.ndarray:
        """The window out of an array (H, W, ...)."""
        return tile[self.top : self.top + self.height, self.left : self.left + self.width]


def fixed_images(count: int, shown: int = SHOWN) -> list[Chosen]:
    """Evenly spaced images of the test split, the first and the last among them: the same for every variant."""
    if count < 1:
        return []
    places = np.unique(np.linspace(0, count - 1, min(shown, count)).round().astype(int))
    return [Chosen(int(index), f"test image {index}") for index in places]


def telling_images(scores: Mapping[str, np.ndarray]) -> list[Chosen]:
    """Best, median and worst image by the mean over variants of the image's mIoU, and the most disagreed upon.

    `scores` holds a row (N,) of per-image mIoU for each variant, NaN where an image has none. Disagreement is the
    range of the variants' scores.
    """
    rows = [np.asarray(row, dtype=float) for row in scores.values()]
    if not rows or not len(rows[0]):
        return []
    table = np.stack(rows)
    known = np.isfinite(table).all(axis=0)
    if not known.any():
        return []
    images = np.flatnonzero(known)
    mean = table[:, known].mean(axis=0)
    order = images[np.argsort(mean, kind="stable")]
    by_image = dict(zip(images.tolist(), mean.tolist(), strict=True))
    chosen = [
        Chosen(int(index), f"{word}: mIoU {100 * by_image[int(index)]:.0f} % over the variants")
        for word, index in (("best", order[-1]), ("median", order[(len(order) - 1) // 2]), ("worst", order[0]))
    ]
    if len(table) > 1:
        spread = np.ptp(table[:, known], axis=0)
        most = int(np.argmax(spread))
        text = f"most disagreed upon: variants {100 * spread[most]:.0f} points apart"
        chosen.append(Chosen(int(images[most]), text))
    return chosen


class Gallery:
    """The test split of a results folder as pictures, and the predictions of its trials."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self.index: dict[str, Any] = read_json(results.test / "index.json") or {}
        self.classes: list[str] = [str(name) for name in self.index.get("classes", [])]
        self.ignore_index = int(self.index.get("ignore_index", 255))
        self._images: dict[int, np.ndarray] = {}
        self._labels: dict[int, np.ndarray] = {}

    @property
    def there(self) -> bool:
        """Whether the folder holds a test split at all."""
        return bool(self.index) and (self.results.test / "targets.zip").is_file()

    @cached_property
    def count(self) -> int:
        """Number of test images."""
        return len(self.index.get("names") or []) or pictures.count(self.results.test / "targets.zip")

    @cached_property
    def palette(self) -> np.ndarray:
        """Colour of every label, uint8 (256, 3); classes without one get grey levels, ignored pixels pale grey."""
        table = np.zeros((256, 3), np.uint8)
        given = [colour for colour in self.index.get("palette") or [] if len(colour) == 3]
        for label in range(len(self.classes)):
            grey = 40 + (label * 67) % 180
            table[label] = given[label] if label < len(given) else (grey, grey, grey)
        table[self.ignore_index] = _IGNORED
        return table

    def name(self, index: int) -> str:
        """The image's own name, or its number."""
        names = self.index.get("names") or []
        return str(names[index]) if index < len(names) else str(index)

    def image(self, index: int) -> np.ndarray:
        """The test image, uint8 (H, W, 3), as large as its target."""
        if index not in self._images:
            self._images[index] = self._read_image(index)
        return self._images[index]

    def _read_image(self, index: int) -> np.ndarray:
        image = pictures.unpack_image(self.results.test / "images.zip", index)
        height, width = self.target(index).shape
        if image.shape[:2] != (height, width):
            image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        return image

    def target(self, index: int) -> np.ndarray:
        """The target, uint8 (H, W)."""
        if index not in self._labels:
            # The images that are shown most often at once: opening the file takes longer than reading it.
            wanted = sorted({index, *(one.index for one in fixed_images(self.count))})
            self._labels.update(zip(wanted, self._targets(wanted), strict=True))
        return self._labels[index]

    def _targets(self, indices: Sequence[int]) -> np.ndarray:
        return pictures.unpack_some(self.results.test / "targets.zip", indices)

    def prediction_file(self, trial: str) -> Path:
        """Where the trial keeps its test predictions."""
        return self.results.trial(trial).predictions

    def predictions(self, trial: str, indices: Sequence[int]) -> np.ndarray | None:
        """The trial's predictions of those test images, uint8 (n, H, W); None where it stored none."""
        path = self.prediction_file(trial)
        if not path.is_file():
            return None
        try:
            return pictures.unpack_some(path, indices)
        except ResultsError:
            # The record is the truth about a trial; a damaged picture file costs its panel only.
            return None

    def colorize(self, labels: np.ndarray) -> np.ndarray:
        """Labels (H, W) as colours, uint8 (H, W, 3)."""
        return self.palette[labels]

    def error(self, image: np.ndarray, target: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        """The image faded to pale grey, wrong pixels red, ignored ones blank: uint8 (H, W, 3)."""
        grey = image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
        faded = (185 + grey * 0.25).astype(np.uint8)
        tile = np.repeat(faded[..., None], 3, axis=2)
        tile[(prediction != target) & (target != self.ignore_index)] = _WRONG
        tile[target == self.ignore_index] = _IGNORED
        return tile

    def crops(self, most: int = CROPS, candidates: int = 24) -> list[Crop]:
        """Windows a third of the image high and wide that hold most pixels of thin structures, from different images.

        Thin is what an opening with a disc of 6 px (at a diagonal of 600 px) removes from a class mask, as the
        measure has it. `candidates` images, evenly spaced, are looked at.
        """
        looked = [chosen.index for chosen in fixed_images(self.count, candidates)]
        targets = self._targets(looked)
        if not targets.size:
            return []
        labels = np.where(targets == self.ignore_index, len(self.classes), targets).astype(np.uint8)
        height, width = labels.shape[1:]
        thin = thin_pixels(labels, scaled_width(6, (height, width), at_least=2)) & (targets != self.ignore_index)
        window = max(1, height // 3), max(1, width // 3)
        best = []
        for place, mask in zip(looked, thin, strict=True):
            score = _box_sums(mask, window)
            top, left = np.unravel_index(int(score.argmax()), score.shape)
            best.append((int(score[top, left]), Crop(place, int(top), int(left), *window)))
        best = sorted((entry for entry in best if entry[0] > 0), key=lambda entry: (-entry[0], entry[1].index))
        return sorted((crop for _, crop in best[:most]), key=lambda crop: crop.index)


def _box_sums(mask: np.ndarray, window: tuple[int, int]) -> np.ndarray:
    """Sum of `mask` in every window, at each place of its upper left corner."""
    total = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int64)
    total[1:, 1:] = mask.cumsum(0).cumsum(1)
    high, wide = window
    return total[high:, wide:] - total[:-high, wide:] - total[high:, :-wide] + total[:-high, :-wide]


def with_window(tile: np.ndarray, crop: Crop, scale: float = 1.0) -> np.ndarray:
    """A copy of an image, shown `scale` times as large as the crop counts, with the crop's window outlined."""
    picture = Image.fromarray(tile)
    line = max(1, round(tile.shape[1] / 160))
    ends = (crop.left, crop.top, crop.left + crop.width, crop.top + crop.height)
    box = tuple(round(scale * end) - (place > 1) for place, end in enumerate(ends))
    ImageDraw.Draw(picture).rectangle(box, outline=(255, 255, 255), width=2 * line)
    ImageDraw.Draw(picture).rectangle(box, outline=_WRONG, width=line)
    return np.asarray(picture)


def mosaic(rows: Sequence[Sequence[np.ndarray]], gap: int) -> np.ndarray:
    """Tiles of one size (H, W, 3), row by row, with `gap` white pixels between them."""
    height, width = rows[0][0].shape[:2]
    columns = len(rows[0])
    sheet = np.full(
        (len(rows) * (height + gap) - gap, columns * (width + gap) - gap, 3),
        255,
        np.uint8,
    )
    for y, row in enumerate(rows):
        for x, tile in enumerate(row):
            top, left = y * (height + gap), x * (width + gap)
            sheet[top : top + height, left : left + width] = tile
    return sheet


def reduce(tile: np.ndarray, most: int, *, labels: bool) -> np.ndarray:
    """The tile no wider or higher than `most` pixels: labels by their nearest pixel, images by averaging."""
    height, width = tile.shape[:2]
    scale = most / max(height, width)
    if scale >= 1:
        return tile
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = Image.Resampling.NEAREST if labels else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(tile).resize(size, how))
