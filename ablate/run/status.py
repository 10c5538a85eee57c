"""How far a study is, read from its records; asks no running process."""

from __future__ import annotations

import fcntl
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ablate.errors import visible
from ablate.records.store import Results, read_lines
from ablate.wording import count_of

STATES = ("complete", "diverged", "pruned", "failed", "begun", "missing")


def print_status(path: Path, console: Console | None = None) -> int:
    """Print trials by variant and state; 0 where all are done, 1 where some failed or are missing."""
    console = console or Console()
    results = Results(path)
    run = results.read_run()
    records, bad = results.records()
    by_key = {record.key: record for record in records}
    counts: dict[str, Counter[str]] = {}
    for entry in run["plan"]:
        record = by_key.get(entry["key"])
        state = record.status if record else _unfinished(results, entry["name"])
        counts.setdefault(entry["variant"], Counter())[state] += 1
    total: Counter[str] = sum(counts.values(), Counter())
    trials = count_of(sum(total.values()), "trial")
    table = Table(title=Text(f"{run['study']}: {_done(total)} of {trials} done"), title_justify="left")
    table.add_column("variant")
    shown = [state for state in STATES if total[state]]
    for state in shown:
        table.add_column(state, justify="right")
    for variant, row in counts.items():
        table.add_row(Text(variant), *(str(row[state]) for state in shown))
    console.print(table)
    for entry in run["plan"]:
        record = by_key.get(entry["key"])
        if record is not None and record.status in ("failed", "diverged"):
            console.print(Text(visible(f"{entry['name']}: {record.status}: {record.reason}")), soft_wrap=True)
    for place, reason in bad.items():
        console.print(Text(visible(f"{place}: {reason}")), soft_wrap=True)
    console.print("a run is going on" if _held(results.lock) else "no run is going on")
    return 0 if _done(total) == sum(total.values()) else 1


def _done(total: Counter[str]) -> int:
    return total["complete"] + total["diverged"] + total["pruned"]


def _unfinished(results: Results, name: str) -> str:
    return "begun" if read_lines(results.trial(name).epochs) else "missing"


def _held(path: Path) -> bool:
    """Whether a process holds the lock of the folder, without taking it."""
    try:
        with path.open("rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
