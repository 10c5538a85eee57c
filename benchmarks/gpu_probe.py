"""Processes that measure variants on a device, on random images: engines in turn, or one worker of several at once.

`python -m benchmarks.gpu_probe` takes a request as one line of JSON and answers in lines of JSON; a worker of several
waits for a second line before it begins. A process of its own, so that whatever goes wrong there is over when it ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from ablate.data.dataset import Dataset, Split
from ablate.plugins import load_plugins
from ablate.run.executor import worker_environment
from ablate.study.spec import MeasureSpec
from ablate.study.study import Study
from ablate.study.trial import Trial
from ablate.train.batches import DeviceData
from ablate.train.device import peak_memory, prepare_process, synchronise
from ablate.train.engine import Step, install, make_step
from ablate.train.engine.config import Decisions
from ablate.train.network import Network
from ablate.train.probes import Probes

ROOT = Path(__file__).resolve().parents[1]
# The loss of an engine is taken after so many steps from the same weights on the same batch.
COMPARED_STEPS = 5
# A measurement is the best of so many.
ROUNDS = 3
# Seconds after which a process is given up: for starting, and for each variant eager and compiled.
START_LIMIT, EAGER_LIMIT, COMPILED_LIMIT = 90.0, 30.0, 240.0


@dataclasses.dataclass(frozen=True)
class EngineCost:
    """What a variant costs in an engine.

    Seconds until the first step and prediction are done, for a step, for a prediction; the peak of memory in bytes;
    the loss after the first steps. `error` says why there is nothing else.
    """

    variant: str
    engine: str
    first_s: float = math.nan
    step_s: float = math.nan
    predict_s: float = math.nan
    peak_bytes: int = 0
    loss: float = math.nan
    error: str | None = None


@dataclasses.dataclass(frozen=True)
class LaneRate:
    """What so many workers train together, in images a second, and the memory in use on the device meanwhile."""

    workers: int
    images_per_s: float
    used_bytes: int


@dataclasses.dataclass(frozen=True)
class Probe:
    """What is measured: a study's variants on a device, computed as in `decisions` but for the engine."""

    study: Study
    dataset: Dataset
    decisions: Decisions
    device: str
    plugins: Sequence[Path] = ()
    seconds: float = 1.0  # for each measurement

    def request(self, op: str, engines: Sequence[str], trials: Sequence[Trial]) -> str:
        """Return a line for `main`."""
        asked = [dataclasses.asdict(trial) for trial in trials]
        for trial in asked:
            trial["train"]["batch_size"] = min(trial["train"]["batch_size"], len(self.dataset.splits["train"]))
        return (
            json.dumps(
                {
                    "op": op,
                    "engines": list(engines),
                    "trials": asked,
                    "decisions": dataclasses.replace(self.decisions, engine=engines[0]).to_json(),
                    "device": "cuda:0" if self.device.startswith("cuda") else self.device,
                    "seconds": self.seconds,
                    "channels": self.dataset.in_channels,
                    "classes": self.dataset.num_classes,
                    "size": list(self.dataset.size),
                    "measure": self.study.spec.measure.model_dump(include={"gradients", "lr_headroom"}),
                    "plugins": [str(path) for path in self.plugins],
                }
            )
            + "\n"
        )

    def start(self, log: IO[bytes] | int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        """Start a process that waits for a request; `log` takes what it says besides its answers."""
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gpu_probe"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=ROOT,
            env=worker_environment(self.device, self.decisions.threads),
        )


def engine_answers(asked: Probe, engines: Sequence[str]) -> list[dict[str, Any]]:
    """Return what one process says about each variant in each of `engines`.

    What it did not live to say is an error: an engine that kills its process is none to choose.
    """
    trials = asked.study.representatives()
    limit = START_LIMIT + len(trials) * sum(COMPILED_LIMIT if "compiled" in e else EAGER_LIMIT for e in engines)
    # A file, not a pipe: a compiler's helpers may hold it open after the process has ended.
    with tempfile.TemporaryFile() as log:
        process = asked.start(log)
        try:
            out, _ = process.communicate(asked.request("engines", engines, trials), timeout=limit)
            why = f"the process ended with exit code {process.returncode}{_last_words(log)}"
        except subprocess.TimeoutExpired as error:
            out = error.stdout.decode() if isinstance(error.stdout, bytes) else error.stdout or ""
            why = f"no answer within {limit:.0f} s"
        finally:
            process.kill()
            process.wait()
    answers = [json.loads(line) for line in out.splitlines() if line.endswith("}")]
    said = {(answer["cost"]["engine"], answer["cost"]["variant"]) for answer in answers}
    nothing = {"reserved_bytes": 0, "used_bytes": 0, "free_bytes": 0}
    for engine in engines:
        for trial in trials:
            if (engine, trial.variant) not in said:
                answers.append({"cost": dataclasses.asdict(EngineCost(trial.variant, engine, error=why)), **nothing})
    return answers


def _last_words(log: IO[bytes]) -> str:
    """Return the last line of what a process said, after a colon; nothing where it was silent."""
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    return f": {lines[-1].strip()[:200]}" if lines else ""


def lane_rate(asked: Probe, engine: str, workers: int) -> LaneRate | None:
    """Return what `workers` processes train together on the variant that comes first; None where one of them failed."""
    request = asked.request("worker", (engine,), asked.study.representatives()[:1])
    processes = [asked.start() for _ in range(workers)]

    def end() -> None:
        for process in processes:
            process.kill()

    watch = threading.Timer(START_LIMIT + COMPILED_LIMIT, end)
    watch.start()
    try:
        with contextlib.suppress(OSError, ValueError):
            for process in processes:
                _say(process, request)
            if not all(_hear(process).get("ready") for process in processes):
                return None
            for process in processes:
                _say(process, "go\n")
            found = [_hear(process) for process in processes]
            rate = sum(answer["images_per_s"] for answer in found)
            return LaneRate(workers, rate, max(int(answer["used_bytes"]) for answer in found))
        return None
    finally:
        watch.cancel()
        end()
        for process in processes:
            process.communicate()


def _say(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line)
    process.stdin.flush()


def _hear(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Read one answer; raises ValueError where the process ended without one."""
    assert process.stdout is not None
    answer: dict[str, Any] = json.loads(process.stdout.readline())
    return answer


def random_data(channels: int, classes: int, size: tuple[int, int], images: int) -> Dataset:
    """Make a data set of random pixels and labels, `images` in each split."""
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
        self.device = device
        network = Network(
            trial.model,
            data.dataset,
            train["loss"],
            data.class_weights(train["class_weights"]),
            device=device,
            precision=decisions.dtype,
            channels_last=decisions.channels_last,
        )
        self.network = install(network, decisions)
        self._probes = Probes(self.network, measure, train)
        self.network.reset(trial.seed)
        self.network.model.train()
        whole, labels, _ = next(data.splits["train"].in_order(train["batch_size"]))
        self.whole, self.labels = whole, labels
        height, width = train["crop"] or data.dataset.size
        self.images, self.masks = whole[:, :height, :width].contiguous(), labels[:, :height, :width].contiguous()
        self.step: Step = make_step(self.network, decisions, train, tuple(self.images.shape))

    def train(self) -> torch.Tensor:
        """Do one step."""
        return self.step(self.images, self.masks)

    @torch.no_grad()
    def predict(self) -> None:
        """Predict one batch of the validation, at the images' whole size."""
        self.network.predict(self.whole, self.labels)

    def warm_up(self) -> float:
        """Do all that a trial does, once, so that its memory has been taken; return the loss of the last step."""
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
        """Measure what is probed of the live model in a trial's first epoch."""
        self._probes.before(1, self.step.optimizer, self.images, self.masks)
        self._probes.after()

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
    """Return the seconds for `times` calls, until the device is done with them."""
    synchronise(device)
    began = time.perf_counter()
    for _ in range(times):
        work()
    synchronise(device)
    return time.perf_counter() - began


def engine_costs(
    trials: list[Trial],
    data: DeviceData,
    decisions: Decisions,
    device: torch.device,
    measure: MeasureSpec,
    engine: str,
    seconds: float,
) -> Iterator[EngineCost]:
    """Yield what each of `trials` (one a variant) costs in `engine`; an error is an answer too."""
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


def worker(bench: Bench, seconds: float, go: Callable[[], object]) -> dict[str, float]:
    """Return one worker's images a second over `seconds` from when `go` returns, and the memory in use then."""
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
    """Return bytes: the most that this process had reserved, in use by everybody, free; zeros on a CPU."""
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

    load_plugins([Path(path) for path in request["plugins"]])
    decisions = Decisions.from_json(request["decisions"])
    prepare_process(decisions.threads, decisions.deterministic)
    trials = [Trial(**trial) for trial in request["trials"]]
    device, measure = torch.device(request["device"]), MeasureSpec(**request["measure"])
    size = (int(request["size"][0]), int(request["size"][1]))
    batch = max(int(trial.train["batch_size"]) for trial in trials)
    data = DeviceData(random_data(request["channels"], request["classes"], size, batch), device)
    if request["op"] == "worker":
        bench = Bench(trials[0], data, decisions, device, measure)

        def go() -> None:
            answer({"ready": True})
            sys.stdin.readline()

        answer(worker(bench, request["seconds"], go))
        return
    for engine in request["engines"]:
        for cost in engine_costs(trials, data, decisions, device, measure, engine, request["seconds"]):
            answer({"cost": dataclasses.asdict(cost), **memory(device)})


if __name__ == "__main__":
    main()
