"""A thousand workers on a simulated clock: the real driver and its cluster executor, with jobs that run no trial.

Every part of the driver is the real one: events, reports, records, index of jobs, Optuna mirror, display. Simulated
are the scheduler, the jobs, what befalls them, and the time: nobody sleeps, so that all that is measured is work.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import ablate.run.cluster.jobs
import ablate.run.display
import ablate.run.driver
from ablate.plugins import Plugins, load_plugins
from ablate.records.files import write_atomic
from ablate.records.record import Record
from ablate.records.store import Results, TrialFolder, read_record, to_json
from ablate.run.cluster.job import Job, report_of
from ablate.run.cluster.jobs import ClusterExecutor
from ablate.run.display import Display
from ablate.run.driver import Driver
from ablate.run.setup import Prepared, prepare, writable
from ablate.run.wandb import Tracker
from ablate.run.worker import Run
from ablate.study.reader import read_study
from benchmarks.tables import table

# What costs by the second and not by the trial: looking for news in every report, and drawing the terminal.
LOOKING, DRAWING = "looking for reports", "drawing the terminal"


@dataclass(frozen=True)
class World:
    """The simulated cluster: seconds, and what befalls how many."""

    workers: int
    trial_seconds: float = 120.0
    epochs: int = 4
    start_seconds: float = 15.0
    checkpoint_seconds: float = 30.0
    # A worker dies once in so many seconds of its work, and its job with it; the next begins elsewhere.
    death_every: float = 3600.0
    stragglers: float = 0.01
    straggler_factor: float = 5.0
    # In every `pause_every` seconds jobs that write wait for `pause_seconds` for the storage.
    pause_every: float = 600.0
    pause_seconds: float = 60.0
    seed: int = 0


@dataclass
class Told:
    """The work that was done and the work that was lost, in worker seconds, and the times that things befell."""

    useful: float = 0.0
    repeated: float = 0.0
    starts: float = 0.0
    events: Counter[str] = field(default_factory=Counter)
    published: Counter[str] = field(default_factory=Counter)


class SimulatedTime:
    """Stands in for the module `time` where the driver asks for it: sleeping lets the simulated cluster go on."""

    def __init__(self) -> None:
        self.now = 1e6
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self.spent = 0.0

    def monotonic(self) -> float:
        """Return simulated seconds."""
        return self.now

    def time_ns(self) -> int:
        """Return simulated nanoseconds."""
        return int(1e9 * self.now)

    def at(self, when: float, act: Callable[[], None]) -> None:
        """Have `act` done at a simulated time."""
        heapq.heappush(self._due, (when, next(self._number), act))

    def sleep(self, seconds: float) -> None:
        """Let the simulated time pass; what falls due in it is done, and its processor time is not the driver's."""
        began = time.process_time()
        until = self.now + seconds
        while self._due and self._due[0][0] <= until:
            self.now, _, act = heapq.heappop(self._due)
            act()
        self.now = until
        self.spent += time.process_time() - began


class SimulatedEngine:
    """A scheduler with so many workers; its jobs write reports and records as real ones do, at their simulated time."""

    name, detaches = "simulation", True

    def __init__(self, clock: SimulatedTime, world: World, record: Record) -> None:
        self._clock, self._world, self._record, self.told = clock, world, record, Told()
        self._draw = np.random.default_rng(world.seed)
        self._waiting: list[tuple[str, Job]] = []
        self._free, self._number = world.workers, itertools.count()
        self._ended: dict[str, str] = {}
        self._done: dict[str, float] = defaultdict(float)  # seconds of a trial that its checkpoint holds

    def submit(self, tasks: Sequence[Callable[[], Any]]) -> list[str]:
        """Queue jobs."""
        ids = [str(next(self._number)) for _ in tasks]
        self._waiting += [(name, task) for name, task in zip(ids, tasks, strict=True) if isinstance(task, Job)]
        self._clock.at(self._clock.now, self._place)
        return ids

    def ended(self, jobs: Sequence[str]) -> dict[str, str]:
        """Return those that have ended."""
        return {job: self._ended[job] for job in jobs if job in self._ended}

    def cancel(self, jobs: Sequence[str]) -> None:
        """Nothing is cancelled here."""

    def close(self) -> None:
        """Nothing is kept open."""

    def _place(self) -> None:
        while self._free and self._waiting:
            self._free -= 1
            name, job = self._waiting.pop(0)
            self._run(name, job, list(job.runs), self._clock.now + self._world.start_seconds)

    def _run(self, name: str, job: Job, runs: list[Run], begins: float) -> None:
        """Run the first of a job's trials, then the others; or die in the middle of it."""
        world, run = self._world, runs[0]
        whole = world.trial_seconds * self._draw.uniform(0.8, 1.2)
        if self._draw.random() < world.stragglers:
            self.told.events["stragglers"] += 1
            whole *= world.straggler_factor
        begun_at = min(self._done[run.trial.key], whole)
        dies = self._draw.exponential(world.death_every)
        left = whole - begun_at
        self.told.starts += world.start_seconds
        path = report_of(job.reports, run.trial.name)
        self._write(begins, path, {"event": "Running", "trial": run.trial.name, "pid": 1, "parent": 1})
        for epoch in range(1, world.epochs + 1):
            when = whole * epoch / world.epochs - begun_at
            if 0 < when <= min(left, dies):
                numbers = {"lr": 1e-3, "train_loss": 1.0, "val_loss": 1.0, "val_mean_iou": 0.5}
                self._write(begins + when, path, {"event": "Epoch", "trial": run.trial.name, "epoch": epoch} | numbers)
        if dies < left:
            kept = dies - dies % world.checkpoint_seconds
            self._done[run.trial.key] = begun_at + kept
            self.told.useful += kept
            self.told.repeated += dies - kept
            self.told.events["workers died"] += 1
            self._clock.at(begins + dies, lambda: self._over(name, "NODE_FAIL"))
            return
        self.told.useful += left
        self._clock.at(self._seen(begins + left), lambda: self._publish(job, run, path))
        if runs[1:]:
            self._clock.at(self._seen(begins + left), lambda: self._run(name, job, runs[1:], self._clock.now))
        else:
            self._clock.at(self._seen(begins + left), lambda: self._over(name, "COMPLETED"))

    def _seen(self, when: float) -> float:
        """Return when what a job writes at `when` is written: later, where the storage pauses."""
        since = when % self._world.pause_every
        return when - since + self._world.pause_seconds if since < self._world.pause_seconds else when

    def _write(self, when: float, path: Path, entry: dict[str, Any]) -> None:
        def write() -> None:
            with path.open("ab") as handle:
                handle.write((json.dumps(entry) + "\n").encode())

        self._clock.at(self._seen(when), write)

    def _publish(self, job: Job, run: Run, path: Path) -> None:
        trial, folder = run.trial, Results(job.assignment.results).trial(run.folder)
        said = {name: getattr(trial, name) for name in ("key", "study", "variant", "settings", "seed", "role")}
        said |= {name: getattr(trial, name) for name in ("model", "data", "train")}
        folder.path.mkdir(exist_ok=True)
        write_atomic(
            folder.record, to_json(self._record.model_copy(update=said).model_dump(mode="json")), lasting=False
        )
        self.told.published[trial.key] += 1
        with path.open("ab") as handle:
            handle.write((json.dumps({"event": "Finished", "trial": trial.name}) + "\n").encode())

    def _over(self, job: str, how: str) -> None:
        self._ended[job] = how
        self._free += 1
        self._place()


class Parts:
    """Processor seconds of parts of the driver, by name; a part within another is counted once, as itself."""

    def __init__(self, clock: SimulatedTime) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._clock, self._inner = clock, 0.0

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return `call` with its time taken."""

        def timed(*arguments: Any, **named: Any) -> Any:
            before, slept, began = self._inner, self._clock.spent, time.process_time()
            self._inner = 0.0
            try:
                return call(*arguments, **named)
            finally:
                whole = time.process_time() - began - (self._clock.spent - slept)
                self.seconds[name] += whole - self._inner
                self._inner = before + whole

        return timed


def simulate(prepared: Prepared, world: World, record: Record, *, plugins: Plugins) -> dict[str, Any]:
    """Run a study by simulated workers; return what it cost, what was lost, and whether every record came once.

    All records are copies of `record`, under their own trials' names.
    """
    clock = SimulatedTime()
    parts = Parts(clock)
    engine = SimulatedEngine(clock, world, record)
    with _instead_of_time(clock), Path(os.devnull).open("w") as nothing:
        # As in a terminal: a live table, drawn a few times in a second.
        display = Display(Console(file=nothing, force_terminal=True, width=120))
        driver = _TimedDriver(prepared, display, plugins=plugins, profile=False, engine=engine)
        driver.parts, began, start = parts, time.process_time(), clock.now
        driver.run()
        whole = time.process_time() - began - clock.spent
    trials = len(driver.plan)
    told, seconds = engine.told, parts.seconds
    seconds["the rest of the driver"] = whole - sum(seconds.values())
    makespan = clock.now - start
    standing = seconds[LOOKING] + seconds[DRAWING]
    lost = told.repeated + told.starts
    return {
        "workers": world.workers,
        "trials": trials,
        "simulated_s": makespan,
        "trial_ms": 1e3 * (whole - standing) / trials,
        "parts_ms": {name: 1e3 * value / trials for name, value in seconds.items()},
        "standing": {name: seconds[name] / makespan for name in (LOOKING, DRAWING)},
        "busy": whole / makespan,
        "per_s": (1 - standing / makespan) * trials / (whole - standing),
        "lost": lost / (lost + told.useful),
        "repeated": told.repeated / (lost + told.useful),
        "used": (told.useful + lost) / (makespan * world.workers),
        "events": dict(told.events),
        "doubled": sum(count > 1 for count in told.published.values()),
        "records": sum(TrialFolder(folder.path).record.exists() for folder in prepared.results.folders()),
        "failed": sum(item.status == "failed" for item in driver.records.values()),
    }


class _TimedDriver(Driver):
    """The driver, with the time of its listeners and of its executor's parts taken."""

    parts: Parts

    def executor(self) -> Any:
        """Return the executor of a cluster, its parts timed."""
        executor = super().executor()
        assert isinstance(executor, ClusterExecutor)
        for listener in [listener for listener in self.listeners if listener.title != Tracker.title]:
            listener.on = self.parts.timed(listener.title, listener.on)  # type: ignore[method-assign]
        self.display.refresh = self.parts.timed(DRAWING, self.display.refresh)  # type: ignore[method-assign]
        for method, part in (
            ("_record", "reading records"), ("_write_index", "the index of jobs"), ("events", LOOKING),
            ("start", "submitting"),
        ):  # fmt: skip
            setattr(executor, method, self.parts.timed(part, getattr(executor, method)))
        return executor


@contextlib.contextmanager
def _instead_of_time(clock: SimulatedTime) -> Iterator[None]:
    modules: list[Any] = [ablate.run.cluster.jobs, ablate.run.driver, ablate.run.display]
    for module in modules:
        module.time = clock
    try:
        yield
    finally:
        for module in modules:
            module.time = time


# Workers -> trials: a small lab's, a large one's, and as many as the driver gives to a scheduler at a time.
FLEETS = {10: 100, 100: 1000, 1000: 10000}


def child(study: Path, out: Path, source: Path, plugin: Path, workers: int) -> dict[str, Any]:
    """Simulate in this process, which does nothing else."""
    plugins = Plugins(files=(plugin,), loaded=tuple(load_plugins([plugin])))
    prepared = prepare(read_study(study), writable(out), plugins=plugins, allow_code_change=False)
    record = read_record(next(Results(source).folders()).record)
    assert record is not None
    return simulate(prepared, World(workers), record, plugins=plugins)


def render(rows: Sequence[dict[str, Any]], command: str, machine: str) -> str:
    """Return what was simulated as Markdown: the cost of each part, the limits that follow, the work that was lost."""
    world = World(0)
    names = [name for row in rows for name in row["parts_ms"] if name not in (LOOKING, DRAWING)]
    lines = [[f"processor, ms a trial: {name}", *(f"{row['parts_ms'].get(name, 0):.2f}" for row in rows)]
             for name in dict.fromkeys(names)]  # fmt: skip
    for label, text in (
        ("processor, ms a trial: all of these", lambda row: f"{row['trial_ms']:.2f}"),
        (f"processor, % of a core: {LOOKING}", lambda row: f"{100 * row['standing'][LOOKING]:.1f}"),
        (f"processor, % of a core: {DRAWING}", lambda row: f"{100 * row['standing'][DRAWING]:.1f}"),
        ("processor, % of a core: all that the driver does", lambda row: f"{100 * row['busy']:.1f}"),
        ("trials a second that one driver can follow at most", lambda row: f"{row['per_s']:.0f}"),
        ("shortest trial at which all workers stay busy, s", lambda row: f"{row['workers'] / row['per_s']:.1f}"),
        ("simulated time of the study, min", lambda row: f"{row['simulated_s'] / 60:.0f}"),
        ("workers' time that was used", lambda row: f"{100 * row['used']:.0f} %"),
        ("lost of it: starting jobs, and steps since a checkpoint", lambda row: f"{100 * row['lost']:.1f} %"),
        ("of that: steps since a checkpoint", lambda row: f"{100 * row['repeated']:.2f} %"),
        ("workers died, stragglers",
         lambda row: f"{row['events'].get('workers died', 0)}, {row['events'].get('stragglers', 0)}"),
        ("records; doubled; failed", lambda row: f"{row['records']}; {row['doubled']}; {row['failed']}"),
    ):  # fmt: skip
        lines.append([label, *(text(row) for row in rows)])
    head = ["", *(f"{row['workers']:,} workers, {row['trials']:,} trials" for row in rows)]
    return "\n".join(
        ["# The driver with a simulated cluster", "", f"- command: `{command}`", f"- machine: {machine}",
         f"- simulated: trials of {world.trial_seconds:g} s in {world.epochs} epochs, a job each, begun "
         f"{world.start_seconds:g} s after it is placed; a worker dies every {world.death_every:g} s of its work, "
         f"a checkpoint every {world.checkpoint_seconds:g} s; {100 * world.stragglers:g} % of the trials take "
         f"{world.straggler_factor:g} times as long; for {world.pause_seconds:g} of every {world.pause_every:g} s jobs "
         "that write wait for the storage",
         "- real: everything of the driver; a terminal is drawn; no W&B", "", table(head, lines), ""]
    )  # fmt: skip
