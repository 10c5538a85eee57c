"""Variants matched in size to another."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablate.models import parameters
from ablate.registry import MODELS
from ablate.study.components import create
from ablate.study.matching import nearest_size
from ablate.study.reader import dump_study, read_study
from ablate.study.study import Study
from tests.study.study_files import GOOD, problems, read, write

MATCHED = GOOD.replace("noskip: {skip: none}", "noskip: {skip: none, match: {to: unet, by: parameters}}").replace(
    "width: 4, depth: 2", "width: 8, depth: 3"
)


def size(study: Study, name: str) -> int:
    return parameters(create(MODELS, study.variants[name].model, in_channels=3, num_classes=11))


def test_a_variant_gets_the_width_of_equal_size_within_the_tolerance(tmp_path: Path) -> None:
    study = read(tmp_path, MATCHED)
    assert 8 < study.variants["noskip"].model["width"] < 10
    assert abs(size(study, "noskip") / size(study, "unet") - 1) <= 0.02
    assert list(study.differences("noskip")) == ["width", "skip"]
    again = read_study(write(tmp_path, dump_study(study), "again.yaml"))
    assert [trial.key for trial in again.trials()] == [trial.key for trial in study.trials()]


def test_a_whole_width_stays_a_whole_number_in_the_key(tmp_path: Path) -> None:
    widths = {name: read(tmp_path).variants[name].model["width"] for name in ("unet", "noskip")}
    assert all(type(width) is int for width in widths.values())
    fraction = read(tmp_path, GOOD.replace("noskip: {skip: none}", "noskip: {width: 4.5}"))
    assert fraction.variants["noskip"].model["width"] == 4.5


def test_whole_numbers_are_enough_where_the_tolerance_lets_them() -> None:
    assert nearest_size(100, lambda width: round(width**2), lambda _: True, 2, 0.01) == (10, 100)
    value, size = nearest_size(110, lambda width: round(width**2), lambda _: True, 64, 0.01)
    assert size == 110
    assert value != round(value)
    # A setting that takes whole numbers only.
    assert nearest_size(110, lambda width: round(width**2), lambda width: width == round(width), 2, 0.01)[0] == 10


FAULTS = {
    "another variant": (
        "{to: unett}",
        "study.yaml:6: variants.noskip.match.to: expected a variant that is matched to no other, got the text 'unett'; "
        "did you mean 'unet'?",
    ),
    "another setting": (
        "{to: unet, with: widht}",
        "study.yaml:6: variants.noskip.match.with: expected a number among the settings of 'unet', got 'widht'; "
        "did you mean 'width'?",
    ),
    "an unknown quantity": (
        "{to: unet, by: params}",
        "study.yaml:6: variants.noskip.match.by: expected 'parameters' or 'flops', got the text 'params'; "
        "did you mean 'parameters'?",
    ),
    "an unknown key": (
        "{to: unet, tolerence: 0.1}",
        "study.yaml:6: variants.noskip.match.tolerence: expected a known key, got an unknown one; "
        "did you mean 'tolerance'?",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_a_match_is_one_line(name: str, tmp_path: Path) -> None:
    text, message = FAULTS[name]
    assert problems(tmp_path, GOOD.replace("noskip: {skip: none}", f"noskip: {{skip: none, match: {text}}}")) == [
        message
    ]


def test_what_cannot_be_matched_says_the_nearest(tmp_path: Path) -> None:
    text = GOOD.replace("noskip: {skip: none}", "noskip: {skip: none, match: {to: unet, with: depth}}")
    (line,) = problems(tmp_path, text)
    assert line.startswith("study.yaml:6: variants.noskip.match: no depth has the ")
    assert "the nearest, 2, has " in line
    assert "write tolerance: " in line
