"""A job of a cluster: it runs trials of a results folder and reports their events in files beside them.

The folder is all that a job and the driver share, so that it does not matter which of them lives longer: a file of
events for each trial, and a file by which all jobs are asked to stop.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate.errors import Problem, ResultsError
from ablate.records.files import append, read_file, write_atomic
from ablate.records.record import FINISHED
from ablate.records.store import Results, read_record, to_json
from ablate.run.events import Epoch, Failed, Finished, Progress, Running, Said, Stopped, WorkerEvent, one_line
from ablate.run.worker import ASKING, Assignment, DriverSide, Run, Server

# Seconds between two looks for the file that asks all jobs to stop.
LOOK_SECONDS = 2.0
STOP = "stop"
KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in (Running, Progress, Epoch, Stopped, Failed, Said)}


@dataclass(frozen=True)
class Job:
    """Trials to run one after another on one device, and the folder of their reports (`<trial>.jsonl`).

    Called by whatever process the scheduler gives it; with submitit a job that is preempted is queued again.
    """

    assignment: Assignment
    runs: Sequence[Run]
    reports: Path
    # What this class of device has to be: numbers of two kinds of device do not belong in one table.
    device_class: str

    def __call__(self) -> None:
        """Run the trials; whatever happens to one is in its report."""
        reports = Reports(self.reports)
        for number in ASKING:
            signal.signal(number, reports.on_signal)
        try:
            self._check_device()
            server = Server(self.assignment, reports)
        except Exception as error:
            for run in self.runs:
                reports.send(Failed(run.trial.name, one_line(error), traceback.format_exc(), pause=True))
            return
        for run in self.runs:
            if self._is_finished(run):
                reports.finished(run.trial.name)
            elif (reason := reports.asked_to_stop()) is not None:
                reports.send(Stopped(run.trial.name, reason))
            else:
                server.run(run)

    def checkpoint(self) -> Any:
        """Have Slurm queue the job again (submitit asks on preemption): its trials go on from their checkpoints."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _check_device(self) -> None:
        from ablate.train.device import device_class

        here = device_class(self.assignment.device)
        if here != self.device_class:
            raise ResultsError(
                f"this node has {here}, the trials of this study are computed on {self.device_class}",
                key="run.cluster",
                cure="name a partition, or a constraint in options, whose nodes are alike",
            )

    def _is_finished(self, run: Run) -> bool:
        record = read_record(Results(self.assignment.results).trial(run.folder).record)
        return record is not None and record.key == run.trial.key and record.status in FINISHED


def answer(question: Callable[[], Any], path: Path) -> None:
    """Write the answer to `question` as JSON to `path`: what only a node can know, such as how it computes.

    An error is an answer, too.
    """
    try:
        document = {"answer": question()}
    except Exception as error:
        document = {"error": one_line(error)}
    write_atomic(path, to_json(document))


class Reports(DriverSide):
    """The driver as a job sees it: events go into a file for each trial, the wish to stop comes by file or signal."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._trial: str | None = None
        self._looked = 0.0

    def asked_to_stop(self) -> str | None:
        """Return the reason to stop, if a signal or the driver's file has given one; it holds for all trials to come.

        The file is looked for every few seconds.
        """
        if self.reason is None and time.monotonic() - self._looked > LOOK_SECONDS:
            self._looked = time.monotonic()
            with contextlib.suppress(OSError, ResultsError):
                self.reason = read_file(self._folder / STOP).decode()
        return self.reason

    def send(self, event: WorkerEvent) -> None:
        """Append an event to its trial's report; one that names no trial goes to that of the trial that runs."""
        trial = getattr(event, "trial", None)
        self._trial = trial or self._trial
        if isinstance(event, Finished):
            self.finished(event.trial)
        elif self._trial is not None:
            self._write(self._trial, {"event": type(event).__name__} | dataclasses.asdict(event))

    def finished(self, trial: str) -> None:
        """Report that the trial's record stands; the driver reads it where it lies."""
        self._write(trial, {"event": "Finished", "trial": trial})

    def _write(self, trial: str, entry: dict[str, Any]) -> None:
        append(report_of(self._folder, trial), json.dumps(entry).encode() + b"\n")


def report_of(folder: Path, trial: str) -> Path:
    """Return the file of a trial's events."""
    return folder / f"{trial}.jsonl"


def read_events(path: Path, offset: int) -> tuple[list[dict[str, Any]], int]:
    """Return the whole lines of a report from byte `offset` on, and the offset after them; none where it is missing."""
    try:
        if path.stat().st_size <= offset:  # nothing new, which is so at nearly every look
            return [], offset
        data = read_file(path)[offset:]
    except FileNotFoundError:
        return [], offset
    whole = data[: data.rfind(b"\n") + 1]
    return [json.loads(line) for line in whole.splitlines()], offset + len(whole)


def event_of(entry: dict[str, Any]) -> WorkerEvent | None:
    """Return the event that a line of a report stands for; None for `Finished`, whose record lies elsewhere.

    Raises `ResultsError` for a line that is none.
    """
    if entry.get("event") == "Finished":
        return None
    try:
        kind = KINDS[entry.pop("event")]
        if kind is Failed:
            entry["problems"] = tuple(Problem(**problem) for problem in entry["problems"])
        event: WorkerEvent = kind(**entry)
    except (KeyError, TypeError) as error:
        message = f"a line of a job's report is damaged ({error})"
        raise ResultsError(message, cure="run the same command again") from None
    return event


def index_of(folder: Path) -> dict[str, str]:
    """Return the job of each trial that was given to a cluster, by the trial's name; empty where none was."""
    try:
        jobs = json.loads(read_file(folder / "index.json"))["jobs"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}
    return {str(name): str(job) for name, job in jobs.items()} if isinstance(jobs, dict) else {}
