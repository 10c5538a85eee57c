"""The executor whose workers are jobs of a cluster: submits them, follows their reports, and finds them again."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import yaml
from pydantic import ValidationError

from ablate.errors import ResultsError, StudyError
from ablate.records.files import make_folder, read_file, write_atomic
from ablate.records.record import FINISHED
from ablate.records.store import Results, read_record, to_json
from ablate.run.cluster.job import STOP, Job, Reports, answer, event_of, index_of, read_events, report_of
from ablate.run.events import Failed, Finished, Profiled, Progress, Running, Stopped, WorkerEvent
from ablate.run.executor import worker_environment
from ablate.run.worker import Assignment, Run, Server
from ablate.study.machine import ClusterSpec, config_folder
from ablate.study.study import Study
from ablate.study.trial import Trial

# Seconds between two questions to the scheduler, and least seconds between two looks at the reports: so many times
# what a look takes, which is long where a thousand reports lie on a slow disk.
ASK_SECONDS = 5.0
READ_SECONDS = 0.5
REST = 10
# How long the last words of a job that has ended may take to be seen on a shared file system.
GRACE_SECONDS = 15.0
# How long a question may wait for a node.
QUEUE_SECONDS = 86_400.0
# What a process reads once, when it begins: an engine sets it for its jobs.
FIXED = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "PYTHONSAFEPATH", "GLIBC_TUNABLES", "CUBLAS_WORKSPACE_CONFIG")
# Jobs given to a scheduler at a time: many keep an array of at most 1,001.
MOST_JOBS = 1000


class Engine(Protocol):
    """A scheduler of jobs; its own queue decides when each begins."""

    name: str
    detaches: bool

    def submit(self, tasks: Sequence[Callable[[], Any]]) -> list[str]:
        """Queue tasks and return their ids."""
        ...

    def ended(self, jobs: Sequence[str]) -> dict[str, str]:
        """Return those that have ended, with how."""
        ...

    def cancel(self, jobs: Sequence[str]) -> None:
        """End jobs."""
        ...

    def close(self) -> None:
        """Let go of the engine."""
        ...


def engine_for(study: Study, results: Results) -> Engine:
    """Return the engine of a study `at_site`; raises `StudyError` where what `run.executor` names is not there."""
    run = study.spec.run
    spec = run.cluster
    device, threads = "cuda:0" if spec.gpus else "cpu", int(run.threads)
    folder = results.path.absolute() / "jobs"
    environment = {name: value for name, value in worker_environment(device, threads).items() if name in FIXED}
    if run.executor == "slurm":
        from ablate.run.cluster.slurm import Slurm

        return Slurm(spec, folder, environment)
    from ablate.run.cluster.ray import Ray

    return Ray(spec, folder, environment)


def at_site(study: Study) -> Study:
    """Return the study with what jobs ask for filled up from ~/.config/ablate/<executor>.yaml: one trial at a time.

    Raises `StudyError` where those settings say no cluster.
    """
    run = study.spec.run
    path = config_folder() / f"{run.executor}.yaml"
    try:
        site = yaml.safe_load(read_file(path)) or {}
        cluster = ClusterSpec.model_validate({**site, **run.cluster.model_dump(exclude_unset=True)})
    except (FileNotFoundError, NotADirectoryError):
        cluster = run.cluster
    except (yaml.YAMLError, ValidationError, TypeError) as error:
        problem = " ".join(str(error).split())[:200]
        raise StudyError(problem, file=str(path), cure="its keys are those of run.cluster") from None
    threads = cluster.cpus if run.threads == "auto" else run.threads
    run = run.model_copy(update={"cluster": cluster, "workers": 1, "threads": threads})
    return replace(study, spec=study.spec.model_copy(update={"run": run}))


@dataclass
class _Task:
    """A trial that was given to the cluster."""

    trial: Trial
    job: str = ""
    offset: int = 0
    ended: float | None = None
    how: str = ""
    began: float | None = None
    # Why the job left the trial although the driver asked for nothing: Slurm may queue the job again.
    left: Stopped | None = None


class ClusterExecutor:
    """Trials as jobs: as `LocalExecutor`, with the results folder as the only way between a job and the driver.

    The ids of the jobs stand in `jobs/index.json`: a driver that was killed finds them again and follows them.
    """

    def __init__(
        self,
        engine: Engine,
        spec: ClusterSpec,
        assignment: Assignment,
        *,
        device_class: str,
        trial_timeout: float | None = None,
        folder_of: Callable[[Trial], str] = lambda trial: trial.name,
        detach: bool = False,
    ) -> None:
        self._engine, self._spec, self._class, self._detach = engine, spec, device_class, detach
        self._timeout, self._folder_of = trial_timeout, folder_of
        origin = assignment.origin and assignment.origin.absolute()
        self._assignment = replace(assignment, results=assignment.results.absolute(), origin=origin)
        self._results = Results(self._assignment.results)
        self._folder = make_folder(self._results.path / "jobs")
        self._tasks: dict[str, _Task] = {}
        self._unsent: list[_Task] = []
        self._asked = self._next_look = 0.0
        self._stops = self._changed = False
        (self._folder / STOP).unlink(missing_ok=True)
        known = index_of(self._folder)
        ended = engine.ended(list(set(known.values()))) if engine.detaches else dict.fromkeys(known.values(), "")
        self._found = {name: job for name, job in known.items() if job not in ended}

    def free(self) -> int:
        """Return how many more trials may be given to the cluster, which keeps the rest in its own queue."""
        return MOST_JOBS - len(self._tasks)

    def start(self, pending: Sequence[Trial]) -> Trial:
        """Take the first of the pending trials, or one that a job of an earlier driver has, and return it."""
        found = (trial for trial in pending if trial.name in self._found) if self._found else ()
        trial = next(iter(found), pending[0])
        task = self._tasks[trial.name] = _Task(trial)
        if (job := self._found.pop(trial.name, None)) is not None:
            task.job = job
        else:
            report_of(self._folder, trial.name).unlink(missing_ok=True)
            self._unsent.append(task)
        return trial

    def _submit(self) -> None:
        if not self._unsent:
            return
        tasks, self._unsent, size = self._unsent, [], self._spec.trials_per_job
        groups = [tasks[first : first + size] for first in range(0, len(tasks), size)]
        runs = [[Run(task.trial, self._folder_of(task.trial)) for task in group] for group in groups]
        jobs = [Job(self._assignment, group, self._folder, self._class) for group in runs]
        for group, job in zip(groups, self._engine.submit(jobs), strict=True):
            for task in group:
                task.job = job
        self._write_index()

    def _write_index(self) -> None:
        self._changed = False
        jobs = {name: task.job for name, task in self._tasks.items() if task.job} | self._found
        write_atomic(self._folder / "index.json", to_json({"jobs": jobs, "study": self._results.path.name}))

    def events(self, timeout: float) -> list[WorkerEvent]:
        """Submit what was started, and return what the reports say since the last call.

        A job that ended without a word fails its trials.
        """
        self._submit()
        limit = time.monotonic() + timeout
        while not (found := self._news()) and time.monotonic() < limit:
            time.sleep(max(0.01, min(self._next_look, limit) - time.monotonic()))
        if self._changed:
            self._write_index()
        return found

    def _news(self) -> list[WorkerEvent]:
        if time.monotonic() - self._asked > ASK_SECONDS:
            self._asked = time.monotonic()
            ended = self._engine.ended(sorted({task.job for task in self._tasks.values() if task.job}))
            for task in self._tasks.values():
                if task.job in ended and task.ended is None:
                    task.ended, task.how = time.monotonic(), ended[task.job]
        found: list[WorkerEvent] = []
        began = time.monotonic()
        if began < self._next_look:
            return found
        for name, task in list(self._tasks.items()):
            found += self._read(name, task)
            if name in self._tasks and self._is_overdue(task):
                self._engine.cancel([task.job])
                found.append(self._over(Failed(name, f"timeout: ran over {self._timeout:g} s")))
            elif task.left is not None and (task.ended is not None or self._stops):
                found.append(self._over(task.left))
            elif name in self._tasks and task.ended is not None and time.monotonic() - task.ended > GRACE_SECONDS:
                record = self._record(task.trial)
                reason = f"its job {task.job} ended without a record ({task.how})"
                found.append(self._over(Finished(name, record) if record is not None else Failed(name, reason)))
        now = time.monotonic()
        self._next_look = now + max(READ_SECONDS, REST * (now - began))
        return found

    def _is_overdue(self, task: _Task) -> bool:
        return self._timeout is not None and task.began is not None and time.monotonic() - task.began > self._timeout

    def _read(self, name: str, task: _Task) -> list[WorkerEvent]:
        entries, task.offset = read_events(report_of(self._folder, name), task.offset)
        found: list[WorkerEvent] = []
        for entry in entries:
            event = event_of(entry)
            if event is None:
                record = self._record(task.trial)
                if record is None:  # not yet seen from here
                    continue
                event = Finished(name, record)
            if isinstance(event, Running):
                task.began, task.left = task.began or time.monotonic(), None
            if isinstance(event, Stopped) and not self._stops:
                task.left = event
            elif isinstance(event, Finished | Failed | Stopped):
                event = self._over(event)
            if not isinstance(event, Progress) and event is not task.left:
                found.append(event)
        return found

    def _over(self, event: Finished | Failed | Stopped) -> Finished | Failed | Stopped:
        if event.trial is not None:
            self._tasks.pop(event.trial, None)
        self._changed = True
        return event

    def _record(self, trial: Trial) -> Any:
        record = read_record(self._results.trial(self._folder_of(trial)).record)
        return record if record is not None and record.key == trial.key and record.status in FINISHED else None

    def stop(self, reason: str) -> None:
        """Ask every running trial to checkpoint and end, and take what still waits out of the queue."""
        write_atomic(self._folder / STOP, reason.encode())
        self._stops, self._next_look = True, 0.0
        waiting = [task for task in self._tasks.values() if task.began is None]
        busy = {task.job for task in self._tasks.values() if task.began is not None}
        self._engine.cancel(sorted({task.job for task in waiting if task.job} - busy))

    def close(self) -> None:
        """Cancel all jobs, unless they are to go on without a driver, and let go of the engine."""
        if not self._detach:
            self._engine.cancel(sorted({task.job for task in self._tasks.values() if task.job}))
            self._tasks.clear()
            self._write_index()
        self._engine.close()

    def profile(self, seconds: float, should_stop: Callable[[], bool] = lambda: False) -> Profiled | Failed:
        """Measure every variant alone on a node of the cluster; return the profile, or why there is none."""
        try:
            question = partial(profiled, self._assignment, seconds)
            profile = ask_node(self._engine, self._folder, question, 20 * seconds + QUEUE_SECONDS, should_stop)
        except ResultsError as error:
            return Failed(None, str(error))
        return Profiled(profile)


def profiled(assignment: Assignment, seconds: float) -> dict[str, Any]:
    """Return the profile of every variant, measured alone where this is called."""
    from ablate.train.profile import profile_variants

    server = Server(assignment, Reports(assignment.results))
    return dict(profile_variants(server.study.representatives(), server.bench, seconds=seconds))


def ask_node(
    engine: Engine,
    folder: Path,
    question: Callable[[], Any],
    seconds: float = QUEUE_SECONDS,
    should_stop: Callable[[], bool] = lambda: False,
) -> Any:
    """Have a node of the cluster answer `question`, and return its answer.

    Raises `ResultsError` where it could not, was not given a node within `seconds`, or was stopped.
    """
    path = make_folder(folder) / f"answer-{time.time_ns():x}.json"
    (job,) = engine.submit([partial(answer, question, path)])
    limit, ended, how = time.monotonic() + seconds, None, None
    try:
        while time.monotonic() < limit and not should_stop():
            with contextlib.suppress(FileNotFoundError):
                document = json.loads(read_file(path))
                path.unlink()
                if "error" in document:
                    raise ResultsError(f"a node of the cluster answered: {document['error']}", key="run.cluster")
                return document["answer"]
            if ended is None and (how := engine.ended([job]).get(job)) is not None:
                ended = time.monotonic()
            if ended is not None and time.monotonic() - ended > GRACE_SECONDS:
                break
            time.sleep(READ_SECONDS)
    finally:
        engine.cancel([job])
    raise ResultsError(
        f"no node of {engine.name} answered ({how or 'none was free'})",
        key="run.cluster",
        cure="see jobs/ in the results folder",
    )
