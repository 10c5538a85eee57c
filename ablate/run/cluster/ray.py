"""Ray (its core, not its tuner): every job is a task; a lost node's tasks are run again by Ray itself."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ByteSize, TypeAdapter

from ablate.errors import StudyError, install_cure
from ablate.run.events import one_line
from ablate.study.machine import ClusterSpec

# How often Ray runs a task again whose node or process was lost.
RETRIES = 3
# How long the head of a cluster may take to answer.
CONNECT_SECONDS = 10.0


class Ray:
    """Runs jobs as tasks of a Ray cluster, tells which have ended, and cancels them."""

    name = "Ray"
    # Ray ends the tasks of a driver that has gone.
    detaches = False

    def __init__(self, spec: ClusterSpec, _folder: Path, environment: Mapping[str, str]) -> None:
        """Connect to the cluster at `address`, or start one on this machine; raises `StudyError` where it cannot."""
        try:
            import ray
        except ImportError:
            raise StudyError("Ray is not installed", key="run.executor", cure=install_cure("ray")) from None
        self._ray, self._tasks = ray, dict[str, Any]()
        kept = {name: value for name in ("PYTHONPATH", "ABLATE_CACHE") if (value := os.environ.get(name))}
        variables = {**environment, **kept}
        try:
            if ":" in (spec.address or ""):  # Ray itself would try for minutes
                host, _, port = str(spec.address).removeprefix("ray://").rpartition(":")
                socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
            ray.init(
                address=spec.address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False,
                runtime_env={"env_vars": variables},
            )  # fmt: skip
        except (OSError, ValueError, RuntimeError) as error:
            raise StudyError(
                f"no Ray at '{spec.address}' ({one_line(error)})",
                key="run.cluster.address",
                cure="start one with `ray start --head`, or leave the address out for one on this machine",
            ) from None
        memory = None if spec.memory is None else int(TypeAdapter(ByteSize).validate_python(spec.memory))
        # A process for every task: none inherits another's plugins, memory or broken device.
        options: dict[str, Any] = {"num_cpus": spec.cpus, "num_gpus": spec.gpus, "memory": memory}
        self._remote = ray.remote(max_calls=1, max_retries=RETRIES, **options)(_call)

    def submit(self, tasks: Sequence[Callable[[], Any]]) -> list[str]:
        """Hand tasks to Ray, which starts each where its resources are free; return their ids."""
        found = []
        for task in tasks:
            reference = self._remote.remote(task)
            found.append(reference.hex())
            self._tasks[found[-1]] = reference
        return found

    def ended(self, jobs: Sequence[str]) -> dict[str, str]:
        """Return those of the jobs that have ended, each with how."""
        known = {job: self._tasks[job] for job in jobs if job in self._tasks}
        gone = dict.fromkeys([job for job in jobs if job not in known], "Ray: not known to this driver")
        if not known:
            return gone
        ready, _ = self._ray.wait(list(known.values()), num_returns=len(known), timeout=0)
        return gone | {job: self._how(task) for job, task in known.items() if task in ready}

    def _how(self, task: Any) -> str:
        try:
            self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            return f"Ray: {one_line(error)}"
        return "Ray: ended"

    def cancel(self, jobs: Sequence[str]) -> None:
        """End jobs, running or not."""
        for job in jobs:
            with contextlib.suppress(self._ray.exceptions.RayError, ValueError, KeyError):
                self._ray.cancel(self._tasks[job], force=True)

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        self._ray.shutdown()


def _call(task: Callable[[], Any]) -> Any:
    return task()
