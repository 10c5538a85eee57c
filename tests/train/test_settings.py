"""Averaged weights, accumulated gradients, rates by group, frozen layers, auxiliary outputs: resumed, captured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import tests.tiny_plugin  # noqa: F401  (registers the tiny components)
from ablate.errors import StudyError
from ablate.study.reader import read_study
from ablate.train.context import Context
from ablate.train.loop import Interrupted
from ablate.train.network import Network, learn
from ablate.train.optim import Average, make_optimizer
from benchmarks.gpu_probe import random_data
from tests.train.test_loop import DECISIONS, STUDY, bench, content, make_study, run

DATA = random_data(3, 3, (12, 16), 2)
CPU = torch.device("cpu")
TRAIN = {"lr": 0.1, "optimizer": "sgd", "weight_decay": 0.0, "momentum": 0.0}
ONE = STUDY.replace("variants: {narrow: {}, wide: {width: 8}}", "variants: {only: {}}")
SETTINGS = {
    "ema": "ema: 0.9",
    "accumulate": "accumulate: 2",
    "rates": "lr_scale: {layers.0: 0.1, '*.bias': 2}",
    "freeze": "freeze: [layers.0, layers.1]",
    "dice": "loss: dice",
    "all": "ema: 0.9, accumulate: 2, lr_scale: {layers.4: 0.1}, freeze: [layers.1], loss: dice",
}


def with_train(train: str) -> str:
    return ONE.replace("batch_size: 4}", f"batch_size: 4, {train}}}")


def network(model: str = "two_convolutions", loss: str = "cross_entropy", **settings: Any) -> Network:
    torch.manual_seed(0)
    return Network({"name": model}, DATA, loss, None, device=CPU, **settings)


@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting_resumes_to_the_same_bits(tmp_path: Path, name: str) -> None:
    study = make_study(tmp_path, with_train(SETTINGS[name]))
    trial = study.trials()[0]
    record, whole = run(trial, study, bench(tmp_path), tmp_path / "whole")
    assert record.status == "complete"
    calls = iter(range(100))
    with pytest.raises(Interrupted):
        run(trial, study, bench(tmp_path), tmp_path, should_stop=lambda: "asked" if next(calls) == 3 else None)
    resumed, folder = run(trial, study, bench(tmp_path), tmp_path)
    assert "resumed at step 3" in resumed.provenance["notes"]
    assert content(folder) == content(whole)


@pytest.mark.usefixtures("_captures_by_call")
@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting_trains_alike_in_a_captured_step(tmp_path: Path, name: str) -> None:
    study = make_study(tmp_path, with_train(SETTINGS[name]))
    trial = study.trials()[0]
    _, eager = run(trial, study, bench(tmp_path), tmp_path / "eager")
    graph = Context("cpu", replace(DECISIONS, engine="graph"), tmp_path)
    run(study.trials()[1], study, graph, tmp_path / "graph")  # the capture is that of another trial
    _, captured = run(trial, study, graph, tmp_path / "graph")
    # Equal up to the rounding of the rate, a float32 tensor there; a bias before a norm drifts with rounding alone.
    steps = [np.fromfile(folder.steps, dtype="<f4") for folder in (eager, captured)]
    np.testing.assert_allclose(steps[0], steps[1], rtol=2e-4, atol=1e-5)
    scores = [[json.loads(line)["val_loss"] for line in folder.epochs.open()] for folder in (eager, captured)]
    assert scores[0] == pytest.approx(scores[1], rel=5e-3)


@pytest.mark.usefixtures("kernels")
def test_the_fused_engine_trains_frozen_and_accumulated(tmp_path: Path) -> None:
    text = with_train(SETTINGS["freeze"] + ", accumulate: 2, ema: 0.9").replace("two_convolutions", "unet, width: 4")
    text = text.replace("freeze: [layers.0, layers.1]", "freeze: [encoder.0]").replace(
        "unet, width", "unet, depth: 2, width"
    )
    study = make_study(tmp_path, text)
    losses = []
    for engine in ("eager", "fused"):
        context = Context("cpu", replace(DECISIONS, engine=engine), tmp_path)
        record, folder = run(study.trials()[0], study, context, tmp_path / engine)
        losses.append(np.fromfile(folder.steps, dtype="<f4"))
        assert record.metrics["trained_parameters"] < record.metrics["parameters"]  # type: ignore[operator]
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-3)


def test_settings_that_are_off_are_in_no_key_and_no_record(tmp_path: Path) -> None:
    plain = make_study(tmp_path, ONE).trials()[0]
    written = make_study(
        tmp_path, with_train("ema: null, accumulate: 1, lr_scale: {}, freeze: [], aux: null")
    ).trials()[0]
    assert written.key == plain.key and "ema" not in plain.train
    assert make_study(tmp_path, with_train("ema: 0.9")).trials()[0].key != plain.key


def test_accumulated_gradients_are_those_of_the_large_batch() -> None:
    """Of a network without norms and dropout; the labelled pixels of the parts differ in number."""
    images = torch.randint(0, 255, (6, 12, 16, 3), dtype=torch.uint8)
    target = torch.randint(0, 3, (6, 12, 16), dtype=torch.uint8)
    target[:3, :7] = 255
    weights = []
    for batch_size in (6, 2, 4):
        one = network()
        one.model.eval()
        optimizer = make_optimizer(one.model, TRAIN)
        row = learn(one, optimizer, images, target, {"clip_norm": None, "batch_size": batch_size})
        weights.append([row, *one.parameters()])
    for other in weights[1:]:
        torch.testing.assert_close(other, weights[0], rtol=1e-5, atol=1e-6)


def test_a_part_in_which_nothing_counts_adds_nothing() -> None:
    images, target = torch.zeros(4, 12, 16, 3, dtype=torch.uint8), torch.zeros(4, 12, 16, dtype=torch.uint8)
    target[2:] = 255
    rows = []
    for count in (4, 2):
        one = network()
        one.model.eval()
        optimizer = make_optimizer(one.model, TRAIN)
        row = learn(one, optimizer, images[:count], target[:count], {"clip_norm": None, "batch_size": 2})
        rows.append(row)
    torch.testing.assert_close(rows[0], rows[1])


def test_accumulating_takes_as_many_images_a_step(tmp_path: Path) -> None:
    study = make_study(tmp_path, with_train("accumulate: 2"))
    record, _ = run(study.trials()[0], study, bench(tmp_path), tmp_path)
    assert record.metrics["steps_per_epoch"] == 1, "12 images, 2 × 4 a step"


def test_the_average_follows_its_formula() -> None:
    model = nn.Linear(1, 1, bias=False)
    average, by_hand = Average(model, 0.5), model.weight.item()
    for step, value in enumerate([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]):
        model.weight.data.fill_(value)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        by_hand = decay * by_hand + (1 - decay) * value
    assert float(average.weights["weight"]) == pytest.approx(by_hand, rel=1e-6)
    with average.in_place():
        assert model.weight.item() == pytest.approx(by_hand, rel=1e-6)
    assert model.weight.item() == 9.0


def test_the_average_is_what_is_scored_and_kept(tmp_path: Path) -> None:
    study = make_study(tmp_path, with_train("ema: 0.9"))
    _, folder = run(study.trials()[0], study, bench(tmp_path), tmp_path)
    _, plain = run(make_study(tmp_path, ONE).trials()[0], study, bench(tmp_path), tmp_path / "plain")
    ours, theirs = content(folder), content(plain)
    assert ours["steps.f32"] == theirs["steps.f32"], "averaging changes no step"
    assert ours["epochs.jsonl"] != theirs["epochs.jsonl"] and ours["best"] != theirs["best"]


def test_a_rate_belongs_to_the_last_pattern_that_fits() -> None:
    one = network()
    optimizer = make_optimizer(one.model, {**TRAIN, "lr_scale": {"layers": 0.5, "layers.4": 0.1, "*.bias": 2.0}})
    factor = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    found = {name: factor[id(parameter)] for name, parameter in one.model.named_parameters()}
    assert found["layers.0.weight"] == 0.5 and found["layers.4.weight"] == 0.1 and found["layers.4.bias"] == 2.0
    assert [group["lr"] for group in optimizer.param_groups] == [
        0.1 * group["lr_scale"] for group in optimizer.param_groups
    ]


def test_frozen_layers_stay_as_they_were_and_so_do_their_statistics(tmp_path: Path) -> None:
    study = make_study(tmp_path, with_train("freeze: [layers.0, layers.1]"))
    trial = study.trials()[0]
    record, folder = run(trial, study, bench(tmp_path), tmp_path)
    fresh = bench(tmp_path).network(trial).model.state_dict()
    kept = torch.load(folder.best, weights_only=True)
    changed = {name for name in fresh if not torch.equal(fresh[name], kept[name])}
    assert changed == {"layers.4.weight", "layers.4.bias"}
    assert record.metrics["trained_parameters"] == sum(fresh[name].numel() for name in changed)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"freeze": ["layer.0"]}, "train.freeze: expected a pattern .* got 'layer.0', .* did you mean 'layers.0'"),
        ({"freeze": ["layers"]}, "train.freeze: expected parameters left to train, got all of them frozen"),
    ],
)
def test_a_pattern_that_cannot_be_meant_is_an_error(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        network(**settings)


def test_a_rate_for_nothing_is_an_error() -> None:
    with pytest.raises(StudyError, match=r"train.lr_scale: .* got 'encoder', which fits none of the model; .*layers"):
        make_optimizer(network().model, {**TRAIN, "lr_scale": {"encoder": 0.1}})


@pytest.mark.parametrize("form", ["dict", "list"])
def test_the_auxiliary_loss_is_added_with_its_weight(form: str) -> None:
    images, target = torch.randint(0, 255, (2, 12, 16, 3), dtype=torch.uint8), torch.zeros(2, 12, 16, dtype=torch.uint8)
    torch.manual_seed(0)
    model = {"name": "with_auxiliary", "form": form}
    made = [Network(model, DATA, "cross_entropy", None, device=CPU, aux=aux) for aux in (0.0, 0.4, [0.4])]
    for one in made:
        one.reset(0)
        one.model.eval()
    main, aux = made[0].outputs(images)
    larger = nn.functional.interpolate(aux, size=(12, 16), mode="bilinear")
    wanted = made[0].loss(main, target) + 0.4 * made[0].loss(larger, target)
    assert float(made[0].loss_of_batch(images, target)) == float(made[0].loss(main, target))
    assert [float(one.loss_of_batch(images, target)) for one in made[1:]] == [pytest.approx(float(wanted))] * 2
    torch.testing.assert_close(made[1].predict(images, target)[1].mean(), made[0].loss(main, target))


def test_a_trial_with_an_auxiliary_output(tmp_path: Path) -> None:
    text = with_train("aux: 0.4").replace("two_convolutions", "with_auxiliary")
    study = make_study(tmp_path, text)
    record, _ = run(study.trials()[0], study, bench(tmp_path), tmp_path)
    assert record.status == "complete" and record.layers["lr_headroom"]


def test_auxiliary_outputs_without_a_weight_are_an_error() -> None:
    with pytest.raises(StudyError, match=r"train.aux: expected the weights of the model.s 1 auxiliary outputs"):
        network("with_auxiliary").loss_of_batch(
            torch.zeros(2, 12, 16, 3, dtype=torch.uint8), torch.zeros(2, 12, 16, dtype=torch.uint8)
        )


def test_a_trial_of_another_loss_has_its_cross_entropy_too(tmp_path: Path) -> None:
    study = make_study(tmp_path, with_train("loss: dice"))
    record, folder = run(study.trials()[0], study, bench(tmp_path), tmp_path)
    assert record.metrics["val_cross_entropy"] != record.metrics["val_loss"]
    plain, _ = run(make_study(tmp_path, ONE).trials()[0], study, bench(tmp_path), tmp_path)
    assert "val_cross_entropy" not in plain.metrics, "it is the loss itself"
    one = bench(tmp_path).network(study.trials()[0])
    one.model.load_state_dict(torch.load(folder.best, weights_only=True))
    one.model.eval()
    split = bench(tmp_path).data(study.trials()[0].data).splits["test"]
    losses = [
        float(one.cross_entropy(one.logits(images[:1]), masks[:1]))  # type: ignore[misc]
        for images, masks, _ in split.in_order(1)
    ]
    assert record.metrics["test_cross_entropy"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_the_study_file_says_all_of_it(tmp_path: Path) -> None:
    text = with_train("ema: 0.999, accumulate: 4, lr_scale: {layers: 0.1}, freeze: ['*.1'], aux: [0.4, 0.2]")
    path = tmp_path / "study.yaml"
    path.write_text(text)
    train = read_study(path).trials()[0].train
    assert {name: train[name] for name in ("ema", "accumulate", "lr_scale", "freeze", "aux")} == {
        "ema": 0.999, "accumulate": 4, "lr_scale": {"layers": 0.1}, "freeze": ["*.1"], "aux": [0.4, 0.2],
    }  # fmt: skip
    path.write_text(text.replace("0.999", "1.5"))
    with pytest.raises(StudyError, match=r"study.yaml:\d+: train.ema: "):
        read_study(path)
