"""A power loss at every moment of a trial: what the disk then holds leads to the same record, or is the record."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tests.tiny_plugin  # noqa: F401  (registers the tiny components)
from ablate.records.files import sha256
from ablate.records.store import Results, read_record
from tests.train.test_loop import STUDY, bench, content, make_study, run

Disk = dict[str, bytes]


class Traced:
    """The folder of a trial as a disk would have it: contents as of their last fsync, names as of the folder's.

    A file system may also bring a name to the disk sooner than it was asked to; the content behind it is then what
    was synced of it, often nothing. `states` has both, the earliest and the soonest, after every durable step.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.contents: dict[int, bytes] = {}
        self.names: dict[str, int] = {}
        self.states: list[tuple[str, Disk]] = []
        self._open: list[int] = []  # holds every file, so that no number is given to another one

    def synced(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path == self.folder:
            self.names = self._listed()
        elif path.parent == self.folder:
            self._open.append(os.dup(descriptor))
            self.contents[os.fstat(descriptor).st_ino] = path.read_bytes()
        self.note(f"fsync {path.name}")

    def note(self, step: str) -> None:
        for names in (self.names, self._listed()):
            state = {name: self.contents.get(inode, b"") for name, inode in names.items()}
            if not self.states or state != self.states[-1][1]:
                self.states.append((step, state))

    def _listed(self) -> dict[str, int]:
        found = {}
        for path in self.folder.glob("*"):
            with contextlib.suppress(FileNotFoundError):
                found[path.name] = path.stat().st_ino
        return found

    def close(self) -> None:
        for descriptor in self._open:
            os.close(descriptor)


@pytest.fixture
def traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Traced]:
    folder = Results(tmp_path / "results").trial(make_study(tmp_path).trials()[0].name)
    folder.make()
    trace = Traced(folder.path)

    def follow(name: str) -> None:
        original = getattr(os, name)

        def call(*arguments: Any, **keywords: Any) -> Any:
            found = original(*arguments, **keywords)
            if name == "fsync":
                trace.synced(arguments[0])
            elif Path(arguments[0]).parent == trace.folder:
                trace.note(f"{name} {Path(arguments[-1]).name}")
            return found

        monkeypatch.setattr(os, name, call)

    for name in ("fsync", "replace", "link", "unlink"):
        follow(name)
    yield trace
    monkeypatch.undo()
    trace.close()


@pytest.mark.fault(3, "replayed to every prefix of its syncs, names early or late: the same record, or on to it")
def test_a_power_loss_at_any_moment_leads_to_the_same_record(
    traced: Traced, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(tmp_path, STUDY.replace("epochs: 4", "epochs: 1").replace("lr_headroom: 2", "gradients: 0"))
    trial = study.trials()[0]
    traced.folder = Results(tmp_path / "results").trial(trial.name).path
    context = bench(tmp_path)
    _, whole = run(trial, study, context, tmp_path / "results", checkpoint_every=0.0)
    wanted = content(whole)
    monkeypatch.undo()
    states = list(traced.states)
    assert len(states) > 30 and any("record.json" in state for _, state in states)
    resumed = 0
    for number, (step, state) in enumerate(states):
        left = Results(tmp_path / f"left{number}").trial(trial.name)
        left.make()
        for name, data in state.items():
            (left.path / name).write_bytes(data)
        found = None
        if state.get("record.json"):
            # A record that is there whole rests on what is there whole.
            found = read_record(left.record)
            assert found is not None
            assert {name: sha256(state.get(name, b"")) for name in found.files} == found.files, step
        else:
            (left.record).unlink(missing_ok=True)  # an empty one is put aside before a run
            record, _ = run(trial, study, context, tmp_path / f"left{number}")
            resumed += any("resumed at step" in note for note in record.provenance["notes"])
        assert content(left) == wanted, step
        shutil.rmtree(left.path)
    assert resumed > 10, resumed
