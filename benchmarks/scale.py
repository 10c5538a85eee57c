"""What the harness costs as studies grow: 10 to 10,000 trials that train nothing. `python -m benchmarks.scale`."""

from __future__ import annotations

import argparse
import json
import os
import queue
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from ablate.plugins import load_plugins
from ablate.records.record import Record
from ablate.records.store import Results, publish_record, read_record
from ablate.run.driver import Driver
from ablate.run.executors.base import Event
from ablate.run.progress import Display
from ablate.run.setup import Plugins, prepare, writable
from ablate.study.design import Trial
from ablate.study.reader import read_study
from benchmarks.common import versions

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = ROOT / "benchmarks" / "studies" / "nothing.py"
EPOCHS = 4

# Trials -> variants, learning rates, seeds.
SHAPES = {10: (2, 5, 1), 100: (4, 5, 5), 1000: (8, 5, 25), 10000: (20, 10, 50)}

# Measure -> (goal, unit, from how many trials on it is meant).
GOALS: dict[str, tuple[float, str, int]] = {
    "bookkeeping": (50.0, "ms a trial", 10),
    "local": (50.0, "ms a trial", 10),
    "help": (0.3, "s", 10),
    "plan": (2.0, "s", 10000),
    "resume": (5.0, "s", 10000),
    "report": (10.0, "s", 10000),
}
MEANINGS = {
    "bookkeeping": "driver, ledger, record (canned trials)",
    "local": "a whole trial on a worker process, its files included, beside what the same run with one trial takes",
    "help": "`ablate --help`",
    "plan": "`ablate plan`",
    "resume": "scan of a finished folder by the driver",
    "rerun": "`ablate run` on a finished folder",
    "status": "`ablate status`",
    "report": "`ablate report`",
}


class CannedExecutor:
    """Runs no trial: publishes a copy of a real one's files and sends the events that a worker would."""

    def __init__(self, results: Path, source: Path) -> None:
        self._results = Results(results)
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        folder = Results(source).trial(next(Results(source).folders()).name)
        record = read_record(folder.record)
        assert record is not None
        self._record = record
        self._files = {path.name: path.read_bytes() for path in (folder.epochs, folder.steps, folder.predictions)}
        self._curve = [json.loads(line) for line in folder.epochs.read_text().splitlines()]
        with np.load(folder.images) as arrays:
            self._images = {name: arrays[name] for name in arrays.files}
        self.published_s = 0.0
        self.trial_began: list[float] = []

    def free(self) -> int:
        """One trial at a time, and its end is known at once."""
        return int(self._events.empty())

    def start(self, pending: Sequence[Trial]) -> Trial:
        """'Run' the first pending trial."""
        trial = pending[0]
        self.trial_began.append(time.perf_counter())
        record = self._canned(trial)
        began = time.perf_counter()
        folder = self._results.trial(trial.name)
        publish_record(folder, record)
        self.published_s += time.perf_counter() - began
        self._events.put({"event": "running", "trial": trial.name})
        for row in self._curve:
            self._events.put({"event": "epoch", "trial": trial.name, **row})
        self._events.put({"event": "ended", "trial": trial.name, "record": record.model_dump(mode="json")})
        return trial

    def _canned(self, trial: Trial) -> Record:
        """The files of a trial (its own scores, another's curves), and the record that stands for it."""
        folder = self._results.trial(trial.name)
        folder.path.mkdir(parents=True)
        for name, data in self._files.items():
            (folder.path / name).write_bytes(data)
        # Scores of its own, so that a report has differences to compare.
        draw = np.random.default_rng(int(trial.key[:8], 16))
        counts = {
            name: array + draw.integers(0, 8, array.shape) if array.ndim == 3 else array
            for name, array in self._images.items()
        }
        np.savez(folder.images, **counts)
        metrics = dict(self._record.metrics)
        for split in ("val", "test"):
            tp, fp, fn = np.moveaxis(counts[split].sum(0), -1, 0)
            metrics[f"{split}_mean_iou"] = float(np.mean(tp / (tp + fp + fn)))
        identity = {
            "key": trial.key, "study": trial.study, "variant": trial.variant, "settings": trial.settings,
            "seed": trial.seed, "role": trial.role, "model": trial.model, "data": trial.data, "train": trial.train,
        }  # fmt: skip
        return self._record.model_copy(update={**identity, "metrics": metrics})

    def events(self, timeout: float) -> list[Event]:
        """What has happened."""
        found = []
        while not self._events.empty():
            found.append(self._events.get())
        return found

    def stop(self, reason: str) -> None:
        """Nothing runs."""

    def close(self) -> None:
        """Nothing to end."""


class CannedDriver(Driver):
    """The driver, with trials that are there already."""

    source: Path

    def _executor(self) -> Any:
        self.canned = CannedExecutor(self.results.path, self.source)
        return self.canned


def write_study(path: Path, trials: int) -> None:
    """A study file of so many trials."""
    variants, rates, seeds = SHAPES[trials]
    text = [
        f"study: scale-{trials}",
        "data: {name: shades}",
        "model: {name: threshold}",
        "variants:",
        *(f"  v{number}: {{marker: {number}}}" for number in range(variants)),
        f"grid: {{lr: [{', '.join(f'{1e-4 * 1.5**n:.3e}' for n in range(rates))}]}}",
        f"seeds: {seeds}",
        f"train: {{epochs: {EPOCHS}, batch_size: 2}}",
        "track: {wandb: disabled}",
    ]
    path.write_text("\n".join(text) + "\n", encoding="utf-8")


def fill(study: Path, out: Path, source: Path) -> dict[str, Any]:
    """Run a study with canned trials, or (where the folder is full) find that nothing is left to run."""
    plugins = Plugins(files=(PLUGIN,), loaded=tuple(load_plugins([PLUGIN])))
    began = time.perf_counter()
    prepared = prepare(read_study(study), writable(out), plugins=plugins, allow_code_change=False)
    ready = time.perf_counter()
    with Path(os.devnull).open("w") as nothing:
        driver = CannedDriver(prepared, Display(Console(file=nothing)), plugins=plugins, profile=False)
        driver.source = source
        driver.run()
    ended = time.perf_counter()
    steps = np.diff([*driver.canned.trial_began, ended]) if driver.canned.trial_began else np.zeros(0)
    tenth = max(1, len(steps) // 10)
    return {
        "prepare_s": ready - began,
        "run_s": ended - ready,
        "record_s": driver.canned.published_s,
        "first_ms": 1e3 * statistics.median(steps[:tenth]) if len(steps) else None,
        "last_ms": 1e3 * statistics.median(steps[-tenth:]) if len(steps) else None,
        "journal_bytes": prepared.results.journal.stat().st_size,
    }


@dataclass(frozen=True)
class Call:
    """A command that has ended: its seconds, its peak memory in MB, what it printed last."""

    seconds: float
    megabytes: float
    output: str


def call(*command: str) -> Call:
    """Run a Python module of this project and wait for it; raises `SystemExit` with its words where it fails."""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    with tempfile.TemporaryFile("w+") as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", *command], stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise SystemExit(f"{shlex.join(command)} ended with {process.returncode}:\n{text[-4000:]}")
    return Call(seconds, usage.ru_maxrss / 1024, text)


def measure(trials: int, scratch: Path, *, report: bool) -> dict[str, Any]:
    """Every measure at one size."""
    study, out = scratch / f"scale-{trials}.yaml", scratch / f"results-{trials}"
    write_study(study, trials)
    source = real_trial(scratch)
    plugin = ["--plugin", str(PLUGIN)]
    child = ["benchmarks.scale", "--child", str(study), str(out), str(source)]
    planned = call("ablate.cli", "plan", str(study), *plugin)
    filled = call(*child)
    first = json.loads(filled.output.splitlines()[-1])
    again = call(*child)
    second = json.loads(again.output.splitlines()[-1])
    rerun = call("ablate.cli", "run", str(study), *plugin, "--no-profile", "--out", str(out))
    status = call("ablate.cli", "status", str(out))
    row: dict[str, Any] = {
        "trials": trials,
        "help": call("ablate.cli", "--help").seconds,
        "plan": planned.seconds,
        "plan_mb": planned.megabytes,
        "bookkeeping": 1e3 * first["run_s"] / trials,
        "record_ms": 1e3 * first["record_s"] / trials,
        "first_ms": first["first_ms"],
        "last_ms": first["last_ms"],
        "run_mb": filled.megabytes,
        "prepare": first["prepare_s"],
        "resume": second["run_s"],
        "rerun": rerun.seconds,
        "rerun_mb": rerun.megabytes,
        "status": status.seconds,
        "journal_mb": first["journal_bytes"] / 1e6,
    }
    if report:
        drawn = call("ablate.cli", "report", str(out))
        row |= {"report": drawn.seconds, "report_mb": drawn.megabytes}
    return row


def real_trial(scratch: Path) -> Path:
    """A results folder with one real trial, whose files the canned ones are copies of."""
    out = scratch / "one"
    if not out.exists():
        study = scratch / "one.yaml"
        write_study(study, 10)
        only = ["--only", "variant=v0", "--only", f"lr={1e-4:.3e}"]
        call("ablate.cli", "run", str(study), "--plugin", str(PLUGIN), "--no-profile", *only, "--out", str(out))
    return out


def local(trials: int, scratch: Path) -> float:
    """Milliseconds a trial on one worker process, by the difference to a run of a single trial."""
    study = scratch / f"scale-{trials}.yaml"
    write_study(study, trials)
    seconds = []
    for number, only in enumerate((["--only", "variant=v0", "--only", "seed=0", "--only", f"lr={1e-4:.3e}"], [])):
        out = scratch / f"local-{trials}-{number}"
        words = ["--plugin", str(PLUGIN), "--no-profile", "-o", "run.lanes=1", *only, "--out", str(out)]
        seconds.append(call("ablate.cli", "run", str(study), *words).seconds)
    return 1e3 * (seconds[1] - seconds[0]) / (trials - 1)


def render(document: dict[str, Any]) -> str:
    """The measures as Markdown, each beside its goal."""
    rows = document["rows"]
    head = ["", *(f"{row['trials']:,} trials" for row in rows), "goal", "", ""]
    lines = [head, ["---"] * len(head)]
    for name, meaning in MEANINGS.items():
        values = [row.get(name) for row in rows]
        if all(value is None for value in values):
            continue
        unit = "ms a trial" if name in ("bookkeeping", "local") else "s"
        cells = ["–" if value is None else f"{value:.2f}" for value in values]
        verdict = goal = "–"
        if name in GOALS:
            limit, unit, least = GOALS[name]
            held = [v <= limit for v, row in zip(values, rows, strict=True) if v is not None and row["trials"] >= least]
            goal = f"≤ {limit:g} {unit}"
            verdict = ("held" if all(held) else "missed") if held else "not measured"
        lines.append([f"{name}, {unit}", *cells, goal, verdict, meaning])
    for name, label in (("run_mb", "driver"), ("rerun_mb", "rerun"), ("plan_mb", "plan"), ("report_mb", "report")):
        cells = [f"{row[name]:.0f}" if name in row else "–" for row in rows]
        lines.append([f"memory, MB: {label}", *cells, "–", "–", "peak of the process"])
    cells = [f"{row['first_ms']:.1f} → {row['last_ms']:.1f}" for row in rows]
    lines.append(["bookkeeping, first → last tenth, ms", *cells, "–", "–", "whether it grows"])
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    found = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    return "\n".join(
        [f"# {document['name']}", "", f"- command: `{document['command']}`", f"- machine: {document['machine']}",
         f"- versions: {found}", "- median of the repetitions; W&B is off", "", table, ""]
    )  # fmt: skip


def main() -> None:
    """Measure, and write `<out>/<name>.json` and `.md`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--local", type=int, nargs="*", default=[100], help="sizes also run on a real worker process")
    parser.add_argument("--no-report", action="store_true", help="leave out `ablate report`")
    parser.add_argument("--name", default="scale")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--scratch", type=Path, help="folder for the studies; default a temporary one")
    parser.add_argument("--child", nargs=3, metavar=("STUDY", "OUT", "SOURCE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(fill(*(Path(word) for word in arguments.child))))
        return
    from ablate.train.hardware import cores, device_class

    rows = []
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        for trials in arguments.trials:
            rows.append(measure(trials, Path(scratch), report=not arguments.no_report))
            if trials in arguments.local:
                rows[-1]["local"] = local(trials, Path(scratch))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    document = {
        "name": arguments.name,
        "command": shlex.join(["python", "-m", "benchmarks.scale", *sys.argv[1:]]),
        "machine": f"{device_class('cpu')}, {cores()} cores",
        "versions": versions("torch", "optuna", "pandas", "ablate-bench"),
        "rows": rows,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"{arguments.name}.json"
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    text = render(document)
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
