"""Words that go with a number."""

from __future__ import annotations


def count_of(number: int | str, noun: str) -> str:
    """ "1 seed", "2 seeds", "3 to 5 seeds": a number, or its text, with its noun in the plural unless it is one."""
    return f"{number} {noun}{'' if str(number) == '1' else 's'}"
