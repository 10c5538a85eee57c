"""The driver's side of the nursery: a process that imports what workers need while the driver plans, and forks them.

Importing takes longer than planning. Done once, beside the driver, it is paid neither by each worker nor by the clock.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any, Protocol

from ablate.run.executors.environment import worker_environment

# A GPU's driver does not survive a fork once it is awake, and a worker has to be started with the one GPU it may see.
GPUS = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/kfd")
# How long a fork may take, the nursery's imports included.
PATIENCE_SECONDS = 120.0
# The code of a worker whose end nobody saw.
UNSEEN = -9


class Worker(Protocol):
    """What the driver needs of a worker process, forked or started: that of `subprocess.Popen`."""

    pid: int
    stdin: IO[str] | None
    stdout: IO[str] | None

    def wait(self) -> int:
        """Its exit code, once it has ended; the negative of the signal that ended it."""
        ...


class Forked:
    """A worker that the nursery forked."""

    def __init__(self, pid: int, stdin: IO[str], stdout: IO[str]) -> None:
        self.pid = pid
        self.stdin: IO[str] | None = stdin
        self.stdout: IO[str] | None = stdout
        self.code = UNSEEN
        self.ended = threading.Event()

    def wait(self) -> int:
        """As `Worker` says."""
        self.ended.wait()
        return self.code


class Nursery:
    """A process that has imported what workers need, and forks one whenever it is asked to."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ablate.run.nursery", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=worker_environment("cpu", 1),
                start_new_session=True,
            )
        self._born: queue.Queue[int | None] = queue.Queue()
        self._workers: dict[int, Forked] = {}
        self._codes: dict[int, int] = {}
        self._lock = threading.Lock()
        self._gone = False
        threading.Thread(target=self._listen, daemon=True).start()

    def fork(self, arguments: list[str], environment: dict[str, str], errors: int) -> Forked | None:
        """A new worker with its standard error at the descriptor `errors`; None where the nursery has died."""
        with contextlib.ExitStack() as stack:
            their_in, our_in = os.pipe()
            stack.callback(os.close, their_in)
            our_out, their_out = os.pipe()
            stack.callback(os.close, their_out)
            stdin = os.fdopen(our_in, "w", encoding="utf-8")
            stdout = os.fdopen(our_out, encoding="utf-8")
            request = json.dumps({"arguments": arguments, "environment": environment}).encode()
            try:
                socket.send_fds(self._control, [request], [their_in, their_out, errors])
                pid = self._born.get(timeout=PATIENCE_SECONDS)
            except (OSError, queue.Empty):
                pid = None
        if pid is None:
            stdin.close()
            stdout.close()
            return None
        worker = Forked(pid, stdin, stdout)
        with self._lock:
            self._workers[pid] = worker
            if pid in self._codes or self._gone:
                self._end(pid, self._codes.pop(pid, UNSEEN))
        return worker

    def _listen(self) -> None:
        """Take what the nursery says, until it is gone."""
        with contextlib.suppress(OSError):
            while message := self._control.recv(1 << 16):
                said: dict[str, Any] = json.loads(message)
                if "code" not in said:
                    self._born.put(said["pid"])
                    continue
                with self._lock:
                    if said["pid"] in self._workers:
                        self._end(said["pid"], said["code"])
                    else:  # it ended before `fork` came to know it
                        self._codes[said["pid"]] = said["code"]
        self._born.put(None)
        with self._lock:
            self._gone = True
            for pid in list(self._workers):
                self._end(pid, UNSEEN)

    def _end(self, pid: int, code: int) -> None:
        worker = self._workers.pop(pid)
        worker.code = code
        worker.ended.set()

    def close(self) -> None:
        """End the nursery; the workers are for whoever asked for them to end."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        self._control.close()


@contextlib.contextmanager
def nursery_if_useful() -> Any:
    """A nursery while the block runs, where the system can fork as it must and no GPU is there; else None."""
    if sys.platform != "linux" or any(Path(device).exists() for device in GPUS):
        yield None
        return
    nursery = Nursery()
    try:
        yield nursery
    finally:
        nursery.close()
