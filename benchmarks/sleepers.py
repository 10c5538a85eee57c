"""Trials that sleep, with one worker and with two: how near to twice as fast. `python -m benchmarks.sleepers`."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ablate.plugins import Plugins, load_plugins
from ablate.run.command import run_study
from ablate.study.reader import read_study
from benchmarks.clock import ROOT, call
from benchmarks.tables import table, write_both

PLUGIN = ROOT / "benchmarks" / "studies" / "sleeper.py"
# Two steps an epoch, one epoch: a trial sleeps twice.
STUDY = """\
study: sleepers
data: {{name: shades}}
model: {{name: sleeper, seconds: {seconds}}}
variants: {{sleeper: {{}}}}
grid: {{lr: [1e-3]}}
seeds: {trials}
train: {{epochs: 1, batch_size: 2}}
measure: {{gradients: 0, profile: false}}
run: {{engine: eager, threads: 1, {engine}}}
track: {{wandb: disabled}}
"""
ENGINES = {
    "local": "workers: {workers}",
    "slurm": "executor: slurm, cluster: {{max_parallel: {workers}, trials_per_job: {half}}}",
    "ray": "executor: ray, cluster: {{cpus: {cpus}, trials_per_job: {half}, address: {address}}}",
}


def child(study: Path, out: Path) -> dict[str, float]:
    """Run a study; return the wall clock of its trials and the driver's own processor seconds meanwhile."""
    from ablate.run.driver import Driver

    phase, found = Driver._phase, {}

    def timed(driver: Driver, *arguments: Any) -> None:
        began = time.perf_counter(), time.process_time()
        phase(driver, *arguments)
        found["wall_s"], found["driver_s"] = time.perf_counter() - began[0], time.process_time() - began[1]

    Driver._phase = timed  # type: ignore[assignment, method-assign]
    loaded = tuple(load_plugins([PLUGIN]))
    code = run_study(read_study(study), out, plugins=Plugins((PLUGIN,), loaded), profile=False)
    if code:
        raise SystemExit(code)
    return found


def measure(engine: str, trials: int, seconds: float, scratch: Path, address: str) -> dict[str, Any]:
    """Run the study by an engine with one worker and with two."""
    row: dict[str, Any] = {"engine": engine}
    for workers in (1, 2):
        # Ray has no limit of its own: a task that asks for both cores leaves no room for a second.
        names = {"workers": workers, "cpus": 3 - workers, "half": (trials + 1) // 2, "address": address}
        asked = ENGINES[engine].format(**names)
        study = scratch / f"{engine}-{workers}.yaml"
        study.write_text(STUDY.format(seconds=seconds / 2, trials=trials, engine=asked), encoding="utf-8")
        done = call("benchmarks.sleepers", "--child", str(study), str(scratch / f"{engine}-{workers}"))
        found = json.loads(done.output.splitlines()[-1])
        row |= {f"wall_{workers}": found["wall_s"], f"driver_{workers}": 1e3 * found["driver_s"] / trials}
    return row


def main() -> None:
    """Measure, and write `<out>/sleepers.json` and `.md`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), default=["local"])
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long a trial sleeps")
    parser.add_argument("--address", default="null", help="of a Ray node of two cores; default one on this machine")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(child(*arguments.child)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        given = arguments.trials, arguments.seconds, Path(scratch), arguments.address
        rows = [measure(engine, *given) for engine in arguments.engines]
    command = shlex.join(["python", "-m", "benchmarks.sleepers", *sys.argv[1:]])
    lines = [
        [row["engine"], f"{row['wall_1']:.1f}", f"{row['wall_2']:.1f}", f"{row['wall_1'] / row['wall_2']:.2f}",
         f"{row['driver_1']:.0f}", f"{row['driver_2']:.0f}"]
        for row in rows
    ]  # fmt: skip
    head = ["engine", "one worker, s", "two workers, s", "times as fast", "driver, ms a trial: one", "two"]
    text = "\n".join(
        ["# Trials that sleep", "", f"- command: `{command}`",
         f"- {arguments.trials} trials that sleep {arguments.seconds:g} s each; seconds from the first to the last, "
         "starting workers and jobs included (two jobs of half the trials); the driver's own processor time",
         "", table(head, lines)]
    )  # fmt: skip
    write_both(arguments.out / "sleepers", {"command": command, "rows": rows}, text)


if __name__ == "__main__":
    main()
