"""What the harness costs as studies grow: 10 to 10,000 trials that train nothing. `python -m benchmarks.scale`."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from ablate.plugins import load_plugins
from ablate.run.display import Display
from ablate.run.setup import Plugins, prepare, writable
from ablate.study.reader import read_study
from benchmarks import fleet
from benchmarks.canned import CannedDriver
from benchmarks.clock import NOISE, ROOT, Clock, Cost, call
from benchmarks.common import versions
from benchmarks.tables import write_both

PLUGIN = ROOT / "benchmarks" / "studies" / "nothing.py"
EPOCHS = 4

# Trials -> variants, learning rates, seeds.
SHAPES = {10: (2, 5, 1), 100: (4, 5, 5), 1000: (8, 5, 25), 10000: (20, 10, 50)}

# A real study of 48 trials that is published: what a report of a usual study costs.
PUBLISHED = ROOT / "results" / "published" / "unet-ablation"


@dataclass(frozen=True)
class Goal:
    """What a measure may cost, in its unit of wall-clock time, and at how many trials (None: at every size)."""

    measure: str
    limit: float
    unit: str
    trials: int | None = None

    @property
    def text(self) -> str:
        """The goal in words."""
        return f"{self.measure}{f' of {self.trials:,} trials' if self.trials else ''}"


GOALS = (
    Goal("bookkeeping", 50, "ms a trial"),
    Goal("local", 50, "ms a trial"),
    Goal("help", 0.3, "s"),
    Goal("plan", 2, "s", 10000),
    Goal("resume", 5, "s", 10000),
    Goal("published", 10, "s"),
    Goal("report", 40, "s", 10000),
)
MEANINGS = {
    "bookkeeping": "driver, ledger, record (canned trials)",
    "local": "a whole trial on a worker process, its files included, beside what the same run with one trial takes",
    "help": "`ablate --help`",
    "plan": "`ablate plan`",
    "resume": "scan of a finished folder by the driver",
    "rerun": "`ablate run` on a finished folder",
    "status": "`ablate status`",
    "published": "`ablate report` of a published study of 48 trials",
    "report": "`ablate report`",
}
PER_TRIAL = ("bookkeeping", "local")


def write_study(path: Path, trials: int) -> None:
    """Return a study file of so many trials."""
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
    clock = Clock()
    prepared = prepare(read_study(study), writable(out), plugins=plugins, allow_code_change=False)
    prepare_cost, clock = clock.cost(), Clock()
    with Path(os.devnull).open("w") as nothing:
        driver = CannedDriver(prepared, Display(Console(file=nothing)), plugins=plugins, profile=False)
        driver.source = source
        driver.run()
    ended, run_cost = time.perf_counter(), clock.cost()
    steps = np.diff([*driver.canned.trial_began, ended]) if driver.canned.trial_began else np.zeros(0)
    tenth = max(1, len(steps) // 10)
    return {
        "prepare": asdict(prepare_cost),
        "run": asdict(run_cost),
        "record_s": driver.canned.published_s,
        "first_ms": 1e3 * statistics.median(steps[:tenth]) if len(steps) else None,
        "last_ms": 1e3 * statistics.median(steps[-tenth:]) if len(steps) else None,
        "journal_bytes": prepared.results.journal.stat().st_size,
    }


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
        "help": asdict(quickest("ablate.cli", "--help")),
        "plan": asdict(planned.cost),
        "plan_mb": planned.megabytes,
        "bookkeeping": asdict(Cost(**first["run"]).each(1e3 / trials)),
        "record_ms": 1e3 * first["record_s"] / trials,
        "first_ms": first["first_ms"],
        "last_ms": first["last_ms"],
        "run_mb": filled.megabytes,
        "prepare": first["prepare"],
        "resume": second["run"],
        "rerun": asdict(rerun.cost),
        "rerun_mb": rerun.megabytes,
        "status": asdict(status.cost),
        "journal_mb": first["journal_bytes"] / 1e6,
    }
    if report:
        drawn = call("ablate.cli", "report", str(out))
        row |= {"report": asdict(drawn.cost), "report_mb": drawn.megabytes}
    return row


def simulated_fleet(workers: int, scratch: Path) -> dict[str, Any]:
    """Return what so many simulated workers cost the driver, in a process of its own."""
    trials = fleet.FLEETS[workers]
    study = scratch / f"fleet-{workers}.yaml"
    write_study(study, trials)
    places = [str(study), str(scratch / f"fleet-{workers}"), str(real_trial(scratch))]
    called = call("benchmarks.scale", "--workers", str(workers), "--child", *places)
    row: dict[str, Any] = json.loads(called.output.splitlines()[-1])
    print(json.dumps(row), file=sys.stderr, flush=True)
    return row


def real_trial(scratch: Path) -> Path:
    """Return a results folder with one real trial, whose files the canned ones are copies of."""
    out = scratch / "one"
    if not out.exists():
        study = scratch / "one.yaml"
        write_study(study, 10)
        only = ["--only", "variant=v0", "--only", f"lr={1e-4:.3e}"]
        call("ablate.cli", "run", str(study), "--plugin", str(PLUGIN), "--no-profile", *only, "--out", str(out))
    return out


def quickest(*command: str, times: int = 3) -> Cost:
    """Return the least of a few calls: the first finds its files not yet in memory."""
    return min((call(*command).cost for _ in range(times)), key=lambda cost: cost.wall)


def published(scratch: Path) -> Cost:
    """Return the report of the published study, in a copy of it."""
    copy = scratch / "published"
    shutil.copytree(PUBLISHED, copy)
    return call("ablate.cli", "report", str(copy), "--out", str(scratch / "report")).cost


def local(trials: int, scratch: Path) -> Cost:
    """Milliseconds a trial on one worker process, by the difference to a run of a single trial."""
    study = scratch / f"scale-{trials}.yaml"
    write_study(study, trials)
    costs = []
    for number, only in enumerate((["--only", "variant=v0", "--only", "seed=0", "--only", f"lr={1e-4:.3e}"], [])):
        out = scratch / f"local-{trials}-{number}"
        words = ["--plugin", str(PLUGIN), "--no-profile", "-o", "run.workers=1", *only, "--out", str(out)]
        costs.append(call("ablate.cli", "run", str(study), *words).cost)
    return (costs[1] - costs[0]).each(1e3 / (trials - 1))


def _cost_text(cost: dict[str, float] | None, digits: int = 2) -> str:
    """Wall clock and, in brackets, processors; a star where others used the machine as well."""
    if cost is None:
        return "–"
    noisy = "*" if cost["others"] > NOISE else ""
    return f"{cost['wall']:.{digits}f}{noisy} ({cost['cpu']:.{digits}f})"


def judged(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return a row a goal: the limit, the worst that was measured of it, and whether it is held."""
    lines = []
    for goal in GOALS:
        meant = [row for row in rows if goal.trials in (None, row["trials"])]
        costs: list[dict[str, float]] = [row[goal.measure] for row in meant if row.get(goal.measure) is not None]
        worst = max(costs, key=lambda cost: cost["wall"], default=None)
        verdict = "not measured"
        if worst is not None:
            verdict = "held" if worst["wall"] <= goal.limit else "missed"
            if verdict == "missed" and worst["others"] > NOISE:
                verdict += f", while others used {worst['others']:.1f} cores"
        measured = _cost_text(worst)
        lines.append([goal.text, f"≤ {goal.limit:g} {goal.unit}", measured, verdict, MEANINGS[goal.measure]])
    return lines


def _table(head: list[str], lines: Sequence[list[str]]) -> list[str]:
    return ["| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *lines)]


def render(document: dict[str, Any]) -> str:
    """Return the goals beside what was measured, and every measure by the number of trials, as Markdown."""
    rows = document["rows"]
    lines = []
    for name, meaning in MEANINGS.items():
        if any(row.get(name) is not None for row in rows):
            unit = "ms a trial" if name in PER_TRIAL else "s"
            lines.append([f"{name}, {unit}", *(_cost_text(row.get(name)) for row in rows), meaning])
    for name, label in (("run_mb", "driver"), ("rerun_mb", "rerun"), ("plan_mb", "plan"), ("report_mb", "report")):
        cells = [f"{row[name]:.0f}" if name in row else "–" for row in rows]
        lines.append([f"memory, MB: {label}", *cells, "peak of the process"])
    cells = [f"{row['first_ms']:.1f} → {row['last_ms']:.1f}" for row in rows]
    lines.append(["bookkeeping, first → last tenth, ms", *cells, "whether it grows"])
    found = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    return "\n".join(
        [f"# {document['name']}", "", f"- command: `{document['command']}`", f"- machine: {document['machine']}",
         f"- versions: {found}", "- W&B is off",
         "- seconds of wall clock, in brackets of all processors; *: other processes used more than a tenth of a core",
         "", *_table(["goal", "limit", "measured", "", ""], judged(rows)), "",
         *_table(["", *(f"{row['trials']:,} trials" for row in rows), ""], lines), ""]
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
    parser.add_argument("--workers", type=int, nargs="+", choices=list(fleet.FLEETS), help="simulate so many instead")
    arguments = parser.parse_args()
    if arguments.child and arguments.workers:
        study, out, source = (Path(word) for word in arguments.child)
        print(json.dumps(fleet.child(study, out, source, PLUGIN, arguments.workers[0])))
        return
    if arguments.child:
        print(json.dumps(fill(*(Path(word) for word in arguments.child))))
        return
    from ablate.train.device import cores, device_class

    command = shlex.join(["python", "-m", "benchmarks.scale", *sys.argv[1:]])
    machine = f"{device_class('cpu')}, {cores()} cores"
    if arguments.workers:
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
            simulated = [simulated_fleet(workers, Path(scratch)) for workers in arguments.workers]
        text = fleet.render(simulated, command, machine)
        write_both(arguments.out / "fleet", {"command": command, "machine": machine, "rows": simulated}, text)
        return

    rows = []
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        for trials in arguments.trials:
            rows.append(measure(trials, Path(scratch), report=not arguments.no_report))
            if trials in arguments.local:
                rows[-1]["local"] = asdict(local(trials, Path(scratch)))
            if len(rows) == 1 and not arguments.no_report and PUBLISHED.exists():
                rows[-1]["published"] = asdict(published(Path(scratch)))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    document = {
        "name": arguments.name,
        "command": command,
        "machine": machine,
        "versions": versions("torch", "optuna", "pandas", "ablate-bench"),
        "rows": rows,
    }
    write_both(arguments.out / arguments.name, document, render(document))


if __name__ == "__main__":
    main()
