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
    fixed = sum(letters for letters, long in zip(natural, prose, strict=True) if not long)
    none = (0.0,) * len(natural)
    for room, sideways in ((TEXT_WIDTH, False), (TEXT_HEIGHT, True)):
        for size, name in SIZES:
            # Points: a letter of 10 pt is about 5 wide, digits and brackets among them; then gaps of 4 on either side.
            letters = (room - 8 * len(natural)) / (0.52 * size)
            if sum(natural) <= letters:
                return heads, Fit(name, none, sideways)
            line = (letters - fixed) / max(sum(prose), 1)
            if any(prose) and line >= SHORTEST_LINE:
                return heads, Fit(name, tuple(0.52 * size * line * long for long in prose), sideways)
    return heads, Fit(r"\scriptsize", none, sideways=True, squeezed=True)
