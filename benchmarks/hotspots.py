"""What a device does in `ablate`'s training steps: the kernels that take most of its time. `--help` for usage."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from ablate.train.context import Context
from ablate.train.device import cores, synchronise
from ablate.train.engine.config import FUSED, Decisions, decide
from ablate.train.profile import flops_of
from benchmarks import common
from benchmarks.common import GPU_ENGINES, Work, batch_size, load_work

WARM_UP_STEPS = 5
SHOWN = 25


def hotspots(work: Work, decisions: Decisions, device: torch.device, steps: int, variant: str) -> dict[str, Any]:
    """Milliseconds a step by kernel (by operation on a CPU), the device's idle time between them, and TFLOP/s.

    The kernels of a recorded step are seen like any others.
    """
    trial = next(trial for trial in common.check_trials(work) if trial.variant == variant)
    bench = Context(str(device), decisions, work.study.base)
    network = bench.network(trial)
    data = bench.data(trial.data)
    images, masks, _ = next(data.splits["train"].in_order(batch_size(work, trial)))
    step = bench.step(trial, tuple(images.shape))
    network.model.train()
    for _ in range(WARM_UP_STEPS):
        step(images, masks)
    wall = _wall(step, images, masks, steps, device)
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=activities) as found:
        _wall(step, images, masks, steps, device)
    on_cuda = device.type == "cuda"
    rows = []
    for entry in found.key_averages():
        if on_cuda != (entry.device_type == torch.autograd.DeviceType.CUDA) or entry.is_user_annotation:
            continue  # an annotation's time is that of the kernels within it
        time_us = entry.self_device_time_total if on_cuda else entry.self_cpu_time_total
        if time_us > 0:
            rows.append({"name": entry.key, "calls": entry.count / steps, "ms": time_us / 1e3 / steps})
    rows.sort(key=lambda row: -float(row["ms"]))
    busy = sum(float(row["ms"]) for row in rows)
    flops = 3 * flops_of(trial, data) * len(images)
    return {
        "variant": variant,
        "engine": decisions.engine,
        "deterministic": decisions.deterministic,
        "step_ms": 1e3 * wall,
        "busy_ms": busy,
        "tflops": flops / wall / 1e12,
        "rows": rows[:SHOWN],
        "rest_ms": sum(float(row["ms"]) for row in rows[SHOWN:]),
    }


def _wall(step: Any, images: Any, masks: Any, steps: int, device: torch.device) -> float:
    """Seconds a step."""
    synchronise(device)
    began = time.perf_counter()
    for _ in range(steps):
        step(images, masks)
    synchronise(device)
    return (time.perf_counter() - began) / steps


def render(found: dict[str, Any]) -> str:
    """Return the hot spots as Markdown."""
    head = (
        f"{found['variant']}, {found['engine']}{', deterministic' * found['deterministic']}: {found['step_ms']:.3g} ms "
        f"a step, {found['tflops']:.3g} TFLOP/s; {found['busy_ms']:.3g} ms of it in what is listed"
    )
    if not found["rows"]:
        # Some pairings of driver and profiler see nothing within a recorded graph.
        return head + "\n\nThe profiler saw no kernel: the eager engine's table says what the step consists of."
    lines = ["| ms a step | share | calls | kernel |", "| --- | --- | --- | --- |"]
    for row in found["rows"]:
        name = row["name"].replace("|", "/")[:110]
        lines.append(f"| {row['ms']:.3f} | {row['ms'] / found['busy_ms']:.1%} | {row['calls']:.3g} | `{name}` |")
    lines.append(f"| {found['rest_ms']:.3f} | {found['rest_ms'] / found['busy_ms']:.1%} | | the rest |")
    return head + "\n\n" + "\n".join(lines)


def main() -> None:
    """Profile one variant in one engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True)
    parser.add_argument("-o", "--override", action="append", default=[])
    parser.add_argument("--engine", choices=(*GPU_ENGINES, FUSED), help="default the study's, as if for one trial")
    parser.add_argument("--variant", help="default the baseline")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path, help="result file (JSON); else the table is printed")
    common.add_device_option(parser)
    arguments = parser.parse_args()
    work = load_work(arguments.study, arguments.override)
    name = "cuda:0" if common.default_device().type == "cuda" else "cpu"
    decisions = decide(work.study.spec, trials=1, device=name, train_flops=0, variants=1)
    decisions = replace(decisions, engine=arguments.engine or decisions.engine)
    if name == "cpu":
        torch.set_num_threads(cores())
    device = torch.device(name)
    found = hotspots(work, decisions, device, arguments.steps, arguments.variant or work.study.baseline)
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(render(found))


if __name__ == "__main__":
    main()
