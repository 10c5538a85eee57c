"""What a command or a piece of work takes: wall clock, processor seconds, and how much others used the machine."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import busy_seconds

ROOT = Path(__file__).resolve().parents[1]
# Cores that others may use before a table says so.
NOISE = 0.1


@dataclass(frozen=True)
class Cost:
    """What something took: seconds (or milliseconds) of wall clock and of processors, and others' cores meanwhile."""

    wall: float
    cpu: float
    others: float

    def each(self, factor: float) -> Cost:
        """Return the same in another unit, or a trial."""
        return Cost(self.wall * factor, self.cpu * factor, self.others)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.wall - other.wall, self.cpu - other.cpu, max(self.others, other.others))


class Clock:
    """Wall clock and processor seconds of this process and its children since it was made."""

    def __init__(self) -> None:
        self._began, self._own, self._busy = time.perf_counter(), _own_seconds(), busy_seconds()

    def cost(self, cpu: float | None = None) -> Cost:
        """Return what has been taken since; `cpu` where the processor seconds are known better."""
        wall = time.perf_counter() - self._began
        cpu = _own_seconds() - self._own if cpu is None else cpu
        return Cost(wall, cpu, max(0.0, (busy_seconds() - self._busy - cpu) / wall))


def _own_seconds() -> float:
    return sum(os.times()[:4])


@dataclass(frozen=True)
class Call:
    """A command that has ended: what it took, its peak memory in MB, what it printed."""

    cost: Cost
    megabytes: float
    output: str


def call(*command: str) -> Call:
    """Run a Python module of this project and wait for it; raises `SystemExit` with its words where it fails."""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    with tempfile.TemporaryFile("w+") as output:
        clock = Clock()
        process = subprocess.Popen(
            [sys.executable, "-m", *command], stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        _, status, usage = os.wait4(process.pid, 0)
        # Also of the processes that it started and waited for.
        cost = clock.cost(usage.ru_utime + usage.ru_stime)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise SystemExit(f"{shlex.join(command)} ended with {process.returncode}:\n{text[-4000:]}")
    return Call(cost, usage.ru_maxrss / 1024, text)
