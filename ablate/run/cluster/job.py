"""A job of a cluster: it runs trials of a results folder and reports their events in files beside them.

The folder is all that a job and the driver share, so that it does not matter which of them lives longer.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate.errors import ResultsError
from ablate.records.files import write_atomic
from ablate.records.record import FINISHED
from ablate.records.store import Results, read_record, to_json
from ablate.run.cluster.reports import Reports
from ablate.run.events import Failed, Stopped, one_line
from ablate.run.worker import ASKING, Assignment, Run, Server


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
        for name, value in self.assignment.environment.items():
            os.environ[name] = value
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
            elif (reason := reports.asked_to_stop) is not None:
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


@dataclass(frozen=True)
class Question:
    """Ask a node what only it can know, such as how it computes: the answer of `ask` is written as JSON to `answer`."""

    ask: Callable[[], Any]
    answer: Path

    def __call__(self) -> None:
        """Answer; an error is an answer, too."""
        try:
            document = {"answer": self.ask()}
        except Exception as error:
            document = {"error": one_line(error)}
        write_atomic(self.answer, to_json(document))
