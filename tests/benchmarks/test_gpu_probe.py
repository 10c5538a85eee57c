"""Measurements in real processes on the CPU: what is asked, what is heard, what is made of silence."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch

import tests.tiny_plugin  # noqa: F401  (registers the tiny components)
from ablate.data.dataset import load_dataset
from ablate.study.reader import read_study
from ablate.study.spec import MeasureSpec
from ablate.train.batches import DeviceData
from ablate.train.engine.config import Decisions
from benchmarks.gpu_probe import Bench, EngineCost, Probe, engine_answers, lane_rate

PLUGIN = Path(__file__).resolve().parents[1] / "tiny_plugin.py"
STUDY = """\
study: tiny
data: {name: tiny, train: 10}
model: {name: two_convolutions}
variants: {narrow: {}, wide: {width: 8}}
grid: {lr: [1e-2, 1e-3]}
seeds: 1
train: {epochs: 3, batch_size: 4}
"""


def asked(folder: Path, plugins: tuple[Path, ...] = (PLUGIN,)) -> Probe:
    path = folder / "study.yaml"
    path.write_text(STUDY, encoding="utf-8")
    study = read_study(path)
    decided = Decisions("test", "float32", True, "eager", 1, 1, True, {})
    dataset = load_dataset("tiny", {"train": 10}, base=folder)
    return Probe(study, dataset, decided, "cpu", plugins, seconds=0.05)


def test_a_process_measures_every_variant(tmp_path: Path) -> None:
    answers = engine_answers(asked(tmp_path), ["eager"])
    costs = [EngineCost(**answer["cost"]) for answer in answers]
    assert [(cost.variant, cost.engine, cost.error) for cost in costs] == [
        ("narrow", "eager", None),
        ("wide", "eager", None),
    ]
    for cost in costs:
        assert 0 < cost.step_s < cost.first_s and cost.predict_s > 0 and cost.peak_bytes > 0
        assert cost.loss == pytest.approx(math.log(3), abs=1.0)


def test_a_variant_that_cannot_run_is_an_answer(tmp_path: Path) -> None:
    broken = asked(tmp_path)
    study = dataclasses.replace(broken.study)
    study.variants["wide"].model.update(name="misbehaving", act="raise", at=1)
    study.variants["wide"].model.pop("width", None)
    answers = engine_answers(dataclasses.replace(broken, study=study), ["eager"])
    errors = {answer["cost"]["variant"]: answer["cost"]["error"] for answer in answers}
    assert errors["narrow"] is None and errors["wide"]


def test_a_process_that_dies_leaves_an_error_for_every_variant(tmp_path: Path) -> None:
    answers = engine_answers(asked(tmp_path, plugins=(tmp_path / "absent.py",)), ["eager"])
    for answer in answers:
        assert answer["cost"]["error"].startswith("the process ended with exit code 1: ablate.errors.PluginError: ")
        assert answer["cost"]["error"].endswith("absent.py: no such plugin file")
    assert [answer["cost"]["variant"] for answer in answers] == ["narrow", "wide"]


def test_a_probe_takes_the_memory_of_what_is_measured_and_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    known = asked(tmp_path)
    data = DeviceData(known.dataset, torch.device("cpu"))
    bench = Bench(known.study.trials()[0], data, known.decisions, data.device, MeasureSpec(gradients=1, lr_headroom=1))
    bench.warm_up()
    before = {name: value.clone() for name, value in bench.network.model.state_dict().items()}
    bench.probe()
    assert set(bench._probes.layers) >= {"lr_headroom", "update_ratio"}
    assert all(torch.equal(value, before[name]) for name, value in bench.network.model.state_dict().items())


def test_two_workers_train_at_the_same_time(tmp_path: Path) -> None:
    rate = lane_rate(asked(tmp_path), "eager", 2)
    assert rate is not None and rate.workers == 2 and rate.images_per_s > 0


def test_a_worker_that_fails_is_no_rate(tmp_path: Path) -> None:
    assert lane_rate(asked(tmp_path, plugins=(tmp_path / "absent.py",)), "eager", 2) is None
