"""How a LaTeX table fits a page: its type, its heads in lines, columns of paragraphs, turned where it must be."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

# Points of an A4 page's text between margins of an inch, and of one that is turned.
TEXT_WIDTH, TEXT_HEIGHT = 452, 640
# A column of longer texts is set as paragraphs, where there is no room for it, of at least so many letters a line.
LONGEST_CELL, SHORTEST_LINE = 40, 30
SIZES = ((10, r"\normalsize"), (9, r"\small"), (8, r"\footnotesize"), (7, r"\scriptsize"))


@dataclass(frozen=True)
class Fit:
    """How a table fits a page: the type, the width of columns of paragraphs in points (0: as wide as their texts)."""

    size: str
    widths: tuple[float, ...]
    sideways: bool = False
    squeezed: bool = False
    long: bool = False
    """Whether it has more rows than a page holds beside the caption and the rule."""


def fit_page(labels: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[list[str]], Fit]:
    """The heads in lines no longer than they must be, and the largest type in which the table fits a page upright.

    Where there is none it is turned, and where that is not enough, scaled down.
    """
    columns = list(zip(*rows, strict=True)) or [()] * len(labels)
    cells = [max(map(len, column), default=0) for column in columns]
    heads = [
        textwrap.wrap(label, max(cell, *map(len, label.split() or [""]), 1), break_on_hyphens=False) or [""]
        for label, cell in zip(labels, cells, strict=True)
    ]
    natural = [max(cell, *map(len, head)) for cell, head in zip(cells, heads, strict=True)]
    prose = [
        letters > LONGEST_CELL and max(len(word) for text in column for word in text.split()) <= SHORTEST_LINE
        for letters, column in zip(cells, columns, strict=True)
    ]
    return heads, _fit(natural, prose, columns, max(map(len, heads)))


def _fit(natural: Sequence[int], prose: Sequence[bool], columns: Sequence[Sequence[str]], head: int) -> Fit:
    """The fit of columns of so many letters, `head` lines of heads above them."""
    rows = len(columns[0])
    fixed = sum(letters for letters, long in zip(natural, prose, strict=True) if not long)
    none = (0.0,) * len(natural)
    for room, sideways in ((TEXT_WIDTH, False), (TEXT_HEIGHT, True)):
        for size, name in SIZES:
            # Points: a letter of 10 pt is about 5 wide, digits and brackets among them; then gaps of 4 on either side.
            letters = (room - 8 * len(natural)) / (0.52 * size)
            if sum(natural) <= letters:
                return Fit(name, none, sideways, long=_is_long(rows + head, size, sideways))
            line = (letters - fixed) / max(sum(prose), 1)
            if any(prose) and line >= SHORTEST_LINE:
                lines = sum(
                    max(-(-len(text) // int(line)) if long else 1 for text, long in zip(row, prose, strict=True))
                    for row in zip(*columns, strict=True)
                )
                widths = tuple(0.52 * size * line * long for long in prose)
                return Fit(name, widths, sideways, long=_is_long(lines + head, size, sideways))
    return Fit(r"\scriptsize", none, sideways=True, squeezed=True, long=_is_long(rows + head, SIZES[-1][0], True))


def _is_long(lines: int, size: float, sideways: bool) -> bool:
    """Whether so many lines, a fifth apart, are too much for a page less a sixth for caption and rule."""
    return 1.2 * size * lines > (TEXT_WIDTH if sideways else TEXT_HEIGHT) * 5 / 6
