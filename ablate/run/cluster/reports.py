"""The reports of a job: a file of events for each trial, and a file by which all jobs are asked to stop."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import time
from pathlib import Path
from typing import Any

from ablate.errors import Problem, ResultsError
from ablate.records.files import append, read_file
from ablate.run.events import Epoch, Failed, Finished, Progress, Running, Said, Stopped, WorkerEvent

# Seconds between two looks for the file that asks all jobs to stop.
LOOK_SECONDS = 2.0
STOP = "stop"
KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in (Running, Progress, Epoch, Stopped, Failed, Said)}


class Reports:
    """The driver as a job sees it: events go into a file for each trial, the wish to stop comes by file or signal."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._trial: str | None = None
        self._looked = 0.0
        self.stop_reason: str | None = None

    @property
    def asked_to_stop(self) -> str | None:
        """The reason to stop, if the driver or a signal has given one; the file is looked for every few seconds."""
        if self.stop_reason is None and time.monotonic() - self._looked > LOOK_SECONDS:
            self._looked = time.monotonic()
            with contextlib.suppress(OSError, ResultsError):
                self.stop_reason = read_file(self._folder / STOP).decode()
        return self.stop_reason

    def heard(self) -> None:
        """Nothing: a job that was asked to stop runs no further trial."""

    def on_signal(self, number: int, _frame: Any) -> None:
        """Take a signal for the wish to checkpoint and end."""
        self.stop_reason = signal.Signals(number).name

    def send(self, event: WorkerEvent) -> None:
        """Append an event to its trial's report; one that names no trial goes to that of the trial that runs."""
        trial = getattr(event, "trial", None)
        self._trial = trial or self._trial
        if isinstance(event, Finished):
            self.finished(event.trial)
        elif self._trial is not None:
            entry = {"event": type(event).__name__} | dataclasses.asdict(event)
            append(report_of(self._folder, self._trial), (json.dumps(entry) + "\n").encode())

    def finished(self, trial: str) -> None:
        """Report that the trial's record stands; the driver reads it where it lies."""
        append(report_of(self._folder, trial), json.dumps({"event": "Finished", "trial": trial}).encode() + b"\n")


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
        raise ResultsError(
            f"a line of a job's report is damaged ({error})", cure="run the same command again"
        ) from None
    return event


def index_of(folder: Path) -> dict[str, str]:
    """Return the job of each trial that was given to a cluster, by the trial's name; empty where none was."""
    try:
        jobs = json.loads(read_file(folder / "index.json"))["jobs"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}
    return {str(name): str(job) for name, job in jobs.items()} if isinstance(jobs, dict) else {}
