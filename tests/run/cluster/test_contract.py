"""What every engine of a cluster has to keep: records equal to the local ones, whatever is killed meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

import tests.tiny_plugin  # noqa: F401 (registers the tiny components)
from ablate.errors import StudyError
from ablate.plugins import Plugins
from ablate.run.cluster.jobs import at_site
from ablate.run.command import profile_study
from ablate.study.reader import read_study
from tests.run.cluster.conftest import ray_node, wait_for
from tests.run.conftest import STUDY, Command

pytestmark = pytest.mark.timeout(900)  # the start of a cluster is in the time of the first
LONG = STUDY.replace("epochs: 3", "epochs: 60")


def on(engine: str, study: str, attempts: int = 2) -> str:
    """The study, to be run by an engine."""
    where = {"slurm": "executor: slurm, cluster: {max_parallel: 2}", "ray": "executor: ray, cluster: {address: auto}"}
    return study.replace("run: {", f"run: {{{where[engine]}, attempts: {attempts}, ")


@pytest.fixture(params=["slurm", "ray"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an engine that stands ready."""
    name = str(request.param)
    environment: dict[str, str] = request.getfixturevalue({"slurm": "slurm", "ray": "ray_cluster"}[name])
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    return name


@pytest.fixture(scope="session")
def undisturbed_long(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The longer study, run once on this machine."""
    made = Command(tmp_path_factory.mktemp("long"))
    made.study(LONG)
    done = made.run()
    assert done.returncode == 0, done.stdout + done.stderr
    return made


def running_reports(command: Command) -> list[tuple[Path, int]]:
    """The reports of trials that have begun a further epoch and not ended, with the ids of their processes."""
    found = []
    for path in (command.results / "jobs").glob("*.jsonl"):
        entries = [json.loads(line) for line in path.read_text().splitlines()]
        kinds = [entry["event"] for entry in entries]
        if "Epoch" in kinds and kinds[-1] == "Epoch":
            found.append((path, next(entry["pid"] for entry in reversed(entries) if entry["event"] == "Running")))
    return [(path, pid) for path, pid in found if Path(f"/proc/{pid}").exists()]


def running_jobs(command: Command) -> list[int]:
    """The ids of the processes of `running_reports`."""
    return [pid for _, pid in running_reports(command)]


def queue(*jobs: str) -> str:
    """What Slurm still has in its queue, or what it says of jobs there."""
    words = ["squeue", "-h", *(f"--jobs={job}" for job in jobs)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def started(command: Command, engine: str) -> Iterator[subprocess.Popen[str]]:
    """The longer study, begun by the engine, with a trial in the middle of its training."""
    command.study(on(engine, LONG))
    process = command.start()
    wait_for(lambda: bool(running_jobs(command)) or process.poll() is not None, "a trial has begun")
    yield process
    process.kill()
    process.wait()


def assert_goes_on(command: Command, undisturbed: Command) -> None:
    """Run the same command: it completes the study, with the records of this machine."""
    done = command.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert command.records() == undisturbed.records()


def test_records_are_those_of_this_machine(command: Command, engine: str, undisturbed: Command) -> None:
    """And a second call finds nothing to do."""
    command.study(on(engine, STUDY))
    assert_goes_on(command, undisturbed)
    before = {path: path.stat().st_mtime_ns for path in command.results.glob("trials/*/record.json")}
    assert command.run().returncode == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.fault(23, "a job that is killed runs again and goes on from its checkpoint; the records are equal")
def test_a_killed_worker_costs_nothing(
    command: Command, started: subprocess.Popen[str], undisturbed_long: Command
) -> None:
    """Its trial goes on from its checkpoint, in another process."""
    os.kill(running_jobs(command)[0], signal.SIGKILL)
    out, _ = started.communicate(timeout=400)
    assert started.returncode == 0, out
    assert command.records() == undisturbed_long.records()


@pytest.mark.fault(
    23, "a node of Ray that dies: its trial goes on from its checkpoint on another; the records are equal"
)
@pytest.mark.parametrize("engine", ["ray"], indirect=True)
def test_a_lost_node_costs_nothing(
    command: Command, engine: str, ray_cluster: dict[str, str], undisturbed_long: Command
) -> None:
    with ray_node(ray_cluster) as node:
        command.study(on(engine, LONG))
        process = command.start()
        try:
            wait_for(lambda: len(running_jobs(command)) == 3 or process.poll() is not None, "every node has a trial")
            on_node = [pid for pid in running_jobs(command) if os.getsid(pid) == node.pid]
            os.killpg(node.pid, signal.SIGKILL)
            out, _ = process.communicate(timeout=400)
        finally:
            process.kill()
    assert on_node, "no trial ran on the node that died"
    assert process.returncode == 0, out
    assert command.records() == undisturbed_long.records()


@pytest.mark.fault(
    23, "a driver that is killed takes its Ray tasks along; the same command goes on from their checkpoints"
)
@pytest.mark.parametrize("engine", ["ray"], indirect=True)
def test_a_killed_driver_takes_its_tasks_along(
    command: Command, started: subprocess.Popen[str], undisturbed_long: Command
) -> None:
    started.kill()
    started.wait()
    wait_for(lambda: not running_jobs(command), "no task is left", seconds=60)
    assert_goes_on(command, undisturbed_long)


@pytest.mark.fault(23, "a driver that is killed finds its Slurm jobs again and follows them")
@pytest.mark.parametrize("engine", ["slurm"], indirect=True)
def test_a_killed_driver_finds_its_jobs_again(
    command: Command, started: subprocess.Popen[str], undisturbed_long: Command
) -> None:
    """The same command goes on; the jobs that it had queued are followed and not queued again."""
    started.kill()
    started.wait()
    jobs = json.loads((command.results / "jobs" / "index.json").read_text())["jobs"]
    assert queue(), "the jobs go on without a driver"
    assert_goes_on(command, undisturbed_long)
    logs = {path.name.rpartition("_0_log.out")[0] for path in (command.results / "jobs").glob("slurm-*/*_log.out")}
    assert set(jobs.values()) <= logs
    assert len(logs) <= len(set(jobs.values())) + 1, "one job more: the question how to compute"


@pytest.mark.fault(
    23, "a job that Slurm queues again goes on from its checkpoint, as the same job; the records are equal"
)
@pytest.mark.parametrize("engine", ["slurm"], indirect=True)
def test_a_job_that_is_queued_again_goes_on(
    command: Command, started: subprocess.Popen[str], undisturbed_long: Command
) -> None:
    """As a preempted one is; the driver waits for it and submits nothing."""
    from submitit.core.utils import DelayedSubmission

    jobs = json.loads((command.results / "jobs" / "index.json").read_text())["jobs"]
    report = next(path for path, _ in running_reports(command))
    job = jobs[report.stem]
    submitted = DelayedSubmission.load(next((command.results / "jobs").glob(f"slurm-*/{job}_submitted.pkl")))
    assert hasattr(submitted.function, "checkpoint"), "submitit queues it again when its time is over"
    subprocess.run(["scontrol", "requeue", job], check=True)
    wait_for(lambda: "PD" in queue(job), "it waits again")
    subprocess.run(["scontrol", "update", f"jobid={job}", "StartTime=now"], check=True)  # Slurm's own rest is 2 minutes
    out, _ = started.communicate(timeout=400)
    assert started.returncode == 0, out
    assert command.records() == undisturbed_long.records()
    kinds = [json.loads(line)["event"] for line in report.read_text().splitlines()]
    assert kinds.count("Running") == 2 and kinds.count("Finished") == 1
    logs = {path.name.rpartition("_0_log.out")[0] for path in (command.results / "jobs").glob("slurm-*/*_log.out")}
    assert len(logs) == len(set(jobs.values())) + 1, "one job more: the question how to compute"


@pytest.mark.parametrize("small_disk", [6000], indirect=True)
@pytest.mark.fault(12, "on a cluster: the study pauses with one line; with room again it completes, equal")
def test_a_full_disk_pauses_the_study(small_disk: Path, engine: str, undisturbed_long: Command) -> None:
    command = Command(small_disk)
    command.study(on(engine, LONG))
    filler = small_disk / "filler"
    process = command.start()
    try:
        wait_for(lambda: bool(running_reports(command)) or process.poll() is not None, "a trial has begun")
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as handle:
            while True:
                handle.write(b"0" * 4096)
        out, _ = process.communicate(timeout=400)
    finally:
        process.kill()
    assert process.returncode == 1, out
    assert "the disk is full" in out and "Traceback" not in out, out
    assert len(command.records()) < 4
    filler.unlink()
    assert_goes_on(command, undisturbed_long)


def test_a_stopped_driver_leaves_no_job(
    command: Command, engine: str, started: subprocess.Popen[str], undisturbed_long: Command
) -> None:
    """SIGTERM: checkpoints, exit code 143, an empty queue; the same command goes on."""
    started.terminate()
    out, _ = started.communicate(timeout=120)
    assert started.returncode == 143, out
    if engine == "slurm":
        wait_for(lambda: not queue(), "the queue is empty", seconds=30)
    wait_for(lambda: not running_jobs(command), "no process is left", seconds=30)
    assert_goes_on(command, undisturbed_long)


def test_detached_trials_are_gathered(
    command: Command, slurm: dict[str, str], monkeypatch: pytest.MonkeyPatch, undisturbed: Command
) -> None:
    """`--detach` ends at once with its jobs in the queue; the same command without it has the records."""
    monkeypatch.setenv("SLURM_CONF", slurm["SLURM_CONF"])
    command.study(on("slurm", STUDY))
    done = command.run("--detach")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 trials are in the cluster's queue" in done.stdout
    assert len(list(command.results.glob("trials/*/record.json"))) < 4
    wait_for(lambda: len(command.records()) == 4, "the jobs end without a driver")
    assert_goes_on(command, undisturbed)


@pytest.mark.parametrize(("executor", "words"), [("slurm", "no Slurm on this machine"), ("ray", "no Ray at")])
def test_without_the_engine_it_is_one_line(command: Command, executor: str, words: str) -> None:
    """And no folder is made."""
    study = STUDY.replace("run: {", f"run: {{executor: {executor}, cluster: {{address: '127.0.0.1:1'}}, ")
    command.study(study)
    empty = command.folder / "bin"
    empty.mkdir()
    done = command.run(PATH=str(empty))
    assert done.returncode == 2, done.stdout + done.stderr
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not command.results.exists()


def test_the_profile_of_a_cluster_study_is_measured_on_a_node(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked of the engine, as how to compute is; here it answers in this process."""
    asked: list[str] = []

    class Node:
        name, detaches = "a cluster", False

        def submit(self, tasks: Sequence[Callable[[], object]]) -> list[str]:
            for task in tasks:
                assert isinstance(task, partial)
                asked.append(task.args[0].func.__name__)
                task()
            return ["1"]

        def ended(self, _jobs: Sequence[str]) -> dict[str, str]:
            return {}

        def cancel(self, _jobs: Sequence[str]) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setattr("ablate.run.cluster.jobs.engine_for", lambda *_: Node())
    command.study(on("ray", STUDY))
    study = read_study(command.folder / "study.yaml")
    assert profile_study(study, command.results, plugins=Plugins(), seconds=0.5) == 0
    assert asked == ["decided", "profiled"]
    assert json.loads((command.results / "profile.json").read_text())


def test_a_site_fills_up_what_the_study_leaves_out(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    site = tmp_path / "config" / "ablate" / "slurm.yaml"
    site.parent.mkdir(parents=True)
    site.write_text("{partition: lab, cpus: 4, trials_per_job: 3}")
    command.study(on("slurm", STUDY).replace("max_parallel: 2", "max_parallel: 2, cpus: 2").replace(", threads: 1", ""))
    run = at_site(read_study(command.folder / "study.yaml", check_components=False)).spec.run
    asked = (run.cluster.partition, run.cluster.cpus, run.cluster.trials_per_job, run.cluster.max_parallel)
    assert asked == ("lab", 2, 3, 2)
    assert (run.workers, run.threads) == (1, 2), "one trial at a time, on the cores of its job"
    site.write_text("{partitions: lab}")
    with pytest.raises(StudyError, match=r"slurm.yaml: .*partitions"):
        at_site(read_study(command.folder / "study.yaml", check_components=False))
