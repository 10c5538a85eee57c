"""Several runs of one results folder (`ablate run --join`): each takes trials that no other has, by a lock a trial.

The folder is all that they share. Its lock is held by one of them, which writes the manifest and Optuna's mirror; when
that one ends another takes it. What later phases run follows from the records, so that all plan the same.
"""

from __future__ import annotations

import contextlib
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from ablate.errors import ResultsError
from ablate.records.files import lock, read_file
from ablate.records.record import Record
from ablate.records.store import Results, read_record
from ablate.run.events import Failed, Finished, Stopped, WorkerEvent
from ablate.run.executor import LocalExecutor
from ablate.run.status import SHARED, STOP_ALL, lock_note
from ablate.run.worker import Assignment
from ablate.study.trial import Trial

# Seconds between two looks for trials that another run has left, and how long one may prepare the folder.
LOOK_SECONDS = 1.0
PREPARE_SECONDS = 3600.0
# Options of a mount with which a lock is seen on one machine only.
LOCAL_LOCKS = {"nolock", "local_lock=all", "local_lock=flock", "localflock"}
# Exits with 0 where it gets the lock.
_TRY = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"


class Share:
    """The part of this run in a shared folder: `holds` says whether it has the folder's lock."""

    def __init__(self, results: Results) -> None:
        self._results, self._held, self._looked = results, contextlib.ExitStack(), 0.0
        self.holds = self._stopped = False

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Prepare the folder while no other run does; raises `ResultsError` where a run holds it that shares it not."""
        with lock(self._results.path / ".joining", timeout=PREPARE_SECONDS) as turn:
            if not turn:
                raise ResultsError("another run prepares this folder", file=str(self._results.path), cure="wait for it")
            limit = time.monotonic() + 2 * LOOK_SECONDS
            while True:  # a run that just takes the lock over has not yet said so in it
                self._take()
                note = self._results.holder()
                if self.holds or note.endswith(SHARED) or time.monotonic() > limit:
                    break
                time.sleep(0.1)
            if not self.holds and not note.endswith(SHARED):
                cure = "stop it, and start every run with --join"
                raise ResultsError(f"another run holds this folder ({note})", file=str(self._results.path), cure=cure)
            if self.holds:
                (self._results.path / STOP_ALL).unlink(missing_ok=True)
            yield

    def _take(self) -> None:
        with contextlib.ExitStack() as stack:
            if not self.holds and stack.enter_context(lock(self._results.lock, lock_note() + SHARED)):
                self.holds, self._held = True, stack.pop_all()

    def look(self) -> None:
        """Take the folder's lock where its holder has gone, and stop where all are asked to; once a second."""
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._looked = time.monotonic()
            self._take()
            if not self._stopped and (self._results.path / STOP_ALL).exists():
                self._stopped = True  # a second signal would not wait for the checkpoints
                signal.raise_signal(signal.SIGTERM)

    def close(self) -> None:
        """Let go of the folder."""
        self._held.close()


class JoinedExecutor(LocalExecutor):
    """The workers of one of several runs: a trial is begun under a lock, and what other runs ended is reported, too.

    The kernel frees the locks of a process that dies; its trials go on from their checkpoints elsewhere.
    """

    def __init__(self, assignment: Assignment, *, share: Share, **settings: Any) -> None:
        super().__init__(assignment, **settings)
        self._share, self._results = share, Results(assignment.results)
        self._claims: dict[str, contextlib.ExitStack] = {}
        self._over: list[str] = []
        self._reported: set[str] = set()
        self._next_look = 0.0

    def free(self) -> int:
        """Return how many workers have no trial; 0 for a while where other runs had all that is left."""
        return super().free() if time.monotonic() > self._next_look else 0

    def start(self, pending: Sequence[Trial]) -> Trial | None:
        """Start a trial that no other run has, and return it; None where there is none just now."""
        self._let_go()
        variants = {slot.variant for slot in self._slots if slot.trial is None}
        for trial in sorted(pending, key=lambda trial: trial.variant not in variants):
            if self._claim(trial):
                return super().start([trial])
        self._next_look = time.monotonic() + LOOK_SECONDS
        return None

    def _claim(self, trial: Trial) -> bool:
        """Take a trial's lock; False where another run has it, or has ended it, which is then reported."""
        if trial.name in self._reported:
            return False
        record = self._record(trial)
        if record is None:
            folder = self._results.trial(self._folder_of(trial))
            folder.make()
            with contextlib.ExitStack() as stack:
                if not stack.enter_context(lock(folder.claim)):
                    return False
                record = self._record(trial)  # it may have ended before the lock was taken
                if record is None:
                    self._claims[trial.name] = stack.pop_all()
                    return True
        self._reported.add(trial.name)
        self._events.put((None, Finished(trial.name, record)))
        return False

    def _record(self, trial: Trial) -> Record | None:
        record = read_record(self._results.trial(self._folder_of(trial)).record)
        return record if record is not None and record.key == trial.key else None

    def events(self, timeout: float) -> list[WorkerEvent]:
        """Return what happened here since the last call, and which trials other runs have ended."""
        self._let_go()
        self._share.look()
        found = super().events(timeout)
        ended = (event.trial for event in found if isinstance(event, Finished | Failed | Stopped))
        self._over += [trial for trial in ended if trial in self._claims]
        return found

    def _let_go(self) -> None:
        """Free the locks of trials that are over, once the driver has taken note of it."""
        for trial in self._over:
            self._claims.pop(trial).close()
        self._over.clear()

    def close(self) -> None:
        """End all workers, then free their trials."""
        super().close()
        for claim in self._claims.values():
            claim.close()


def check_locks(folder: Path) -> None:
    """Raise `ResultsError` where a lock in `folder` is not seen by other processes, or on other machines.

    Told by the options of its mount, and by a second process that tries a lock which this one holds.
    """
    options = mount_options(read_file(Path("/proc/self/mountinfo")).decode(), folder) if sys.platform == "linux" else ()
    if wrong := LOCAL_LOCKS.intersection(options):
        _refuse(folder, f"the mount's option {wrong.pop()} keeps locks on one machine")
    probe = folder / f".probe-{secrets.token_hex(4)}"
    try:
        with FileLock(probe):
            # -I: nothing of the working folder, of PYTHONPATH or of the user's own is imported.
            done = subprocess.run([sys.executable, "-I", "-S", "-c", _TRY, str(probe)], capture_output=True, text=True)
    finally:
        probe.unlink(missing_ok=True)
    if done.returncode == 0:
        _refuse(folder, "a second process took a lock that was held")
    if "BlockingIOError" not in done.stderr:
        _refuse(folder, (done.stderr.strip().splitlines() or ["no word of a second process"])[-1])


def _refuse(folder: Path, reason: str) -> None:
    cure = "let each machine run into a folder of its own with --out, and unite them by `ablate merge`"
    raise ResultsError(f"this file system cannot share trials by locks: {reason}", file=str(folder), cure=cure)


def mount_options(mountinfo: str, path: Path) -> list[str]:
    """Return the options of the mount that `path` lies on, by the text of /proc/self/mountinfo (see proc(5))."""
    place, best, options = path.resolve(), -1, list[str]()
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        mount = Path(before.split()[4].encode().decode("unicode_escape"))
        if place.is_relative_to(mount) and len(mount.parts) >= best:
            best, options = len(mount.parts), [*before.split()[5].split(","), *after.split()[-1].split(",")]
    return options
