"""A worker process: takes trials over a pipe, runs them one after another on one device, and reports events.

Commands come as JSON lines on standard input, events leave as JSON lines on the original standard output. When the
pipe closes, the driver is gone, and the worker ends at once: every file it writes bears that.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate.errors import is_full_disk

if TYPE_CHECKING:
    from ablate.records.store import TrialFolder


OUT_OF_MEMORY = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


class _Channel:
    """Events to the driver, on a descriptor that no stray print reaches."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
        os.dup2(2, 1)
        self._lock = threading.Lock()

    def send(self, event: dict[str, Any]) -> None:
        with self._lock:
            self._out.write(json.dumps(event) + "\n")
            self._out.flush()


class _Commands:
    """Commands from the driver, read by a thread so that a stop arrives in the middle of a trial."""

    def __init__(self) -> None:
        self.waiting: queue.Queue[dict[str, Any]] = queue.Queue()
        self.stop_reason: str | None = None
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin:
            command = json.loads(line)
            if command["op"] == "stop":
                self.stop_reason = command["reason"]
            else:
                self.waiting.put(command)
        os._exit(0)  # the driver is gone

    def on_signal(self, number: int, frame: Any) -> None:
        self.stop_reason = signal.Signals(number).name


def main(argv: list[str] | None = None) -> None:
    """Serve commands until told to quit."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--origin", type=Path)
    parser.add_argument("--plugin", type=Path, action="append", default=[])
    arguments = parser.parse_args(argv)
    channel, commands = _Channel(), _Commands()
    signal.signal(signal.SIGTERM, commands.on_signal)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides what Ctrl-C means
    try:
        server = _Server(arguments, channel, commands)
    except Exception as error:
        channel.send({"event": "broken", "reason": describe(error), "traceback": traceback.format_exc()})
        return
    channel.send({"event": "ready", "pid": os.getpid()})
    while True:
        command = commands.waiting.get()
        if command["op"] == "quit":
            return
        if command["op"] == "run":
            server.run(command)
        elif command["op"] == "profile":
            server.profile(command)


class _Server:
    def __init__(self, arguments: argparse.Namespace, channel: _Channel, commands: _Commands) -> None:
        from ablate.plugins import load_plugins
        from ablate.records.store import Results
        from ablate.study.reader import read_study
        from ablate.train.context import Context
        from ablate.train.engine.config import Decisions

        load_plugins(arguments.plugin)
        self.results = Results(arguments.results)
        self.study = read_study(self.results.study)
        self.channel, self.commands = channel, commands
        self.device: str = arguments.device
        decisions = Decisions.from_json(self.results.read_run()["decisions"])
        self.origin = Results(arguments.origin) if arguments.origin else None
        self.bench = Context(arguments.device, decisions, arguments.base)

    def run(self, command: dict[str, Any]) -> None:
        """One trial; whatever happens, exactly one closing event."""
        from ablate.records.files import lock
        from ablate.study.trial import Trial
        from ablate.train.checkpoint import inherit
        from ablate.train.loop import Interrupted, Options, run_trial

        trial = Trial(**command["trial"])
        folder = self.results.trial(trial.name)
        event: dict[str, Any] = {"trial": trial.name}
        options = Options(
            measure=self.study.spec.measure,
            checkpoint_every=self.study.spec.run.checkpoint_every,
            on_event=self.channel.send,
            should_stop=lambda: self.commands.stop_reason,
            provenance={
                **command["provenance"],
                "device": self.device,
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "arithmetic": self.bench.arithmetic(),
            },
        )
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            with lock(folder.lock) as held:
                if not held:
                    raise RuntimeError("another process is running this trial")
                self.channel.send({**event, "event": "running", "at": time.time()})
                if self.origin is not None and trial.parent is not None:
                    options.provenance["extended"] = inherit(trial, folder, self.parent(trial.parent))
                record = run_trial(trial, self.bench, folder, options)
            self.channel.send({**event, "event": "ended", "record": record.model_dump(mode="json")})
        except Interrupted as error:
            self.commands.stop_reason = None
            self.channel.send({**event, "event": "interrupted", "reason": str(error)})
        except Exception as error:
            failed = {**event, **classify(error), "traceback": traceback.format_exc()}
            # A device that is broken answers this with the same error, and the first one is the reason.
            with contextlib.suppress(RuntimeError):
                self.bench.forget_network()
            self.channel.send(failed)

    def parent(self, key: str) -> TrialFolder:
        """The folder of the shorter trial with this key in the results that are extended."""
        assert self.origin is not None
        names = {entry["key"]: entry["name"] for entry in self.origin.read_run()["plan"]}
        return self.origin.trial(names.get(key, "missing"))

    def profile(self, command: dict[str, Any]) -> None:
        """Measure the variants alone on the device; one event with the profile, or with what went wrong."""
        from ablate.train.profile import profile_variants

        try:
            profile = profile_variants(self.study.representatives(), self.bench, seconds=command["seconds"])
            self.channel.send({"event": "profiled", "profile": profile})
        except Exception as error:
            self.channel.send({**classify(error), "traceback": traceback.format_exc()})


def describe(error: BaseException) -> str:
    """An exception in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500] if text else type(error).__name__


def out_of_memory(error: BaseException | None) -> BaseException | None:
    """The exception that says that memory ran out: `error` or what it came of (a failed capture ends in another)."""
    import torch

    while error is not None:
        if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
            return error
        # Libraries on the device that allocate for themselves have no exception of their own.
        if isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY):
            return error
        error = error.__cause__ or error.__context__
    return None


def classify(error: BaseException) -> dict[str, Any]:
    """A `failed` event: the reason, whether the process can go on, and whether the whole study has to pause."""
    import torch

    from ablate.train.engine.cuda_graph import CaptureFailed

    cause = out_of_memory(error)
    if cause is not None:
        return {"event": "failed", "reason": f"out of memory: {describe(cause)}", "fresh_process": True}
    if isinstance(error, (torch.AcceleratorError, CaptureFailed)):
        # The device may answer every later call of this process with the same error.
        return {"event": "failed", "reason": describe(error), "fresh_process": True}
    if is_full_disk(error):
        return {"event": "failed", "reason": describe(error), "pause": True}
    return {"event": "failed", "reason": describe(error)}


if __name__ == "__main__":
    main()
