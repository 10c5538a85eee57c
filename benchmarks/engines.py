"""A training step in each engine of a CPU, in turn on the same batch: `python -m benchmarks.engines --study <file>`."""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ablate.run.executor import worker_environment
from ablate.study.trial import Trial
from ablate.train.context import Context
from ablate.train.device import device_class, has_bfloat16
from ablate.train.engine import Step
from ablate.train.engine.config import Decisions
from benchmarks import common
from benchmarks.common import Work, batch_size, load_work, versions
from benchmarks.tables import table, write_both

ENGINES = ("eager", "fused")
PRECISIONS = ("float32", "bfloat16")
WARM_UP_STEPS = 4


def as_a_worker() -> None:
    """Begin anew in the environment that a worker gets: memory is kept as there, which the C library asks for once."""
    if "GLIBC_TUNABLES" not in os.environ:
        words = [sys.executable, "-m", "benchmarks.engines", *sys.argv[1:]]
        os.execve(sys.executable, words, worker_environment("cpu", threads=1))


def prepared(work: Work, trial: Trial, decisions: Decisions) -> tuple[Step, torch.Tensor, torch.Tensor]:
    """Return the trial's step in an engine, with one batch for it."""
    bench = Context("cpu", decisions, work.study.base)
    network = bench.network(trial)
    images, masks, _ = next(bench.data(trial.data).splits["train"].in_order(batch_size(work, trial)))
    step = bench.step(trial, tuple(images.shape))
    network.model.train()
    return step, images, masks


def measure(work: Work, trial: Trial, precision: str, steps: int) -> dict[str, Any]:
    """Milliseconds of a step in each engine, one thread, by that thread's own clock: other load takes no turn in it."""
    plain = Decisions("cpu", precision, True, "eager", 1, 1, True, {})
    ways = {engine: prepared(work, trial, replace(plain, engine=engine)) for engine in ENGINES}
    times: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    for number in range(WARM_UP_STEPS + steps):
        for engine, (step, images, masks) in ways.items():
            began = time.thread_time()
            step(images, masks)
            if number >= WARM_UP_STEPS:
                times[engine].append(1e3 * (time.thread_time() - began))
    # A ratio is taken within its turn.
    ratios = sorted(eager / fused for eager, fused in zip(times["eager"], times["fused"], strict=True))
    return {
        "variant": trial.variant,
        "precision": precision,
        "ms": {engine: statistics.median(values) for engine, values in times.items()},
        "gain": statistics.median(ratios),
        "least": ratios[len(ratios) // 10],
        "most": ratios[-1 - len(ratios) // 10],
    }


def render(document: dict[str, Any]) -> str:
    """Return the measurements as Markdown."""
    rows = [
        [row["variant"], row["precision"], f"{row['ms']['eager']:.1f}", f"{row['ms']['fused']:.1f}",
         f"{row['gain']:.2f} ({row['least']:.2f} to {row['most']:.2f})"]
        for row in document["rows"]
    ]  # fmt: skip
    return "\n".join(
        [
            f"# A training step in each engine: {document['study']}",
            "",
            f"- command: `{document['command']}`",
            f"- machine: {document['machine']}; {document['precision']}",
            f"- versions: {', '.join(f'{name} {version}' for name, version in document['versions'].items())}",
            f"- {document['steps']} steps an engine in turn, on one thread, by its processor time; medians, and "
            "of the ratio also the tenth and the ninetieth percentile",
            "",
            table(["variant", "precision", "eager, ms", "fused, ms", "eager ÷ fused"], rows),
        ]
    )


def main() -> None:
    """Measure every variant in both precisions, and write `<out>/engines-<study file>.json` and `.md`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True)
    parser.add_argument("-o", "--override", action="append", default=[], help="override a field, as `ablate run -o`")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results"))
    arguments = parser.parse_args()
    as_a_worker()
    torch.set_num_threads(1)
    work = load_work(arguments.study, arguments.override)
    rows = [
        measure(work, trial, precision, arguments.steps)
        for precision in PRECISIONS
        for trial in common.check_trials(work)
    ]
    document = {
        "command": shlex.join(["python", "-m", "benchmarks.engines", *sys.argv[1:]]),
        "study": work.study.name,
        "machine": device_class("cpu"),
        "precision": has_bfloat16("cpu")[1],
        "versions": versions("torch", "ablate-bench"),
        "steps": arguments.steps,
        "rows": rows,
    }
    write_both(arguments.out / f"engines-{arguments.study.stem}", document, render(document))


if __name__ == "__main__":
    main()
