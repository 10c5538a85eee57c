"""Words for numbers and rows of tables: what the sentences of a study are put together from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

Row = dict[str, Any]


def rows_of(frame: pd.DataFrame) -> list[Row]:
    """The rows of a table as dicts; column by column, in a fifth of the time of pandas' own way."""
    names = [str(name) for name in frame.columns]
    columns = (frame.iloc[:, place].tolist() for place in range(len(names)))
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def span(row: Row) -> str:
    """The interval of a row with `low` and `high` (fractions), in points."""
    return f"{points(row['low'])} to {points(row['high'])}"


def points(difference: float) -> str:
    """A difference of fractions in points, signed unless it is nothing to that digit."""
    text = f"{100 * difference:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def seeds_of(row: Row) -> str:
    """How many seeds stand on both sides of a contrast, once where they are as many."""
    return f"{row['n']}" if row["n"] == row["n_against"] else f"{row['n']} and {row['n_against']}"


def at(setting: str) -> str:
    """A setting as it is said: "lr=1e-3" is "lr 1e-3"."""
    return setting.replace("=", " ")


def listed(items: Iterable[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    names = list(items)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
