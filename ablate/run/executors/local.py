"""Trials in persistent worker processes on this machine, one process a lane."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ablate.records.files import open_own
from ablate.run.executors.base import Event
from ablate.run.executors.environment import worker_environment
from ablate.run.executors.nursery import Nursery, Worker
from ablate.study.trial import Trial


class _Lane:
    """A worker process and what it is doing."""

    def __init__(self, make: Callable[[], Worker], events: queue.Queue[Any]) -> None:
        self._make, self._events = make, events
        self.process: Worker | None = None
        self.trial: Trial | None = None
        self.began = 0.0
        self.variant: str | None = None

    def send(self, command: dict[str, Any]) -> None:
        """Give the worker a command, starting the process where there is none."""
        if self.process is None:
            self.process = self._make()
            threading.Thread(target=self._listen, args=(self.process,), daemon=True).start()
        assert self.process.stdin is not None
        # A worker that just died says so by the end of its events.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()

    def _listen(self, process: Worker) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with contextlib.suppress(ValueError):  # half a line of a killed worker
                self._events.put((self, process, json.loads(line)))
        self._events.put((self, process, {"event": "gone", "code": process.wait()}))

    def kill(self) -> None:
        """End the process and its children at once."""
        process, self.process = self.process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class LocalExecutor:
    """One worker process for each lane of each device.

    With `keeps_steps` a lane keeps to its variant as long as there is work of it, since its step was costly to make.
    """

    def __init__(
        self,
        results: Path,
        *,
        base: Path,
        devices: Sequence[str],
        lanes: int,
        threads: int,
        plugins: Sequence[Path] = (),
        origin: Path | None = None,
        provenance: dict[str, Any] | None = None,
        trial_timeout: float | None = None,
        keeps_steps: bool = True,
        nursery: Nursery | None = None,
    ) -> None:
        self._events: queue.Queue[Any] = queue.Queue()
        self._timeout = trial_timeout
        self._keeps_steps = keeps_steps
        self._provenance = provenance or {}
        self._lanes = [
            _Lane(
                functools.partial(
                    _start_worker,
                    _arguments(results, base, device, plugins, origin),
                    worker_environment(device, threads),
                    results / "workers.log",
                    nursery if device == "cpu" else None,
                ),
                self._events,
            )
            for device in devices
            for _ in range(lanes)
        ]

    def free(self) -> int:
        """Lanes without a trial."""
        return sum(lane.trial is None for lane in self._lanes)

    def start(self, pending: Sequence[Trial]) -> Trial:
        """Start the pending trial that suits a free lane best.

        The first of them; where lanes keep their steps one of the same variant as before, or else of the variant with
        most work that no other lane is busy with.
        """
        idle = [lane for lane in self._lanes if lane.trial is None]
        if not self._keeps_steps:
            return self._begin(idle[0], pending[0])
        work = Counter(trial.variant for trial in pending)
        lane = next((lane for lane in idle if lane.variant in work), idle[0])
        if lane.variant not in work:
            others = Counter(other.variant for other in self._lanes if other is not lane)
            lane.variant = min(work, key=lambda variant: (others[variant], -work[variant], list(work).index(variant)))
        return self._begin(lane, next(trial for trial in pending if trial.variant == lane.variant))

    def _begin(self, lane: _Lane, trial: Trial) -> Trial:
        lane.trial, lane.began = trial, time.monotonic()
        lane.send({"op": "run", "trial": dataclasses.asdict(trial), "provenance": self._provenance})
        return trial

    def profile(self, seconds: float, should_stop: Callable[[], bool] = lambda: False) -> Event:
        """Have one worker, alone, profile the variants; its `profiled` event, or one with the reason why not."""
        for lane in self._lanes[1:]:
            lane.kill()
        self._lanes[0].send({"op": "profile", "seconds": seconds})
        # Compiling the variants can take several times as long as measuring them.
        limit = time.monotonic() + 10 * seconds + 300
        while time.monotonic() < limit and not should_stop():
            for event in self.events(timeout=0.2):
                if event["event"] in ("profiled", "failed", "lost"):
                    return event
        return {"event": "lost", "reason": "it was stopped or took too long"}

    def events(self, timeout: float) -> list[Event]:
        """As the protocol says; a worker that died or ran out of time gives a `failed` event for its trial."""
        found = self._overdue()
        with contextlib.suppress(queue.Empty):
            found += self._translate(*self._events.get(timeout=0 if found else timeout))
            while True:
                found += self._translate(*self._events.get_nowait())
        return found

    def _overdue(self) -> list[Event]:
        if self._timeout is None:
            return []
        found = []
        for lane in self._lanes:
            if lane.trial is not None and time.monotonic() - lane.began > self._timeout:
                found.append(
                    {"event": "failed", "trial": lane.trial.name, "reason": f"timeout: ran over {self._timeout:g} s"}
                )
                lane.kill()
                lane.trial = None
        return found

    def _translate(self, lane: _Lane, process: Worker, event: Event) -> list[Event]:
        if lane.process is not process:
            return []  # the last words of a worker that was ended on purpose
        kind = event["event"]
        if kind == "ready":
            return []
        if kind == "gone":
            lane.process = None
            trial, lane.trial = lane.trial, None
            reason = _exit_reason(event["code"])
            if trial is None:
                return [] if event["code"] == 0 else [{"event": "lost", "reason": reason}]
            return [{"event": "failed", "trial": trial.name, "reason": reason}]
        if kind == "broken":
            trial, lane.trial = lane.trial, None
            lane.kill()
            return [{**event, "event": "failed", "trial": trial.name if trial else None, "pause": True}]
        if kind == "running":
            lane.began = time.monotonic()  # a trial's time does not pay for the start of its process
        if kind in ("ended", "failed", "interrupted"):
            lane.trial = None
            if event.get("fresh_process"):
                lane.kill()
        return [event]

    def stop(self, reason: str) -> None:
        """Ask every running trial to checkpoint and end."""
        for lane in self._lanes:
            if lane.trial is not None:
                lane.send({"op": "stop", "reason": reason})

    def close(self) -> None:
        """End all workers."""
        for lane in self._lanes:
            lane.kill()


def _exit_reason(code: int) -> str:
    if code < 0:
        try:
            return f"killed ({-code}, {signal.Signals(-code).name})"
        except ValueError:
            return f"killed ({-code})"
    return f"the worker process ended with exit code {code}"


def _arguments(results: Path, base: Path, device: str, plugins: Sequence[Path], origin: Path | None) -> list[str]:
    local = "cuda:0" if device.startswith("cuda") else device
    arguments = ["--results", str(results), "--base", str(base), "--device", local]
    if origin is not None:
        arguments += ["--origin", str(origin)]
    for plugin in plugins:
        arguments += ["--plugin", str(plugin)]
    return arguments


def _start_worker(arguments: list[str], environment: dict[str, str], log: Path, nursery: Nursery | None) -> Worker:
    """A worker process, forked where there is a nursery that lives, else started from nothing."""
    with open_own(log, "ab") as errors:
        forked = nursery.fork(arguments, environment, errors.fileno()) if nursery is not None else None
        if forked is not None:
            return forked
        return subprocess.Popen(
            [sys.executable, "-m", "ablate.run.worker", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
            # A terminal's Ctrl-C is for the driver alone, which then asks the workers.
            start_new_session=True,
        )
