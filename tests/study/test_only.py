"""`--only`: it picks the trials that are meant, whatever their levels are, and refuses to be about nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablate.errors import StudyError
from ablate.study.overrides import selection
from tests.study.study_files import GOOD, read

AXES = GOOD.replace(
    "grid: {lr: [1e-3, 3e-4]}", "grid: {lr: [1e-3, 3e-4], clip_norm: [null, 1], class_weights: [null, balanced]}"
)


def picked(folder: Path, *words: str, text: str = GOOD) -> list[str]:
    study = read(folder, text)
    matches = selection(words, study)
    return [trial.name.rsplit("-", 1)[0] for trial in study.trials() if matches(trial)]


def test_values_of_a_key_are_alternatives_and_keys_are_conditions(tmp_path: Path) -> None:
    assert picked(tmp_path, "variant=unet", "lr=0.001", "seed=1") == ["unet-lr1e-3-seed1"]
    assert picked(tmp_path, "lr=3e-4", "seed=1") == ["unet-lr3e-4-seed1", "noskip-lr3e-4-seed1"]
    assert len(picked(tmp_path, "lr=3e-4", "lr=0.001", "seed=1")) == 4
    assert len(picked(tmp_path)) == 8


@pytest.mark.parametrize("nothing", ["none", "null"])
def test_no_value_is_a_level_too(tmp_path: Path, nothing: str) -> None:
    found = picked(tmp_path, f"clip_norm={nothing}", "class_weights=balanced", "variant=unet", "seed=0", text=AXES)
    assert found == [f"unet-lr{lr}-clip_normnone-class_weightsbalanced-seed0" for lr in ("1e-3", "3e-4")]


def test_every_slip_at_once(tmp_path: Path) -> None:
    with pytest.raises(StudyError) as caught:
        picked(tmp_path, "variant=une", "lr=7", "seed=9", "batch=3", "unet", "lr=")
    assert str(caught.value).splitlines() == [
        "--only variant=une: no such variant; did you mean 'unet'?",
        "--only lr=7: no such lr; choose from 1e-3, 3e-4",
        "--only seed=9: no such seed; choose from 0, 1",
        "--only batch=3: expected a variant, a seed or an axis of the grid, got 'batch'; choose from lr, seed, variant",
        "--only unet: expected key=value; such as --only variant=unet",
        "--only lr=: expected key=value; such as --only variant=unet",
    ]


def test_words_that_only_together_pick_nothing(tmp_path: Path) -> None:
    text = GOOD + "exclude: [{variant: noskip, lr: 1e-3}]\n"
    with pytest.raises(StudyError, match="--only variant=noskip --only lr=1e-3: no trial of the study is all of that"):
        picked(tmp_path, "variant=noskip", "lr=1e-3", text=text)


def test_seeds_that_only_the_run_will_choose_are_no_slip(tmp_path: Path) -> None:
    assert picked(tmp_path, "seed=12345", text=GOOD + "confirm: {seeds: 2}\n") == []
    assert picked(tmp_path, "seed=1", text=GOOD.replace("seeds: 2", "screen: {}")) == []
