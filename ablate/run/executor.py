"""Trials in persistent worker processes on this machine, forked by the fork server of `multiprocessing`."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

from ablate.run.events import Failed, Finished, Profiled, Progress, Running, Said, Stopped, WorkerEvent
from ablate.run.worker import ASKING, FORK_SERVER_OF, Assignment, Profile, Run, Stop, serve
from ablate.study.trial import Trial

# Activations are allocated and freed by the hundred in every step. Large pages, and memory that is kept instead of
# given back and faulted in again, make a step on a CPU about a twentieth quicker (glibc; others do not look).
MALLOC = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=1073741824"
START_SECONDS = 120.0  # for the fork server to fork a worker, its imports included
# After so long without a step a trial is said to stand still.
STALL_SECONDS = 600.0
# How long a process that was killed, or is gone, may take to be reported so.
REPORT_SECONDS = 5.0
# Signals that only a worker that is ready for them gets; Ctrl-C is the driver's.
HELD_BACK = {*ASKING, signal.SIGINT}
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# The exit code that `multiprocessing` gives where the fork server died before it could tell.
UNSEEN = 255


def worker_environment(device: str, threads: int) -> dict[str, str]:
    """Return the environment of a process that works on `device` alone, as its first and only one."""
    environment = dict(os.environ)
    # OpenMP reads its number of threads once, when the process starts.
    environment["OMP_NUM_THREADS"] = environment["MKL_NUM_THREADS"] = str(threads)
    environment["PYTHONUNBUFFERED"] = "1"
    # Files beside the study are no modules: not for a worker, and not for what it starts.
    environment["PYTHONSAFEPATH"] = "1"
    environment.setdefault("GLIBC_TUNABLES", MALLOC)
    # What a worker needs not know it cannot leak into a record or a log.
    environment.pop("WANDB_API_KEY", None)
    if device.startswith("cuda"):
        # The worker sees one device: the one among those that this process may use.
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        index = int(device.partition(":")[2] or 0)
        # By number or by name (GPU-..., MIG-...), as they are given.
        environment["CUDA_VISIBLE_DEVICES"] = visible.split(",")[index].strip() if visible else str(index)
        environment.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return environment


def start_fork_server() -> None:
    """Start the fork server where it does not run; it imports what workers need while the driver goes on planning.

    It computes nothing and asks no device, so that workers of a GPU can be forked from it as well.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(["ablate.run.worker"])
    environment = worker_environment("cpu", 1) | {FORK_SERVER_OF: str(os.getpid())}
    # What is blocked here stays blocked there: signals to a process group are for the driver and for the workers.
    with _environment(environment), _own_modules_only(), _blocked(HELD_BACK):
        forkserver.ensure_running()


class _Worker:
    """A worker process with the pipe to it; its events go into `events` as (worker, event)."""

    def __init__(self, context: Any, assignment: Assignment, events: queue.Queue[Any], check: Callable[[], None]):
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=serve, args=(theirs, assignment), name="ablate-worker")
        # A fork server has these blocked already, and may take long to answer.
        spawned = _blocked(HELD_BACK) if context.get_start_method() == "spawn" else contextlib.nullcontext()
        with theirs, _environment(assignment.environment), _own_modules_only(), _checked(check), spawned:
            self.process.start()
        threading.Thread(target=self._listen, args=(events,), daemon=True).start()

    def send(self, command: Run | Profile | Stop) -> None:
        """Give the worker a command; one that just died says so by the end of its events."""
        with contextlib.suppress(OSError):
            self.connection.send(command)

    def _listen(self, events: queue.Queue[Any]) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                events.put((self, self.connection.recv()))
        self.process.join(REPORT_SECONDS)
        events.put((self, _Gone(self.process.exitcode)))

    def kill(self, fork_server: int | None) -> None:
        """End the process and its children at once, and a fork server that does not report it: it stands still."""
        pid = self.process.pid
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if pid is not None:
                os.killpg(pid, signal.SIGKILL)
        self.process.kill()
        self.process.join(REPORT_SECONDS)
        if self.process.is_alive() and fork_server is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(fork_server, signal.SIGKILL)
            self.process.join(REPORT_SECONDS)


@dataclass(frozen=True)
class _Gone:
    """The last event of a worker: its process has ended."""

    code: int | None


@dataclass(eq=False)
class _Slot:
    """A place for one worker at a time on a device, and the trial that it runs."""

    assignment: Assignment
    worker: _Worker | None = None
    pid: int | None = None
    parent: int | None = None
    trial: Trial | None = None
    variant: str | None = None
    began: float = 0.0
    progressed: float = 0.0

    def end(self) -> None:
        """Kill the worker, if there is one."""
        worker, self.worker, self.pid = self.worker, None, None
        if worker is not None:
            worker.kill(self.parent if self.parent != os.getpid() else None)


class LocalExecutor:
    """The worker processes of a run, each with its part of the `assignment`: `workers` of them for each device.

    With `keeps_steps` a worker keeps to its variant as long as there is work of it, since its step was costly to make.
    `folder_of` names the folder of a trial, and `should_stop` ends a wait for a worker's start.
    """

    def __init__(
        self,
        assignment: Assignment,
        *,
        devices: Sequence[str],
        workers: int,
        threads: int,
        trial_timeout: float | None = None,
        keeps_steps: bool = True,
        folder_of: Callable[[Trial], str] = lambda trial: trial.name,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._events: queue.Queue[Any] = queue.Queue()
        self._context: Any = multiprocessing.get_context("forkserver")
        self._timeout, self._keeps_steps = trial_timeout, keeps_steps
        self._folder_of, self._should_stop = folder_of, should_stop
        self._slots = [
            _Slot(
                replace(
                    assignment,
                    device="cuda:0" if device.startswith("cuda") else device,
                    environment=worker_environment(device, threads),
                )
            )
            for device in devices
            for _ in range(workers)
        ]

    def free(self) -> int:
        """Return how many workers have no trial."""
        return sum(slot.trial is None for slot in self._slots)

    def start(self, pending: Sequence[Trial]) -> Trial | None:
        """Start the pending trial that suits a free worker best, and return it.

        The first of them; where workers keep their steps one of the same variant as before, or else of the variant
        with most work that no other worker is busy with.
        """
        idle = [slot for slot in self._slots if slot.trial is None]
        if not self._keeps_steps:
            return self._begin(idle[0], pending[0])
        work = Counter(trial.variant for trial in pending)
        slot = next((slot for slot in idle if slot.variant in work), idle[0])
        if slot.variant not in work:
            others = Counter(other.variant for other in self._slots if other is not slot)
            slot.variant = min(work, key=lambda variant: (others[variant], -work[variant], list(work).index(variant)))
        return self._begin(slot, next(trial for trial in pending if trial.variant == slot.variant))

    def _begin(self, slot: _Slot, trial: Trial) -> Trial:
        slot.trial, slot.began, slot.progressed = trial, time.monotonic(), time.monotonic()
        self._send(slot, Run(trial, self._folder_of(trial)))
        return trial

    def _send(self, slot: _Slot, command: Run | Profile) -> None:
        """Give the slot's worker a command, starting a process where there is none."""
        if slot.worker is None:
            try:
                slot.worker = self._start_worker(slot.assignment)
            except (OSError, EOFError) as error:
                reason = f"no worker process could be started ({error})"
                trial, slot.trial = slot.trial, None
                ended = Stopped(trial.name, reason) if trial is not None and self._should_stop() else None
                self._events.put((None, ended or Failed(trial.name if trial else None, reason)))
                return
        slot.worker.send(command)

    def _start_worker(self, assignment: Assignment) -> _Worker:
        limit = time.monotonic() + START_SECONDS

        def check() -> None:
            if self._should_stop() or time.monotonic() > limit:
                raise TimeoutError("the fork server did not answer")

        try:
            if self._context.get_start_method() == "forkserver":
                start_fork_server()
            return _Worker(self._context, assignment, self._events, check)
        except (OSError, EOFError):
            if self._should_stop() or self._context.get_start_method() == "spawn":
                raise
        self._events.put((None, Said("the fork server does not answer: workers are started without it")))
        self._context = multiprocessing.get_context("spawn")
        limit = time.monotonic() + START_SECONDS
        return _Worker(self._context, assignment, self._events, check)

    def profile(self, seconds: float, should_stop: Callable[[], bool] = lambda: False) -> Profiled | Failed:
        """Have one worker, alone, profile the variants; return its profile or the reason why there is none."""
        for slot in self._slots[1:]:
            slot.end()
        self._send(self._slots[0], Profile(seconds))  # compiling can take several times as long as measuring
        limit = time.monotonic() + 10 * seconds + 300
        while time.monotonic() < limit and not should_stop():
            for event in self.events(timeout=0.2):
                if isinstance(event, Profiled | Failed):
                    return event
        return Failed(None, "it was stopped or took too long")

    def events(self, timeout: float) -> list[WorkerEvent]:
        """Return what happened since the last call, after waiting at most `timeout` seconds for the first event.

        A worker that died or ran out of time gives a `Failed` for its trial.
        """
        found = list(self._late())
        with contextlib.suppress(queue.Empty):
            found += self._translate(*self._events.get(timeout=0 if found else timeout))
            while True:
                found += self._translate(*self._events.get_nowait())
        return found

    def _late(self) -> Iterator[WorkerEvent]:
        """Yield what is to be said of trials that ran out of time, which ends them, or that stand still."""
        now = time.monotonic()
        for slot in self._slots:
            if slot.trial is not None and self._timeout is not None and now - slot.began > self._timeout:
                name, slot.trial = slot.trial.name, None
                slot.end()
                yield Failed(name, f"timeout: ran over {self._timeout:g} s")
            elif slot.trial is not None and now - slot.progressed > STALL_SECONDS:
                slot.progressed = now
                end = f"`kill -9 {slot.pid}` ends it" if slot.pid is not None else "its worker has not begun it"
                yield Said(f"{slot.trial.name}: no step for {STALL_SECONDS / 60:.0f} minutes; {end}")

    def _translate(self, worker: _Worker | None, event: WorkerEvent | _Gone) -> list[WorkerEvent]:
        if worker is None:
            return [event] if not isinstance(event, _Gone) else []
        slot = next((slot for slot in self._slots if slot.worker is worker), None)
        if slot is None:
            return []  # the last words of a worker that was ended on purpose
        slot.progressed = time.monotonic()
        if isinstance(event, Progress):
            return []
        if isinstance(event, _Gone):
            slot.end()  # what it started and left behind
            trial, slot.trial = slot.trial, None
            if trial is None and event.code == 0:
                return []
            return [Failed(trial.name if trial else None, _exit_reason(event.code))]
        if isinstance(event, Running):
            slot.began = time.monotonic()  # a trial's time does not pay for its process's start
            slot.pid, slot.parent = event.pid, event.parent
        if isinstance(event, Failed) and event.trial is None:  # it could not begin, or not profile
            trial, slot.trial = slot.trial, None
            slot.end()
            return [Failed(trial.name if trial else None, event.reason, event.traceback, pause=event.pause)]
        if isinstance(event, Finished | Failed | Stopped):
            slot.trial = None
            if isinstance(event, Failed) and event.fresh_process:
                slot.end()
        return [event]

    def stop(self, reason: str) -> None:
        """Ask every running trial to checkpoint and end."""
        for slot in self._slots:
            if slot.trial is not None and slot.worker is not None:
                slot.worker.send(Stop(reason))

    def close(self) -> None:
        """End all workers."""
        for slot in self._slots:
            slot.end()


def _exit_reason(code: int | None) -> str:
    if code is None or code == UNSEEN:
        return "the worker process ended, nobody saw how"
    if code < 0:
        try:
            return f"killed ({-code}, {signal.Signals(-code).name})"
        except ValueError:
            return f"killed ({-code})"
    return f"the worker process ended with exit code {code}"


@contextlib.contextmanager
def on_signals(handle: Callable[[int], None]) -> Iterator[None]:
    """Call `handle` with the number of each signal that asks this process to stop.

    A SIGHUP that is ignored (`nohup`) stays so. In a thread other than the main one signals cannot be handled.
    """
    numbers = [number for number in STOPPING if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    before = {number: signal.signal(number, lambda number, _frame: handle(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """Hold `os.environ` at `wanted` for what is started meanwhile."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(wanted)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _own_modules_only() -> Iterator[None]:
    """Keep the main script and the current folder from what is started meanwhile.

    `multiprocessing` hands both on: a worker would run a script of the user's again, and would take the files beside
    a study for modules. A folder that PYTHONPATH names, or that `ablate` itself comes from, is meant.
    """
    here = Path.cwd()
    meant = {Path(entry).absolute() for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry}
    meant.add(Path(__file__).parents[2])
    path, main = list(sys.path), sys.modules["__main__"]
    sys.path[:] = [entry for entry in path if Path(entry).absolute() != here or here in meant]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.path[:], sys.modules["__main__"] = path, main


@contextlib.contextmanager
def _blocked(numbers: set[signal.Signals]) -> Iterator[None]:
    """Block signals, in what is started meanwhile for good."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _checked(check: Callable[[], None]) -> Iterator[None]:
    """Call `check` twice a second: what it raises ends a wait in the main thread, which nothing else could."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, lambda _number, _frame: check())
    signal.setitimer(signal.ITIMER_REAL, 0.5, 0.5)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
