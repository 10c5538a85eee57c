"""The early start of the fork server: where a study has trials left, and before torch is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tests.tiny_plugin  # noqa: F401  (registers the tiny components)
from ablate.records.store import Results, to_json
from ablate.run import command
from ablate.run.manifest import plan_entry
from ablate.study.reader import read_study
from tests.run.conftest import STUDY


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    started: list[bool] = []
    monkeypatch.setattr(command, "start_fork_server", lambda: started.append(True))
    return started


def test_the_fork_server_starts_while_trials_are_left(tmp_path: Path, starts: list[bool]) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY, encoding="utf-8")
    command.start_early(path, (), lambda name: tmp_path / name)
    assert len(starts) == 1, "nothing has run"
    study = read_study(path)
    results = Results(tmp_path / study.name)
    for trial in study.trials():
        results.trial(trial.name).make()
        results.trial(trial.name).record.touch()
    results.run.write_bytes(to_json({"study": study.name, "plan": [plan_entry(trial) for trial in study.trials()]}))
    command.start_early(path, (), lambda name: tmp_path / name)
    assert len(starts) == 1, "all has run"
    results.trial(study.trials()[0].name).record.unlink()
    command.start_early(path, (), lambda name: tmp_path / name)
    assert len(starts) == 2, "one trial is left"


def test_a_file_that_says_no_study_and_a_pipe_start_nothing(tmp_path: Path, starts: list[bool]) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("study: [", encoding="utf-8")
    os.mkfifo(tmp_path / "pipe")
    for place in (path, tmp_path / "nowhere.yaml", tmp_path / "pipe"):
        command.start_early(place, (), lambda name: tmp_path / name)
    assert not starts


def test_it_starts_before_torch_is_imported() -> None:
    code = "import sys, ablate.run.command; print([name for name in ('torch', 'numpy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
