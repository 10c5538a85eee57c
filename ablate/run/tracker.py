"""Trackers: a queue that training never waits for; TensorBoard's and MLflow's end of it (W&B's is in `wandb`)."""

from __future__ import annotations

import importlib.util
import logging
import os
import queue
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ablate.errors import FULL_DISK, StudyError, install_cure
from ablate.records.files import lock
from ablate.records.paint import write_panel
from ablate.records.record import Record
from ablate.records.store import Results
from ablate.run.events import Begun, Ended, Epoch, Event, one_line
from ablate.run.status import TrialFolders
from ablate.study.study import Study
from ablate.study.trial import Trial, without_folder

# What a study asks for under `track`, and the extra without which it cannot have it.
EXTRAS = ("tensorboard", "mlflow")
CURVES = ("train/loss", "val/loss", "val/mean_iou", "lr")
TAG = "ablate.trial"
LONGEST = 500  # characters of a parameter that every version of MLflow takes
# Nothing is sent to MLflow but what the study asks for, no address is printed for every trial, and a server that is
# away is given up in seconds, not minutes.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}


def refuse_missing(study: Study) -> None:
    """Raise `StudyError` where a study wants a tracker whose package is not installed."""
    for name in EXTRAS:
        if getattr(study.spec.track, name) and importlib.util.find_spec(name) is None:
            with study.located():
                raise StudyError(f"{name} is not installed", key=f"track.{name}", cure=install_cure(name))


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
        return f"{self.title}: {short(error)}"

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


def short(error: Exception) -> str:
    """Return an error of a tracker in as many words as stand on a line; a full disk without the file of the moment."""
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        return FULL_DISK[error.errno][0]
    said = " ".join(str(error).split()) if isinstance(error, ConnectionError) else ""
    return (said or one_line(error))[:200]


def settings(trial: Trial) -> dict[str, Any]:
    """Return what a trial was made of: its settings, then all of model, data and training."""
    given = {"lr": trial.train["lr"], "variant": trial.variant, "seed": trial.seed, **trial.settings}
    return given | {"model": without_folder(trial.model), "data": trial.data, "train": trial.train, "key": trial.key}


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


class TensorBoardTracker(Tracker):
    """Writes trials below `tensorboard/` in the results folder."""

    title = "TensorBoard"

    def __init__(self, study: Study, results: Results) -> None:
        super().__init__(study, results)
        self.folder = results.path / "tensorboard"
        self.start()

    def close(self) -> list[str]:
        """Finish, and say how the files are looked at."""
        return [*super().close(), f"`tensorboard --logdir {self.folder}` shows the trials' curves"]

    def begin(self, trial: Trial) -> dict[str, Any]:
        """Return where the trial's events go; the writer follows with the first epoch."""
        return {"folder": self.folder / trial.name}

    def log(self, run: dict[str, Any], epoch: int, values: dict[str, float]) -> None:
        """Log an epoch."""
        writer = run["writer"] if "writer" in run else run.setdefault("writer", _writer(run["folder"], epoch))
        for name, value in values.items():
            writer.add_scalar(name, value, epoch)
        run["epoch"] = epoch

    def end(self, run: dict[str, Any], trial: Trial, record: Record) -> None:
        """Log settings and metrics, as the HParams tab compares them, and the panel of predictions."""
        writer = run.get("writer") or _writer(run["folder"], None)
        given = {name: value for name, value in settings(trial).items() if not isinstance(value, dict)}
        given = {name: value if isinstance(value, bool | int | float) else str(value) for name, value in given.items()}
        epoch = run.get("epoch", 0)
        writer.add_hparams(given | {"status": record.status}, beside_curves(record), run_name=".", global_step=epoch)
        with self.panel(trial, record) as panel:
            if panel is not None:
                with Image.open(panel) as image:
                    writer.add_image("panel", np.asarray(image), epoch, dataformats="HWC")
        writer.close()

    def interrupt(self, run: dict[str, Any]) -> None:
        """Write what is there."""
        if "writer" in run:
            run["writer"].close()


def _writer(folder: Path, epoch: int | None) -> Any:
    """Return a writer of the trial's events that has TensorBoard forget those of `epoch` and later."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=epoch)


def mlflow_place(study: Study) -> tuple[str, Path | None]:
    """Return MLflow's address for a study, and the folder of its database where that is no server."""
    uri = str(study.spec.track.mlflow)
    if "://" in uri or uri == "databricks":
        return uri, None
    folder = (study.base / uri).resolve()
    return f"sqlite:///{folder / 'mlflow.db'}", folder


def mlflow_client(uri: str) -> Any:
    """Return MLflow's client for an address; it makes the database of one that has none."""
    os.environ.update(ENVIRONMENT | os.environ)
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri)


def mlflow_experiment(client: Any, uri: str, name: str) -> Any:
    """Return an experiment of MLflow, or None where there is none; raises `ConnectionError` without an answer."""
    from mlflow import MlflowException

    try:
        return client.get_experiment_by_name(name)
    except MlflowException as error:
        if "Max retries exceeded" not in str(error):
            raise
        raise ConnectionError(f"{uri} does not answer: start it, or run without; the records do not need it") from None


def mlflow_state(study: Study) -> str:
    """Return where MLflow is to have a study's trials, or why it does not answer, as a run would say it."""
    uri, folder = mlflow_place(study)
    if folder is not None:
        return f"a database in {folder}"
    try:
        mlflow_experiment(mlflow_client(uri), uri, study.spec.track.project or study.name)
    except Exception as error:
        return short(error)
    return f"{uri} answers"


class MLflowTracker(Tracker):
    """Logs trials to a server, or to a database in a folder (relative to the study file)."""

    title = "MLflow"
    close_seconds = 120.0  # a new database takes half a minute of a busy machine

    def __init__(self, study: Study, results: Results) -> None:
        super().__init__(study, results)
        self._study = study
        self.start()

    def prepare(self) -> None:
        """Open the experiment of the study, and note where it is looked at."""
        from mlflow import entities

        self._entities, name = entities, self.spec.track.project or self.spec.study
        uri, folder = mlflow_place(self._study)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        # A database that several runs make at once is damaged for good.
        with lock(folder / ".lock", timeout=300.0) if folder else nullcontext():
            self._client = mlflow_client(uri)
            there = mlflow_experiment(self._client, uri, name)
            artifacts = (folder / "artifacts").as_uri() if folder else None
            self._experiment = there.experiment_id if there else self._client.create_experiment(name, artifacts)
        page = f"{uri.rstrip('/')}/#/experiments/{self._experiment}"
        command = f"`mlflow ui --backend-store-uri {uri}`"
        self.notes.append(f"MLflow has the trials: {page if uri.startswith('http') else command}")

    def begin(self, trial: Trial) -> dict[str, Any]:
        """Return the trial's run, with the last epoch that it has."""
        own = self.run_id(trial)
        found = self._client.search_runs([self._experiment], filter_string=f"tags.`{TAG}` = '{own}'", max_results=1)
        if found:
            run = found[0].info.run_id
            self._client.update_run(run, status="RUNNING")
            rates = self._client.get_metric_history(run, "lr")
            return {"id": run, "epoch": max((rate.step for rate in rates), default=0)}
        tags = {TAG: own, "study": self.spec.study, "variant": trial.variant}
        run = self._client.create_run(self._experiment, tags=tags, run_name=trial.name).info.run_id
        given: dict[str, Any] = {}
        for name, value in settings(trial).items():
            below = value.items() if isinstance(value, dict) else ()
            given |= {f"{name}.{key}": item for key, item in below} if below else {name: value}
        params = [self._entities.Param(name, str(value)[:LONGEST]) for name, value in given.items()]
        self._client.log_batch(run, params=params)
        return {"id": run, "epoch": 0}

    def log(self, run: dict[str, Any], epoch: int, values: dict[str, float], **tags: str) -> None:
        """Log an epoch that the run does not have yet, or with `tags` an outcome."""
        if epoch > run["epoch"] or tags:
            run["epoch"], now = epoch, round(1000 * time.time())
            metrics = [self._entities.Metric(name, value, now, epoch) for name, value in values.items()]
            self._client.log_batch(run["id"], metrics, tags=[self._entities.RunTag(*tag) for tag in tags.items()])

    def end(self, run: dict[str, Any], trial: Trial, record: Record) -> None:
        """Log the outcome and the panel of predictions."""
        outcome = {"status": record.status, "reason": record.reason or ""}  # no reason of an earlier try stays
        self.log(run, run["epoch"], beside_curves(record), **outcome)
        with self.panel(trial, record) as panel:
            if panel is not None:
                self._client.log_artifact(run["id"], str(panel))
        self._client.set_terminated(run["id"], "FAILED" if record.status == "failed" else "FINISHED")

    def interrupt(self, run: dict[str, Any]) -> None:
        """Say that the trial has not ended."""
        self.log(run, run["epoch"], {}, status="interrupted")
        self._client.set_terminated(run["id"], "KILLED")
