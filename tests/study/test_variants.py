"""Variants from component switches."""

from __future__ import annotations

import pytest

from ablate.study.variants import Design, count, generate

FACTORS = {"skip": ["concat", "none", "attention"], "block": ["plain", "residual"]}


def test_grid_makes_every_combination_with_the_first_levels_as_baseline() -> None:
    made = generate(FACTORS, "grid")
    assert [item.name for item in made] == [
        "baseline",
        "block-residual",
        "skip-none",
        "skip-none+block-residual",
        "skip-attention",
        "skip-attention+block-residual",
    ]
    assert made[0].levels == {"skip": "concat", "block": "plain"}
    assert made[-1].levels == {"skip": "attention", "block": "residual"}


def test_one_at_a_time_changes_one_factor_of_the_baseline() -> None:
    made = generate(FACTORS, "one_at_a_time")
    assert [item.name for item in made] == ["baseline", "skip-none", "skip-attention", "block-residual"]
    assert [sum(item.levels[key] != made[0].levels[key] for key in FACTORS) for item in made] == [0, 1, 1, 1]


def test_leave_one_out_takes_one_component_from_the_full_model() -> None:
    made = generate(FACTORS, "leave_one_out")
    assert {item.name: item.levels for item in made} == {
        "full": {"skip": "attention", "block": "residual"},
        "without-skip": {"skip": "concat", "block": "residual"},
        "without-block": {"skip": "attention", "block": "plain"},
    }


@pytest.mark.parametrize("design", ["grid", "one_at_a_time", "leave_one_out"])
def test_the_count_is_known_beforehand(design: Design) -> None:
    assert count(FACTORS, design) == len(generate(FACTORS, design))


def test_levels_that_are_equal_in_python_are_told_apart() -> None:
    assert [item.name for item in generate({"gate": [False, 0]}, "grid")] == ["baseline", "gate-0"]
