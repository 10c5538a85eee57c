"""The Optuna mirror against real journals: numbers, states, rebuilding, stale trials."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

import tests.tiny_plugin  # noqa: F401  (registers the tiny components)
from ablate.records.record import Record
from ablate.run.ledger import Ledger
from ablate.study.reader import read_study
from ablate.study.study import Study
from ablate.study.trial import Trial
from tests.run.conftest import STUDY


def study_in(folder: Path, text: str = STUDY) -> Study:
    path = folder / "study.yaml"
    path.write_text(text, encoding="utf-8")
    return read_study(path)


def record_of(trial: Trial, status: str = "complete", score: float | None = 0.5) -> Record:
    return Record(
        key=trial.key,
        study=trial.study,
        variant=trial.variant,
        settings=trial.settings,
        seed=trial.seed,
        model=trial.model,
        data=trial.data,
        train=trial.train,
        status=status,
        reason=None if status == "complete" else "why",
        metrics={"val_mean_iou": score, "test_mean_iou": score},
    )


@pytest.fixture
def plan(tmp_path: Path) -> list[Trial]:
    return study_in(tmp_path).trials()


def reopened(folder: Path) -> optuna.Study:
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "optuna.log"))
    return optuna.load_study(study_name="tiny", storage=optuna.storages.JournalStorage(backend))


def test_a_trial_is_asked_reported_and_told(tmp_path: Path, plan: list[Trial]) -> None:
    ledger = Ledger(tmp_path / "optuna.log", "tiny", plan)
    assert [ledger.begin(trial) for trial in plan[:2]] == [0, 1]
    for epoch, value in enumerate([0.1, 0.3], start=1):
        ledger.report(plan[0].name, epoch, value)
    ledger.end(plan[0].name, record_of(plan[0], score=0.3))
    ledger.end(plan[1].name, record_of(plan[1], "diverged", None))
    trials = reopened(tmp_path).trials
    assert trials[0].state == TrialState.COMPLETE and trials[0].value == 0.3
    assert trials[0].intermediate_values == {1: 0.1, 2: 0.3}
    assert trials[0].params == {"variant": "narrow", "lr": 0.01, "seed": 0}
    assert trials[0].user_attrs["settings"]["model"] == plan[0].model
    # A diverged trial is a result that scores nothing: it can never be ranked best.
    assert trials[1].state == TrialState.COMPLETE and trials[1].value == 0.0
    assert trials[1].user_attrs["status"] == "diverged"
    assert reopened(tmp_path).best_trial.number == 0


def test_records_that_optuna_does_not_know_make_it_anew(tmp_path: Path, plan: list[Trial]) -> None:
    records = [record_of(plan[0]), record_of(plan[1], "diverged", None), record_of(plan[2], "failed", None)]
    curves: dict[str, list[dict[str, Any]]] = {plan[0].key: [{"epoch": 1, "val_mean_iou": 0.2}]}
    ledger = Ledger(tmp_path / "optuna.log", "tiny", plan)
    assert ledger.synchronise(records, curves) is True
    assert ledger.synchronise(records, curves) is False
    states = {trial.user_attrs["key"]: trial.state for trial in reopened(tmp_path).trials}
    assert states == {
        plan[0].key: TrialState.COMPLETE,
        plan[1].key: TrialState.COMPLETE,
        plan[2].key: TrialState.FAIL,
    }
    assert reopened(tmp_path).trials[0].intermediate_values == {1: 0.2}


def test_a_level_added_to_the_study_does_not_break_it(tmp_path: Path, plan: list[Trial]) -> None:
    first = Ledger(tmp_path / "optuna.log", "tiny", plan)
    first.synchronise([record_of(plan[0])], {})
    text = STUDY.replace("wide: {width: 8}", "wide: {width: 8}, wider: {width: 16}").replace("1e-2,", "1e-2, 1e-1,")
    more = study_in(tmp_path, text).trials()
    ledger = Ledger(tmp_path / "optuna.log", "tiny", more)
    assert ledger.synchronise([record_of(plan[0])], {}) is True
    for trial in more:
        ledger.begin(trial)
        ledger.end(trial.name, record_of(trial))
    assert len(reopened(tmp_path).trials) == len(more) + 1


def test_a_trial_of_a_killed_driver_does_not_stay_running(tmp_path: Path, plan: list[Trial]) -> None:
    Ledger(tmp_path / "optuna.log", "tiny", plan).begin(plan[0])
    again = Ledger(tmp_path / "optuna.log", "tiny", plan)
    again.synchronise([], {})
    assert [trial.state for trial in reopened(tmp_path).trials] == [TrialState.FAIL]


def test_a_damaged_journal_is_put_aside_and_said(tmp_path: Path, plan: list[Trial]) -> None:
    ledger = Ledger(tmp_path / "optuna.log", "tiny", plan)
    ledger.begin(plan[0])
    journal = tmp_path / "optuna.log"
    journal.write_bytes(b'{"op_code": 0\n' + journal.read_bytes())
    again = Ledger(journal, "tiny", plan)
    assert len(again.notes) == 1 and "rebuilt from the records" in again.notes[0]
    assert (tmp_path / "optuna.log.bad").exists() and again.synchronise([record_of(plan[0])], {}) is True


def test_an_rdb_url_is_a_storage_too(tmp_path: Path, plan: list[Trial]) -> None:
    url = f"sqlite:///{tmp_path}/optuna.db"
    ledger = Ledger(tmp_path / "optuna.log", "tiny", plan, url)
    ledger.begin(plan[0])
    ledger.end(plan[0].name, record_of(plan[0]))
    assert ledger.synchronise([record_of(plan[0])], {}) is False
    assert ledger.synchronise([record_of(plan[0]), record_of(plan[1])], {}) is True
    assert len(optuna.load_study(study_name="tiny", storage=url).trials) == 2
    assert not (tmp_path / "optuna.log").exists()


def test_a_lock_left_by_a_killed_process_stops_nobody(tmp_path: Path, plan: list[Trial]) -> None:
    """Optuna's own locks are files: what a SIGKILLed driver left would keep the next one waiting."""
    Ledger(tmp_path / "optuna.log", "tiny", plan)
    (tmp_path / "optuna.log.lock").symlink_to(tmp_path / "optuna.log")
    script = "import sys; from pathlib import Path; from ablate.run.ledger import _Flock; " + (
        "_Flock(Path(sys.argv[1])).acquire(); print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / ".optuna.lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    holder.kill()
    holder.communicate()
    with ThreadPoolExecutor() as pool:
        done = pool.submit(lambda: Ledger(tmp_path / "optuna.log", "tiny", plan).begin(plan[0]))
        assert done.result(timeout=20) == 0
