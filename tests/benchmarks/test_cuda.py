"""The benchmark of a GPU where there is none: parts that are kept, the table, the hot spots of a step."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from ablate.train.engine.config import Decisions
from benchmarks import cuda
from benchmarks import parts as parts_module
from benchmarks.common import load_work
from benchmarks.compare import CALIBRATION_CACHES, Comparison
from benchmarks.cuda import COMPARISONS, CONTESTANTS, compare, text_of
from benchmarks.hotspots import hotspots, render
from benchmarks.parts import Parts
from tests.benchmarks.test_tables import document

STUDY = """
study: small
data: {name: street, size: [32, 48], train: 8, val: 2, test: 2}
model: {name: unet, width: 4, depth: 2}
variants: {unet: {}}
grid: {lr: [1e-3]}
seeds: 1
train: {epochs: 1, batch_size: 4}
"""
DECISIONS = Decisions("test", "float32", True, "eager", 1, 1, True, {})


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(STUDY, encoding="utf-8")
    return path


def test_a_finished_part_is_not_made_again(tmp_path: Path) -> None:
    made = []

    def make() -> dict[str, float]:
        made.append(1)
        return {"wall_s": 2.0}

    for _ in range(2):
        assert Parts(tmp_path / "x.parts").of("round-0-plain", make) == {"wall_s": 2.0}
    assert made == [1]


def test_a_part_that_failed_is_made_again(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "x.parts")
    with pytest.raises(ZeroDivisionError):
        parts.of("round-0-plain", lambda: 1 / 0)
    assert parts.of("round-0-plain", lambda: 3) == 3


class _Contestants:
    """In the place of processes: answers at once, stops where it is told to, and remembers what was asked."""

    ran: ClassVar[list[str]] = []
    stop_at: ClassVar[str | None] = None

    def __init__(self, _arguments: argparse.Namespace, _scratch: Path) -> None:
        self.calibration: dict[str, Path] = {}

    caches: ClassVar[set[str | None]] = set()

    def _asked(self, what: str) -> None:
        if what == _Contestants.stop_at:
            _Contestants.stop_at = None
            raise KeyboardInterrupt
        _Contestants.ran.append(what)

    def peer(self, name: str, *more: str, caches: str | None = None) -> Any:
        self._asked(f"{name} {more[0]}")
        if more[0] == "--calibrate":
            _Contestants.caches.add(caches)
        return {"checks": [{"variant": "unet", "loop_s": [1.0], "bare_s": [1.0]}]} if more[0] == "--check" else []

    def timed(self, name: str, number: int) -> dict[str, Any]:
        self._asked(f"{name} {number}")
        trials = [{"variant": "unet", "lr": 1e-3, "seed": 0, "test_mean_iou": 0.2}]
        return {"wall_s": 1.0 + len(name), "cpu_s": 1.0, "others_cores": 0.0, "trials": trials, "decisions": {}}


@pytest.mark.parametrize("stop_at", ["expert --check", "ablate 0", "plain 1"])
def test_a_comparison_that_was_stopped_goes_on(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: str
) -> None:
    monkeypatch.setattr(cuda, "Comparison", _Contestants)
    monkeypatch.setattr(cuda, "matmul_rate", lambda _dtype: [1.0, 2.0, 3.0])
    _Contestants.ran, _Contestants.stop_at = [], stop_at
    arguments = argparse.Namespace(
        study=study, override=[], only=["ablate", "ablate_fast", "plain", "expert"], rounds=2, check=1, calibrate=True,
        device="cpu", name="x",
    )  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        compare(arguments, Parts(tmp_path / "x.parts"))
    found = compare(arguments, Parts(tmp_path / "x.parts"))
    names = ["ablate", "ablate_fast", "plain", "expert"]
    assert _Contestants.ran == [
        "plain --check", "expert --check", "expert --calibrate", "expert --calibrate",
        *(f"{name} 0" for name in names), *(f"{name} 1" for name in names),
    ]  # fmt: skip
    assert [list(entry["runs"]) for entry in found["rounds"]] == [names, names] and found["matmul"]["median"] == 2.0
    # Fewer contestants and more rounds find what there is of theirs.
    _Contestants.ran = []
    fewer = argparse.Namespace(**{**vars(arguments), "rounds": 3, "only": ["ablate", "plain"]})
    found = compare(fewer, Parts(tmp_path / "x.parts"))
    assert _Contestants.ran == ["ablate 2", "plain 2"] and [len(entry["runs"]) for entry in found["rounds"]] == [
        2,
        2,
        2,
    ]
    with pytest.raises(SystemExit, match="holds parts of something else"):
        compare(argparse.Namespace(**{**vars(arguments), "override": ["seeds=2"]}), Parts(tmp_path / "x.parts"))


def test_the_expert_finds_the_caches_that_its_calibration_filled(tmp_path: Path) -> None:
    _Contestants.caches, _Contestants.stop_at = set(), None
    arguments = argparse.Namespace(
        study=Path(__file__), override=[], only=["expert"], rounds=1, check=0, calibrate=True, device="cpu", name="x"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "Comparison", _Contestants)
        patch.setattr(cuda, "matmul_rate", lambda _dtype: [1.0])
        patch.setattr(cuda, "describe", lambda *_given: {})
        compare(arguments, Parts(tmp_path / "x.parts"))
    real = Comparison(arguments, tmp_path)
    real.calibration["warm"] = tmp_path
    assert _Contestants.caches == {real._caches("expert", 1)} == {CALIBRATION_CACHES}


def test_parts_resumed_on_another_machine_are_not_called_warm(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "Comparison", _Contestants)
    monkeypatch.setattr(cuda, "matmul_rate", lambda _dtype: [1.0, 2.0, 3.0])
    _Contestants.ran, _Contestants.stop_at = [], "plain 1"
    arguments = argparse.Namespace(
        study=study, override=[], only=["ablate", "plain"], rounds=2, check=0, calibrate=False, device="cpu", name="x"
    )
    with pytest.raises(KeyboardInterrupt):
        compare(arguments, Parts(tmp_path / "x.parts"))
    monkeypatch.setattr(parts_module, "boot_id", lambda: "another machine")
    found = compare(arguments, Parts(tmp_path / "x.parts"))
    # "ablate" was warm before the machine changed; what "plain" finds now are empty caches, as in a first round.
    assert _Contestants.ran == ["ablate 0", "plain 0", "ablate 1", "plain 0"]
    assert [entry["cache"] for entry in found["rounds"]] == ["cold", "mixed"]
    arguments.rounds = 3
    found = compare(arguments, Parts(tmp_path / "x.parts"))
    assert [entry["cache"] for entry in found["rounds"]] == ["cold", "mixed", "mixed"]
    assert _Contestants.ran[4:] == ["ablate 0", "plain 2"]


def test_a_contestant_whose_packages_are_not_here_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cuda, "find_spec", lambda package: None if package == "torchmetrics" else object())
    assert cuda.installed() == ["ablate", "ablate_fast", "plain", "ray", "expert"]
    assert "left out: lightning, which needs torchmetrics" in capsys.readouterr().err


def test_a_profile_that_crashes_costs_the_profile_only(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_arguments: Any, **_more: Any) -> Any:
        return subprocess.CompletedProcess([], -11, "", "first\nlast words\n")

    monkeypatch.setattr(cuda.subprocess, "run", crash)
    arguments = argparse.Namespace(study=study, override=[], device="cpu", steps=2)
    parts = Parts(tmp_path / "x.parts")
    found = cuda.profiles(arguments, parts, ["eager", "graph", "eager"])
    assert found == [{"engine": name, "failed": "exit code -11: last words"} for name in ("eager", "graph")]
    assert not list(parts.folder.glob("profile-*")), "the next call tries again"
    assert "No profile of the engine graph (exit code -11: last words)." in text_of({**document(), "profiles": found})


def test_a_profile_without_kernels_is_a_sentence() -> None:
    found = {"variant": "unet", "engine": "graph", "deterministic": True, "step_ms": 2.0, "busy_ms": 0.0,
             "tflops": 9.0, "rows": [], "rest_ms": 0.0}  # fmt: skip
    assert "The profiler saw no kernel" in render(found)


def test_hot_spots_of_a_step(study: Path) -> None:
    found = hotspots(load_work(study), DECISIONS, torch.device("cpu"), 2, "unet")
    names = [row["name"] for row in found["rows"]]
    assert "aten::convolution_backward" in names and found["step_ms"] > 0 and found["tflops"] > 0
    assert [row["ms"] for row in found["rows"]] == sorted((row["ms"] for row in found["rows"]), reverse=True)
    backward = next(row for row in found["rows"] if row["name"] == "aten::convolution_backward")
    assert backward["calls"] == 10 + 2 + 1  # convolutions, upsamplings, the head
    text = text_of({**document(), "goals": "one H200", "profiles": [found]})
    assert "## Goals (one H200)" in text and "cannot be judged here" in text
    assert "## What a training step spends its time on" in text and "`aten::convolution_backward`" in text


def test_the_studies_of_the_benchmark_are_what_the_peers_train() -> None:
    assert CONTESTANTS == ("ablate", "ablate_fast", "plain", "lightning", "ray", "expert")
    from ablate.study.reader import read_study

    full, small = (read_study(path) for _, path, _ in COMPARISONS)
    assert (full.trials()[0].model["width"], full.data["size"], len(full.trials())) == (64, [360, 480], 8)
    assert (small.trials()[0].model["width"], small.data["size"], len(small.trials())) == (16, [96, 128], 16)


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    monkeypatch.setattr(sys, "argv", ["cuda"])
    with pytest.raises(SystemExit, match="there is no CUDA device here"):
        cuda.main()
