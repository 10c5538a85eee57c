"""Which trial a worker is given, and what is said of one that stands still."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ablate.run.events import Said
from ablate.run.executor import STALL_SECONDS, LocalExecutor, _environment, _own_modules_only
from ablate.run.worker import Assignment
from ablate.study.reader import read_study
from ablate.study.trial import Trial


@pytest.fixture
def trials(tmp_path: Path) -> list[Trial]:
    path = tmp_path / "study.yaml"
    path.write_text(
        "study: s\ndata: {name: street, size: [32, 32]}\nmodel: {name: unet, width: 2, depth: 2}\n"
        "variants: {unet: {}, noskip: {skip: none}}\ngrid: {lr: [1e-3, 1e-4]}\nseeds: 1\n"
    )
    return read_study(path).trials()


@pytest.mark.parametrize(("keeps_steps", "taken"), [(True, [0, 2, 1, 3]), (False, [0, 1, 2, 3])])
def test_a_worker_stays_with_its_variant_only_where_its_step_was_costly(
    trials: list[Trial], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, keeps_steps: bool, taken: list[int]
) -> None:
    monkeypatch.setattr(LocalExecutor, "_send", lambda *_: None)
    assignment = Assignment(tmp_path, tmp_path)
    executor = LocalExecutor(assignment, devices=["cpu"], workers=2, threads=1, keeps_steps=keeps_steps)
    assert [trial.variant for trial in trials] == ["unet", "unet", "noskip", "noskip"]
    pending, begun = list(trials), []
    while pending:
        if not executor.free():
            for slot in executor._slots:  # both trials end
                slot.trial = None
        trial = executor.start(pending)
        assert trial is not None
        pending.remove(trial)
        begun.append(trial)
    assert [trials.index(trial) for trial in begun] == taken


@pytest.mark.fault(37, "said once, with the command that ends it")
def test_a_trial_without_a_step_for_long_is_said_once_with_the_command_that_ends_it(
    trials: list[Trial], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(LocalExecutor, "_send", lambda *_: None)
    executor = LocalExecutor(Assignment(tmp_path, tmp_path), devices=["cpu"], workers=1, threads=1)
    executor.start(trials)
    (slot,) = executor._slots
    slot.pid = 4711
    assert executor.events(timeout=0) == []
    slot.progressed -= STALL_SECONDS + 1
    expected = Said(f"{trials[0].name}: no step for 10 minutes; `kill -9 4711` ends it")
    assert executor.events(timeout=0) == [expected]
    assert executor.events(timeout=0) == []


def test_what_is_changed_for_a_start_is_put_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    path, main, environment = list(sys.path), sys.modules["__main__"], dict(os.environ)
    with _own_modules_only(), _environment({"ONLY": "this"}):
        assert "" not in sys.path and not hasattr(sys.modules["__main__"], "__file__")
        assert dict(os.environ) == {"ONLY": "this"}
    assert (sys.path, sys.modules["__main__"], dict(os.environ)) == (path, main, environment)
