"""Conditions on levels."""

from __future__ import annotations

from typing import Any

import pytest

from ablate.study.claims import all_match, matches


@pytest.mark.parametrize(
    ("condition", "level", "fulfilled"),
    [
        (">=5e-4", 5e-4, True),
        (">=5e-4", 1e-3, True),
        (">= 5e-4", 3e-4, False),
        (">5e-4", 5e-4, False),
        ("<1e-3", 3e-4, True),
        ("<=1e-3", 1e-3, True),
        ("<5", "adam", False),
        ("<5", True, False),
        (1e-3, 0.001, True),
        (1, 1.0, True),
        (1, True, False),
        (True, True, True),
        ("adam", "adam", True),
        ("adam", "adamw", False),
        (None, None, True),
    ],
)
def test_a_level_fulfils_a_condition(condition: Any, level: Any, fulfilled: bool) -> None:
    assert matches(condition, level) is fulfilled


@pytest.mark.parametrize("condition", [">=", ">=high", "<5 6", "<.nan"])
def test_a_condition_that_says_nothing(condition: str) -> None:
    with pytest.raises(ValueError, match="expected a condition such as"):
        matches(condition, 5)


def test_every_condition_has_to_hold() -> None:
    where = {"lr": ">=5e-4", "optimizer": "adam"}
    assert all_match(where, {"lr": 1e-3, "optimizer": "adam"})
    assert not all_match(where, {"lr": 1e-3, "optimizer": "sgd"})
    assert not all_match(where, {"lr": 1e-3})
