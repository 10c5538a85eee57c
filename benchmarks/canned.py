"""The real driver with trials that are there already: an executor that publishes copies of one real trial."""

from __future__ import annotations

import json
import os
import queue
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ablate.records.record import Record
from ablate.records.store import Results, publish_record, read_record
from ablate.run.driver import Driver
from ablate.run.events import Epoch, Finished, Running, WorkerEvent
from ablate.study.trial import Trial


class CannedExecutor:
    """Runs no trial: publishes a copy of a real one's files and sends the events that a worker would."""

    def __init__(self, results: Path, source: Path) -> None:
        self._results = Results(results)
        self._events: queue.SimpleQueue[WorkerEvent] = queue.SimpleQueue()
        folder = Results(source).trial(next(Results(source).folders()).name)
        record = read_record(folder.record)
        assert record is not None
        self._record = record
        self._files = {path.name: path.read_bytes() for path in (folder.epochs, folder.steps, folder.predictions)}
        self._curve = [json.loads(line) for line in folder.epochs.read_text().splitlines()]
        with np.load(folder.images) as arrays:
            self._images = {name: arrays[name] for name in arrays.files}
        self.published_s = 0.0
        self.trial_began: list[float] = []

    def free(self) -> int:
        """One trial at a time, and its end is known at once."""
        return int(self._events.empty())

    def start(self, pending: Sequence[Trial]) -> Trial:
        """'Run' the first pending trial."""
        trial = pending[0]
        self.trial_began.append(time.perf_counter())
        record = self._canned(trial)
        began = time.perf_counter()
        folder = self._results.trial(trial.name)
        publish_record(folder, record)
        self.published_s += time.perf_counter() - began
        self._events.put(Running(trial.name, os.getpid(), os.getppid()))
        for row in self._curve:
            self._events.put(Epoch.of({"trial": trial.name, **row}))
        self._events.put(Finished(trial.name, record))
        return trial

    def _canned(self, trial: Trial) -> Record:
        """Return the files of a trial (its own scores, another's curves), and the record that stands for it."""
        folder = self._results.trial(trial.name)
        folder.path.mkdir(parents=True)
        for name, data in self._files.items():
            (folder.path / name).write_bytes(data)
        # Scores of its own, so that a report has differences to compare.
        draw = np.random.default_rng(int(trial.key[:8], 16))
        counts = {
            name: array + draw.integers(0, 8, array.shape) if array.ndim == 3 else array
            for name, array in self._images.items()
        }
        np.savez(folder.images, **counts)
        metrics = dict(self._record.metrics)
        for split in ("val", "test"):
            tp, fp, fn = np.moveaxis(counts[split].sum(0), -1, 0)
            metrics[f"{split}_mean_iou"] = float(np.mean(tp / (tp + fp + fn)))
        identity = {
            "key": trial.key, "study": trial.study, "variant": trial.variant, "settings": trial.settings,
            "seed": trial.seed, "role": trial.role, "model": trial.model, "data": trial.data, "train": trial.train,
        }  # fmt: skip
        return self._record.model_copy(update={**identity, "metrics": metrics})

    def events(self, timeout: float) -> list[WorkerEvent]:  # noqa: ARG002 - the interface of an executor
        """Return what has happened."""
        found = []
        while not self._events.empty():
            found.append(self._events.get())
        return found

    def stop(self, reason: str) -> None:
        """Nothing runs."""

    def close(self) -> None:
        """Nothing to end."""


class CannedDriver(Driver):
    """The driver, with trials that are there already."""

    source: Path

    def executor(self) -> Any:
        """Return the executor that runs no trial."""
        self.canned = CannedExecutor(self.results.path, self.source)
        return self.canned
