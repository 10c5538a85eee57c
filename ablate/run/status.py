"""The state of a study, and the places of its trials, read from the records; asks no running process."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ablate.errors import ResultsError, visible
from ablate.records.files import lock, write_atomic
from ablate.records.record import FINISHED
from ablate.records.store import Results, TrialFolder, read_json, read_lines, read_record
from ablate.run.cluster.job import STOP, index_of
from ablate.study.trial import Trial
from ablate.wording import count_of

# Ends the note in a folder's lock where its holder shares the folder (`ablate run --join`).
SHARED = ", shared"
# A file in a results folder that asks all who share it to stop.
STOP_ALL = "stop"
STATES = ("complete", "diverged", "pruned", "failed", "begun", "missing")


class TrialFolders:
    """The folders of the trials of a plan: under their own names, or where a trial of the same key ran under another.

    A renamed variant or another order of axes changes the name of a folder and nothing of what was computed.
    """

    def __init__(self, results: Results) -> None:
        self._results = results
        self._known: dict[str, TrialFolder] = {}
        self._by_suffix: dict[str, list[TrialFolder]] | None = None

    def of(self, key: str, name: str) -> TrialFolder:
        """Return the folder of the trial with this key, whose own name is `name`; the same one at every call."""
        if key not in self._known:
            self._known[key] = self._find(key, self._results.trial(name))
        return self._known[key]

    def _find(self, key: str, own: TrialFolder) -> TrialFolder:
        if own.record.exists():
            return own
        if self._by_suffix is None:
            self._by_suffix = defaultdict(list)
            for folder in self._results.folders():
                self._by_suffix[folder.name.rpartition("-")[2]].append(folder)
        others = [folder for folder in self._by_suffix.get(key[:8], []) if folder.name != own.name]
        if (found := next((folder for folder in others if _has_record(folder, key)), None)) is not None:
            return found
        begun = [folder for folder in [own, *others] if folder.checkpoints()]
        return begun[0] if begun else own


def _has_record(folder: TrialFolder, key: str) -> bool:
    try:
        record = read_record(folder.record)
    except ResultsError:
        return False
    return record is not None and record.key == key


def status_document(path: Path) -> dict[str, Any]:
    """Return how far the study at `path` is: trials by variant and state, what ended badly, whether a run goes on."""
    results = Results(path)
    run = results.read_run()
    records, bad = results.records()
    by_key = {record.key: record for record in records}
    states: dict[str, Counter[str]] = {}
    ended = []
    for entry in run["plan"]:
        record = by_key.get(entry["key"])
        if record is not None:
            state: str = record.status
        else:
            state = "begun" if read_lines(results.trial(entry["name"]).epochs) else "missing"
        states.setdefault(entry["variant"], Counter())[state] += 1
        if record is not None and state in ("failed", "diverged"):
            ended.append({"trial": entry["name"], "status": state, "reason": visible(str(record.reason))})
    total: Counter[str] = sum(states.values(), Counter())
    given = _with_cluster(results)
    return {
        "study": run["study"],
        "path": str(path),
        "trials": sum(total.values()),
        "done": sum(total[state] for state in FINISHED),
        "states": {variant: dict(counts) for variant, counts in states.items()},
        "ended": ended,
        # The same whether the trials are packed or not.
        "unreadable": {str(path / place.relative_to(results.trials.parent)): visible(bad[place]) for place in bad},
        "running": _held(results.lock),
        "with_cluster": len(given),
        "waiting": sum(not read_lines(results.trial(name).epochs) for name in given),
    }


def print_status(path: Path) -> int:
    """Print trials by variant and state; 0 where all are done, 1 where some failed or are missing."""
    console, found = Console(), status_document(path)
    trials = count_of(found["trials"], "trial")
    console.print(Text(f"{found['study']}: {found['done']} of {trials} done"), soft_wrap=True)
    table = Table()
    table.add_column("variant")
    shown = [state for state in STATES if any(row.get(state) for row in found["states"].values())]
    for state in shown:
        table.add_column(state, justify="right")
    for variant, row in found["states"].items():
        table.add_row(Text(variant), *(str(row.get(state, 0)) for state in shown))
    console.print(table)
    lines = [f"{item['trial']}: {item['status']}: {item['reason']}" for item in found["ended"]]
    for line in [*lines, *found["unreadable"].values()]:  # which name the file
        console.print(Text(line), soft_wrap=True)
    if found["with_cluster"]:
        begun = found["with_cluster"] - found["waiting"]
        console.print(f"{count_of(found['with_cluster'], 'trial')} given to a cluster, {begun} of them begun")
    console.print("a run is going on" if found["running"] else "no run is going on")
    return 0 if found["done"] == found["trials"] else 1


def lock_note() -> str:
    """Return who holds a lock: pid and host."""
    return f"pid {os.getpid()} on {socket.gethostname()}"


def _with_cluster(results: Results) -> list[str]:
    """Return the trials that were given to a cluster and have no record yet."""
    return [name for name in index_of(results.path / "jobs") if not results.trial(name).record.exists()]


def stop_run(path: Path) -> int:
    """Ask the run of a results folder to checkpoint its trials and end; 0, or 1 where nothing runs.

    A driver of this machine gets SIGTERM; jobs that a cluster runs without one read of it in the folder.
    """
    results = Results(path)
    if is_shared(results):
        write_atomic(results.path / STOP_ALL, b"ablate stop")
        print("asked all runs of the folder to stop; `ablate run --join` goes on where they left")
    elif _held(results.lock):
        held = re.fullmatch(r"pid ([1-9]\d*) on (.*)", results.holder())
        if held is None or held[2] != socket.gethostname():
            by = held[2] if held else "another process"
            raise ResultsError(f"the run is on {by}", file=str(path), cure="stop it there")
        if not _has_open(int(held[1]), results.lock):
            cure = "ask again; if it says the same, end by hand what holds the lock"
            raise ResultsError(f"the lock is not held by process {held[1]}, which it names", file=str(path), cure=cure)
        os.kill(int(held[1]), signal.SIGTERM)
        print(f"asked the run (pid {held[1]}) to stop; `ablate run` goes on where it left")
    elif _with_cluster(results):
        write_atomic(results.path / "jobs" / STOP, b"ablate stop")
        print("asked the jobs to checkpoint and end; those that wait end when they begin")
    else:
        print("no run is going on")
        return 1
    return 0


def is_shared(results: Results) -> bool:
    """Return whether runs share the folder now; between two holders of its lock they have those of their trials."""
    return results.holder().endswith(SHARED) and any(map(_held, [results.lock, *results.trials.glob("*/.claim")]))


def _held(path: Path) -> bool:
    """Return whether a process holds the lock of the folder."""
    if not path.exists():
        return False
    try:
        with lock(path) as free:
            return not free
    except OSError:  # a copy that only may be read
        return False


def _has_open(pid: int, path: Path) -> bool:
    """Return whether a process has a file open: a lock outlives its note, and anybody may write one with any pid."""
    found = path.stat()
    try:
        entries = list(os.scandir(f"/proc/{pid}/fd"))
    except FileNotFoundError:
        return not Path("/proc/self/fd").exists()  # a system without /proc has to be believed
    except OSError:
        return False  # a process of somebody else
    for entry in entries:
        with suppress(OSError):  # closed meanwhile, or no file
            if os.path.samestat(entry.stat(), found):
                return True
    return False


def orphans(results: Results, plan: Sequence[Trial]) -> list[str]:
    """Return the names of trial folders that are no longer in the plan, because the study was edited."""
    names = {trial.name for trial in plan} | {entry["name"] for entry in results.read_run().get("plan", [])}
    return [folder.name for folder in results.folders() if folder.name not in names and read_json(folder.record)]
