"""Studies that are killed, suspended and started twice end with the records of the undisturbed ones."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from tests.soak.command import Command
from tests.soak.compare import FILES, Comparison, compare
from tests.soak.disturb import Told
from tests.soak.processes import MARK, Process, fork_servers, workers
from tests.soak.soak import A_FEW, Soaked, schedule, soak

pytestmark = pytest.mark.faults

# Built-in networks on generated scenes: batch norm, attention, probes and a profile, none of it a plugin's.
STREET = """\
study: soak
data: {name: street, size: [32, 32], train: 8, val: 4, test: 4}
model: {name: unet, width: 2, depth: 2}
variants: {unet: {}, attention: {skip: attention}}
grid: {lr: [1e-2, 1e-3]}
seeds: 2
train: {epochs: 12, batch_size: 4}
run: {devices: [cpu], workers: 2, threads: 1, checkpoint_every: 0}
measure: {profile: false}
track: {wandb: disabled}
"""
CAMVID = """\
study: soak
data: {{name: camvid, root: "{root}", size: [48, 64]}}
model: {{name: unet, width: 2, depth: 2}}
variants: {{unet: {{}}, noskip: {{skip: none}}}}
grid: {{lr: [1e-2, 1e-3]}}
seeds: 1
train: {{epochs: 4, batch_size: 16}}
run: {{devices: [cpu], workers: 2, threads: 1, checkpoint_every: 0}}
measure: {{profile: false}}
track: {{wandb: disabled}}
"""


@pytest.fixture
def seed(capsys: pytest.CaptureFixture[str]) -> int:
    """Return the seed of all that is drawn: that of the variable SOAK_SEED where there is one."""
    seed = int(os.environ.get("SOAK_SEED", "1"))
    with capsys.disabled():
        print(f"\nSOAK_SEED={seed}", flush=True)
    return seed


@pytest.mark.timeout(1200)
@pytest.mark.fault(30, "signals to single processes and to all of them: nothing lost, doubled or unequal")
def test_three_hundred_trials_under_kills_are_those_of_the_undisturbed_run(tmp_path: Path, seed: int) -> None:
    done = soak(tmp_path, 300, A_FEW, seed)
    (tmp_path / "report.md").write_text(done.text(), encoding="utf-8")
    assert done.told.kills >= 7, done.text()
    assert done.is_clean, done.text()
    assert not done.comparison.litter, done.text()


def pull_the_plug_ten_times(folder: Path, study: str, seed: int) -> None:
    """Kill every process of a study at ten random moments; the next start must complete it, and equal.

    Every second moment lies within the first seconds of a start, the others within the training.
    """
    drawn = random.Random(seed)
    undisturbed = Command(folder / "undisturbed", study, plugins=())
    undisturbed.run()
    command = Command(folder / "plugged", study, plugins=())
    for number in range(10):
        process = command.start()
        if number % 2:
            before = written(command)
            limit = time.monotonic() + 60
            while written(command) == before and process.poll() is None and time.monotonic() < limit:
                time.sleep(0.01)
            time.sleep(drawn.uniform(0, 0.6))
        else:
            time.sleep(drawn.uniform(0, 4))
        command.pull_the_plug()
        process.wait(timeout=10)
        assert not command.processes()
    command.run()
    found = compare(undisturbed.results, command.results)
    assert found.wanted == undisturbed.finished() > 0
    assert found.is_clean and not found.litter, found


def written(command: Command) -> int:
    """Return how many bytes of curves there are."""
    return sum(path.stat().st_size for path in command.results.glob("trials/*/epochs.jsonl"))


@pytest.mark.timeout(1200)
@pytest.mark.fault(4, "all processes killed at ten random moments: completed by the same command, equal")
def test_the_plug_may_be_pulled_at_any_moment(tmp_path: Path, seed: int) -> None:
    pull_the_plug_ten_times(tmp_path, STREET, seed)


@pytest.mark.camvid
@pytest.mark.timeout(1800)
def test_the_plug_may_be_pulled_at_any_moment_of_a_study_of_real_images(
    tmp_path: Path, camvid_root: Path, seed: int
) -> None:
    pull_the_plug_ten_times(tmp_path, CAMVID.format(root=camvid_root), seed)


@pytest.mark.timeout(600)
@pytest.mark.fault(12, "no file may grow any more: the study pauses, and completes afterwards, equal")
@pytest.mark.fault(14, "both started together: one goes on, the other is refused")
def test_a_file_that_may_not_grow_pauses_the_study_and_it_goes_on(tmp_path: Path, seed: int) -> None:
    done = soak(tmp_path, 20, {"full disk": 1, "two runners": 1}, seed)
    assert done.told.disturbances["full disk"] == 1 and done.told.refused == 1, done.text()
    assert done.is_clean, done.text()


def trial_folder(results: Path, name: str, key: str) -> Path:
    """Write a finished trial as small as it can be."""
    folder = results / "trials" / name
    folder.mkdir(parents=True)
    record = {"key": key, "status": "complete", "metrics": {"a": 0.5}, "timing": {"wall_s": len(str(results))}}
    (folder / "record.json").write_text(json.dumps(record), encoding="utf-8")
    for file in FILES:
        (folder / file).write_bytes(b"same")
    return folder


def optuna_trials(results: Path, *keys: str) -> None:
    """Write an Optuna journal with one completed trial for each of `keys`."""
    storage = JournalStorage(JournalFileBackend(str(results / "optuna.log")))
    study = optuna.create_study(storage=storage, study_name="s", load_if_exists=True)
    for key in keys:
        study.add_trial(optuna.trial.create_trial(value=0.5, user_attrs={"key": key}))


def test_what_is_lost_doubled_or_unequal_is_found_and_named(tmp_path: Path) -> None:
    left, right = tmp_path / "left", tmp_path / "disturbed"
    for results in (left, right):
        for name in ("one", "two", "three", "four"):
            trial_folder(results, name, key=f"key-{name}")
    optuna_trials(right, "key-one", "key-two", "key-three", "key-four")
    assert compare(left, right).is_clean and compare(left, right).wanted == 4
    (right / "trials/one/record.json").unlink()
    (right / "trials/two/steps.f32").write_bytes(b"other")
    record = right / "trials/three/record.json"
    record.write_text(record.read_text(encoding="utf-8").replace("0.5", "0.6"), encoding="utf-8")
    trial_folder(right, "renamed", key="key-four")
    optuna_trials(right, "key-two")
    (right / "trials/four/.best.pt.1-ab.part").touch()
    (right / "trials/four/checkpoint.pt").touch()
    found = compare(left, right)
    assert found.lost == ["one"]
    assert found.unequal == ["three: metrics {'a': 0.6}", "two: steps.f32"]
    assert found.doubled == ["record of key-four", "Optuna trial of key-two", "record of no trial: renamed"]
    assert found.litter == ["trials/four/.best.pt.1-ab.part", "four/checkpoint.pt"]


def test_processes_are_told_apart_by_who_started_whom(tmp_path: Path) -> None:
    driver, tracker, server = Process(1, 0, "python"), Process(2, 1, "python resource_tracker"), Process(3, 1, "python")
    git, forked = Process(5, 1, "git status"), [Process(6, 3, "python"), Process(7, 3, "python")]
    assert fork_servers(1, [driver, tracker, server, git, *forked]) == [3]
    assert workers(1, [driver, tracker, server, git, *forked]) == [6, 7]
    # Those of a fork server that has died go on as orphans.
    assert workers(1, [driver, tracker, *(Process(p.pid, 0, p.words) for p in forked)]) == [6, 7]
    # Without a fork server the driver's own child is a worker once it has a file of a trial open.
    own = Process(os.getpid(), 1, "python")
    assert fork_servers(1, [driver, tracker, own]) == [] == workers(1, [driver, tracker, own])
    (tmp_path / "trials").mkdir()
    with (tmp_path / "trials" / ".lock").open("wb"):
        assert workers(1, [driver, tracker, own]) == [os.getpid()]


def test_a_marked_process_is_found_with_what_it_forked(tmp_path: Path) -> None:
    command = Command(tmp_path / "study", STREET, plugins=())
    script = "import os, time; os.environ.clear(); os.fork(); print(flush=True); time.sleep(60)"
    parent = subprocess.Popen([sys.executable, "-c", script], env={MARK: command.mark}, stdout=subprocess.PIPE)
    try:
        assert parent.stdout is not None and parent.stdout.readline()
        assert parent.stdout.readline()
        (forked,) = (process.pid for process in command.processes() if process.parent == parent.pid)
        assert {process.pid for process in command.processes()} == {parent.pid, forked}
    finally:
        assert command.pull_the_plug() >= 2
        parent.wait(timeout=10)
    assert command.processes() == []


def test_a_report_is_plain_data_and_says_what_went_wrong() -> None:
    told = Told(
        7, disturbances=Counter({"kill worker": 2}), exits=Counter({"0": 1}), kills=2, seconds=15.0, complete=True
    )
    done = Soaked(10, told, Comparison(wanted=10), undisturbed=10.0)
    document = json.loads(json.dumps(done.document()))
    assert document["disturbances"] == {"kill worker": 2} and document["exits"] == {"0": 1}
    assert document["time_ratio"] == 1.5 and document["lost"] == [] and done.is_clean
    assert "| **time ratio** | 1.50 |" in done.text() and "- nothing" in done.text()
    lossy = Soaked(10, told, Comparison(wanted=10, lost=["one"]), undisturbed=10.0)
    assert not lossy.is_clean and "| **lost** | 1 |" in lossy.text() and "- one" in lossy.text()
    told.wrong.append("left running: python")
    assert not done.is_clean and "- left running: python" in done.text()


def test_the_schedule_is_that_of_its_seed() -> None:
    assert schedule(A_FEW, 300, 5) == schedule(A_FEW, 300, 5) != schedule(A_FEW, 300, 6)
    assert sorted(what for _, what in schedule({"a": 2, "b": 1}, 100, 1)) == ["a", "a", "b"]
    assert all(1 <= after < 95 for after, _ in schedule({"a": 50}, 100, 1))
