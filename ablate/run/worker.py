"""A worker process: takes trials over a pipe, runs them one after another on one device, and reports events.

When the driver is gone the worker ends at once, by the pipe's end or by the kernel: every file it writes bears that.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate.errors import DataError, is_full_disk
from ablate.run.events import (
    Epoch,
    Failed,
    Finished,
    Profiled,
    Progress,
    Running,
    Said,
    Stopped,
    WorkerEvent,
    one_line,
)
from ablate.study.trial import Trial

if TYPE_CHECKING:
    from ablate.plugins import PluginFile
    from ablate.records.store import TrialFolder

# Signals that ask a worker to checkpoint and end its trial; the driver starts with them blocked for its children.
ASKING = (signal.SIGTERM, signal.SIGHUP)
# Seconds between two words that a trial is getting on.
PROGRESS_SECONDS = 10.0
# How long a trial waits for another process that still runs it, such as one whose driver was killed.
LOCK_SECONDS = 300.0
PR_SET_PDEATHSIG = 1
# Set where this module is imported by the fork server that the process of this id starts.
FORK_SERVER_OF = "ABLATE_FORK_SERVER_OF"
# What the fork server loads once for all workers; an optimizer's first step asks for `torch._dynamo`.
MODULES = ("torch", "torch._dynamo", "ablate.models.unet", "ablate.plugins", "ablate.train.loop")
# Libraries that allocate for themselves have no exception of their own for it.
OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


@dataclass(frozen=True)
class Assignment:
    """The duty of a worker process: a results folder, what all trials of the run share, and a device."""

    results: Path
    base: Path
    plugins: tuple[Path | PluginFile, ...] = ()
    origin: Path | None = None
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """Command: run the trial in the folder of this name."""

    trial: Trial
    folder: str


@dataclass(frozen=True)
class Profile:
    """Command: measure every variant alone, for about so many seconds in all."""

    seconds: float


@dataclass(frozen=True)
class Stop:
    """Command: checkpoint and end the trial that runs."""

    reason: str


def serve(connection: Connection, assignment: Assignment) -> None:
    """Serve the driver at the other end of the connection until it is gone."""
    settle(assignment)
    driver = _Driver(connection)
    for number in ASKING:
        signal.signal(number, driver.on_signal)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKING)
    try:
        server = Server(assignment, driver)
    except Exception as error:
        driver.send(Failed(None, one_line(error), traceback.format_exc(), pause=True))
        return
    while True:
        command = driver.commands.get()
        if isinstance(command, Run):
            server.run(command)
        else:
            server.profile(command)


def settle(assignment: Assignment) -> None:
    """Make this process a worker: a session of its own, the log for what it prints, the device's environment."""
    die_with_parent()
    with contextlib.suppress(OSError):  # it leads one already
        os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides what Ctrl-C means
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    log = os.open(assignment.results / "workers.log", flags, 0o644)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.close(log)
    os.environ.clear()
    os.environ.update(assignment.environment)
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text("ablate-worker", encoding="ascii")


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, whatever it is doing then (Linux).

    A thread that waits for the parent's end does not get to run while a C call holds the interpreter.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def become_fork_server() -> None:
    """Tie the fork server to the driver, keep it off the driver's terminal, and load what every worker needs.

    A session of its own keeps a terminal's signals away; those sent by hand were blocked when it was started.
    """
    die_with_parent()
    with contextlib.suppress(OSError):
        os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)
    for name in MODULES:
        # What cannot be imported here fails in the worker that needs it, and is said there.
        with contextlib.suppress(Exception):
            importlib.import_module(name)


class DriverSide:
    """The driver as one sees it who runs a trial: events go there, and the wish to stop comes from there."""

    reason: str | None = None

    def asked_to_stop(self) -> str | None:
        """Return the reason to end the trial that runs, if there is one."""
        return self.reason

    def on_signal(self, number: int, _frame: Any) -> None:
        """Take a signal for the wish to checkpoint and end."""
        self.reason = signal.Signals(number).name

    def heard(self) -> None:
        """Take note that the trial was ended as asked."""

    def send(self, event: WorkerEvent) -> None:
        """Tell the driver."""
        raise NotImplementedError


class _Driver(DriverSide):
    """The driver of this machine: its commands, read by a thread so that a stop arrives during a trial."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self.commands: queue.SimpleQueue[Run | Profile] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                command = self._connection.recv()
                if isinstance(command, Stop):
                    self.reason = command.reason
                else:
                    self.commands.put(command)
        os._exit(0)  # the driver is gone

    def heard(self) -> None:
        self.reason = None

    def send(self, event: WorkerEvent) -> None:
        with self._lock:
            self._connection.send(event)


class Server:
    """The study, the device and the networks that a worker keeps from trial to trial."""

    def __init__(self, assignment: Assignment, driver: DriverSide) -> None:
        """Load plugins and study; raises what either raises."""
        from ablate.plugins import load_plugins
        from ablate.records.store import Results
        from ablate.study.reader import read_study
        from ablate.train.context import Context
        from ablate.train.engine.config import Decisions

        load_plugins(assignment.plugins)
        self.results = Results(assignment.results)
        self.study = read_study(self.results.study, base=assignment.base)
        self.driver, self.assignment = driver, assignment
        decisions = Decisions.from_json(self.results.read_run()["decisions"])
        self.origin = Results(assignment.origin) if assignment.origin else None
        self.bench = Context(assignment.device, decisions, assignment.base, assignment.fingerprints)
        self._progress = 0.0

    def run(self, command: Run) -> None:
        """Run one trial; whatever happens, exactly one closing event is sent."""
        from ablate.train.checkpoint import inherit
        from ablate.train.loop import Interrupted, Options, run_trial

        trial, folder = command.trial, self.results.trial(command.folder)
        options = Options(
            measure=self.study.spec.measure,
            checkpoint_every=self.study.spec.run.checkpoint_every,
            keep=self.study.spec.run.keep,
            on_event=lambda row: self.driver.send(Epoch.of(row)),
            should_stop=lambda: self.should_stop(trial.name),
            provenance={
                **self.assignment.provenance,
                "device": self.assignment.device,
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "arithmetic": self.bench.arithmetic(),
            },
        )
        try:
            folder.make()
            with self.locked(trial, folder):
                self.driver.send(Running(trial.name, os.getpid(), os.getppid()))
                if self.origin is not None and trial.parent is not None:
                    options.provenance["extended"] = inherit(trial, folder, self.parent(trial.parent))
                record = run_trial(trial, self.bench, folder, options)
            self.driver.send(Finished(trial.name, record))
        except Interrupted as error:
            self.driver.heard()
            self.driver.send(Stopped(trial.name, str(error)))
        except Exception as error:
            failed = classify(error, trial.name, self.results.path)
            # A device that is broken answers this with the same error, and the first one is the reason.
            with contextlib.suppress(RuntimeError):
                self.bench.forget_network()
            self.driver.send(failed)

    def should_stop(self, trial: str) -> str | None:
        """Return the reason to end the trial, if there is one; between two steps, so that it also tells of progress."""
        now = time.monotonic()
        if now - self._progress >= PROGRESS_SECONDS:
            self._progress = now
            self.driver.send(Progress(trial))
        return self.driver.asked_to_stop()

    @contextlib.contextmanager
    def locked(self, trial: Trial, folder: TrialFolder) -> Iterator[None]:
        """Hold the lock of the trial's folder, waiting for a process that is about to end.

        Raises `Interrupted` where it was asked to stop meanwhile, or the other one did not end: the trial is not lost.
        """
        from ablate.records.files import lock
        from ablate.train.loop import Interrupted

        limit = time.monotonic() + LOCK_SECONDS
        said = False
        while True:
            with lock(folder.lock) as held:
                if held:
                    yield
                    return
            if not said:
                said = True
                self.driver.send(Said(f"{trial.name}: waits for another process that still runs it"))
            if (reason := self.driver.asked_to_stop()) is not None or time.monotonic() > limit:
                raise Interrupted(reason or "another process runs this trial")
            time.sleep(0.2)

    def parent(self, key: str) -> TrialFolder:
        """Return the folder of the shorter trial with this key in the results that are extended."""
        assert self.origin is not None
        names = {entry["key"]: entry["name"] for entry in self.origin.read_run()["plan"]}
        return self.origin.trial(names.get(key, "missing"))

    def profile(self, command: Profile) -> None:
        """Measure the variants alone on the device; one event with the profile, or with what went wrong."""
        from ablate.train.profile import profile_variants

        try:
            profile = profile_variants(self.study.representatives(), self.bench, seconds=command.seconds)
            self.driver.send(Profiled(profile))
        except Exception as error:
            self.driver.send(classify(error, folder=self.results.path))


def out_of_memory(error: BaseException | None) -> BaseException | None:
    """Return the exception that says that memory ran out: `error`, or what it came of (as in a graph's capture)."""
    import torch

    while error is not None:
        if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
            return error
        if isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY):
            return error
        error = error.__cause__ or error.__context__
    return None


def classify(error: BaseException, trial: str | None = None, folder: object = ".") -> Failed:
    """Return the event for an exception: the reason, and whether the process and the study can go on.

    `folder` is named for a full disk where the error names no file.
    """
    import torch

    from ablate.train.engine.cuda_graph import CaptureFailed

    trace = "".join(traceback.format_exception(error))
    if isinstance(error, DataError):
        return Failed(trial, str(error), trace, problems=error.problems)
    cause = out_of_memory(error)
    if cause is not None:
        return Failed(trial, f"out of memory: {one_line(cause)}", trace, fresh_process=True)
    # The device may answer every later call of this process with the same error.
    broken = isinstance(error, (torch.AcceleratorError, CaptureFailed))
    pause = not broken and is_full_disk(error)
    return Failed(trial, one_line(error, folder), trace, fresh_process=broken, pause=pause)


if os.environ.get(FORK_SERVER_OF) == str(os.getppid()):
    become_fork_server()
