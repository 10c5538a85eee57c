"""Words that go with a number or a list, as messages and reports put them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def count_of(number: int | str, noun: str) -> str:
    """Return a number, or its text, with its noun, in the plural unless it is one: "1 seed", "3 to 5 seeds"."""
    return f"{number} {noun}{'' if str(number) == '1' else 's'}"


def short_path(path: Path) -> Path:
    """Return a path as a person would write it, `/a/results` for `/a/b/../results`, where both are the same place."""
    short = Path(os.path.normpath(path))
    return short if os.path.realpath(short) == os.path.realpath(path) else path


def range_of(numbers: Iterable[int]) -> str:
    """Return the least and the greatest of some numbers as a text: "2 to 3", or "3" where all are equal."""
    found = [int(number) for number in numbers]
    low, high = min(found), max(found)
    return str(low) if low == high else f"{low} to {high}"


def listed(items: Iterable[str]) -> str:
    """Return names as they stand in a sentence: "a", "a and b", "a, b and c"; "" for none."""
    names = list(items)
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)


def size_text(count: int) -> str:
    """Return bytes in the unit that a person would use: 12 MB, 3.4 GB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"


def few_groups(groups: int) -> str:
    """Return what is said of test images in fewer groups than can stand for others, without a full stop."""
    if groups == 1:
        return "all test images come from one group (a patient, a sequence), which cannot stand for others"
    return f"the test images come in {groups} groups, too few to stand for others"
