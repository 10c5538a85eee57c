"""Throughput of each variant alone on the device: training and inference, interleaved A B A B, with peak memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ablate.models import forward_flops
from ablate.registry import MODELS
from ablate.study.components import create
from ablate.study.trial import Trial
from ablate.train.batches import DeviceData
from ablate.train.context import Context
from ablate.train.device import peak_memory, synchronise
from ablate.train.engine import make_step

WARM_UP_STEPS = 3
ROUNDS = 5


class _Timed:
    """One variant ready to be timed."""

    def __init__(self, trial: Trial, context: Context) -> None:
        data = context.data(trial.data)
        self.network = context.fresh_network(trial)
        train = data.splits["train"]
        self.batch_size = min(trial.train["batch_size"], len(train))
        height, width = trial.train["crop"] or data.dataset.size
        self.batches = [
            (images[:, :height, :width], masks[:, :height, :width])
            for images, masks, _ in train.in_order(self.batch_size)
        ]
        self.step = make_step(self.network, context.decisions, trial.train, tuple(self.batches[0][0].shape))
        self.train_rates: list[float] = []
        self.inference_rates: list[float] = []
        self.latencies: list[float] = []

    def train(self, steps: int) -> float:
        """Return the seconds for `steps` training steps."""
        return self._seconds(self.step, steps, training=True)

    def infer(self, steps: int) -> float:
        """Return the seconds for the predictions of `steps` batches."""
        return self._seconds(self.network.predict, steps)

    def latency(self) -> float:
        """Return the seconds for the prediction of one image, eagerly."""
        return self._seconds(lambda images, _masks: self.network.logits(images[:1]), 1)

    def _seconds(self, work: Callable[[Tensor, Tensor], Any], steps: int, *, training: bool = False) -> float:
        self.network.model.train(training)
        with torch.set_grad_enabled(training):
            synchronise(self.network.device)
            began = time.perf_counter()
            for index in range(steps):
                work(*self.batches[index % len(self.batches)])
            synchronise(self.network.device)
            return time.perf_counter() - began


def profile_variants(trials: Sequence[Trial], context: Context, *, seconds: float) -> dict[str, Any]:
    """Time the variants of `trials` (one each) in turn, `ROUNDS` times over, within about `seconds`.

    Each round gives a variant an equal share of the time and one rate (images/s) for training and for inference;
    rounds are interleaved, so that a drift of the machine meets all variants alike. Peak memory of a variant is what
    its network and its training added to what was there before.
    """
    timed: dict[str, _Timed] = {}
    memory: dict[str, int] = {}
    once: dict[str, tuple[float, float]] = {}
    for trial in trials:
        context.data(trial.data)  # which all variants share
        if context.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(context.device)  # to what is allocated now
        before = peak_memory(context.device)
        variant = timed[trial.variant] = _Timed(trial, context)
        variant.train(WARM_UP_STEPS)
        variant.infer(1)
        variant.latency()
        memory[trial.variant] = peak_memory(context.device) - before
        once[trial.variant] = variant.train(2) / 2, variant.infer(1)
    share = seconds / (ROUNDS * len(timed))
    for _ in range(ROUNDS):
        for name, variant in timed.items():
            steps = max(1, int(0.6 * share / once[name][0]))
            variant.train_rates.append(steps * variant.batch_size / variant.train(steps))
            steps = max(1, int(0.25 * share / once[name][1]))
            variant.inference_rates.append(steps * variant.batch_size / variant.infer(steps))
            variant.latencies += [variant.latency() for _ in range(5)]
    first = trials[0]
    data = context.data(first.data)
    return {
        "device": str(context.device),
        "machine": context.decisions.device,
        "threads": context.decisions.threads,
        "rounds": ROUNDS,
        "batch_size": timed[first.variant].batch_size,
        "size": list(data.dataset.size),
        "precision": context.decisions.precision,
        "engine": context.decisions.engine,
        "variants": {
            trial.variant: {
                "parameters": sum(parameter.numel() for parameter in timed[trial.variant].network.parameters()),
                "forward_flops": flops_of(trial, data),
                "train_images_per_s": timed[trial.variant].train_rates,
                "inference_images_per_s": timed[trial.variant].inference_rates,
                "latency_ms": [1e3 * value for value in timed[trial.variant].latencies],
                "peak_memory_bytes": memory[trial.variant],
            }
            for trial in trials
        },
    }


def flops_of(trial: Trial, data: DeviceData) -> int:
    """Return the forward FLOPs of one image, counted on the meta device."""
    channels, classes = data.dataset.in_channels, data.dataset.num_classes
    return forward_flops(
        lambda: create(MODELS, trial.model, in_channels=channels, num_classes=classes), data.dataset.size, channels
    )
