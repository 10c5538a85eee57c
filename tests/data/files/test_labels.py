"""The meaning of stored labels: values, colours, and all that is wrong with them at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from ablate.data.dataset import IGNORE, Findings
from ablate.data.files.labels import BACKGROUND, UNKNOWN, distinct_colours, drawn_colours, read_labels


def read(classes: Any, ignore: Sequence[Any] = (), palette: Any = None) -> tuple[Any, list[str]]:
    findings = Findings()
    labels = read_labels(classes, list(ignore), palette, findings)
    return labels, [str(problem) for problem in findings.problems()]


def test_values_become_indices_in_the_order_of_the_classes() -> None:
    labels, problems = read({"cell": 255, "membrane": [0, 7]}, ignore=[128])
    assert problems == [] and labels.classes == ("cell", "membrane") and not labels.coloured
    stored = np.array([[0, 7, 255], [128, 1, 254]], np.uint8)
    assert labels.apply(stored).tolist() == [[1, 1, 0], [IGNORE, UNKNOWN, UNKNOWN]]
    assert labels.apply(np.array([255, 256, 65_535], np.uint16)).tolist() == [0, UNKNOWN, UNKNOWN]
    assert labels.apply(np.array([-1, 0, 1 << 20], np.int32)).tolist() == [UNKNOWN, 1, UNKNOWN]
    assert labels.allowed == "0, 7, 128, 255"


def test_what_no_class_names_may_be_ignored() -> None:
    labels, problems = read({"sky": "#808080", "road": "#804080"}, ignore=["others"])
    assert problems == [] and labels.apply(np.array([0x808080, 0x806080, -1])).tolist() == [0, IGNORE, IGNORE]
    assert read({"a": {"bit": 0}, "b": {"bit": 1}}, ignore=["others"])[1]


def test_a_list_of_names_counts_from_zero() -> None:
    labels, problems = read(["sky", "road", "car"], ignore=[255])
    assert problems == []
    assert labels.apply(np.array([0, 1, 2, 255], np.uint8)).tolist() == [0, 1, 2, IGNORE]


@pytest.mark.parametrize(
    "classes",
    [
        {"sky": [128, 128, 128], "road": [128, 64, 128]},
        {"sky": "#808080", "road": "#804080"},
        {"sky": "#808080", "road": [128, 64, 128]},
        {"sky": [[128, 128, 128], "#010203"], "road": [[128, 64, 128]]},
    ],
)
def test_colours_in_every_notation(classes: Any) -> None:
    labels, problems = read(classes, ignore=["#000000"])
    assert problems == [] and labels.coloured
    assert labels.palette == ((128, 128, 128), (128, 64, 128))
    codes = np.array([0x808080, 0x804080, 0, 0xFFFFFF])
    assert labels.apply(codes).tolist() == [0, 1, IGNORE, UNKNOWN]
    assert labels.shown(0x804080) == "(128, 64, 128)"


def test_three_numbers_are_values_where_another_class_has_one() -> None:
    labels, problems = read({"background": 0, "tumour": [1, 2, 4]})
    assert problems == [] and not labels.coloured
    assert labels.apply(np.array([0, 1, 2, 4], np.uint8)).tolist() == [0, 1, 1, 1]


def test_a_palette_may_be_given_in_part() -> None:
    labels, problems = read({"a": 0, "b": 1}, palette={"b": "#0a0b0c"})
    assert problems == [] and labels.palette == (distinct_colours(2)[0], (10, 11, 12))
    assert read({"a": 0, "b": 1})[0].palette is None
    assert drawn_colours(["a", "Background"]) == (distinct_colours(2)[0], BACKGROUND)


def test_distinct_colours_are_distinct() -> None:
    colours = np.array(distinct_colours(40))
    apart = np.abs(colours[:, None] - colours[None]).sum(axis=2) + 1000 * np.eye(40)
    assert apart.min() > 40


def test_all_that_is_wrong_with_labels_is_said_at_once() -> None:
    _, problems = read(
        {"a": 0, "b": 0, "c": -1, "d": 1.5, "e": True, "f": 70_000, "g": []}, ["red", 0], {"z": "#000000"}
    )
    assert "data.classes.b: the label 0 stands for both 'a' and 'b'" in problems
    for name in "cdefg":
        assert f"data.classes.{name}: expected values 0..65535 for every class and ignored label" in problems
    assert "data.ignore: the label 0 stands for both 'a' and 'ignore'" in problems
    assert sum(problem.startswith("data.ignore: expected values") for problem in problems) == 1
    assert "data.palette.z: expected the name of a class" in problems


def test_mixed_values_and_colours_twice_a_name_and_too_many_classes() -> None:
    _, problems = read({"a": "#112233", "b": 4})
    assert problems == [
        "data.classes.b: expected a colour such as [128, 0, 0] or '#800000' for every class and ignored label"
    ]
    assert read(["a", "b", "a"])[1] == ["data.classes: the class 'a' is named twice"]
    assert read({})[1] == ["data.classes: expected 2 to 253 classes, got 0"]
    assert read([str(index) for index in range(254)])[1] == ["data.classes: expected 2 to 253 classes, got 254"]
