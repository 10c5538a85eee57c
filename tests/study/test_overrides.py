"""Overrides are read and checked like the file, and named where they are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.study.study_files import GOOD, problems, read


def test_a_field_a_grid_a_variant(tmp_path: Path) -> None:
    study = read(
        tmp_path, GOOD, ["train.epochs=3", "grid.lr=[1e-3,3e-4,1e-4]", "variants.noskip.skip=attention", "seeds=[5]"]
    )
    assert study.spec.train.epochs == 3
    assert study.spec.grid == {"lr": [1e-3, 3e-4, 1e-4]}
    assert study.variants["noskip"].model["skip"] == "attention"
    assert study.seeds == (5,)


def test_what_is_not_there_is_added(tmp_path: Path) -> None:
    study = read(tmp_path, GOOD, ["measure.rope=0.01", "variants.wide={width: 8}", "grid.model.depth=[1, 2]"])
    assert study.spec.measure.rope == 0.01
    assert list(study.variants) == ["unet", "noskip", "wide"]
    assert study.spec.grid["model.depth"] == [1, 2]


def test_a_searched_range(tmp_path: Path) -> None:
    text = GOOD.replace("grid: {lr: [1e-3, 3e-4]}", "search: {space: {lr: {low: 1e-5, high: 1e-2, log: true}}}")
    study = read(tmp_path, text, ["search.space.lr.low=1e-4", "search.trials=4"])
    assert study.spec.search is not None
    assert (study.spec.search.space["lr"].low, study.spec.search.trials) == (1e-4, 4)


def test_of_two_overrides_the_last_holds(tmp_path: Path) -> None:
    assert read(tmp_path, GOOD, ["train.epochs=3", "train.epochs=4"]).spec.train.epochs == 4
    lines = problems(tmp_path, GOOD, ["train.epochs=3", "train={epochs: no}"])
    assert lines == ["-o train={epochs: no}: train.epochs: expected an integer, got the text 'no'"]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("train.epochs=many", "-o train.epochs=many: train.epochs: expected an integer, got the text 'many'"),
        (
            "train.epochs='3'",
            "-o train.epochs='3': train.epochs: expected an integer, got the text '3'; remove the quotes",
        ),
        (
            "train.epoch=3",
            "-o train.epoch=3: train.epoch: expected a known key, got an unknown one; did you mean 'epochs'?",
        ),
        (
            "variants.noskp.skip=none",
            "-o variants.noskp.skip=…: variants.noskp: expected a variant of the study, got 'noskp'; "
            "did you mean 'noskip'?",
        ),
        ("grid.lr=1e-3", "-o grid.lr=1e-3: grid.lr: expected a list, got 0.001; write [0.001]"),
        ("grid.lr=[.nan]", "-o grid.lr=[.nan]: grid.lr[0]: expected a finite number, got .nan"),
        ("seeds=[0, 0]", "-o seeds=[0, 0]: seeds[1]: expected every seed once, got 0 again (first at [0])"),
        ("epochs", "-o epochs: expected key=value, got something else; write, for example, -o train.epochs=3"),
        (
            "train.epochs=",
            "-o train.epochs=: expected key=value, got something else; write, for example, -o train.epochs=3",
        ),
        (
            "train..epochs=3",
            "-o train..epochs=3: expected key=value, got something else; write, for example, -o train.epochs=3",
        ),
        (
            "study.name=x",
            "-o study.name=…: study.name: expected a mapping at study, got something else; replace it as a whole",
        ),
        ("train=[1", "-o train=[1: train: expected valid YAML, got: expected ',' or ']', but got '<stream end>'"),
        (
            "train=*a",
            "-o train=*a: train: expected a plain value, got the alias *a; write the value out",
        ),
    ],
)
def test_a_broken_override_is_named(override: str, line: str, tmp_path: Path) -> None:
    assert problems(tmp_path, GOOD, [override]) == [line]


def test_the_file_and_its_overrides_are_told_together(tmp_path: Path) -> None:
    text = GOOD.replace("width: 4", "width: 0")
    assert problems(tmp_path, text, ["train.epochs=0"]) == [
        "study.yaml:3: model.width: expected a number >= 1, got 0",
        "-o train.epochs=0: train.epochs: expected a number > 0, got 0",
    ]
