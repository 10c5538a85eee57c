"""A study that is disturbed at random and started again by the same command until it is complete."""

from __future__ import annotations

import contextlib
import random
import resource
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak.command import Command
from tests.soak.processes import send

# How long something that is on its way may take on a machine with other work.
PATIENCE = 120.0
# Starts without a new record after which a study is given up as one that cannot be completed.
FRUITLESS = 5
REFUSED = "another run holds this folder"
# Ctrl-C, SIGTERM and a closed terminal.
STOPPED = (129, 130, 143)
FULL = ("the disk is full", "a file may not become larger")


@dataclass
class Told:
    """What happened to a disturbed study and what it did, in numbers."""

    seed: int
    disturbances: Counter[str] = field(default_factory=Counter)
    # Disturbances that ended a process: by SIGKILL, SIGTERM or SIGINT.
    kills: int = 0
    starts: int = 0
    refused: int = 0
    exits: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    suspended: float = 0.0
    # What should not have happened, in words.
    wrong: list[str] = field(default_factory=list)
    complete: bool = False


class Disturbance:
    """Runs a study and does to it what `schedule` says, each item once so many trials have a record."""

    def __init__(
        self, command: Command, schedule: Sequence[tuple[int, str]], *, trials: int, seed: int, disk: Path | None = None
    ) -> None:
        self.command, self.trials, self.disk = command, trials, disk
        self.schedule = sorted(schedule)
        self.random = random.Random(seed)
        self.told = Told(seed)
        self.driver: subprocess.Popen[bytes] | None = None
        # The index of what the driver says, among the logs.
        self.log = -1
        self.expected_end = False

    def run(self, seconds: float = 3600.0) -> Told:
        """Go on until every trial has a record and the command says so, or until nothing moves any more."""
        began = time.monotonic()
        best, fruitless = 0, 0
        try:
            self._start()
            while time.monotonic() - began < seconds:
                if self._has_ended():
                    finished = self.command.finished()
                    if finished == self.trials and self.told.exits["0"]:
                        break  # nothing is left to disturb
                    fruitless = 0 if finished > best or self.expected_end else fruitless + 1
                    best, self.expected_end = max(best, finished), False
                    if fruitless == FRUITLESS:
                        self.told.wrong.append(
                            f"{finished} of {self.trials} records after {FRUITLESS} fruitless starts"
                        )
                        break
                    self._start()
                elif self.schedule and self.schedule[0][0] <= self.command.finished():
                    self._disturb(self.schedule.pop(0)[1])
                time.sleep(0.05)
            self.told.seconds = time.monotonic() - began
            left = self.command.left_over()
            self.told.wrong += [f"left running: {process.words}" for process in left]
            self.told.complete = self.command.finished() == self.trials and bool(self.told.exits["0"])
        finally:
            self.command.end()
            self.told.starts = len(self.command.logs)
        for index, log in enumerate(self.command.logs):
            if "Traceback" in self.command.said(index):
                self.told.wrong.append(f"a traceback in {log.name}")
        return self.told

    # -- the command --------------------------------------------------------------------------------------

    def _start(self) -> subprocess.Popen[bytes]:
        self.driver = self.command.start()
        self.log = len(self.command.logs) - 1
        return self.driver

    def _has_ended(self) -> bool:
        assert self.driver is not None
        code = self.driver.poll()
        if code is None:
            return False
        self.told.exits[str(code)] += 1
        if code == 0 and self.command.finished() < self.trials:
            self.told.wrong.append(f"exit code 0 with {self.command.finished()} of {self.trials} records")
        if code > 0 and code not in STOPPED and not self.expected_end:
            self.told.wrong.append(f"exit code {code}: {self.command.said(self.log).strip().splitlines()[-1:]}")
        return True

    def _wait(self, condition: Callable[[], bool], seconds: float = PATIENCE) -> bool:
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            if condition():
                return True
            time.sleep(0.02)
        return False

    # -- what is done to it -------------------------------------------------------------------------------

    def _disturb(self, what: str) -> None:
        # Not always right after a record was published.
        time.sleep(self.random.uniform(0, 0.4))
        verb, _, whom = what.partition(" ")
        if what == "second runner":
            self._second_runner()
        elif what == "two runners":
            self._two_runners()
        elif what == "full disk":
            self._full_disk()
        else:
            whom, victims = self._victims(whom)
            if not victims:
                return  # the driver ended before there was anybody to do it to
            self._suspend(victims) if verb == "suspend" else self._end(verb, whom, victims)
            what = f"{verb} {whom}"
        self.told.disturbances[what] += 1

    def _victims(self, whom: str) -> tuple[str, list[int]]:
        """Return who the signal is for, and the processes, waiting for one to be there; none once the driver has ended.

        A driver that has lost its fork server may start its workers itself: then it is a worker instead.
        """
        driver = self.driver
        assert driver is not None
        found: list[int] = []

        def look() -> bool:
            if driver.poll() is not None:
                return True
            if whom == "driver":
                found[:] = [driver.pid]
            elif whom == "everything":
                found[:] = [process.pid for process in self.command.processes()]
            elif whom == "server":
                found[:] = self.command.fork_servers(driver.pid)
                return bool(found or self.command.workers(driver.pid))
            elif there := self.command.workers(driver.pid):
                found[:] = [self.random.choice(sorted(there))]
            return bool(found)

        self._wait(look)
        if whom == "server" and not found:
            return self._victims("worker")
        return whom, found if driver.poll() is None else []

    def _end(self, verb: str, whom: str, victims: list[int]) -> None:
        assert self.driver is not None
        number = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM, "interrupt": signal.SIGINT}[verb]
        self.told.kills += send(victims, number) > 0
        if whom in ("everything", "driver"):
            if not self._ends(self.driver):
                self.told.wrong.append(f"the driver did not end after: {verb} {whom}")
                self.driver.kill()
            if whom == "everything" and verb == "kill":
                self.command.pull_the_plug()

    def _ends(self, process: subprocess.Popen[bytes], seconds: float = PATIENCE) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=seconds)
        return process.returncode is not None

    def _suspend(self, victims: list[int]) -> None:
        send(victims, signal.SIGSTOP)
        pause = self.random.uniform(0.2, 1.5)
        time.sleep(pause)
        send(victims, signal.SIGCONT)
        self.told.suspended += pause

    def _second_runner(self) -> None:
        """Start the command in a folder where it is running; the second is refused."""
        first, log = self.driver, self.log
        assert first is not None
        # The first has the folder once it has said anything.
        self._wait(lambda: bool(self.command.said(log)) or first.poll() is not None)
        self._one_of(first, log)

    def _two_runners(self) -> None:
        """Kill the driver and start the command twice at once; one of both is refused."""
        assert self.driver is not None
        if self.driver.poll() is None:
            self._end("kill", "driver", [self.driver.pid])
        self._has_ended()
        self._one_of(self._start(), self.log)

    def _one_of(self, first: subprocess.Popen[bytes], log: int) -> None:
        second = self.command.start()
        logs = {first.pid: log, second.pid: len(self.command.logs) - 1}
        both = (first, second)
        self._wait(lambda: any(process.poll() is not None for process in both))
        ended = [process for process in both if process.poll() is not None]
        refused = [p for p in ended if p.returncode == 2 and REFUSED in self.command.said(logs[p.pid])]
        self.told.refused += len(refused)
        stays = next((process for process in both if process not in refused), first)
        for process in ended:
            # The first may have come to its end before the second looked.
            if process not in refused and process is not stays and process.returncode != 0:
                self.told.wrong.append(f"of two runners one ended with exit code {process.returncode}")
        if not ended:
            self.told.wrong.append("of two runners neither was refused")
            second.kill()
            second.wait()
        self.driver, self.log = stays, logs[stays.pid]

    def _full_disk(self) -> None:
        """Leave no room for another byte until the study pauses; without a disk of its own, no file may grow."""
        driver, filler = self.driver, None
        assert driver is not None
        if self.disk is not None:
            filler = self.disk / "filler"
            with contextlib.suppress(OSError), filler.open("wb") as handle:
                while True:
                    handle.write(b"0" * 4096)
                    handle.flush()
        else:
            for process in self.command.processes():
                with contextlib.suppress(OSError):
                    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (2048, 2048))
        self.expected_end = True
        if not self._ends(driver):
            self.told.wrong.append("a full disk did not pause the study")
            driver.kill()
        # One that ended well had written all before the limit came.
        elif driver.returncode != 0 and not any(words in self.command.said(self.log) for words in FULL):
            self.told.wrong.append(f"a full disk was not said: {self.command.said(self.log).splitlines()[-1:]}")
        if filler is not None:
            filler.unlink()
