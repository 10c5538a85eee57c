"""The test images of a study: which of them are shown, read from the results folder with targets and predictions.

What is shown is chosen here and nowhere else: the fixed images of `ablate.records`, the telling ones, the crops.
"""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from ablate.analysis.analyse import Analysis
from ablate.errors import ResultsError
from ablate.measure.detail import scaled_width, thin_pixels
from ablate.measure.segmentation import per_image_mean_iou
from ablate.records.images import panel_indices, unpack_image, unpack_some
from ablate.records.paint import labels_uri, mask_uri, palette_of, photo_uri, reduce, wrong_pixels
from ablate.records.store import Results, read_json
from ablate.report.lookup import NotDrawn, once_an_analysis, setting_label, shown_trials

CROPS, CANDIDATES = 4, 24
# Pixels of all tiles of a page together, about 0.3 MB of it; and of one of them the longer side.
BUDGET, WIDEST = 5_000_000, 480
RUN_SHOWN = "Shown of each variant: its own best setting, the seed with the median validation mIoU."


@dataclass(frozen=True)
class Crop:
    """A window (top, left, height, width) of test image `index` around thin structures."""

    index: int
    top: int
    left: int
    height: int
    width: int

    def cut(self, tile: np.ndarray) -> np.ndarray:
        """Return the window out of an array (H, W, ...)."""
        return tile[self.top : self.top + self.height, self.left : self.left + self.width]


def telling_images(scores: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Return best, median and worst image by the mean over variants of the image's mIoU, and the most disputed one.

    `scores` holds a row (N,) of per-image mIoU for each variant, NaN where an image has none. Disputed is the image
    with the largest range of the variants' scores, where there are several.
    """
    table = np.array(list(scores.values()), dtype=float, ndmin=2)
    images = np.flatnonzero(np.isfinite(table).all(axis=0))
    if not len(images):
        return {}
    order = images[np.argsort(table[:, images].mean(axis=0), kind="stable")]
    chosen = {"best": order[-1], "median": order[(len(order) - 1) // 2], "worst": order[0]}
    if len(table) > 1:
        chosen["disputed"] = images[np.argmax(np.ptp(table[:, images], axis=0))]
    return {word: int(index) for word, index in chosen.items()}


class Gallery:
    """The test split of a results folder as images, and the predictions of its trials; each is read once."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self.index: dict[str, Any] = read_json(results.test / "index.json") or {}
        self.classes: list[str] = [str(name) for name in self.index.get("classes", [])]
        self.ignore_index = int(self.index.get("ignore_index", 255))
        self._images: dict[int, np.ndarray] = {}
        self._labels: dict[int, np.ndarray] = {}

    @property
    def there(self) -> bool:
        """Return whether the folder holds a test split at all."""
        return bool(self.index) and (self.results.test / "targets.zip").is_file()

    @cached_property
    def count(self) -> int:
        """Return the number of test images."""
        names = self.index.get("names")
        if names:
            return len(names)
        with zipfile.ZipFile(self.results.test / "targets.zip") as archive:
            return len(archive.namelist())

    @cached_property
    def palette(self) -> np.ndarray:
        """Return the colour of every label, uint8 (256, 3): a grey for classes without one, ignored palest grey."""
        return palette_of(self.index)

    @property
    def class_colours(self) -> np.ndarray:
        """Return the colour of every class, uint8 (classes, 3)."""
        places = np.arange(len(self.classes))
        return self.palette[1 << places if self.index.get("multilabel") else places]

    def name(self, index: int) -> str:
        """Return the image's own name, or its number."""
        names = self.index.get("names") or []
        return str(names[index]) if index < len(names) else str(index)

    def image(self, index: int) -> np.ndarray:
        """Return the test image, uint8 (H, W, 3), as large as its target."""
        if index not in self._images:
            image = unpack_image(self.results.test / "images.zip", index)
            height, width = self.target(index).shape
            if image.shape[:2] != (height, width):
                image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
            self._images[index] = image
        return self._images[index]

    def target(self, index: int) -> np.ndarray:
        """Return the target, uint8 (H, W)."""
        if index not in self._labels:
            # The images that are shown most often at once: opening the file takes longer than reading it.
            wanted = sorted({index, *panel_indices(self.count)})
            self._labels.update(zip(wanted, self._targets(wanted), strict=True))
        return self._labels[index]

    def _targets(self, indices: Sequence[int]) -> np.ndarray:
        return unpack_some(self.results.test / "targets.zip", indices)

    def predictions(self, trial: str, indices: Sequence[int]) -> np.ndarray | None:
        """Return the trial's predictions of those test images, uint8 (n, H, W); None where it stored none."""
        path = self.results.trial(trial).predictions
        if not path.is_file():
            return None
        try:
            return unpack_some(path, indices)
        except ResultsError:
            # The record is the truth about a trial; a damaged file of predictions costs its panel only.
            return None

    def crops(self) -> list[Crop]:
        """Return windows a third of the image high and wide with most pixels of thin structures, one an image at most.

        Thin is what an opening with a disc of 6 px (at a diagonal of 600 px) removes from a class mask, as the
        measure has it. `CANDIDATES` images, evenly spaced, are looked at.
        """
        looked = panel_indices(self.count, CANDIDATES)
        targets = self._targets(looked)
        if not targets.size:
            return []
        if self.index.get("multilabel"):
            return []  # an opening is of one class at a time
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
        return sorted((crop for _, crop in best[:CROPS]), key=lambda crop: crop.index)


def _box_sums(mask: np.ndarray, window: tuple[int, int]) -> np.ndarray:
    """Return the sum of `mask` in every window, at each place of its upper left corner."""
    total = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int64)
    total[1:, 1:] = mask.cumsum(0).cumsum(1)
    high, wide = window
    return total[high:, wide:] - total[:-high, wide:] - total[high:, :-wide] + total[:-high, :-wide]


@once_an_analysis
def gallery(analysis: Analysis) -> Gallery:
    """Return the images of the study; raise `NotDrawn` where there are none."""
    shown = Gallery(Results(analysis.frames.path))
    if not shown.there:
        raise NotDrawn("the results folder holds no test images")
    return shown


def predictions(analysis: Analysis, shown: Gallery, indices: Sequence[int]) -> dict[str, np.ndarray]:
    """Return the predictions (n, H, W) of test images for each variant; raise `NotDrawn` where none stored any."""
    found = {}
    for variant, trial in shown_trials(analysis).items():
        labels = shown.predictions(trial, indices)
        if labels is not None:
            found[variant] = labels
    if not found:
        raise NotDrawn("no shown trial has stored its predictions")
    return found


@once_an_analysis
def image_scores(analysis: Analysis) -> dict[str, np.ndarray]:
    """Return the mIoU of every test image (N,) by the shown trial of each variant."""
    frames = analysis.frames
    key_of = dict(zip(frames.trials["name"], frames.trials["key"], strict=True))
    scores = {}
    for variant, trial in shown_trials(analysis).items():
        # A trial whose counts are damaged has no scores to choose images by.
        with contextlib.suppress(ResultsError):
            scores[variant] = per_image_mean_iou(frames.counts(key_of[trial])["test"])
    return scores


def read_maps(path: Path) -> dict[str, np.ndarray]:
    """Read a trial's `gates.npz`: gate -> attention in [0, 1], float32 (n, h, w), of the fixed test images in order.

    Empty where the trial has no gates or stored none; a damaged file counts as none, for it holds no result.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            maps = {name: np.asarray(archive[name], dtype=np.float32) for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError):
        return {}
    return {name: values for name, values in maps.items() if values.ndim == 3 and name != "indices"}


# --- the images of the page: small files as data URIs within a budget ------------------------------------------------


def panels(analysis: Analysis) -> list[SimpleNamespace]:
    """Return the fixed test images for every variant, each with its tiles; raise `NotDrawn` where there are none.

    Of a tile image, truth, prediction and error are data URIs of the same width and height.
    """
    shown = gallery(analysis)
    chosen = panel_indices(shown.count)
    found = predictions(analysis, shown, chosen)
    height, width = shown.target(chosen[0]).shape
    count = len(chosen) * (1 + 3 * len(found))
    scale = min(1.0, WIDEST / max(height, width), (BUDGET / (count * height * width)) ** 0.5)
    most = max(32, int(max(height, width) * scale))
    scores, trials = image_scores(analysis), shown_trials(analysis)
    images = [photo_uri(reduce(shown.image(index), most, labels=False)) for index in chosen]
    targets = [shown.target(index) for index in chosen]
    truths = [labels_uri(reduce(target, most, labels=True), shown.palette) for target in targets]
    made = []
    for variant, labels in found.items():
        tiles = []
        for index, image, target, truth, prediction in zip(chosen, images, targets, truths, labels, strict=True):
            wrong = wrong_pixels(target, prediction, shown.ignore_index).astype(np.uint8)
            score = scores[variant][index] if variant in scores else np.nan
            known = f", mIoU {100 * score:.0f} %" if np.isfinite(score) else ""
            tiles.append(
                SimpleNamespace(
                    name=f"test image {index}",
                    caption=f"{index} · {shown.name(index)}{known}",
                    image=image,
                    truth=truth,
                    prediction=labels_uri(reduce(prediction, most, labels=True), shown.palette),
                    error=mask_uri(reduced := reduce(wrong, most, labels=True)),
                    width=reduced.shape[1],
                    height=reduced.shape[0],
                )
            )
        at = setting_label(analysis, analysis.own_best[variant])
        rule = f"Trial {trials[variant]}, at {at}. {RUN_SHOWN} The same evenly spaced test images for every variant."
        if analysis.frames.multilabel:
            rule += " A pixel of several classes has the mean of their colours, one of none is nearly black."
        made.append(SimpleNamespace(variant=variant, rule=rule, tiles=tiles))
    return made
