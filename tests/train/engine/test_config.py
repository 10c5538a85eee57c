"""The execution config: from the machine and the whole plan, each part with its reason."""

from __future__ import annotations

import pytest

from ablate.errors import DeviceError
from ablate.study.machine import RunSpec
from ablate.study.spec import StudySpec
from ablate.train.engine import config
from ablate.train.engine.config import Decisions, decide
from ablate.train.engine.fused.library import NoKernels


def study(**run: object) -> StudySpec:
    return StudySpec.model_validate({"study": "s", "data": {"name": "street"}, "run": run})


def no_kernels() -> None:
    raise NoKernels("no C compiler on this machine")


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "cores", lambda: 2)
    monkeypatch.setattr(config, "has_bfloat16", lambda _device: (True, "it has"))
    monkeypatch.setattr(config, "library", no_kernels)
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def test_compiling_is_decided_by_the_work_of_the_whole_plan() -> None:
    # 120 GFLOP/s on two cores, 6 % gained, two variants of 60 s on two workers: worth it from 60 s · 1.06 / 0.06 on.
    worth = 60 * 1.06 / 0.06 * 120e9
    less, more = (decide(study(), trials=4, device="cpu", train_flops=worth * f, variants=2) for f in (0.99, 1.01))
    assert (less.engine, more.engine) == ("eager", "compiled")
    assert "would save about 59 s and cost 60 s" in less.reasons["engine"]
    assert not less.compiles and more.compiles


def test_without_a_compiler_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _name: None)
    made = decide(study(), trials=4, device="cpu", train_flops=1e18, variants=1)
    assert made.engine == "eager" and "no C++ compiler" in made.reasons["engine"]


def test_fused_kernels_are_taken_where_they_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    less = decide(study(), trials=4, device="cpu", train_flops=1.0, variants=1)
    assert less.engine == "eager" and "no fused kernels (no C compiler on this machine)" in less.reasons["engine"]
    with pytest.raises(DeviceError, match=r"run\.engine: no fused kernels: no C compiler"):
        decide(study(engine="fused"), trials=4, device="cpu", train_flops=1.0, variants=1)
    monkeypatch.setattr(config, "library", lambda: None)
    made = decide(study(), trials=4, device="cpu", train_flops=1e18, variants=1)
    assert made.engine == "fused" and made.fuses and not made.compiles
    # They work on one thread: a trial on all cores is better off without.
    alone = decide(study(), trials=1, device="cpu", train_flops=1.0, variants=1)
    assert alone.engine == "eager" and "workers of one thread" in alone.reasons["engine"]


@pytest.mark.parametrize(
    ("run", "trials", "workers", "threads"),
    [({}, 8, 2, 1), ({}, 1, 1, 2), ({"workers": 1}, 8, 1, 2), ({"threads": 2}, 8, 2, 2), ({"workers": 4}, 8, 4, 1)],
)
def test_lanes_and_threads_share_the_cores(run: dict[str, object], trials: int, workers: int, threads: int) -> None:
    made = decide(study(**run), trials=trials, device="cpu", train_flops=1e9, variants=1)
    assert (made.workers, made.threads) == (workers, threads)


def test_what_the_study_says_stands_and_decisions_survive_the_file() -> None:
    made = decide(study(engine="compiled"), trials=2, device="cpu", train_flops=1.0, variants=1)
    assert (made.engine, made.reasons["engine"]) == ("compiled", "the study says so")
    assert Decisions.from_json(made.to_json()) == made


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Facts of a GPU that is not there."""
    monkeypatch.setattr(config, "device_class", lambda _device: "NVIDIA H200")
    monkeypatch.setattr(config, "cores", lambda: 16)


def on_gpu(spec: StudySpec, *, train_flops: float = 1e16, variants: int = 4) -> Decisions:
    return decide(spec, trials=16, device="cuda:0", train_flops=train_flops, variants=variants)


@pytest.mark.usefixtures("gpu")
def test_a_gpu_replays_graphs_one_trial_at_a_time_deterministically() -> None:
    made = on_gpu(study())
    assert (made.engine, made.workers, made.threads, made.precision) == ("graph", 1, 16, "bfloat16")
    assert made.captures and not made.compiles and made.keeps_steps and made.deterministic
    assert not on_gpu(study(deterministic=False)).deterministic


@pytest.mark.usefixtures("gpu")
def test_a_gpu_compiles_where_the_plan_repays_it() -> None:
    # 1.8e-15 s saved a FLOP, four variants of 40 s.
    worth = 160 / 1.8e-15
    less, more = (on_gpu(study(), train_flops=worth * factor) for factor in (0.99, 1.01))
    assert (less.engine, more.engine) == ("graph", "compiled_graph")
    assert "would save about 158 s and cost 160 s" in less.reasons["engine"]
    assert more.captures and more.compiles


@pytest.mark.usefixtures("gpu")
def test_each_default_of_a_gpu_is_set_by_hand() -> None:
    made = on_gpu(study(engine="compiled", workers=2, threads=3))
    assert (made.engine, made.workers, made.threads) == ("compiled", 2, 3)
    assert {made.reasons[name] for name in ("engine", "workers", "threads")} == {"the study says so"}


@pytest.mark.parametrize("where", [
    {"train": {"optimizer": "lion"}},
    {"variants": {"unet": {}, "other": {"train": {"optimizer": "lion"}}}},
    {"grid": {"optimizer": ["adam", "lion"]}},
])  # fmt: skip
@pytest.mark.usefixtures("gpu")
def test_an_optimizer_of_ones_own_is_not_captured_unless_asked_for(where: dict[str, object]) -> None:
    spec = StudySpec.model_validate({"study": "s", "data": {"name": "street"}, **where})
    made = on_gpu(spec)
    assert made.engine == "eager" and "the step of lion is not known to be capturable" in made.reasons["engine"]


@pytest.mark.parametrize("engine", ["graph", "compiled_graph"])
def test_a_cpu_captures_no_graphs(engine: str) -> None:
    with pytest.raises(DeviceError, match=f"run.engine: '{engine}' captures CUDA graphs, and this study runs on a CPU"):
        decide(study(engine=engine), trials=4, device="cpu", train_flops=1e12, variants=2)


def test_every_engine_can_be_asked_for() -> None:
    for engine in ("auto", "eager", "fused", "compiled", "graph", "compiled_graph"):
        assert RunSpec(engine=engine).engine == engine
