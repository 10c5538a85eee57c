"""The choice of engine and lanes from made-up measurements."""

from __future__ import annotations

import pytest

from ablate.errors import DeviceError
from ablate.study.spec import RunSpec, StudySpec
from ablate.train import decisions
from ablate.train.decisions import decide
from ablate.train.engines import (
    Choice,
    EngineCost,
    LaneRate,
    Load,
    Measured,
    choose,
    choose_engine,
    choose_lanes,
    lanes_to_try,
)

LOADS = {"unet": Load(1000, 100), "noskip": Load(1000, 100)}


def cost(engine: str, step_s: float, *, variant: str = "unet", first_s: float = 1.0, loss: float = 2.4) -> EngineCost:
    return EngineCost(variant, engine, first_s, step_s, step_s / 3, 2**30, loss)


def both(engine: str, step_s: float, **more: float) -> tuple[EngineCost, ...]:
    return tuple(cost(engine, step_s, variant=variant, **more) for variant in LOADS)


def test_the_engine_that_ends_first_is_chosen() -> None:
    costs = both("eager", 0.010) + both("graph", 0.006) + both("compiled", 0.005, first_s=30.0)
    engine, why = choose_engine(Measured(8, costs), LOADS)
    assert engine == "graph"
    assert why == (
        "probed: eager: 800 images/s, 23 s for the plan; graph: 1333 images/s, 14 s for the plan; "
        "compiled: 1600 images/s, 70 s for the plan"
    )
    longer = {name: Load(100 * load.steps, 100 * load.batches) for name, load in LOADS.items()}
    assert choose_engine(Measured(8, costs), longer)[0] == "compiled"


def test_an_engine_that_fails_on_one_variant_is_out() -> None:
    broken = EngineCost("noskip", "graph", error="operation not permitted when stream is capturing")
    costs = (*both("eager", 0.010), cost("graph", 0.001), broken)
    engine, why = choose_engine(Measured(8, costs), LOADS)
    assert engine == "eager"
    assert "graph: operation not permitted when stream is capturing (noskip)" in why


@pytest.mark.parametrize("loss", [2.5, float("nan")])
def test_an_engine_that_computes_something_else_is_out(loss: float) -> None:
    costs = both("eager", 0.010) + both("compiled", 0.001, loss=loss)
    engine, why = choose_engine(Measured(8, costs), LOADS)
    assert engine == "eager" and "where eager has 2.4 (unet)" in why


def test_nothing_measured_is_eager_and_one_lane_with_the_reason() -> None:
    assert choose(Measured(reason="too short"), LOADS) == Choice(
        "eager", 1, {"engine": "too short", "lanes": "too short"}
    )
    failed = tuple(EngineCost(variant, "eager", error="out of memory") for variant in LOADS)
    assert choose_engine(Measured(8, failed), LOADS)[0] == "eager"


@pytest.mark.parametrize(
    ("rates", "lanes"),
    [([100, 150, 190], 4), ([100, 102, 190], 1), ([100, 150, 152], 2), ([100], 1)],
)
def test_a_lane_more_has_to_pay(rates: list[float], lanes: int) -> None:
    measured = Measured(8, lanes=tuple(LaneRate(2**place, rate, 2**30) for place, rate in enumerate(rates)))
    assert choose_lanes(measured)[0] == lanes


def test_lanes_are_tried_only_where_their_memory_is_known_to_suffice() -> None:
    assert lanes_to_try(10, 100, trials=16) == [1, 2, 4]
    assert lanes_to_try(40, 100, trials=16) == [1, 2]
    assert lanes_to_try(80, 100, trials=16) == [1]
    assert lanes_to_try(10, 100, trials=3) == [1, 2]
    assert lanes_to_try(200, 100, trials=3) == [1]


def spec(**run: object) -> StudySpec:
    return StudySpec.model_validate({"study": "s", "data": {"name": "street"}, "run": run})


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Facts of a GPU that is not there."""
    monkeypatch.setattr(decisions, "device_class", lambda device: "NVIDIA H200")
    monkeypatch.setattr(decisions, "has_bfloat16", lambda device: (True, "it has"))
    monkeypatch.setattr(decisions, "cores", lambda: 16)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


CHOICE = Choice("graph", 4, {"engine": "graph is fastest", "lanes": "four pay"})
FACTS = {"trials": 16, "device": "cuda:0", "train_flops": 1e15, "variants": 4}


def test_a_gpu_takes_what_was_probed(gpu: None) -> None:
    decided = decide(spec(), **FACTS, gpu=CHOICE)
    assert (decided.engine, decided.lanes, decided.threads, decided.precision) == ("graph", 4, 4, "bfloat16")
    assert decided.records and not decided.compiles
    assert decided.to_json()["engine"] == {"value": "graph", "why": "graph is fastest"}
    assert decisions.Decisions.from_json(decided.to_json()) == decided


def test_what_the_study_says_goes_before_the_probe(gpu: None) -> None:
    decided = decide(spec(engine="compiled_graph", lanes=2), **FACTS, gpu=CHOICE)
    assert (decided.engine, decided.lanes) == ("compiled_graph", 2)
    assert decided.records and decided.compiles
    assert decided.reasons["engine"] == "the study says so"


def test_without_a_probe_a_gpu_is_eager_and_deterministic(gpu: None) -> None:
    decided = decide(spec(), **FACTS)
    assert (decided.engine, decided.lanes, decided.deterministic) == ("eager", 1, True)
    assert not decide(spec(deterministic=False), **FACTS).deterministic


@pytest.mark.parametrize("engine", ["graph", "compiled_graph"])
def test_a_cpu_records_no_graphs(engine: str) -> None:
    with pytest.raises(DeviceError, match=f"run.engine: '{engine}' records CUDA graphs, and this study runs on a CPU"):
        decide(spec(engine=engine), trials=4, device="cpu", train_flops=1e12, variants=2)


def test_every_engine_can_be_asked_for() -> None:
    for engine in ("auto", "eager", "fused", "compiled", "graph", "compiled_graph"):
        assert RunSpec(engine=engine).engine == engine
