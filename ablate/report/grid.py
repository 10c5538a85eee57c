"""A table as the page shows it: its HTML, with what the page's script sorts and filters by."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from ablate.report.render import Cell, Column, Table, cells
from ablate.report.templates import templates
from ablate.report.verdicts import badge_kind

# A rule of more letters is folded up.
LONGEST_RULE = 280
# Rows of one table on the page; the files have all of them.
MOST_ROWS = 1500


@dataclass(frozen=True)
class Grid:
    """A table on the page; `rows` is how many the whole table has."""

    title: str
    rows: int
    html: Markup


@dataclass(frozen=True)
class _ShownCell:
    """One cell: its text, what it sorts by, its classes, the kind of its badge or ""."""

    text: str
    sort: float | str
    classes: str
    badge: str
    sub: str


def grid(table: Table) -> Grid:
    """A table for the page: at most `MOST_ROWS` rows, words as badges, what is best in bold; all text escaped."""
    shown = Table(table.name, table.title, table.rule, table.frame.head(MOST_ROWS), table.columns, table.bold_of)
    rows = [
        [
            _ShownCell(
                cell.text,
                cell.sort,
                _classes(column, cell),
                badge_kind(cell.text) if cell.word else "",
                cell.sub,
            )
            for cell, column in zip(row, table.columns, strict=True)
        ]
        for row in cells(shown)
    ]
    template = templates().get_template("grid.html.j2")
    html = template.render(table=table, rows=rows, left_out=len(table.frame) - len(rows), longest=LONGEST_RULE)
    return Grid(table.title, len(table.frame), Markup(html))


def _classes(column: Column, cell: Cell) -> str:
    kept = (("n", column.is_number), ("best", cell.best), ("short", not column.is_number and len(cell.text) <= 16))
    return " ".join(name for name, on in kept if on)
