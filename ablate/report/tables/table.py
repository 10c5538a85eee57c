"""Tables as a reader gets them: one description of the columns, written as CSV, Markdown and cells of a page."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pandas as pd

from ablate.analysis.analyse import Analysis
from ablate.errors import visible
from ablate.registry import TABLES
from ablate.report.format import count_text, number, percent, rate_text
from ablate.report.lookup import Row, made, order, rows_of

# What a spreadsheet takes for a formula where a cell begins with it.
FORMULA = ("=", "+", "-", "@", "\t", "\r")
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
        """Return whether it is aligned and sorted as a number."""
        return self.kind not in ("text", "word")


VARIANT, AGAINST, CLASS = Column("variant", "Variant"), Column("against", "Against"), Column("class", "Class")
DECISION, P_HOLM = Column("decision", "Decision", "word"), Column("p_holm", "p (Holm)", "number", digits=3)
DELTA, SEEDS = Column("delta", "Δ, points", "delta", "low", "high"), Column("n", "Seeds", "whole")


@dataclass(frozen=True)
class Table:
    """A frame with the columns shown of it, and the rule behind its numbers. Fractions stay fractions in the frame.

    A registered function returns it without `name`, `title` and `section`: those are its registration's.
    """

    frame: pd.DataFrame
    columns: Sequence[Column]
    rule: str = ""
    bold_of: str | None = None
    """Field within whose groups the best is found (default the whole table)."""
    page_only: Sequence[str] = ()
    """Fields in words of what others have as numbers: a file of numbers goes without."""
    name: str = ""
    title: str = ""
    section: str = ""

    @property
    def shown(self) -> list[Column]:
        """Return the columns that the frame has: an axis or a measure may be absent."""
        return [column for column in self.columns if column.key in self.frame.columns]


def all_tables(analysis: Analysis) -> list[Table]:
    """Return every registered table in the order of the page, those without rows too.

    A function may return a plain frame: its columns are then shown by their names.
    """
    tables = []
    for name in TABLES:
        table = made(TABLES, name, analysis)
        if isinstance(table, pd.DataFrame):
            numeric = {key for key in table.columns if pd.api.types.is_numeric_dtype(table[key])}
            columns = [Column(str(key), str(key), "number" if key in numeric else "text") for key in table.columns]
            table = Table(table, columns)
        place = TABLES.place(name)
        tables.append(replace(table, name=name, title=place.title, section=place.section))
    return tables


def of_table(frame: pd.DataFrame, columns: Sequence[Column], *more: str) -> pd.DataFrame:
    """Return what a table is about of a frame that several share: whose rows they are, its columns, and `more`."""
    wanted = ["variant", "baseline", "control", "against", "setting", "lr", "n", "n_planned", "provisional", *more]
    wanted += [field for column in columns for field in (column.key, column.low, column.high) if field]
    return frame[[name for name in frame.columns if name in wanted]]


def in_order(frame: pd.DataFrame, analysis: Analysis) -> pd.DataFrame:
    """Return the rows in the order of the variants, otherwise as they are, numbered anew."""
    if frame.empty:
        return frame
    place = {variant: rank for rank, variant in enumerate(order(analysis))}
    rank = frame["variant"].map(place).fillna(len(place))
    return frame.iloc[rank.argsort(kind="stable")].reset_index(drop=True)


def with_rates(frame: pd.DataFrame, analysis: Analysis, quantity: str, name: str) -> pd.DataFrame:
    """Return the frame with a measured rate of its variants: `quantity`, and `name` + `_ratio`, `_low` and `_high`."""
    rates = analysis.throughput[analysis.throughput["quantity"] == quantity].drop_duplicates("variant")
    ends = {"value": quantity, "ratio": f"{name}_ratio", "low": f"{name}_low", "high": f"{name}_high"}
    return frame.merge(rates[["variant", *ends]].rename(columns=ends), on="variant", how="left")


def axis_columns(analysis: Analysis) -> list[Column]:
    """Return a column for every axis of the grid."""
    return [Column(axis, axis, "rate" if axis == "lr" else "text") for axis in analysis.frames.axes]


@dataclass(frozen=True)
class Cell:
    """One cell as a page shows it: its text, what it sorts by (a number's value), and what stands beneath."""

    text: str
    sort: float | str
    best: bool = False
    word: bool = False
    sub: str = ""

    @property
    def classes(self) -> str:
        """Return its classes of the style sheet: of a number, of the best of its column, of a short text."""
        number = isinstance(self.sort, float)
        named = (("n", number), ("best", self.best), ("short", not number and len(self.text) <= 16))
        return " ".join(name for name, on in named if on)


def cell_text(column: Column, row: Row) -> str:
    """Return one cell as plain text; a dash where there is no number."""
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
    if _absent(value):
        return "–"
    if column.kind in ("text", "word"):
        return str(value)
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
    """Return the index labels of the rows that hold the best value of a column, all of them where several are equal."""
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
    """Return the rows of a table as every form shows them: on the page, in Markdown and in LaTeX."""
    bold = {column.key: best_rows(table, column) for column in table.shown}
    rows = []
    for index, row in zip(table.frame.index, rows_of(table.frame), strict=True):
        shown = []
        for column in table.shown:
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


def to_csv(table: Table) -> str:
    """Return the frame, fractions as fractions, every field without formatting; no sentence, nor what a page adds.

    Why a trial has no full result stays: there it is the fact itself.
    """
    said = ["rule", *table.page_only, *(column.sub for column in table.columns if column.sub)]
    if "status" not in table.frame:
        said += [str(name) for name in table.frame if str(name).endswith("reason")]
    frame = table.frame.drop(columns=said, errors="ignore").rename(columns=_plain)
    return frame.map(_plain).to_csv(index=False, lineterminator="\n")


def _plain(cell: Any) -> Any:
    """Return a cell as it is; a text without control characters, and quoted where a spreadsheet would compute it."""
    if not isinstance(cell, str):
        return cell
    return f"'{visible(cell)}" if cell.startswith(FORMULA) else visible(cell)


def to_markdown(table: Table) -> str:
    """Return a table of GitHub's Markdown with the rule above it; the best of a column bold."""
    head = [markdown(column.label) for column in table.shown]
    marks = ["---:" if column.is_number else "---" for column in table.shown]
    lines = [f"**{markdown(table.title)}.** {markdown(table.rule)}", "", _row(head), _row(marks)]
    for row in cells(table):
        texts = [markdown(cell.text) for cell in row]
        lines.append(_row([f"**{text}**" if cell.best else text for text, cell in zip(texts, row, strict=True)]))
    return "\n".join(lines) + "\n"


def _row(texts: Sequence[str]) -> str:
    return "| " + " | ".join(texts) + " |"


def markdown(text: str) -> str:
    """Return plain text that Markdown, and what pandoc makes of it, shows as it is."""
    text = " ".join(str(text).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]|~$#])", r"\\\1", text)
