"""Several `ablate run --join` on one folder: the records of one run, none doubled, whoever is killed or stopped."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from ablate.errors import ResultsError
from ablate.records.files import lock
from ablate.records.store import Results
from ablate.run import join
from ablate.run.command import _held
from ablate.run.status import SHARED, stop_run
from tests.run.conftest import STUDY, Command, wait_for

# Three processes start at a time, which takes long where others work, too.
pytestmark = pytest.mark.timeout(900)
LONG = STUDY.replace("epochs: 3", "epochs: 80")
# Seeds at the best rate again, and fresh ones: both are planned by every run from the records alone.
PHASES = STUDY.replace("seeds: 1", "screen: {seeds: 1, again: 2}\nconfirm: {seeds: 2}").replace(
    "epochs: 3", "epochs: 6"
)


def begun(command: Command) -> int:
    """How many trials have an epoch and no record."""
    folders = [path.parent for path in command.results.glob("trials/*/epochs.jsonl") if path.stat().st_size]
    return sum(not (folder / "record.json").exists() for folder in folders)


def ended(runs: list[subprocess.Popen[str]]) -> list[str]:
    """What the runs printed, all having ended well."""
    said = [run.communicate(timeout=400)[0] for run in runs]
    assert [run.returncode for run in runs] == [0] * len(runs), "\n".join(said)
    return said


def pids(command: Command) -> list[int]:
    return [item["pid"] for item in command.provenance().values()]


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Command]:
    """A study, run once by one run."""
    known: dict[str, Command] = {}

    def made(study: str) -> Command:
        if study not in known:
            known[study] = Command(tmp_path_factory.mktemp("alone"))
            known[study].study(study)
            done = known[study].run()
            assert done.returncode == 0, done.stdout + done.stderr
        return known[study]

    return made


@pytest.mark.fault(23, "three runs share a folder, one is killed: every trial once, the records equal")
def test_three_runs_share_a_folder_and_one_is_killed(command: Command, alone: Callable[[str], Command]) -> None:
    command.study(LONG)
    runs = [command.start("--join") for _ in range(3)]
    wait_for(lambda: begun(command) >= 2, seconds=240)
    holder = next(run for run in runs if f"pid {run.pid} on" in (command.results / ".lock").read_text())
    holder.kill()
    holder.wait()
    said = ended([run for run in runs if run is not holder])
    assert all("joins the run of pid" in text for text in said), said
    assert command.records() == alone(LONG).records()
    assert len(set(pids(command))) >= 2, "both that live have run trials"
    printed = [line.split()[1] for text in said for line in text.splitlines() if line.startswith("[")]
    assert len(printed) == 8, "each run tells of all four trials once, whoever ran them"


def test_later_phases_are_planned_by_every_run_from_the_records(
    command: Command, alone: Callable[[str], Command]
) -> None:
    command.study(PHASES)
    ended([command.start("--join"), command.start("--join")])
    assert command.records() == alone(PHASES).records()
    plans = [json.loads((one.results / "run.json").read_text())["plan"] for one in (command, alone(PHASES))]
    assert {entry["key"] for entry in plans[0]} == {entry["key"] for entry in plans[1]}
    assert len(set(pids(command))) == 2


def test_a_run_that_is_stopped_leaves_its_trials_to_the_others(
    command: Command, alone: Callable[[str], Command]
) -> None:
    """Ctrl-C for one; then `ablate stop` for all, and one alone goes on."""
    command.study(LONG)
    runs = [command.start("--join") for _ in range(3)]
    wait_for(lambda: begun(command) >= 2, seconds=240)
    runs[0].send_signal(signal.SIGINT)
    assert runs[0].wait(120) == 130
    assert stop_run(command.results) == 0
    assert [run.wait(120) for run in runs[1:]] == [143, 143]
    ended([command.start("--join")])
    assert command.records() == alone(LONG).records()


def test_all_are_stopped_by_one_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second one would not wait for the checkpoints."""
    raised: list[int] = []
    monkeypatch.setattr(signal, "raise_signal", raised.append)
    monkeypatch.setattr(join, "LOOK_SECONDS", -1.0)
    share = join.Share(Results(tmp_path))
    (tmp_path / join.STOP_ALL).touch()
    for _ in range(3):
        share.look()
    share.close()
    assert raised == [signal.SIGTERM]


def test_they_are_stopped_between_two_holders_of_the_folder_too(tmp_path: Path) -> None:
    """The one that held it has ended, the next has not taken it yet: its trial's lock says that it is there."""
    trial = tmp_path / "trials" / "one"
    trial.mkdir(parents=True)
    (tmp_path / ".lock").write_text(f"pid 1 on here{SHARED}")
    assert stop_run(tmp_path) == 1 and not (tmp_path / join.STOP_ALL).exists()
    with FileLock(trial / ".claim"):
        assert stop_run(tmp_path) == 0
        with pytest.raises(ResultsError, match="another run holds this folder"), _held(Results(tmp_path)):
            pass
    with _held(Results(tmp_path)):  # once they are gone it is free
        pass
    assert (tmp_path / join.STOP_ALL).exists()


def test_what_cannot_join_is_one_line(command: Command) -> None:
    """Another study than that of the run that holds the folder, and a run that does not share at all."""
    command.study(LONG.replace("epochs: 80", "epochs: 4000"))
    first = command.start("--join")
    try:
        wait_for(lambda: begun(command) == 1, seconds=240)
        for words, said in (
            (["--join"], "train: not as in the run that holds this folder"),
            ([], "another run holds this folder"),
            (["--join", "-o", "run.executor=ray"], "--join is for machines without an engine"),
        ):
            done = command.run("-o", "train.epochs=41", *words)
            assert done.returncode == 2 and said in done.stderr, done.stdout + done.stderr
            assert len(done.stderr.strip().splitlines()) == 1
    finally:
        first.kill()
        first.wait()


def test_a_file_system_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    join.check_locks(tmp_path)  # the one of the tests has them
    monkeypatch.setattr(join, "FileLock", lambda path: path.open("w"))  # a lock that no other process sees
    with pytest.raises(ResultsError, match="a second process took a lock"):
        join.check_locks(tmp_path)
    monkeypatch.setattr(join, "FileLock", FileLock)
    mounts = "1 0 0:1 / / rw - ext4 /dev/a rw\n2 1 0:2 / {} rw,relatime shared:1 - nfs4 host:/a rw,vers=4.2{}\n"
    assert "vers=4.2" in join.mount_options(mounts.format(tmp_path, ""), tmp_path / "results")
    assert join.mount_options(mounts.format(tmp_path, ""), Path("/")) == ["rw", "rw"]
    text = mounts.format(tmp_path, ",local_lock=flock").encode()
    monkeypatch.setattr(join, "read_file", lambda _path: text)
    with pytest.raises(ResultsError, match="local_lock=flock keeps locks on one machine"):
        join.check_locks(tmp_path)


@pytest.mark.parametrize("pid", [0, 1])
def test_no_process_is_stopped_that_does_not_hold_the_lock(pid: int, tmp_path: Path) -> None:
    note = f"pid {pid} on {socket.gethostname()}"
    with lock(tmp_path / ".lock", note), pytest.raises(ResultsError, match=r"the run is on|not held by process 1"):
        stop_run(tmp_path)
