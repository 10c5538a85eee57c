"""The probe before a study, with real processes on the CPU: what it asks, what it hears, what it makes of silence."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path

import pytest
import torch

import tests.tiny_plugin  # noqa: F401  (registers the tiny components)
from ablate.data.dataset import load_dataset
from ablate.run import gpu_setup, manifest, setup
from ablate.run.executor import worker_environment
from ablate.run.gpu_setup import Probe, engine_answers, lane_rate, probe
from ablate.study.reader import read_study
from ablate.study.spec import MeasureSpec
from ablate.train import decisions
from ablate.train.batches import DeviceData
from ablate.train.decisions import Decisions
from ablate.train.engines import Choice, EngineCost, LaneRate, Load
from ablate.train.gpu_probe import Bench

PLUGIN = Path(__file__).resolve().parents[1] / "tiny_plugin.py"
STUDY = """\
study: tiny
data: {name: tiny, train: 10}
model: {name: two_convolutions}
variants: {narrow: {}, wide: {width: 8}}
grid: {lr: [1e-2, 1e-3]}
seeds: 1
train: {epochs: 3, batch_size: 4}
RUN
"""


def asked(folder: Path, run: str = "", **more: object) -> Probe:
    path = folder / "study.yaml"
    path.write_text(STUDY.replace("RUN", run), encoding="utf-8")
    study = read_study(path)
    decided = Decisions("test", "float32", True, "eager", 1, 1, True, {})
    dataset = load_dataset("tiny", {"train": 10}, base=folder)
    known = Probe(study, dataset, study.trials(), decided, "cpu", (PLUGIN,), seconds=0.05)
    return dataclasses.replace(known, **more)


def test_the_plan_is_counted_by_variant(tmp_path: Path) -> None:
    # 10 images in batches of 4: 2 steps; 5 val images: 2 batches before the first epoch and after each; 2 of the test.
    assert asked(tmp_path).loads() == {name: Load(2 * 3 * 2, 2 * (4 * 2 + 2)) for name in ("narrow", "wide")}


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
        assert answer["cost"]["error"].startswith("the probe ended with exit code 1: ablate.errors.PluginError: ")
        assert answer["cost"]["error"].endswith("absent.py: no such plugin file")
    assert [answer["cost"]["variant"] for answer in answers] == ["narrow", "wide"]


def test_a_probe_takes_the_memory_of_what_is_measured_and_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    known = asked(tmp_path)
    data = DeviceData(known.dataset, torch.device("cpu"))
    bench = Bench(known.plan[0], data, known.decisions, data.device, MeasureSpec(gradients=1, lr_headroom=1))
    bench.warm_up()
    before = {name: value.clone() for name, value in bench.network.model.state_dict().items()}
    bench.probe()
    assert set(bench._probes.layers) >= {"lr_headroom", "update_ratio"}
    assert all(torch.equal(value, before[name]) for name, value in bench.network.model.state_dict().items())


def test_two_lanes_train_at_the_same_time(tmp_path: Path) -> None:
    rate = lane_rate(asked(tmp_path), "eager", 2)
    assert rate is not None and rate.lanes == 2 and rate.images_per_s > 0


def test_a_lane_that_fails_is_no_rate(tmp_path: Path) -> None:
    assert lane_rate(asked(tmp_path, plugins=(tmp_path / "absent.py",)), "eager", 2) is None


class _Answers:
    """Made-up answers in the place of processes, and what was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step_s: dict[str, float], lanes: dict[int, float]) -> None:
        self.asked: list[object] = []

        def answers(asked: Probe, engines: list[str]) -> list[dict[str, object]]:
            self.asked += engines
            self.seconds = asked.seconds
            return [
                {
                    "cost": dataclasses.asdict(
                        EngineCost(name, engine, 1.0, step_s[engine], step_s[engine], 2**30, 1.1)
                    ),
                    "reserved_bytes": 2 * 2**30,
                    "free_bytes": 130 * 2**30,
                }
                for engine in engines
                for name in ("narrow", "wide")
            ]

        def rate(asked: Probe, engine: str, count: int) -> LaneRate | None:
            self.asked.append(count)
            return LaneRate(count, lanes[count], 2**30) if count in lanes else None

        monkeypatch.setattr(gpu_setup, "engine_answers", answers)
        monkeypatch.setattr(gpu_setup, "lane_rate", rate)


def test_a_short_plan_is_not_probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = _Answers(monkeypatch, {}, {})
    choice = probe(asked(tmp_path), 1e9)
    assert answers.asked == [] and (choice.engine, choice.lanes) == ("eager", 1)
    assert choice.reasons["engine"] == "about 0 s of training: not probed"


def test_compiling_and_lanes_are_probed_where_enough_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = dict.fromkeys(("eager", "graph", "compiled", "compiled_graph"), 0.1)
    answers = _Answers(monkeypatch, quick, {})
    probe(asked(tmp_path), 1e16)
    assert answers.asked == ["eager", "graph"]  # seconds are left: neither a compiler nor a second lane would pay
    assert answers.seconds == 1.0
    probe(asked(tmp_path), 40 * 100e12)
    assert answers.seconds == 0.4  # of a plan of 40 s
    slow = {"eager": 20.0, "graph": 15.0, "compiled": 12.0, "compiled_graph": 10.0}
    answers = _Answers(monkeypatch, slow, {2: 0.6, 4: 0.61})
    choice = probe(asked(tmp_path), 1e16)
    assert answers.asked == ["eager", "graph", "compiled", "compiled_graph", 2, 4]
    assert (choice.engine, choice.lanes) == ("compiled_graph", 2)


@pytest.mark.parametrize(("gib", "tried"), [(10, [2, 4]), (50, [2]), (60, [])])
def test_lanes_each_have_the_data_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gib: int, tried: list[int]
) -> None:
    slow = dict.fromkeys(("eager", "graph", "compiled", "compiled_graph"), 20.0)
    answers = _Answers(monkeypatch, slow, {2: 0.8, 4: 1.6})
    # 130 + 2 GiB were free, of which nine tenths may be taken; a lane takes 2 GiB and one for its context.
    monkeypatch.setattr(gpu_setup, "data_bytes", lambda dataset: gib * 2**30)
    probe(asked(tmp_path, "run: {engine: graph}"), 1e16)
    assert answers.asked == ["graph", *tried]


def test_what_the_study_says_is_not_probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = {"eager": 20.0, "graph": 15.0, "compiled": 12.0, "compiled_graph": 10.0}
    answers = _Answers(monkeypatch, slow, {2: 0.27})
    choice = probe(asked(tmp_path, "run: {engine: graph}"), 1e16)
    assert answers.asked == ["graph", 2] and choice.engine == "graph" and choice.lanes == 1
    assert choice.reasons["lanes"] == "probed lanes: 1: 0 images/s, 1.0 GiB; 2: 0 images/s, 1.0 GiB"
    answers = _Answers(monkeypatch, slow, {})  # where lanes fail one is left
    assert probe(asked(tmp_path, "run: {engine: graph}"), 1e16).lanes == 1 and answers.asked == ["graph", 2]
    answers = _Answers(monkeypatch, slow, {})
    probe(asked(tmp_path, "run: {engine: graph, lanes: 2}"), 1e16)
    assert answers.asked == []


def test_the_probes_answer_is_kept_for_a_study_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "device_class", lambda device: "NVIDIA H200")
    monkeypatch.setattr(decisions, "has_bfloat16", lambda device: (True, "it has"))
    probed = []

    def answer(asked: Probe, train_flops: float, say: object) -> Choice:
        probed.append(asked.device)
        return Choice("graph", 2, {"engine": "graph is fastest", "lanes": "two pay"})

    monkeypatch.setattr(setup, "probe", answer)
    known = asked(tmp_path)
    results = setup.writable(tmp_path / "results")
    variants = {name: {"forward_flops": 1e9} for name in known.study.variants}
    given = (known.study, results, list(known.plan), "cuda:0", variants, known.dataset, setup.Plugins(), print)
    decided, notes = setup._decisions(*given)
    assert (decided.engine, decided.lanes, decided.precision, notes) == ("graph", 2, "bfloat16", [])
    manifest.write_run(results, known.study, known.plan, known.dataset, decided, {}, {})
    trial = results.trial(known.plan[0].name)
    trial.path.mkdir(parents=True)
    trial.epochs.touch()
    again, notes = setup._decisions(*given)
    assert (again, notes, probed) == (decided, [], ["cuda:0"])


def test_a_worker_sees_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert worker_environment("cuda:1", 4)["CUDA_VISIBLE_DEVICES"] == "1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    found = worker_environment("cuda:1", 4)
    assert (found["CUDA_VISIBLE_DEVICES"], found["CUBLAS_WORKSPACE_CONFIG"]) == ("5", ":4096:8")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-5a1b, MIG-77c2")
    assert worker_environment("cuda:1", 4)["CUDA_VISIBLE_DEVICES"] == "MIG-77c2"
    assert worker_environment("cpu", 4).get("CUDA_VISIBLE_DEVICES") == os.environ["CUDA_VISIBLE_DEVICES"]
