"""Slurm, by submitit: jobs in arrays, queued again when preempted, watched by squeue and scontrol.

submitit's own `result()` waits for ever for a job that was killed where Slurm keeps no accounts, so it is not asked.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablate.errors import StudyError, install_cure
from ablate.study.machine import ClusterSpec

# How long Slurm's controller may take to answer.
ANSWER_SECONDS = 60.0
# A job gets word so many seconds before its time is over.
WARNING_SECONDS = 60


class Slurm:
    """Submits jobs to Slurm, tells which have ended, and cancels them."""

    name = "Slurm"
    # Jobs outlive the driver, and are found again by their ids.
    detaches = True

    def __init__(self, spec: ClusterSpec, folder: Path, environment: Mapping[str, str]) -> None:
        """Make an executor whose scripts and logs go to a new folder in `folder`.

        Raises `StudyError` where there is no Slurm or no submitit, or it does not take the settings.
        """
        if shutil.which("sbatch") is None or shutil.which("squeue") is None:
            cure = "run on a login node of the cluster, or write executor: local"
            raise StudyError("there is no Slurm on this machine (no sbatch)", key="run.executor", cure=cure)
        try:
            import submitit
        except ImportError:
            raise StudyError("submitit is not installed", key="run.executor", cure=install_cure("slurm")) from None
        # A new folder for every driver: whatever lies in a results folder from elsewhere is never written through.
        self._folder = folder / f"slurm-{secrets.token_hex(4)}"
        _remove_links(folder)
        self._executor = submitit.AutoExecutor(folder=self._folder, cluster="slurm")
        parameters: dict[str, Any] = {
            "name": "ablate",
            "timeout_min": spec.time,
            "cpus_per_task": spec.cpus,
            "tasks_per_node": 1,
            "nodes": 1,
            "slurm_array_parallelism": spec.max_parallel,
            "slurm_signal_delay_s": WARNING_SECONDS,
            "slurm_setup": [f"export {name}={shlex.quote(value)}" for name, value in environment.items()],
            "slurm_partition": spec.partition,
            "slurm_account": spec.account,
            "slurm_mem": spec.memory,
            "slurm_gpus_per_node": int(spec.gpus) or None,
            "slurm_additional_parameters": dict(spec.options) or None,
            "slurm_use_srun": False,
        }
        try:
            self._executor.update_parameters(**{name: value for name, value in parameters.items() if value is not None})
        except (TypeError, ValueError, NameError) as error:
            raise StudyError(f"submitit does not take this ({error})", key="run.cluster", cure="see its docs") from None

    def submit(self, tasks: Sequence[Callable[[], Any]]) -> list[str]:
        """Queue tasks as one array of jobs and return their ids, such as "12_0".

        Raises `StudyError` with Slurm's own words where it refuses them.
        """
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        try:
            jobs = self._executor.submit_array(tasks)  # as they are: submitit looks for their `checkpoint`
        except (FailedJobError, FailedSubmissionError) as error:
            words = " ".join(str(error).split())[-300:]
            raise StudyError(f"Slurm refuses the jobs: {words}", key="run.cluster", cure="change run.cluster") from None
        _remove_links(self._folder.parent)
        return [str(job.job_id) for job in jobs]

    def ended(self, jobs: Sequence[str]) -> dict[str, str]:
        """Return those of the jobs that Slurm no longer has in its queue, each with how it ended.

        Empty where the controller does not answer: nothing is then known of any job.
        """
        done = _ask("squeue", "--noheader", "--array", "--me", "--format=%i")
        if done is None:
            return {}
        waiting = set(done.split())
        return {job: self._how(job) for job in jobs if job not in waiting}

    def _how(self, job: str) -> str:
        answer = _ask("scontrol", "show", "job", "--oneliner", job) or ""
        fields = dict(word.partition("=")[::2] for word in answer.split())
        state = fields.get("JobState", "it is not known any more")
        return f"Slurm: {state}" + (f", exit code {fields['ExitCode']}" if "ExitCode" in fields else "")

    def cancel(self, jobs: Sequence[str]) -> None:
        """Take jobs out of the queue, or end them."""
        if jobs:
            _ask("scancel", *jobs)

    def close(self) -> None:
        """Do nothing: no connection is kept open."""


def _remove_links(folder: Path) -> None:
    """Remove the links that submitit leaves from a script's first name to its last; nothing reads them."""
    if not folder.is_symlink():
        for path in folder.glob("slurm-*/.submission_file_*.sh"):
            if path.is_symlink():
                path.unlink()


def _ask(*words: str) -> str | None:
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            timeout=ANSWER_SECONDS,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    if done.returncode != 0 and words[0] == "squeue":
        print(f"squeue: {done.stderr.strip()}", file=sys.stderr)
        return None
    return done.stdout
