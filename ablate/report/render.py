"""Tables as a reader gets them: one description of the columns, written as CSV, Markdown, LaTeX and rows of a page."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from ablate.analysis import phrases
from ablate.report.latex_fit import fit_page
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


NEEDS = r"% needs \usepackage{booktabs"
# The last letter that pdfLaTeX knows by itself.
LAST_LATIN = 0x17F
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    "|": r"\textbar{}",
    ">": r"\textgreater{}",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "–": "--",
    "∞": r"$\infty$",
    "÷": r"$\div$",
    "√": r"$\surd$",
    "²": r"$^2$",
    "Δ": r"$\Delta$",
    "Σ": r"$\Sigma$",
    "Φ": r"$\Phi$",
    "α": r"$\alpha$",
    "η": r"$\eta$",
    "θ": r"$\theta$",
    "σ": r"$\sigma$",
    "τ": r"$\tau$",
    "χ": r"$\chi$",
    "≈": r"$\approx$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "→": r"$\rightarrow$",
    "·": r"$\cdot$",
    "…": r"\ldots{}",
    "’": "'",
    "“": "``",
    "”": "''",
}


def latex(text: str) -> str:
    """Plain text that LaTeX prints as it is."""
    return "".join(_LATEX.get(char, char) for char in " ".join(str(text).split()))


def to_latex(table: Table) -> str:
    """A booktabs table with caption and label: the best of a column bold, the rule in small type beneath.

    A name in a script that pdfLaTeX has no letters for stays as it is, and the first line says which engine prints it.
    """
    bold = {column.key: best_rows(table, column) for column in table.columns}
    rows = [(index, [cell_text(column, row) for column in table.columns]) for index, row in rows_of(table)]
    heads, fit = fit_page([column.label for column in table.columns], [texts for _, texts in rows])
    float_name = "sidewaystable" if fit.sideways else "table"
    align = "".join(
        f"p{{{width:.0f}pt}}" if width else "r" if column.is_number else "l"
        for column, width in zip(table.columns, fit.widths, strict=True)
    )
    lines = [
        f"{NEEDS},rotating}}" if fit.sideways else f"{NEEDS}}}",
        rf"\begin{{{float_name}}}" + ("" if fit.sideways else "[t]"),
        r"\centering",
        rf"\caption{{{latex(table.title)}.}}\smallskip",
        rf"\label{{tab:{re.sub(r'[^a-z0-9]+', '-', table.name.lower())}}}",
        rf"{fit.size}\setlength{{\tabcolsep}}{{4pt}}",
        (r"\resizebox{\linewidth}{!}{" if fit.squeezed else "") + rf"\begin{{tabular}}{{@{{}}{align}@{{}}}}",
        r"\toprule",
        " & ".join(map(_head, table.columns, heads)) + r" \\",
        r"\midrule",
    ]
    for index, plain in rows:
        texts = [
            rf"\textbf{{{latex(text)}}}" if index in bold[column.key] else latex(text)
            for column, text in zip(table.columns, plain, strict=True)
        ]
        texts = [rf"\raggedright {text}" if wide else text for text, wide in zip(texts, fit.widths, strict=True)]
        # A row that begins with a bracket would be read as the argument of the \\ before it.
        first = "{}" + texts[0] if texts[0].startswith("[") else texts[0]
        # After \raggedright a plain \\ would end a line of the paragraph.
        lines.append(" & ".join([first, *texts[1:]]) + (r" \tabularnewline" if any(fit.widths) else r" \\"))
    note = [rf"\par\medskip{{\raggedright\footnotesize {latex(table.rule)}\par}}"] if table.rule else []
    end = r"\end{tabular}" + "}" * fit.squeezed
    text = "\n".join([*lines, r"\bottomrule", end, *note, rf"\end{{{float_name}}}"]) + "\n"
    if any(ord(char) > LAST_LATIN for char in text):
        first, _, rest = text.partition("\n")
        text = f"{first}, and XeLaTeX or LuaLaTeX for the letters of its names\n{rest}"
    return text


def _head(column: Column, lines: Sequence[str]) -> str:
    """The name of a column, its lines on top of one another."""
    if len(lines) == 1:
        return latex(lines[0])
    side = "r" if column.is_number else "l"
    return rf"\shortstack[{side}]{{" + r"\\".join(map(latex, lines)) + "}"
