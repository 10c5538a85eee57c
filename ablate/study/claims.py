"""Claims against the study they are made about: their variants, their names, and conditions such as ">=5e-4"."""

from __future__ import annotations

import operator
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ablate.errors import nearest
from ablate.study.axes import axis_name
from ablate.study.metrics import complaints
from ablate.study.problems import Finding, KeyPath, shown
from ablate.study.spec import ClaimSpec
from ablate.study.yamlfile import Refused, scalar

OPERATORS = {"<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge}
CONDITION = re.compile(r"\s*(<=|>=|<|>)\s*(\S+)\s*")


def claim_findings(
    claims: Sequence[ClaimSpec],
    variants: Collection[str],
    axes: Mapping[str, Sequence[Any]],
    broken: Collection[str],
    classes: Sequence[str] | None = None,
    *,
    searched: bool = False,
) -> list[Finding]:
    """Return what is wrong with the claims of a study that has these variants and axes (and `broken` ones besides).

    `classes` are those of its data set, None where only the data themselves tell. `searched`: every variant tries
    settings of its own.
    """
    findings: list[Finding] = []
    names: dict[str, int] = {}
    for index, claim in enumerate(claims):
        path = ("claims", index)
        # A claim that could not be read stands here without a metric, and has been complained about.
        if claim.metric:
            findings += [Finding((*path, key), message, cure) for key, message, cure in complaints(claim, classes)]
        for key in ("left", "right", "variant"):
            findings += _variant(getattr(claim, key), (*path, key), variants, words=key == "variant")
        if searched and claim.left is not None and claim.where:
            message = "expected no condition between two variants: a search tries other settings for each"
            findings.append(Finding((*path, "where"), message, "remove where: each then stands at its own best"))
        if claim.left is not None and claim.left == claim.right:
            findings.append(Finding((*path, "right"), f"expected another variant than left, got {shown(claim.right)}"))
        for axis, condition in claim.where.items():
            if axis_name(axis) in broken:
                continue
            findings += _where(axis, condition, (*path, "where", axis), axes)
        if claim.id is not None and names.setdefault(claim.id, index) != index:
            first = names[claim.id]
            findings.append(Finding((*path, "id"), f"expected every id once, got it again (first at claims[{first}])"))
    return findings


def _variant(name: str | None, path: KeyPath, variants: Collection[str], *, words: bool) -> list[Finding]:
    if name is None or name in variants or (words and name in ("any", "all")):
        return []
    choices = [*variants, "any", "all"] if words else variants
    return [Finding(path, f"expected a variant of the study, got {shown(name)}", nearest(name, choices))]


def _where(axis: str, condition: Any, path: KeyPath, axes: Mapping[str, Sequence[Any]]) -> list[Finding]:
    levels = axes.get(axis_name(axis))
    if levels is None:
        return [Finding(path, "expected an axis of the grid, got an unknown one", nearest(axis, axes))]
    try:
        picked = [level for level in levels if matches(condition, level)]
    except ValueError as error:
        return [Finding(path, str(error))]
    if picked:
        return []
    message = f"expected a condition that a level of the grid fulfils, got {shown(condition)}"
    return [Finding(path, message, f"the levels are {', '.join(map(str, levels))}")]


def matches(condition: Any, level: Any) -> bool:
    """Return whether a level of an axis fulfils a condition; raises `ValueError` for a condition that says nothing.

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
    """Return whether a setting fulfils every condition of `where`."""
    return all(axis in settings and matches(condition, settings[axis]) for axis, condition in where.items())


def _number(text: str) -> int | float | None:
    try:
        value = scalar(text)
    except Refused:
        return None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
