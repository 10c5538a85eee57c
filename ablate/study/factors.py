"""Variants generated from component switches: all combinations, each component added, or each left out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ablate.study.trial import level_text

Design = Literal["grid", "one_at_a_time", "leave_one_out"]


@dataclass(frozen=True)
class Generated:
    """A variant that a design makes: its name and the level of every factor."""

    name: str
    levels: dict[str, Any]


def count(factors: Mapping[str, Sequence[Any]], design: Design) -> int:
    """How many variants `generate` makes, without making them."""
    if design == "grid":
        return math.prod(len(levels) for levels in factors.values())
    if design == "one_at_a_time":
        return 1 + sum(len(levels) - 1 for levels in factors.values())
    return 1 + len(factors)


def generate(factors: Mapping[str, Sequence[Any]], design: Design) -> list[Generated]:
    """The variants of a design, the natural baseline first.

    `grid` and `one_at_a_time` start from the first level of every factor (named "baseline"): the former makes every
    combination, the latter changes one factor at a time. `leave_one_out` starts from the last level of every factor
    (named "full") and puts one factor at a time back to its first level ("without-<factor>"): there the contrast of
    interest is with the full model, so that is its baseline.
    """
    first = {name: levels[0] for name, levels in factors.items()}
    last = {name: levels[-1] for name, levels in factors.items()}
    if design == "grid":
        return [
            _named(dict(zip(factors, combination, strict=True)), first)
            for combination in itertools.product(*factors.values())
        ]
    if design == "one_at_a_time":
        changed = [first | {name: level} for name, levels in factors.items() for level in levels[1:]]
        return [_named(first, first), *(_named(levels, first) for levels in changed)]
    left_out = [Generated(f"without-{_label(name)}", last | {name: first[name]}) for name in factors]
    return [Generated("full", last), *left_out]


def _named(levels: dict[str, Any], first: Mapping[str, Any]) -> Generated:
    different = [f"{_label(name)}-{level_text(level)}" for name, level in levels.items() if level is not first[name]]
    return Generated("+".join(different) or "baseline", levels)


def _label(factor: str) -> str:
    return factor.rsplit(".", 1)[-1]
