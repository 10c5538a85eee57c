"""Tables as a reader gets them: one description of the columns, written as CSV, Markdown and rows of a page."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from ablate.analysis import phrases
from ablate.report.style import count_text, number, percent, rate_text

Kind = Literal["text", "percent", "delta", "number", "factor", "count", "rate", "whole", "word"]


@dataclass(frozen=True)
class Column:
    """One column: the frame's field, its heading, how it is written, and its interval's fields where it has one.

    `best` says which direction is best, so that the best value is set bold. `spread` writes ± half the interval
    instead of its ends (for symmetric intervals; the table's rule names it). `sub` is a field that a page shows in
    small type beneath.
    """

    key: str
    label: str
    kind: Kind = "text"
    low: str | None = None
    high: str | None = None
    best: Literal["max", "min"] | None = None
    spread: bool = False
    digits: int | None = None
    sub: str | None = None

    @property
    def is_number(self) -> bool:
        """Whether it is aligned and sorted as a number."""
        return self.kind not in ("text", "word")


@dataclass(frozen=True)
class Table:
    """A frame with the columns shown of it, and the rule behind its numbers. Fractions stay fractions in the frame."""

    name: str
    title: str
    rule: str
    frame: pd.DataFrame
    columns: tuple[Column, ...]
    bold_of: str | None = field(default=None)
    """Field within whose groups the best is found (default the whole table)."""


@dataclass(frozen=True)
class Cell:
    """What a page shows of one cell: text, the number it sorts by, its class."""

    text: str
    sort: float | str
    best: bool = False
    word: bool = False
    sub: str = ""


def cell_text(column: Column, row: Any) -> str:
    """One cell as plain text; a dash where there is no number."""
    value = row[column.key]
    text = _single(column, value)
    if column.low is None or column.high is None or text == "–":
        return text
    low, high = float(row[column.low]), float(row[column.high])
    if not (math.isfinite(low) and math.isfinite(high)) or low == value == high:
        # Also what is counted rather than estimated has no interval.
        return text
    if column.spread:
        return f"{text} ± {_single(column, (high - low) / 2).lstrip('+')}"
    return f"{text} [{_single(column, low)}, {_single(column, high)}]"


def _single(column: Column, value: Any) -> str:
    if column.kind in ("text", "word"):
        return "–" if _absent(value) else str(value)
    if _absent(value):
        return "–"
    value = float(value)
    digits = column.digits
    match column.kind:
        case "percent":
            return percent(value, 1 if digits is None else digits)
        case "delta":
            return percent(value, 1 if digits is None else digits, sign=True)
        case "factor":
            return f"{value:.{2 if digits is None else digits}f}×" if math.isfinite(value) else number(value)
        case "count":
            return count_text(value)
        case "rate":
            return rate_text(value)
        case "whole":
            return f"{value:.0f}"
    return number(value, 3 if digits is None else digits)


def _absent(value: Any) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value))


def best_rows(table: Table, column: Column) -> set[Any]:
    """Index labels of the rows that hold the best value of a column, all of them where several are equal."""
    if column.best is None or table.frame.empty:
        return set()
    values = pd.to_numeric(table.frame[column.key], errors="coerce")
    groups = [values] if table.bold_of is None else [part for _, part in values.groupby(table.frame[table.bold_of])]
    found: set[Any] = set()
    for part in groups:
        part = part.dropna()
        # Where all are equal none is best.
        if len(part) > 1 and (part != part.iloc[0]).any():
            found |= set(part.index[part == (part.max() if column.best == "max" else part.min())])
    return found


def cells(table: Table) -> list[list[Cell]]:
    """The rows of the page's table."""
    bold = {column.key: best_rows(table, column) for column in table.columns}
    rows = []
    for index, row in rows_of(table):
        shown = []
        for column in table.columns:
            text = cell_text(column, row)
            value = row[column.key]
            sort: float | str = text
            if column.is_number:
                # What has no number sorts below everything that has.
                sort = -1e308 if _absent(value) else max(-1e300, min(1e300, float(value)))
            sub = "" if column.sub is None or _absent(row[column.sub]) else str(row[column.sub])
            shown.append(Cell(text, sort, index in bold[column.key], column.kind == "word", sub))
        rows.append(shown)
    return rows


def rows_of(table: Table) -> list[tuple[Any, dict[str, Any]]]:
    """Index label and row of every row: plain dicts, which are read many times faster than pandas' own rows."""
    return list(zip(table.frame.index, phrases.rows_of(table.frame), strict=True))


def to_csv(table: Table) -> str:
    """The whole frame, fractions as fractions, with every field of it and no formatting."""
    return table.frame.to_csv(index=False, lineterminator="\n")


def to_markdown(table: Table) -> str:
    """A table of GitHub's Markdown with the rule above it; the best of a column bold."""
    bold = {column.key: best_rows(table, column) for column in table.columns}
    head = [_markdown(column.label) for column in table.columns]
    marks = ["---:" if column.is_number else "---" for column in table.columns]
    lines = [f"**{_markdown(table.title)}.** {_markdown(table.rule)}", "", _row(head), _row(marks)]
    for index, row in rows_of(table):
        texts = []
        for column in table.columns:
            text = _markdown(cell_text(column, row))
            texts.append(f"**{text}**" if index in bold[column.key] else text)
        lines.append(_row(texts))
    return "\n".join(lines) + "\n"


def _row(texts: Sequence[str]) -> str:
    return "| " + " | ".join(texts) + " |"


def _markdown(text: str) -> str:
    text = " ".join(str(text).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]|~$#])", r"\\\1", text)
