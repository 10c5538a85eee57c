"""How long a study will take: its arithmetic, over the speed at which this machine does the same arithmetic."""

from __future__ import annotations

import time

from ablate.registry import MODELS
from ablate.study.components import create
from ablate.study.design import Study
from ablate.study.plan import PlanReport


def estimate_seconds(study: Study, report: PlanReport, *, measure_for: float = 1.0) -> float | None:
    """Seconds for all trials of a plan on this machine, or None where the data's shape is not known.

    The baseline is computed forward and backward on zeros for about `measure_for` seconds (nothing is trained), and
    the plan's FLOPs are divided by its rate. Loading, checkpoints and probes are not in it.
    """
    rate = _flops_per_second(study, report, measure_for)
    return report.train_flops / rate if rate and report.train_flops else None


def _flops_per_second(study: Study, report: PlanReport, measure_for: float) -> float | None:
    import torch

    from ablate.train.decisions import cores

    baseline = next(item for item in report.variants if item.name == study.baseline)
    if report.shape is None or not baseline.forward_flops:
        return None
    device = torch.device("cuda" if torch.cuda.is_available() and _wants_cuda(study) else "cpu")
    batch = int(study.spec.train.batch_size)
    with torch.random.fork_rng(devices=[]):
        context = {"in_channels": report.shape.in_channels, "num_classes": report.shape.num_classes}
        model = create(MODELS, baseline.model, **context).to(device).train()
    images = torch.zeros(batch, report.shape.in_channels, *report.shape.size, device=device)
    precision = torch.bfloat16 if device.type == "cuda" and study.spec.train.precision != "float32" else torch.float32

    def step() -> None:
        with torch.autocast(device.type, dtype=precision, enabled=precision is not torch.float32):
            model(images).float().mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()

    step()  # the first one pays for allocation and the choice of kernels
    steps, begin = 0, time.perf_counter()
    while steps < 2 or time.perf_counter() - begin < measure_for:
        step()
        steps += 1
    rate = 3 * baseline.forward_flops * batch * steps / (time.perf_counter() - begin)
    # A run shares all cores between its lanes; this process may have been given fewer.
    return rate * cores() / torch.get_num_threads() if device.type == "cpu" else rate


def _wants_cuda(study: Study) -> bool:
    devices = study.spec.run.devices
    return devices == "auto" or any(name.startswith("cuda") for name in devices)
