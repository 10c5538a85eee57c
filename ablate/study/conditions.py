"""Conditions on the levels of an axis, as claims state them: a level itself, or a text such as ">=5e-4"."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from typing import Any

from ablate.study.yamlfile import Refused, scalar

OPERATORS = {"<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge}
CONDITION = re.compile(r"\s*(<=|>=|<|>)\s*(\S+)\s*")


def matches(condition: Any, level: Any) -> bool:
    """Whether a level of an axis fulfils a condition; raises `ValueError` for a condition that says nothing.

    A number, text or truth value is fulfilled by the level equal to it, ">=5e-4" by the numbers from 5e-4 on.
    """
    if isinstance(condition, str) and condition.lstrip()[:1] in ("<", ">"):
        found = CONDITION.fullmatch(condition)
        bound = _number(found[2]) if found else None
        if found is None or bound is None:
            raise ValueError(f"expected a condition such as '>=5e-4', got '{condition}'")
        if isinstance(level, bool) or not isinstance(level, int | float):
            return False
        return bool(OPERATORS[found[1]](level, bound))
    if isinstance(condition, bool) or isinstance(level, bool):
        return condition is level
    return bool(condition == level)


def all_match(where: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether a setting fulfils every condition of `where`."""
    return all(axis in settings and matches(condition, settings[axis]) for axis, condition in where.items())


def _number(text: str) -> int | float | None:
    try:
        value = scalar(text)
    except Refused:
        return None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
