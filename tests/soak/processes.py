"""The processes of a study under test, found by a mark in their environment and told apart by who started whom.

Nothing here knows how the command starts its workers: what inherits the mark belongs to the study, the children of the
driver that have children are fork servers, and the grandchildren are workers.
"""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

MARK = "SOAK_MARK"


@dataclass(frozen=True)
class Process:
    """One process that has not ended: its id, its parent's and its command line."""

    pid: int
    parent: int
    words: str

    @property
    def is_helper(self) -> bool:
        """True for a process that only keeps the books of `multiprocessing`, and for programs asked a question."""
        return "resource_tracker" in self.words or self.words.startswith(("git", "sh", "cc", "gcc", "ld"))


def marked(mark: str) -> list[Process]:
    """Return every living process whose environment carries `mark`; those that have ended (zombies) are left out."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if wanted not in (entry / "environ").read_bytes().split(b"\0"):
                continue
            # The name in parentheses may hold blanks; what follows it may not.
            fields = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if fields[0] not in "ZX":
                found.append(Process(int(entry.name), int(fields[1]), words))
    return found


def fork_servers(driver: int, processes: list[Process]) -> list[int]:
    """Return the children of `driver` that have children of their own."""
    parents = {process.parent for process in processes}
    return [p.pid for p in processes if p.parent == driver and p.pid in parents and not p.is_helper]


def workers(driver: int, processes: list[Process]) -> list[int]:
    """Return what fork servers have forked, orphans of a dead one included, and children of the driver at a trial."""
    servers, ours = set(fork_servers(driver, processes)), os.getpid()
    others = [p for p in processes if p.pid not in servers | {driver} and p.parent != ours and not p.is_helper]
    return [p.pid for p in others if p.parent != driver or is_at_a_trial(p.pid)]


def is_at_a_trial(pid: int) -> bool:
    """Return whether a process has a file of a trial open, such as its lock."""
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if "/trials/" in str(descriptor.readlink()):
                    return True
    return False


def send(pids: list[int], number: signal.Signals) -> int:
    """Send a signal to each process that is still there; return how many were."""
    sent = 0
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            sent += 1
    return sent
