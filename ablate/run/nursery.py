"""The nursery process: imports what every worker needs, once, and forks workers for the driver that asks over a socket.

It has one thread, so that a fork copies a process at rest, and computes nothing itself.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import selectors
import signal
import socket
import sys
from pathlib import Path
from typing import Any

# What an optimizer's first step asks for comes first: it takes longer than all the rest.
MODULES = ("torch", "torch._dynamo", "ablate.models.unet", "ablate.plugins", "ablate.train.loop", "ablate.run.worker")


def main() -> None:
    """Serve the driver at the other end of the socket whose descriptor is the only argument, until it is gone."""
    control = socket.socket(fileno=int(sys.argv[1]))
    waker, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    preload()
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        selector.register(waker, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is control:
                    message, descriptors, _, _ = socket.recv_fds(control, 1 << 20, 3)
                    if not message:
                        return  # the driver is gone; the workers see it by themselves
                    fork(control, json.loads(message), descriptors)
                else:
                    os.read(waker, 4096)
                    report_ends(control)


def preload() -> None:
    """Import what a worker does, and what its first training step would."""
    for name in MODULES:
        importlib.import_module(name)
    from ablate.train.engine.fused.library import NoKernels, library

    with contextlib.suppress(NoKernels):
        library()


def fork(control: socket.socket, request: dict[str, Any], descriptors: list[int]) -> None:
    """A worker on the three `descriptors` given, in a process group of its own."""
    pid = os.fork()
    if pid == 0:
        become_worker(control, request, descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    with contextlib.suppress(OSError):  # it did so itself
        os.setpgid(pid, pid)
    say(control, pid=pid)


def become_worker(control: socket.socket, request: dict[str, Any], descriptors: list[int]) -> None:
    """What a started worker process would do; never returns."""
    code = 1
    try:
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
        control.close()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for target, descriptor in enumerate(descriptors):
            os.dup2(descriptor, target)
            os.close(descriptor)
        os.environ.clear()
        os.environ.update(request["environment"])
        with contextlib.suppress(OSError):
            Path("/proc/self/comm").write_text("ablate-worker", encoding="ascii")

        from ablate.run import worker

        worker.main(request["arguments"])
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def report_ends(control: socket.socket) -> None:
    """Tell the driver of every worker that has ended."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            say(control, pid=pid, code=os.waitstatus_to_exitcode(status))


def say(control: socket.socket, **words: int) -> None:
    """One message to the driver, if it is still there."""
    with contextlib.suppress(OSError):
        control.send(json.dumps(words).encode())


if __name__ == "__main__":
    main()
