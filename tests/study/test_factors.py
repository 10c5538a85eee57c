"""Factors over any setting, components with settings, and variants that differ in training or data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from ablate.registry import LOSSES, OPTIMIZERS
from ablate.study.jsonschema import json_schema
from ablate.study.reader import dump_study, read_study
from tests.study.study_files import GOOD, problems, read, write

BASE = GOOD.replace("variants:\n  unet: {}\n  noskip: {skip: none}\n", "")


@pytest.fixture(autouse=True)
def components() -> None:
    """A loss and an optimizer with settings; forgotten after the test."""

    @LOSSES.register("soft")
    def soft(
        logits: object,
        target: object,
        *,
        num_classes: int,
        ignore_index: int,
        class_weights: object = None,
        alpha: float = 0.3,
        mode: str = "mean",
    ) -> None:
        """Judge softly."""

    @OPTIMIZERS.register("slow")
    def slow(
        parameters: object,
        *,
        lr: float,
        weight_decay: float,
        momentum: float,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        """Step slowly."""


def test_a_factor_may_be_of_the_model_of_training_and_of_the_data(tmp_path: Path) -> None:
    factors = "factors: {skip: [concat, none], train.augment.flip: [true, false], data.fraction: [1.0, 0.5]}\n"
    study = read(tmp_path, BASE + factors + "design: one_at_a_time\n")
    assert list(study.variants) == ["baseline", "skip-none", "flip-false", "fraction-0.5"]
    assert study.differences("flip-false") == {"train.augment.flip": (True, False)}
    assert study.differences("fraction-0.5") == {"data.fraction": (1.0, 0.5)}
    trial = study.trial("fraction-0.5", {"lr": 1e-3}, 0)
    assert (trial.data["fraction"], trial.data["steps"]) == (0.5, "equal")
    # What the study declares is no confound.
    assert not any(study.confounds(name) for name in study.variants)


def test_the_whole_of_a_factor_has_the_keys_of_the_study_without_it(tmp_path: Path) -> None:
    plain = read(tmp_path).trial("unet", {"lr": 1e-3}, 0)
    factors = "factors: {data.fraction: [1.0, 0.5], train.loss: [cross_entropy, dice]}\n"
    assert read(tmp_path, BASE + factors).trial("baseline", {"lr": 1e-3}, 0).key == plain.key
    written = GOOD.replace("test: 4}", "test: 4, fraction: 1.0, steps: epochs}")
    assert read(tmp_path, written).trial("unet", {"lr": 1e-3}, 0).key == plain.key


def test_a_default_that_is_written_out_changes_no_key(tmp_path: Path) -> None:
    keys = {
        read(tmp_path, GOOD.replace("batch_size: 4}", f"batch_size: 4, loss: {loss}}}")).trials()[0].key
        for loss in ("soft", "{name: soft}", "{name: soft, alpha: 0.3}")
    }
    other = read(tmp_path, GOOD.replace("batch_size: 4}", "batch_size: 4, loss: {name: soft, alpha: 0.7}}"))
    assert len(keys) == 1
    assert other.trials()[0].key not in keys
    assert other.trials()[0].train["loss"] == {"name": "soft", "alpha": 0.7}


def test_components_with_settings_are_levels_and_are_written_back(tmp_path: Path) -> None:
    text = BASE + (
        "factors:\n  train.loss: [cross_entropy, {name: soft, alpha: 0.7}]\n"
        "  train.optimizer: [adam, {name: slow, betas: [0.9, 0.99]}]\ndesign: grid\n"
    )
    study = read(tmp_path, text)
    assert list(study.variants)[-1] == "loss-soft-alpha0.7+optimizer-slow-betas0.9-0.99"
    name = "loss-soft-alpha0.7"
    assert study.differences(name) == {"train.loss": ("cross_entropy", "soft"), "train.loss.alpha": (None, 0.7)}
    again = read_study(write(tmp_path, dump_study(study), "again.yaml"))
    assert [trial.key for trial in again.trials()] == [trial.key for trial in study.trials()]


def test_a_component_may_be_an_axis_of_the_grid(tmp_path: Path) -> None:
    study = read(tmp_path, GOOD.replace("[1e-3, 3e-4]}", "[1e-3], loss: [dice, {name: soft, alpha: 0.7}]}"))
    names = [trial.name for trial in study.trials() if trial.seed == 0 and trial.variant == "unet"]
    assert [name.rsplit("-seed", 1)[0] for name in names] == ["unet-lr1e-3-lossdice", "unet-lr1e-3-losssoft-alpha0.7"]


def test_what_is_no_factor_is_a_confound_and_a_list_of_names_declares(tmp_path: Path) -> None:
    own = "noskip: {skip: none, train: {loss: dice, augment: {flip: false}}, data: {fraction: 0.5, steps: epochs}}"
    text = GOOD.replace("noskip: {skip: none}", own)
    study = read(tmp_path, text)
    assert study.confounds("noskip") == ["train.loss", "train.augment.flip", "data.fraction"]
    declared = read(tmp_path, text + "factors: [train.loss, train.augment, data.fraction]\n")
    assert declared.confounds("noskip") == []
    assert list(declared.variants) == ["unet", "noskip"]
    assert yaml.safe_load(dump_study(declared))["factors"] == dict.fromkeys(
        ["train.loss", "train.augment", "data.fraction"]
    )
    assert read_study(write(tmp_path, dump_study(declared), "again.yaml")).confounds("noskip") == []


FAULTS = {
    "an unknown field of train": (
        "factors: {train.los: [dice, cross_entropy]}\n",
        "factors.train.los: expected a field of train, got an unknown one; did you mean 'loss'?",
    ),
    "a setting of train without its prefix": (
        "factors: {loss: [dice, cross_entropy]}\n",
        "factors.loss: expected a setting of the model 'unet', got an unknown key; write train.loss",
    ),
    "an unknown setting of the data": (
        "factors: {data.fracton: [0.5, 1.0]}\n",
        "factors.data.fracton: expected a setting of the data set 'street', got an unknown one; "
        "did you mean 'fraction'?",
    ),
    "a fraction above one": (
        "factors: {data.fraction: [1.0, 1.5]}\n",
        "factors.data.fraction[1]: expected a number <= 1, got 1.5",
    ),
    "one level": (
        "factors: {train.loss: [dice]}\n",
        "factors.train.loss: expected at least two levels, got a list of 1",
    ),
    "an unknown loss": (
        "factors: {train.loss: [dice, tverky]}\n",
        "factors.train.loss[1]: expected a registered loss, got the text 'tverky'",
    ),
    "an unknown setting of a loss": (
        "factors: {train.loss: [dice, {name: soft, alfa: 1}]}\n",
        "factors.train.loss[1].alfa: expected a setting of the loss 'soft', got an unknown key; did you mean 'alpha'?",
    ),
    "a setting of the wrong type": (
        "factors: {train.loss: [dice, {name: soft, alpha: big}]}\n",
        "factors.train.loss[1].alpha: expected a number, got the text 'big'",
    ),
    "a component without a name": (
        "factors: {train.loss: [dice, {alpha: 0.3}]}\n",
        "factors.train.loss[1]: expected text, got a mapping",
    ),
    "a factor that is an axis too": (
        "factors: {train.lr: [1e-3, 3e-4]}\n",
        "factors.train.lr: expected the grid alone to set 'lr', got it here too; remove it here or from the grid",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_a_factor_is_one_line_with_its_cure(name: str, tmp_path: Path) -> None:
    text, message = FAULTS[name]
    found = problems(tmp_path, BASE + text)
    assert found[0].startswith(f"study.yaml:7: {message}"), found
    assert len(set(found)) <= 2


def test_a_location_is_no_difference_of_variants(tmp_path: Path) -> None:
    text = GOOD.replace("noskip: {skip: none}", "noskip: {data: {root: elsewhere}}")
    assert problems(tmp_path, text) == [
        "study.yaml:6: variants.noskip.data.root: expected a setting that says what is trained on, got the location "
        "'root'; make it a study of its own"
    ]


def test_the_schema_knows_components_with_settings() -> None:
    text = json.dumps(json_schema())
    for word in ("soft", "alpha", "betas", "fraction", "replace"):
        assert f'"{word}"' in text
