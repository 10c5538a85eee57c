"""Captured work: fixed inputs, outputs in place, and a step that trains every trial as a plain one does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import tests.tiny_plugin  # noqa: F401  (registers the tiny components)
from ablate.errors import DeviceError
from ablate.run.worker import classify
from ablate.train.context import Context
from ablate.train.engine import EagerStep, make_step
from ablate.train.engine.config import Decisions
from ablate.train.engine.cuda_graph import (
    WARM_UPS,
    Captured,
    CapturedStep,
    CaptureFailed,
    capture_on_cuda,
)
from tests.train.test_loop import content, make_study, run

EAGER = Decisions("test", "float32", True, "eager", 1, 1, True, {})
GRAPH = Decisions("test", "float32", True, "graph", 1, 1, True, {})


@pytest.mark.usefixtures("_captures_by_call")
def test_a_captured_function_follows_its_inputs_and_answers_in_one_place() -> None:
    calls = []

    def double(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        calls.append(x)
        return 2 * x, x.sum()

    captured = Captured(double)
    first = captured(torch.tensor([1.0, 2.0]))
    assert [value.tolist() for value in first] == [[2.0, 4.0], 3.0]
    second = captured(torch.tensor([5.0, 6.0]))
    assert [value.tolist() for value in second] == [[10.0, 12.0], 11.0]
    assert all(a is b for a, b in zip(first, second, strict=True)), "a caller that keeps an answer has to copy it"
    assert all(x is calls[0] for x in calls), "the function only ever sees the fixed buffer"
    assert len(calls) == WARM_UPS + 1 + 2


@pytest.mark.usefixtures("_captures_by_call")
def test_another_shape_is_refused() -> None:
    captured = Captured(lambda x: (x + 1,))
    captured(torch.zeros(4, 3))
    with pytest.raises(ValueError, match=r"captured for \(4, 3\), called with \(1, 3\)"):
        captured(torch.zeros(1, 3))


class _Cuda:
    """In the place of `torch.cuda`: keeps the current stream and writes down what is done on which."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails: BaseException | None = None) -> None:
        self.log: list[str] = []
        self.now, self.fails, made = _Stream("main"), fails, iter(["aside"])
        monkeypatch.setattr(torch.cuda, "Stream", lambda: _Stream(next(made)))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: self.now)
        monkeypatch.setattr(torch.cuda, "set_stream", self.set)
        monkeypatch.setattr(torch.cuda, "stream", self.on)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: self)
        monkeypatch.setattr(torch.cuda, "graph", self.capture)

    def set(self, stream: _Stream) -> None:
        self.now = stream

    @contextlib.contextmanager
    def on(self, stream: _Stream) -> Iterator[None]:
        before, self.now = self.now, stream
        yield
        self.now = before

    @contextlib.contextmanager
    def capture(self, graph: _Cuda) -> Iterator[None]:
        assert graph is self
        before, self.now = self.now, _Stream("capture")
        try:
            yield
        finally:
            if self.fails is not None:  # as in torch: then the stream is not put back
                raise self.fails
        self.now = before

    def work(self) -> tuple[torch.Tensor, ...]:
        self.log.append(self.now.name)
        if self.fails is not None and self.now.name == "capture":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return (torch.zeros(1),)

    def replay(self) -> None:
        self.log.append("replay")


class _Stream:
    def __init__(self, name: str) -> None:
        self.name = name

    def wait_stream(self, other: _Stream) -> None:
        pass


def test_work_is_warmed_up_aside_and_captured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = _Cuda(monkeypatch)
    replay, _ = capture_on_cuda(cuda.work)
    replay()
    assert cuda.log == ["aside"] * WARM_UPS + ["capture", "replay"] and cuda.now.name == "main"


def test_a_capture_that_fails_puts_the_stream_back_and_says_what_came_first(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = _Cuda(monkeypatch, RuntimeError("CUDA error: operation failed due to a previous error during capture"))
    with pytest.raises(CaptureFailed, match=r"cannot be captured as a CUDA graph \(CUDA out of memory") as caught:
        capture_on_cuda(cuda.work)
    assert cuda.now.name == "main"
    assert classify(caught.value).reason.startswith("out of memory: OutOfMemoryError: CUDA out of memory")


STUDY = """\
study: tiny
data: {name: tiny}
model: {name: two_convolutions}
variants: {narrow: {}, wide: {width: 8}}
grid: {lr: [1e-2, 1e-3]}
seeds: 1
train: {epochs: 3, batch_size: 4, optimizer: OPTIMIZER, weight_decay: 1e-3, clip_norm: 0.5}
measure: {lr_headroom: 2}
"""


@pytest.mark.usefixtures("_captures_by_call")
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_recorded_trials_are_those_of_plain_steps(tmp_path: Path, optimizer: str) -> None:
    study = make_study(tmp_path, STUDY.replace("OPTIMIZER", optimizer))
    plain, captured = Context("cpu", EAGER, tmp_path), Context("cpu", GRAPH, tmp_path)
    for trial in study.trials():
        found = []
        for name, bench in (("plain", plain), ("captured", captured)):
            _, folder = run(trial, study, bench, tmp_path / name)
            found.append(content(folder))
            for part in ("best", "last"):
                state = found[-1].pop(part)
                found[-1][part] = state["model"] if part == "last" else state
        # The rate is a float32 tensor on one side and a float on the other: equal up to that rounding.
        left, right = (torch.frombuffer(bytearray(each["steps.f32"]), dtype=torch.float32) for each in found)
        torch.testing.assert_close(left, right, rtol=2e-4, atol=1e-5)
        assert found[0]["record"]["metrics"]["val_mean_iou"] == pytest.approx(
            found[1]["record"]["metrics"]["val_mean_iou"], abs=0.02
        )


@pytest.mark.usefixtures("_captures_by_call")
def test_a_capture_that_diverged_serves_the_next_trial_as_a_fresh_one_does(tmp_path: Path) -> None:
    study = make_study(tmp_path, STUDY.replace("OPTIMIZER", "sgd").replace("[1e-2, 1e-3]", "[1e3, 1e-3]"))
    wild, tame = (trial for trial in study.trials() if trial.variant == "narrow")
    bench = Context("cpu", GRAPH, tmp_path)
    network = bench.network(wild)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(float("nan"))  # whatever a replay left behind
    step = bench.step(wild, (4, 8, 8, 3))
    images, target = torch.ones(4, 8, 8, 3, dtype=torch.uint8), torch.zeros(4, 8, 8, dtype=torch.uint8)
    assert not torch.isfinite(step(images, target)).all()
    assert not all(torch.isfinite(value).all() for state in step.optimizer.state.values() for value in state.values())
    _, folder = run(tame, study, bench, tmp_path / "after")
    _, alone = run(tame, study, Context("cpu", GRAPH, tmp_path), tmp_path / "alone")
    assert content(folder) == content(alone)


@pytest.mark.usefixtures("_captures_by_call")
def test_a_capture_leaves_the_network_as_it_was_and_serves_the_next_trial(tmp_path: Path) -> None:
    study = make_study(tmp_path, STUDY.replace("OPTIMIZER", "adam"))
    first, second = study.trials()[:2]
    bench = Context("cpu", GRAPH, tmp_path)
    network = bench.network(first)
    before = {name: value.clone() for name, value in network.model.state_dict().items()}
    step = bench.step(first, (4, 8, 8, 3))
    assert isinstance(step, CapturedStep)
    assert all(torch.equal(value, before[name]) for name, value in network.model.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(not value.any() for state in step.optimizer.state.values() for value in state.values())
    places = [value.data_ptr() for state in step.optimizer.state.values() for value in state.values()]
    step(torch.ones(4, 8, 8, 3, dtype=torch.uint8), torch.zeros(4, 8, 8, dtype=torch.uint8))
    assert bench.network(second) is network and bench.step(second, (4, 8, 8, 3)) is step
    assert places == [value.data_ptr() for state in step.optimizer.state.values() for value in state.values()]
    assert all(not value.any() for state in step.optimizer.state.values() for value in state.values())


@pytest.mark.usefixtures("_captures_by_call")
def test_a_captured_step_goes_on_from_a_saved_optimizer(tmp_path: Path) -> None:
    study = make_study(tmp_path, STUDY.replace("OPTIMIZER", "adam"))
    trial = study.trials()[0]
    network = Context("cpu", GRAPH, tmp_path).network(trial)
    batch = torch.arange(4 * 8 * 8 * 3).view(4, 8, 8, 3).to(torch.uint8), torch.zeros(4, 8, 8, dtype=torch.uint8)
    step = CapturedStep(network, trial.train, (4, 8, 8, 3))
    step(*batch)
    saved = step.optimizer.state_dict()
    saved = {**saved, "state": {k: {n: v.clone() for n, v in s.items()} for k, s in saved["state"].items()}}
    weights = {name: value.clone() for name, value in network.model.state_dict().items()}
    torch.manual_seed(0)  # the network has dropout
    expected = [step(*batch) for _ in range(2)]
    network.model.load_state_dict(weights)
    step.reset()
    step.load(saved)
    torch.manual_seed(0)
    assert all(torch.equal(a, step(*batch)) for a in expected)


@pytest.mark.usefixtures("_captures_by_call")
def test_the_step_of_an_engine(tmp_path: Path) -> None:
    study = make_study(tmp_path, STUDY.replace("OPTIMIZER", "adam"))
    trial = study.trials()[0]
    shape = (4, 8, 8, 3)
    assert isinstance(make_step(Context("cpu", EAGER, tmp_path).network(trial), EAGER, trial.train, shape), EagerStep)
    network = Context("cpu", GRAPH, tmp_path).network(trial)
    with pytest.raises(DeviceError, match="the engine 'graph' captures the optimizers adam, adamw, sgd, not 'mine'"):
        make_step(network, GRAPH, {**trial.train, "optimizer": "mine"}, shape)


def test_an_epoch_read_while_the_next_one_runs_gives_the_same_record(tmp_path: Path) -> None:
    study = make_study(tmp_path, STUDY.replace("OPTIMIZER", "adam"))
    trial = study.trials()[0]
    found = []
    for ahead in (False, True):
        bench = Context("cpu", EAGER, tmp_path)
        bench.ahead = ahead
        _, folder = run(trial, study, bench, tmp_path / str(ahead))
        found.append(content(folder))
    assert found[0] == found[1]
