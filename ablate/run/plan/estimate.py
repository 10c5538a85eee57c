"""The time that a study will take: its arithmetic, over the speed at which this machine does the same arithmetic."""

from __future__ import annotations

import time

import torch

from ablate.models.inspect import outputs
from ablate.registry import MODELS
from ablate.run.plan.describe import PlanReport
from ablate.study.components import create
from ablate.study.study import Study
from ablate.train.device import device_names
from ablate.train.engine.config import COMPILE_GAIN, COMPILE_SECONDS, Decisions, decide
from ablate.train.engine.fused import fuse

# Most arithmetic of the forward pass of one step that is timed.
STEP_FLOPS = 20e9
# Of steps as short as a millisecond so many show the quickest.
MOST_STEPS = 100


def estimate_seconds(study: Study, report: PlanReport, *, measure_for: float = 0.3) -> float | None:
    """Return about how many seconds all trials of a plan take on this machine.

    None where the data's shape is not known or a GPU's memory does not suffice.
    The baseline is computed forward and backward on noise for `measure_for` seconds, or `MOST_STEPS` (nothing is
    trained), as one worker of a run would compute it; the quickest step counts, so that other load does not. The plan's
    training FLOPs are divided by that rate. Loading, validation, checkpoints and probes are not in it.
    """
    baseline = next(item for item in report.variants if item.name == study.baseline)
    if report.shape is None or not baseline.forward_flops or not report.train_flops:
        return None
    device, decisions = device_names(study.spec.run.devices)[0], decisions_of(study, report)
    # A plan has to come at once: where an image alone is seconds of work, one image stands for the batch.
    batch = max(1, min(int(study.spec.train.batch_size), int(STEP_FLOPS / baseline.forward_flops)))
    context = {"in_channels": report.shape.in_channels, "num_classes": report.shape.num_classes}
    with torch.random.fork_rng(devices=[]):
        model = create(MODELS, baseline.model, **context).train()
        images = torch.randn(batch, report.shape.in_channels, *report.shape.size)
    try:
        seconds = _step_seconds(model, images, torch.device(device), decisions, measure_for)
    except torch.OutOfMemoryError:  # somebody else is on the GPU: the plan comes without
        return None
    rate = 3 * baseline.forward_flops * batch / seconds * decisions.workers * len(device_names(study.spec.run.devices))
    gain = 1 + COMPILE_GAIN[decisions.precision] * decisions.compiles
    once = COMPILE_SECONDS * len(study.variants) / decisions.workers * decisions.compiles
    return report.train_flops / (rate * gain) + once


def decisions_of(study: Study, report: PlanReport) -> Decisions:
    """Return how the study would be computed on this machine."""
    return decide(
        study.spec,
        trials=report.searched or len(report.trials),
        device=device_names(study.spec.run.devices)[0],
        train_flops=report.train_flops or 0,
        variants=len(study.variants),
    )


def _step_seconds(
    model: torch.nn.Module, images: torch.Tensor, device: torch.device, decisions: Decisions, measure_for: float
) -> float:
    layout = torch.channels_last if decisions.channels_last else torch.contiguous_format
    model = model.to(device, memory_format=layout)  # type: ignore[call-overload]
    images = images.to(device, memory_format=layout)
    if decisions.fuses:
        fuse(model)
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(decisions.threads)
    times: list[float] = []
    try:
        begin = time.perf_counter()
        # The first steps pay for allocation and the choice of kernels; the quickest of all is none of them.
        while len(times) < 2 or (len(times) < MOST_STEPS and time.perf_counter() - begin < measure_for):
            at = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=decisions.precision == "bfloat16"):
                loss = outputs(model(images))[0].float().square().mean()
            loss.backward()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - at)
    finally:
        torch.set_num_threads(threads)
    return min(times)
