"""MLflow: every trial one run of the study's experiment, found again by the trial's key where it goes on."""

from __future__ import annotations

import logging
import os
import time
from contextlib import nullcontext
from typing import Any

from ablate.records.files import lock
from ablate.records.record import Record
from ablate.records.store import Results
from ablate.run.tracker import Tracker, beside_curves, settings
from ablate.study.study import Study
from ablate.study.trial import Trial

TAG = "ablate.trial"
LONGEST = 500  # characters of a parameter that every version of MLflow takes
# Nothing is sent but what the study asks for, no address is printed for every trial, and a server that is away is given
# up in seconds, not minutes.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}


class MLflowTracker(Tracker):
    """Logs trials to a server, or to a database in a folder (relative to the study file)."""

    title = "MLflow"
    close_seconds = 120.0  # a new database takes half a minute of a busy machine

    def __init__(self, study: Study, results: Results) -> None:
        super().__init__(study, results)
        self.uri, self._folder = str(self.spec.track.mlflow), None
        if "://" not in self.uri and self.uri != "databricks":
            self._folder = (study.base / self.uri).resolve()
            self._folder.mkdir(parents=True, exist_ok=True)
            self.uri = f"sqlite:///{self._folder / 'mlflow.db'}"
        self.start()

    def prepare(self) -> None:
        """Open the experiment of the study, and note where it is looked at."""
        os.environ.update(ENVIRONMENT | os.environ)
        from mlflow import MlflowClient, entities

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        self._entities, self._client = entities, MlflowClient(tracking_uri=self.uri)
        name = self.spec.track.project or self.spec.study
        # A database that several runs make at once is damaged for good.
        with lock(self._folder / ".lock", timeout=300.0) if self._folder else nullcontext():
            there = self._client.get_experiment_by_name(name)
            artifacts = (self._folder / "artifacts").as_uri() if self._folder else None
            self._experiment = there.experiment_id if there else self._client.create_experiment(name, artifacts)
        page = f"{self.uri.rstrip('/')}/#/experiments/{self._experiment}"
        command = f"`mlflow ui --backend-store-uri {self.uri}`"
        self.notes.append(f"MLflow has the trials: {page if self.uri.startswith('http') else command}")

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
