"""Decisions of a CPU: from the machine and the whole plan, each with its reason."""

from __future__ import annotations

import pytest

from ablate.errors import DeviceError
from ablate.study.spec import StudySpec
from ablate.train import decisions
from ablate.train.decisions import Decisions, decide
from ablate.train.fused.library import NoKernels


def study(**run: object) -> StudySpec:
    return StudySpec.model_validate({"study": "s", "data": {"name": "street"}, "run": run})


def no_kernels() -> None:
    raise NoKernels("no C compiler on this machine")


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "cores", lambda: 2)
    monkeypatch.setattr(decisions, "has_bfloat16", lambda device: (True, "it has"))
    monkeypatch.setattr(decisions, "library", no_kernels)
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def test_compiling_is_decided_by_the_work_of_the_whole_plan() -> None:
    # 120 GFLOP/s on two cores, 6 % gained, two variants of 60 s on two lanes: worth it from 60 s · 1.06 / 0.06 on.
    worth = 60 * 1.06 / 0.06 * 120e9
    less, more = (decide(study(), trials=4, device="cpu", train_flops=worth * f, variants=2) for f in (0.99, 1.01))
    assert (less.engine, more.engine) == ("eager", "compiled")
    assert "would save about 59 s and cost 60 s" in less.reasons["engine"]
    assert not less.compiles and more.compiles


def test_without_a_compiler_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    made = decide(study(), trials=4, device="cpu", train_flops=1e18, variants=1)
    assert made.engine == "eager" and "no C++ compiler" in made.reasons["engine"]


def test_fused_kernels_are_taken_where_they_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    less = decide(study(), trials=4, device="cpu", train_flops=1.0, variants=1)
    assert less.engine == "eager" and "no fused kernels (no C compiler on this machine)" in less.reasons["engine"]
    with pytest.raises(DeviceError, match=r"run\.engine: no fused kernels: no C compiler"):
        decide(study(engine="fused"), trials=4, device="cpu", train_flops=1.0, variants=1)
    monkeypatch.setattr(decisions, "library", lambda: None)
    made = decide(study(), trials=4, device="cpu", train_flops=1e18, variants=1)
    assert made.engine == "fused" and made.fuses and not made.compiles
    # They work on one thread: a trial on all cores is better off without.
    alone = decide(study(), trials=1, device="cpu", train_flops=1.0, variants=1)
    assert alone.engine == "eager" and "lanes of one thread" in alone.reasons["engine"]


@pytest.mark.parametrize(
    ("run", "trials", "lanes", "threads"),
    [({}, 8, 2, 1), ({}, 1, 1, 2), ({"lanes": 1}, 8, 1, 2), ({"threads": 2}, 8, 2, 2), ({"lanes": 4}, 8, 4, 1)],
)
def test_lanes_and_threads_share_the_cores(run: dict[str, object], trials: int, lanes: int, threads: int) -> None:
    made = decide(study(**run), trials=trials, device="cpu", train_flops=1e9, variants=1)
    assert (made.lanes, made.threads) == (lanes, threads)


def test_what_the_study_says_stands_and_decisions_survive_the_file() -> None:
    made = decide(study(engine="compiled"), trials=2, device="cpu", train_flops=1.0, variants=1)
    assert (made.engine, made.reasons["engine"]) == ("compiled", "the study says so")
    assert Decisions.from_json(made.to_json()) == made
    with pytest.raises(DeviceError, match="records CUDA graphs"):
        decide(study(engine="graph"), trials=2, device="cpu", train_flops=1.0, variants=1)
