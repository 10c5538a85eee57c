"""Before a study's first trial on a GPU: a short probe in processes of its own, for the engine and the lanes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from ablate.data.dataset import Dataset
from ablate.run.executor import worker_environment
from ablate.study.study import Study
from ablate.study.trial import Trial
from ablate.train.batches import data_bytes
from ablate.train.decisions import Decisions
from ablate.train.engines import (
    ENGINES,
    Choice,
    EngineCost,
    LaneRate,
    Load,
    Measured,
    choose,
    choose_engine,
    choose_lanes,
    lanes_to_try,
    predictions,
)

# A plan is probed where it takes longer than this by a rough count: probing costs about as much.
PROBED_FROM = 20.0
# Rough figures for that count: what a GPU computes in a second, and what launching a step op by op takes.
ROUGH_FLOPS, ROUGH_STEP_SECONDS = 100e12, 4e-3
# Compiling is tried where the rest of the plan takes longer than this for each variant, more lanes from twice as much.
COMPILED_FROM = 60.0
MEASURED_SECONDS = 1.0
# A short plan is measured shorter, in this share of the time that it is thought to take, but never below the least.
MEASURED_SHARE, LEAST_SECONDS = 0.01, 0.2
# What a process takes on a GPU besides its tensors: the context, and the work space of libraries.
CONTEXT_BYTES = 2**30
# Seconds after which a probe is given up: for starting, and for each variant eager and compiled.
START_LIMIT, EAGER_LIMIT, COMPILED_LIMIT = 90.0, 30.0, 240.0


@dataclasses.dataclass(frozen=True)
class Probe:
    """What a probe is asked about: a study on a device, decided as in `decisions` but for engine and lanes."""

    study: Study
    dataset: Dataset
    plan: Sequence[Trial]
    decisions: Decisions
    device: str
    plugins: Sequence[Path] = ()
    seconds: float = MEASURED_SECONDS  # for each measurement

    def loads(self) -> dict[str, Load]:
        """What the plan asks of each variant."""
        found: dict[str, Load] = {}
        splits = {name: len(split) for name, split in self.dataset.splits.items()}
        for trial in self.plan:
            size, epochs = min(int(trial.train["batch_size"]), splits["train"]), int(trial.train["epochs"])
            before = found.get(trial.variant, Load(0, 0))
            validations = (epochs + 1) * -(-splits["val"] // size) + -(-splits["test"] // size)
            found[trial.variant] = Load(before.steps + epochs * (splits["train"] // size), before.batches + validations)
        return found

    def request(self, op: str, engines: Sequence[str], trials: Sequence[Trial]) -> str:
        """A line for `ablate.train.gpu_probe`."""
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
        """A process that waits for a request; `log` takes what it says besides its answers."""
        return subprocess.Popen(
            [sys.executable, "-m", "ablate.train.gpu_probe"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=worker_environment(self.device, self.decisions.threads),
        )


def probe(asked: Probe, train_flops: float, say: Callable[[str], None] = lambda text: None) -> Choice:
    """Measure what the study leaves open, as far as the plan is long enough to gain by it, and choose.

    `say` is told what it is busy with.
    """
    run, loads = asked.study.spec.run, asked.loads()
    steps = sum(load.steps for load in loads.values())
    rough = max(train_flops / ROUGH_FLOPS, steps * ROUGH_STEP_SECONDS)
    if rough < PROBED_FROM or "auto" not in (run.engine, run.lanes):
        return choose(Measured(reason=f"about {rough:.0f} s of training: not probed"), loads)
    asked = dataclasses.replace(asked, seconds=min(MEASURED_SECONDS, max(LEAST_SECONDS, MEASURED_SHARE * rough)))
    # A process for those that start at once, and one for those that are compiled, where that could pay.
    batches = (ENGINES[:2], ENGINES[2:]) if run.engine == "auto" else ((run.engine,),)
    costs: list[EngineCost] = []
    reserved = free = 0
    for engines in batches:
        if costs and not _worth_compiling(costs, loads):
            continue
        say(f"probing on {asked.device}: {', '.join(engines)}")
        for answer in engine_answers(asked, engines):
            costs.append(EngineCost(**answer["cost"]))
            reserved = max(reserved, answer["reserved_bytes"])
            free = max(free, answer["free_bytes"] + answer["reserved_bytes"])
    measured = Measured(asked.plan[0].train["batch_size"], tuple(costs))
    engine, _ = choose_engine(measured, loads)
    if run.lanes == "auto" and predictions(costs, loads).get(engine, 0.0) > 2 * COMPILED_FROM:
        alone = next(cost for cost in costs if cost.engine == engine)
        lanes = [LaneRate(1, measured.batch_size / alone.step_s, alone.peak_bytes)]
        lane_bytes = reserved + CONTEXT_BYTES + data_bytes(asked.dataset)
        for count in lanes_to_try(lane_bytes, free, len(asked.plan))[1:]:
            say(f"probing on {asked.device}: {count} lanes of {engine}")
            rate = lane_rate(asked, engine, count)
            if rate is not None:
                lanes.append(rate)
            if choose_lanes(Measured(lanes=tuple(lanes)))[0] < count:
                break  # more of what does not pay would not either
        measured = dataclasses.replace(measured, lanes=tuple(lanes))
    return choose(measured, loads)


def _worth_compiling(costs: Sequence[EngineCost], loads: Mapping[str, Load]) -> bool:
    """Whether the fastest way so far leaves enough to save; also where nothing has run so far."""
    return min(predictions(costs, loads).values(), default=math.inf) > COMPILED_FROM * len(loads)


def engine_answers(asked: Probe, engines: Sequence[str]) -> list[dict[str, Any]]:
    """What one probe process says about each variant in each of `engines`.

    What it did not live to say is an error: an engine that kills its process is none to choose.
    """
    trials = asked.study.representatives()
    limit = START_LIMIT + len(trials) * sum(COMPILED_LIMIT if "compiled" in e else EAGER_LIMIT for e in engines)
    # A file, not a pipe: a compiler's helpers may hold it open after the process has ended.
    with tempfile.TemporaryFile() as log:
        process = asked.start(log)
        try:
            out, _ = process.communicate(asked.request("engines", engines, trials), timeout=limit)
            why = f"the probe ended with exit code {process.returncode}{_last_words(log)}"
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
    """The last line of what a process said, after a colon; nothing where it was silent."""
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    return f": {lines[-1].strip()[:200]}" if lines else ""


def lane_rate(asked: Probe, engine: str, lanes: int) -> LaneRate | None:
    """What `lanes` processes train together on the variant that comes first; None where one of them failed."""
    request = asked.request("lane", (engine,), asked.study.representatives()[:1])
    processes = [asked.start() for _ in range(lanes)]

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
            return LaneRate(lanes, rate, max(int(answer["used_bytes"]) for answer in found))
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
    """One answer; raises ValueError where the process ended without one."""
    assert process.stdout is not None
    answer: dict[str, Any] = json.loads(process.stdout.readline())
    return answer
