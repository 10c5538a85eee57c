"""A trial that is stopped and resumed is one run of W&B, TensorBoard and MLflow, read back by these themselves."""

from __future__ import annotations

import importlib.util
import json
import re
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from ablate.errors import StudyError
from ablate.plugins import load_plugins
from ablate.records.store import Results
from ablate.run.plan.view import check_document
from ablate.run.tracker import MLflowTracker, refuse_missing
from tests.conftest import missing
from tests.run.conftest import PLUGIN, STUDY, Command, wait_for
from tests.run.test_faults import training
from tests.run.test_optuna_mirror import study_in
from tests.run.test_wandb import inspect

EPOCHS = 40
TRACKED = (
    STUDY.replace("{narrow: {}, wide: {width: 8}}", "{only: {}}")
    .replace("[1e-2, 1e-3]", "[1e-2]")
    .replace("epochs: 3", f"epochs: {EPOCHS}")
    .replace("{wandb: disabled}", "{wandb: offline, tensorboard: true, mlflow: tracked}")
)


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """A study of one trial that was stopped in the middle and run on."""
    for name in ("tensorboard", "mlflow"):
        if importlib.util.find_spec(name) is None:
            missing(f"{name} is not installed")
    command = Command(tmp_path_factory.mktemp("tracked"))
    command.study(TRACKED)
    process = command.start()
    wait_for(lambda: training(command))
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 143, output
    done = command.run()
    assert done.returncode == 0, done.stdout + done.stderr
    (provenance,) = command.provenance().values()
    assert any("resumed at step" in note for note in provenance["notes"])
    return command


def test_wandb_goes_on_in_the_same_run(resumed: Command) -> None:
    first, second = sorted(resumed.results.glob("wandb/offline-run-*"))
    parts = [[json.loads(line) for line in inspect(path).splitlines()] for path in (first, second)]
    runs = [next(line["run"] for line in part if line["type"] == "run") for part in parts]
    key = next(iter(resumed.records().values()))["key"]
    assert runs[0]["run_id"] == runs[1]["run_id"] and runs[0]["run_id"].startswith(key[:16])
    assert all(run["resume"] for run in runs)
    steps = [[line["history"]["step"]["num"] for line in part if line["type"] == "history"] for part in parts]
    assert set(steps[0] + steps[1]) == set(range(1, EPOCHS + 1)) and steps[1][0] == steps[0][-1] + 1
    states = [json.loads(inspect(path, "--summary"))["summary"]["status"] for path in (first, second)]
    assert states == ["interrupted", "complete"]


def test_tensorboard_goes_on_in_the_same_folder(resumed: Command) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = (resumed.results / "tensorboard").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    assert [event.step for event in events.Scalars("val/mean_iou")] == list(range(1, EPOCHS + 1))
    assert {"train/loss", "val/loss", "lr", "test/mean_iou"} <= set(events.Tags()["scalars"])
    assert events.Tags()["images"] == ["panel"]


def test_mlflow_goes_on_in_the_same_run(resumed: Command) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{resumed.folder / 'tracked' / 'mlflow.db'}")
    experiment: Any = client.get_experiment_by_name("tiny")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.data.tags["status"] == "complete"
    assert run.data.params["variant"] == "only" and run.data.params["model.name"] == "two_convolutions"
    steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "val/mean_iou")]
    assert steps == list(range(1, EPOCHS + 1))
    (record,) = resumed.records().values()
    assert run.data.metrics["test/mean_iou"] == pytest.approx(record["metrics"]["test_mean_iou"])
    assert [item.path for item in client.list_artifacts(run.info.run_id)] == ["panel.png"]


def test_a_server_that_does_not_answer_is_said_by_check_as_by_a_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    registered: None,  # noqa: ARG001 (asked for what it forgets)
) -> None:
    if importlib.util.find_spec("mlflow") is None:
        missing("mlflow is not installed")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    load_plugins([PLUGIN], entry_points=False)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and nobody listens
        asked = f"mlflow: 'http://127.0.0.1:{closed.getsockname()[1]}'"
        study = study_in(tmp_path, TRACKED.replace("offline, tensorboard: true, mlflow: tracked", f"disabled, {asked}"))
        said = check_document(study, tmp_path / "results")["MLflow"]
        assert MLflowTracker(study, Results(tmp_path / "results")).close() == [f"MLflow: {said}"]
    assert re.match(r"http://127\.0\.0\.1:\d+ does not answer: start it", said)
    study = study_in(tmp_path, TRACKED)
    assert check_document(study, tmp_path / "results")["MLflow"] == f"a database in {study.base / 'tracked'}"
    assert not (study.base / "tracked").exists()  # a check makes nothing


def test_a_tracker_that_is_not_installed_is_said_with_its_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    study = study_in(tmp_path, TRACKED)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(StudyError, match=r"\.yaml:10: track\.tensorboard: tensorboard is not installed; pip install"):
        refuse_missing(study)
