"""Trackers: a queue that training never waits for, and the names under which the values of a trial are logged."""

from __future__ import annotations

import importlib.util
import queue
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ablate.errors import Problem, StudyError
from ablate.records.paint import write_panel
from ablate.records.record import Record
from ablate.records.store import Results
from ablate.run.events import Begun, Ended, Epoch, Event, one_line
from ablate.run.status import TrialFolders
from ablate.study.study import Study
from ablate.study.trial import Trial

# What a study asks for under `track`, and the package without which it cannot have it.
EXTRAS = ("tensorboard", "mlflow")
CURVES = ("train/loss", "val/loss", "val/mean_iou", "lr")


def refuse_missing(study: Study) -> None:
    """Raise `StudyError` where a study wants a tracker whose package is not installed."""
    for name in EXTRAS:
        if getattr(study.spec.track, name) and importlib.util.find_spec(name) is None:
            problem = Problem(
                f"{name} is not installed", key=f"track.{name}", cure=f"pip install 'ablate-bench[{name}]'"
            )
            with study.located():
                raise StudyError(problem)


def trackers(study: Study, results: Results) -> list[Tracker]:
    """Return the trackers of a run: W&B unless it is disabled, and what else the study asks for."""
    from ablate.run.wandb import WandbTracker

    found: list[Tracker] = [WandbTracker(study, results)]
    if study.spec.track.tensorboard:
        from ablate.run.tensorboard import TensorBoardTracker

        found.append(TensorBoardTracker(study, results))
    if study.spec.track.mlflow:
        from ablate.run.mlflow import MLflowTracker

        found.append(MLflowTracker(study, results))
    return found


class Tracker:
    """Logs trials from a queue in a thread of its own; what goes wrong there is one note at the end of the run.

    A trial is one run of the tracker for its whole life: where it is interrupted and resumed, `begin` finds it again.
    """

    title = ""
    # How long the end of a run waits for what is still queued.
    close_seconds = 60.0

    def __init__(self, study: Study, results: Results) -> None:
        self.spec, self.results, self._folders = study.spec, results, TrialFolders(results)
        self.notes: list[str] = []
        self._runs: dict[str, Any] = {}
        self._queue: queue.Queue[Event | None] = queue.Queue()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to serve the queue."""
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def on(self, event: Event) -> None:
        """Queue an event of the run."""
        if self._thread is not None:
            self._queue.put(event)

    def close(self) -> list[str]:
        """Finish what is queued (for a bounded time) and say what there is to say."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(self.close_seconds)
            if self._thread.is_alive():
                self.notes.append(f"{self.title} did not finish in time; the records are complete without it")
        return self.notes

    # -- what a tracker does, in its thread ---------------------------------------------------------------

    def prepare(self) -> None:
        """Do what has to be done once, before the first trial."""

    def begin(self, trial: Trial) -> Any:
        """Return the tracker's run of a trial: the one that it had, where it goes on."""
        raise NotImplementedError

    def log(self, run: Any, epoch: int, values: dict[str, float]) -> None:
        """Log the values of an epoch."""
        raise NotImplementedError

    def end(self, run: Any, trial: Trial, record: Record) -> None:
        """Log the outcome of a trial, and end its run."""
        raise NotImplementedError

    def interrupt(self, run: Any) -> None:
        """Leave a run whose trial has no record yet."""
        raise NotImplementedError

    def failed(self, error: Exception) -> str:
        """Return the note on an error, which ends nothing."""
        return f"{self.title}: {one_line(error)[:200]}"

    # -- what they log ------------------------------------------------------------------------------------

    def run_id(self, trial: Trial) -> str:
        """Return the name of a trial among all runs of a project: that of its key in this results folder."""
        return f"{trial.key[:16]}-{self.results.read_run().get('id', '')[:16]}".rstrip("-")

    @contextmanager
    def panel(self, trial: Trial, record: Record) -> Iterator[Path | None]:
        """Give a picture of a complete trial's predictions for a while; None where there is none."""
        with tempfile.TemporaryDirectory() as scratch:
            name = self._folders.of(trial.key, trial.name).name
            yield write_panel(self.results, name, Path(scratch) / "panel.png") if record.status == "complete" else None

    def _serve(self) -> None:
        if not self._attempt(self.prepare):
            return
        while (event := self._queue.get()) is not None:
            self._attempt(self._take, event)
        for run in self._runs.values():
            self._attempt(self.interrupt, run)

    def _attempt(self, act: Any, *arguments: Any) -> bool:
        try:
            act(*arguments)
            return True
        except Exception as error:  # whatever a tracker raises, training goes on
            text = self.failed(error)
            if text not in self.notes:
                self.notes.append(text)
            return False

    def _take(self, event: Event) -> None:
        if isinstance(event, Begun) and event.trial.name not in self._runs:  # a second try goes on in the same run
            self._runs[event.trial.name] = self.begin(event.trial)
        elif isinstance(event, Epoch) and event.trial in self._runs:
            self.log(self._runs[event.trial], event.epoch, curves(event))
        elif isinstance(event, Ended) and event.trial.name in self._runs:
            self.end(self._runs.pop(event.trial.name), event.trial, event.record)


def settings(trial: Trial) -> dict[str, Any]:
    """Return what a trial was made of: its settings, then all of model, data and training."""
    given = {"lr": trial.train["lr"], "variant": trial.variant, "seed": trial.seed, **trial.settings}
    return given | {"model": trial.model, "data": trial.data, "train": trial.train, "key": trial.key}


def curves(event: Epoch) -> dict[str, float]:
    """Return the finite values of an epoch by their names in a tracker."""
    row = {name: getattr(event, name.replace("/", "_")) for name in CURVES}
    return {name: value for name, value in row.items() if value is not None}


def outcome(record: Record) -> dict[str, float]:
    """Return a record's finite metrics by their names in a tracker: `test_mean_iou` as `test/mean_iou`."""
    found = {}
    for name, value in record.metrics.items():
        split, _, rest = name.partition("_")
        if value is not None:
            found[f"{split}/{rest}" if split in ("val", "test") else name] = value
    return found


def beside_curves(record: Record) -> dict[str, float]:
    """Return `outcome` for a tracker that knows one series a name: what the best epoch had is apart from the curves."""
    return {f"best/{name}" if name in CURVES else name: value for name, value in outcome(record).items()}
