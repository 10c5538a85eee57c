"""A process that measures a study's variants on its device, on random images: engines in turn, or as one lane of many.

`python -m ablate.train.gpu_probe` takes a request as one line of JSON and answers in lines of JSON; a lane waits for
a second line before it begins. A process of its own, so that whatever goes wrong there is over when it ends.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ablate.data.dataset import Dataset, Split
from ablate.study.spec import MeasureSpec
from ablate.study.trial import Trial
from ablate.train.batches import DeviceData
from ablate.train.decisions import Decisions
from ablate.train.engines import EngineCost
from ablate.train.probing import Probes
from ablate.train.profile import peak_memory
from ablate.train.seeding import prepare_process
from ablate.train.step import Network
from ablate.train.stepping import Step, make_step

# After so many steps from the same weights the losses of the engines are compared.
COMPARED_STEPS = 5
# A measurement is the best of so many.
ROUNDS = 3


def random_data(channels: int, classes: int, size: tuple[int, int], images: int) -> Dataset:
    """A data set of random pixels and labels, `images` in each split."""
    rng = np.random.default_rng(0)
    split = Split(
        rng.integers(0, 256, (images, *size, channels), dtype=np.uint8),
        rng.integers(0, classes, (images, *size), dtype=np.uint8),
        tuple(str(index) for index in range(images)),
    )
    return Dataset(
        name="random",
        classes=tuple(str(index) for index in range(classes)),
        palette=((0, 0, 0),) * classes,
        splits=dict.fromkeys(("train", "val", "test"), split),
        fingerprint="random",
    )


class Bench:
    """A variant's network and step on a device, with one batch of random images.

    `measure` says what is probed of the live model: that runs eagerly whatever the engine, and takes memory besides.
    """

    def __init__(
        self, trial: Trial, data: DeviceData, decisions: Decisions, device: torch.device, measure: MeasureSpec
    ) -> None:
        train = trial.train
        self._probes = Probes(measure, train["epochs"], train["clip_norm"])
        self.device, self.rate = device, float(train["lr"])
        self.network = Network(
            trial.model, data.dataset, train["loss"], data.class_weights(train["class_weights"]), decisions, device
        )
        self.network.reset(trial.seed)
        self.network.model.train()
        whole, labels, _ = next(data.splits["train"].in_order(train["batch_size"]))
        self.whole, self.labels = whole, labels
        height, width = train["crop"] or data.dataset.size
        self.images, self.masks = whole[:, :height, :width].contiguous(), labels[:, :height, :width].contiguous()
        self.step: Step = make_step(self.network, train, tuple(self.images.shape))

    def train(self) -> torch.Tensor:
        """One step."""
        return self.step(self.images, self.masks, self.rate)

    @torch.no_grad()
    def predict(self) -> None:
        """One batch of the validation, at the images' whole size."""
        self.network.predict(self.whole, self.labels)

    def warm_up(self) -> float:
        """Everything that a trial does, once, so that all its memory has been taken; the loss of the last step."""
        loss = float("nan")
        for _ in range(COMPARED_STEPS):
            torch.manual_seed(0)  # dropout draws the same in every engine
            loss = float(self.train()[0])
        self.network.model.eval()
        self.predict()
        self.network.model.train()
        # As a trial keeps them on the device: those of the last epoch, and the best so far.
        self._kept = [{k: v.clone() for k, v in self.network.model.state_dict().items()} for _ in range(2)]
        synchronise(self.device)
        return loss

    def probe(self) -> None:
        """What is measured on the live model in a trial's first epoch."""
        self._probes.before(1, self.network, self.step.optimizer, self.images, self.masks, self.rate)
        self._probes.after(self.network)

    def cost(self, began: float, variant: str, engine: str, seconds: float) -> EngineCost:
        """Measure for about `seconds`; `began` is when the bench was begun."""
        loss = self.warm_up()
        first_s = time.monotonic() - began
        self.probe()
        self.network.model.eval()
        predict_s = self._seconds(self.predict, seconds / 4)
        self.network.model.train()
        step_s = self._seconds(self.train, seconds)
        return EngineCost(variant, engine, first_s, step_s, predict_s, peak_memory(self.device), loss)

    def _seconds(self, work: Callable[[], object], seconds: float) -> float:
        once = min(timed(work, 1, self.device) for _ in range(2))
        times = max(1, int(seconds / ROUNDS / max(once, 1e-6)))
        return min(timed(work, times, self.device) for _ in range(ROUNDS)) / times


def timed(work: Callable[[], object], times: int, device: torch.device) -> float:
    """Seconds for `times` calls, until the device is done with them."""
    synchronise(device)
    began = time.perf_counter()
    for _ in range(times):
        work()
    synchronise(device)
    return time.perf_counter() - began


def synchronise(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def engine_costs(
    trials: list[Trial],
    data: DeviceData,
    decisions: Decisions,
    device: torch.device,
    measure: MeasureSpec,
    engine: str,
    seconds: float,
) -> Iterator[EngineCost]:
    """What each of `trials` (one a variant) costs in `engine`; an error is an answer too."""
    decisions = dataclasses.replace(decisions, engine=engine)
    for trial in trials:
        gc.collect()
        if decisions.compiles:
            torch.compiler.reset()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        began = time.monotonic()
        try:
            yield Bench(trial, data, decisions, device, measure).cost(began, trial.variant, engine, seconds)
        except Exception as error:
            yield EngineCost(trial.variant, engine, error=(str(error).splitlines() or [type(error).__name__])[0][:200])


def lane(bench: Bench, seconds: float, go: Callable[[], object]) -> dict[str, float]:
    """Images a second of one lane over `seconds` from when `go` returns, and the memory in use on the device."""
    bench.warm_up()
    bench.probe()
    # Steps between two looks at the clock, which wait for the device: few in the time, as in training.
    many = max(1, int(seconds / 10 / timed(bench.train, 2, bench.device) * 2))
    go()
    began, steps = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        timed(bench.train, many, bench.device)
        steps += many
    elapsed = time.monotonic() - began
    return {"images_per_s": steps * len(bench.images) / elapsed, **memory(bench.device)}


def memory(device: torch.device) -> dict[str, int]:
    """Bytes: the most that this process had reserved, what is in use by everybody, what is free; zeros on a CPU."""
    if device.type != "cuda":
        return {"reserved_bytes": 0, "used_bytes": 0, "free_bytes": 0}
    free, total = torch.cuda.mem_get_info(device)
    return {
        "reserved_bytes": torch.cuda.max_memory_reserved(device),
        "used_bytes": total - free,
        "free_bytes": free,
    }


def main() -> None:
    """Serve one request."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # a stray print reaches no answer
    request: dict[str, Any] = json.loads(sys.stdin.readline())

    def answer(document: Any) -> None:
        answers.write(json.dumps(document) + "\n")

    from ablate.plugins import load_plugins

    load_plugins([Path(path) for path in request["plugins"]])
    decisions = Decisions.from_json(request["decisions"])
    prepare_process(decisions.threads, decisions.deterministic)
    trials = [Trial(**trial) for trial in request["trials"]]
    device, measure = torch.device(request["device"]), MeasureSpec(**request["measure"])
    size = (int(request["size"][0]), int(request["size"][1]))
    batch = max(int(trial.train["batch_size"]) for trial in trials)
    data = DeviceData(random_data(request["channels"], request["classes"], size, batch), device)
    if request["op"] == "lane":
        bench = Bench(trials[0], data, decisions, device, measure)

        def go() -> None:
            answer({"ready": True})
            sys.stdin.readline()

        answer(lane(bench, request["seconds"], go))
        return
    for engine in request["engines"]:
        for cost in engine_costs(trials, data, decisions, device, measure, engine, request["seconds"]):
            answer({"cost": dataclasses.asdict(cost), **memory(device)})


if __name__ == "__main__":
    main()
