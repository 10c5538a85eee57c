"""The measures of plugins tried on trials that nobody has trained, so that one that raises is found before they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ablate.analysis.load import CURVES, Arrays, measure_of
from ablate.data.dataset import SPLITS, Dataset, Split
from ablate.errors import PluginError, Problem, ResultsError
from ablate.records.record import Record
from ablate.records.store import TrialFolder
from ablate.registry import MEASURES
from ablate.study.study import Study
from ablate.study.trial import Trial
from ablate.train.evaluate import image_counts

# Images that are counted; those of a larger split repeat them.
COUNTED = 8
NO_NUMBER = "where there is no number, raise ValueError with the reason"


def measures_that_raise(study: Study, dataset: Dataset) -> list[Problem]:
    """Return of each measure of a plugin that raises one problem, at its line.

    Each judges a trial of the study that is complete, and one that diverged in its last epoch: with the study's number
    of epochs, steps, images and classes, and other images' masks as predictions. What only a trained network leaves,
    such as the values of the probes, is missing there, as it may be in any trial.
    """
    found = []
    for measure in MEASURES.values():
        if measure.function.__module__.startswith("ablate."):
            continue
        try:
            for arrays in _made_up((study.trials() or study.representatives())[0], dataset):
                said, cure = (" (of a trial that diverged)", NO_NUMBER) if arrays.diverged else ("", "")
                measure_of(measure, arrays)
        except PluginError as error:
            found += [replace(problem, message=problem.message + said, cure=cure) for problem in error.problems]
    return found


class _Unknown(Mapping[str, Any]):
    """The values of probes of a network that was not trained: to ask for one is to find it missing."""

    def __getitem__(self, name: str) -> Any:
        raise ResultsError(f"there is no probe {name} before a network was trained")

    def __iter__(self) -> Iterator[str]:
        raise ResultsError("there are no probes before a network was trained")

    def __len__(self) -> int:
        return len(list(self))


def _made_up(trial: Trial, dataset: Dataset) -> Iterator[Arrays]:
    """Give the files of `trial` as if it were complete, and as if it had diverged."""
    train, draw = len(dataset.splits["train"]), np.random.default_rng(0)
    in_epoch = train // min(trial.train["batch_size"] * trial.train.get("accumulate", 1), train)
    epochs = trial.train["epochs"]
    falling = np.linspace(2, 0.5, epochs * in_epoch)
    steps = (falling[:, None] * draw.uniform(0.9, 1.1, (len(falling), 2))).astype(np.float32)
    curves = np.linspace(1, 0.4, epochs)[:, None] * draw.uniform(0.9, 1.1, (epochs, 1 + len(CURVES)))
    curves[:, 0] = np.arange(1, epochs + 1)
    counts = {name: _counts(dataset, dataset.splits[name]) for name in SPLITS if name != "train"}
    for status in ("complete", "diverged"):
        arrays = Arrays(
            TrialFolder(Path("not trained")), Record.of(trial, status, metrics={"steps_per_epoch": in_epoch})
        )
        arrays.steps, arrays.curves, arrays.layers = steps, curves, _Unknown()
        arrays.images = counts | {"test_loss": draw.uniform(0.4, 1, len(counts["test"]))}
        yield arrays
        steps, curves = np.append(steps[:-1], [[np.nan, np.nan]], axis=0), curves[:-1]


def _counts(dataset: Dataset, split: Split) -> np.ndarray:
    """Return tp, fp, fn of the images of a split, int64 (N, C, 3), each judged by the mask of the one before it."""
    masks = np.array(split.masks[:COUNTED])
    guess = np.roll(masks, 1, axis=0)
    if not dataset.multilabel:
        guess = np.minimum(guess, dataset.num_classes - 1)  # where a mask ignores, a prediction has a class
    maps = torch.from_numpy(guess), torch.from_numpy(masks)
    counts = image_counts(*maps, dataset.num_classes, multilabel=dataset.multilabel).numpy()
    return np.resize(counts, (len(split), *counts.shape[1:]))
