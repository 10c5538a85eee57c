"""Which engine and how many lanes a GPU gets, chosen from what a short probe measured on it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# The ways of executing a step on a GPU, the plainest first.
ENGINES = ("eager", "graph", "compiled", "compiled_graph")
# A lane more has to bring at least this much.
LANE_GAIN = 1.05
# Share of a GPU's memory that all lanes together may take.
MEMORY_SHARE = 0.9
# After a few steps from the same weights on the same batch an engine's loss may differ from eager's by this share.
LOSS_TOLERANCE = 0.02


@dataclass(frozen=True)
class EngineCost:
    """What a variant costs in an engine.

    Seconds until the first step and prediction are done, for a step, for a prediction; the peak of memory in bytes;
    the loss after the probe's first steps. `error` says why there is nothing else.
    """

    variant: str
    engine: str
    first_s: float = math.nan
    step_s: float = math.nan
    predict_s: float = math.nan
    peak_bytes: int = 0
    loss: float = math.nan
    error: str | None = None


@dataclass(frozen=True)
class LaneRate:
    """What so many lanes train together, in images a second, and the memory in use on the device meanwhile."""

    lanes: int
    images_per_s: float
    used_bytes: int


@dataclass(frozen=True)
class Load:
    """What a plan asks of a variant: training steps and prediction batches, over all of its trials."""

    steps: int
    batches: int


@dataclass(frozen=True)
class Measured:
    """The probe's answer; empty where nothing was probed, and `reason` says why."""

    batch_size: int = 0
    costs: tuple[EngineCost, ...] = ()
    lanes: tuple[LaneRate, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Choice:
    """Engine and lanes of a GPU, with the reasons."""

    engine: str
    lanes: int
    reasons: dict[str, str] = field(default_factory=dict)


def choose(measured: Measured, loads: Mapping[str, Load]) -> Choice:
    """The engine that finishes the plan first, and the lanes that pay. Without measurements: eager, one lane."""
    engine, why = choose_engine(measured, loads)
    lanes, why_lanes = choose_lanes(measured)
    return Choice(engine, lanes, {"engine": why, "lanes": why_lanes})


def choose_engine(measured: Measured, loads: Mapping[str, Load]) -> tuple[str, str]:
    """The engine with the least predicted time among those that ran every variant right, and a sentence on all."""
    if not measured.costs:
        return "eager", measured.reason or "nothing was probed"
    predicted, faults = predictions(measured.costs, loads), _faults(measured.costs)
    said = []
    for engine in dict.fromkeys(cost.engine for cost in measured.costs):
        if engine in faults:
            said.append(f"{engine}: {faults[engine]}")
            continue
        rates = [measured.batch_size / cost.step_s for cost in measured.costs if cost.engine == engine]
        said.append(f"{engine}: {sum(rates) / len(rates):.0f} images/s, {predicted[engine]:.0f} s for the plan")
    # Eager where nothing ran: the trials then say why, one by one.
    best = min(predicted, key=lambda engine: predicted[engine], default="eager")
    return best, "probed: " + "; ".join(said)


def predictions(costs: Sequence[EngineCost], loads: Mapping[str, Load]) -> dict[str, float]:
    """Seconds that the plan takes in each engine that ran every variant right, its trials one after another."""
    faults = _faults(costs)
    found: dict[str, float] = {}
    for cost in costs:
        if cost.engine not in faults:
            load = loads.get(cost.variant, Load(0, 0))
            seconds = cost.first_s + load.steps * cost.step_s + load.batches * cost.predict_s
            found[cost.engine] = found.get(cost.engine, 0.0) + seconds
    return found


def _faults(costs: Sequence[EngineCost]) -> dict[str, str]:
    """What is wrong with each engine that is out: the first of its variants that failed or computed something else."""
    reference = {cost.variant: cost.loss for cost in costs if cost.engine == "eager" and cost.error is None}
    found: dict[str, str] = {}
    for cost in costs:
        fault = _fault(cost, reference.get(cost.variant))
        if fault is not None:
            found.setdefault(cost.engine, fault)
    return found


def _fault(cost: EngineCost, reference: float | None) -> str | None:
    if cost.error is not None:
        return f"{cost.error} ({cost.variant})"
    if reference is not None and not abs(cost.loss - reference) <= LOSS_TOLERANCE * abs(reference):
        return f"loss {cost.loss:.4g} where eager has {reference:.4g} ({cost.variant})"
    return None


def choose_lanes(measured: Measured) -> tuple[int, str]:
    """The most lanes of which each step up brought something, and a sentence on all."""
    if not measured.lanes:
        return 1, measured.reason or "one trial at a time: more were not probed"
    rates = sorted(measured.lanes, key=lambda rate: rate.lanes)
    best = rates[0]
    for rate in rates[1:]:
        if rate.images_per_s < LANE_GAIN * best.images_per_s:
            break
        best = rate
    said = [f"{rate.lanes}: {rate.images_per_s:.0f} images/s, {rate.used_bytes / 2**30:.1f} GiB" for rate in rates]
    return best.lanes, "probed lanes: " + "; ".join(said)


def lanes_to_try(peak_bytes: int, free_bytes: int, trials: int, most: Sequence[int] = (1, 2, 4)) -> list[int]:
    """The numbers of lanes whose memory is known to suffice: never more than there are trials.

    `peak_bytes` is what one lane takes at its peak, with what its process takes besides.
    """
    fitting = [lanes for lanes in most if lanes <= trials and lanes * peak_bytes <= MEMORY_SHARE * free_bytes]
    return fitting or [1]
