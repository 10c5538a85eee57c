"""The progress of a run: a live table in a terminal, one plain line a trial anywhere else."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ablate.errors import visible
from ablate.records.record import FINISHED, Record
from ablate.run.events import Begun, Dropped, Ended, Epoch, Event, Planned
from ablate.study.trial import Trial
from ablate.wording import count_of

STYLES = {"complete": "green", "diverged": "magenta", "pruned": "yellow", "failed": "red"}
FINISHED_ROWS = 12
RUNNING_ROWS = 16
REFRESH_SECONDS = 0.25
NARROW = 90  # columns


class Output:
    """A stream that falls silent once nobody can read it: a closed pipe or terminal does not end a run."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, or do nothing."""
        return self._attempt(self._stream.write, text) or 0

    def flush(self) -> None:
        """Flush, or do nothing."""
        self._attempt(self._stream.flush)

    def _attempt(self, act: Any, *arguments: Any) -> Any:
        try:
            return act(*arguments)
        except OSError:
            # Python flushes the stream once more when it ends, which must not fail either.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


class Display:
    """Overall progress with the time left, a row for each running trial, finished ones as a growing table."""

    title = "the display"

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(file=Output(sys.stdout), soft_wrap=True)  # type: ignore[arg-type]
        self._live: Live | None = None
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=self.console,
        )
        self._task = self._bar.add_task("trials", total=None, left="")
        self._running: dict[str, tuple[Trial, Epoch | None]] = {}
        self._finished: list[tuple[Trial, Record]] = []
        self._done = 0
        self._total = 0
        self._work_left = 0.0
        self._work_done = 0.0
        self._began = time.monotonic()
        self._drawn = 0.0

    @contextlib.contextmanager
    def live(self) -> Iterator[None]:
        """Draw while the run goes on; in a pipe nothing is drawn but lines."""
        if not self.console.is_terminal:
            yield
            return
        with Live(self._render(), console=self.console, refresh_per_second=4, transient=True) as self._live:
            yield
        self._live = None
        if self._finished:
            self.console.print(self._finished_table(len(self._finished)))

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self.console.print(Text(visible(text)), soft_wrap=True)

    def on(self, event: Event) -> None:
        """Take in an event of the run."""
        if isinstance(event, Planned):
            self._plan(event)
        elif isinstance(event, Begun):
            if not self._work_done and not self._running:
                self._began = time.monotonic()  # reading the data is no part of what is left
            self._running[event.trial.name] = (event.trial, None)
        elif isinstance(event, Epoch):
            self._running[event.trial] = (self._running[event.trial][0], event)
            self._work_left -= 1
            self._work_done += 1
        elif isinstance(event, Ended):
            self._ended(event.trial, event.record)
        elif isinstance(event, Dropped):
            self._running.pop(event.trial.name, None)

    def close(self) -> list[str]:
        """Have nothing to add."""
        return []

    def _plan(self, event: Planned) -> None:
        """Take in how much there is to do.

        The count is of what is wanted now: of trials that `--only` leaves out, or that failed, none is done.
        """
        records = event.records
        self._done = sum(1 for trial in event.plan if trial.key in records and records[trial.key].status in FINISHED)
        self._total = self._done + len(event.pending)
        self._work_left = sum(trial.train["epochs"] for trial in event.pending)
        self._bar.update(self._task, total=self._total, completed=self._done)
        if event.pending:
            self.say(f"{count_of(len(event.plan), 'trial')}: {self._done} finished, {len(event.pending)} to run")

    def _ended(self, trial: Trial, record: Record) -> None:
        here = trial.name in self._running
        _, seen = self._running.pop(trial.name, (trial, None))
        unseen = max(0, trial.train["epochs"] - (seen.epoch if seen else 0))
        self._work_left -= unseen
        self._work_done += 0 if here else unseen  # by another run of the folder
        self._done += 1
        self._finished.append((trial, record))
        self._bar.update(self._task, completed=self._done)
        for note in record.provenance.get("notes", ()):
            self.say(f"{trial.name}: {note}")
        if self._live is None:
            self.say(self._line(trial, record))

    def refresh(self) -> None:
        """Draw the state as it is now, a few times a second."""
        if self._live is not None and time.monotonic() - self._drawn > REFRESH_SECONDS:
            self._drawn = time.monotonic()
            self._live.update(self._render())

    def _line(self, trial: Trial, record: Record) -> str:
        parts = [f"[{self._done}/{self._total}]", trial.name, record.status]
        score = record.metrics.get("test_mean_iou")
        if score is not None:
            parts.append(f"test mIoU {100 * score:.2f} %")
        if record.reason:
            parts.append(record.reason)
        parts.append(f"{record.timing.get('wall_s', 0.0):.1f} s")
        left = self._left()
        return "  ".join([*parts, f"{left} left"] if left and self._done < self._total else parts)

    def _left(self) -> str:
        if self._work_done < 1:
            return ""
        seconds = self._work_left * (time.monotonic() - self._began) / self._work_done
        minutes, seconds = divmod(max(0, round(seconds)), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"

    def _render(self) -> Group:
        left = self._left()
        self._bar.update(self._task, left=f"about {left} left" if left else "")
        running = Table(box=None, pad_edge=False)
        for title in ("running", "epoch", "loss", "val loss", "val mIoU"):
            running.add_column(title, justify="left" if title == "running" else "right")
        # A cluster runs a thousand at a time: those that have got on are shown before those that wait.
        shown = sorted(self._running.items(), key=lambda item: item[1][1] is None)
        for name, (trial, seen) in shown[:RUNNING_ROWS]:
            running.add_row(
                Text(name),
                f"{seen.epoch if seen else 0}/{trial.train['epochs']}",
                _number(seen.train_loss if seen else None),
                _number(seen.val_loss if seen else None),
                _percent(seen.val_mean_iou if seen else None),
            )
        if len(shown) > RUNNING_ROWS:
            running.add_row(f"… and {len(shown) - RUNNING_ROWS} more")
        finished = [self._finished_table(FINISHED_ROWS)] if self._finished else []
        return Group(*finished, running, self._bar)

    def _finished_table(self, rows: int) -> Table:
        table = Table(box=None, pad_edge=False)
        # A name that is cut off tells no trial from another: in a narrow terminal other columns are left out.
        columns = ["finished", "status", "test mIoU", "val mIoU", "best epoch", "seconds"]
        columns = columns[: 3 if self.console.width < NARROW else None]
        for title in columns:
            table.add_column(title, justify="left" if title in ("finished", "status") else "right")
        for trial, record in self._finished[-rows:] if rows else []:
            best = record.metrics.get("best_epoch")
            cells = (
                Text(trial.name),
                Text(record.status, style=STYLES.get(record.status, "")),
                _percent(record.metrics.get("test_mean_iou")),
                _percent(record.metrics.get("val_mean_iou")),
                "–" if best is None else f"{best:.0f}",
                f"{record.timing.get('wall_s', 0.0):.1f}",
            )
            table.add_row(*cells[: len(columns)])
        return table


def closing_notes(plan: Sequence[Trial], records: Mapping[str, Record], *, begun: int) -> list[str]:
    """Return what is to be known at the end of a run: that none of its trials was `begun`, which failed."""
    notes = []
    ended = [(trial.name, records[trial.key]) for trial in plan if trial.key in records]
    if not begun:
        finished = sum(record.status in FINISHED for _, record in ended)
        are = "is" if finished == 1 else "are"
        notes.append(f"nothing was left to do: {finished} of {count_of(len(plan), 'trial')} {are} finished")
    if failed := [f"{name}: {record.reason}" for name, record in ended if record.status == "failed"]:
        count = f"{count_of(len(failed), 'trial')} failed"
        notes.append(f"{count} ({failed[0]}); `ablate retry` runs them again")
    return notes


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"
