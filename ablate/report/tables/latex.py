"""Tables for papers: booktabs, the best of a column bold, fitted to the page or, where they are long, to several.

A table is set in the largest type in which it fits: its heads in lines, columns of paragraphs, turned where it must be.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from ablate.report.tables.table import Cell, Column, Table, cells

# The last letter that pdfLaTeX knows by itself.
LAST_LATIN = 0x17F
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", "|": r"\textbar{}",
    ">": r"\textgreater{}", "−": "$-$", "±": r"$\pm$", "×": r"$\times$", "–": "--", "∞": r"$\infty$", "†": r"\dag{}",
    "÷": r"$\div$", "√": r"$\surd$", "²": r"$^2$", "Δ": r"$\Delta$", "Σ": r"$\Sigma$", "Φ": r"$\Phi$",
    "α": r"$\alpha$", "η": r"$\eta$", "θ": r"$\theta$", "σ": r"$\sigma$", "τ": r"$\tau$", "χ": r"$\chi$",
    "≈": r"$\approx$", "≥": r"$\geq$", "≤": r"$\leq$", "→": r"$\rightarrow$", "·": r"$\cdot$",
    "…": r"\ldots{}", "’": "'", "“": "``", "”": "''",
}  # fmt: skip


def latex(text: str) -> str:
    """Return plain text that LaTeX prints as it is."""
    return "".join(_LATEX.get(char, char) for char in " ".join(str(text).split()))


def to_latex(table: Table) -> str:
    """Return a booktabs table with caption and label: the best of a column bold, the rule in small type beneath.

    One of more rows than a page holds goes on over the next ones. A name in a script that pdfLaTeX has no letters for
    stays as it is, and the first line says which engine prints it.
    """
    rows = cells(table)
    heads, fit = fit_page([column.label for column in table.shown], [[cell.text for cell in row] for row in rows])
    first = " & ".join(map(_head, table.shown, heads)) + r" \\"
    frame = _long if fit.long else _floating
    needs, lines = frame(table, fit, first, _lines(rows, fit))
    text = "\n".join(lines) + "\n"
    engine = ", and XeLaTeX or LuaLaTeX for the letters of its names" if any(ord(c) > LAST_LATIN for c in text) else ""
    return rf"% needs \usepackage{{{','.join(['booktabs', *needs])}}}{engine}" + "\n" + text


def _floating(table: Table, fit: Fit, head: str, rows: list[str]) -> tuple[list[str], list[str]]:
    """Return a float of one page, upright or turned: packages and lines."""
    name = "sidewaystable" if fit.sideways else "table"
    lines = [
        rf"\begin{{{name}}}" + ("" if fit.sideways else "[t]"),
        r"\centering",
        rf"\caption{{{latex(table.title)}.}}\smallskip",
        rf"\label{{{_label(table)}}}",
        rf"{fit.size}\setlength{{\tabcolsep}}{{4pt}}",
        (r"\resizebox{\linewidth}{!}{" if fit.squeezed else "") + rf"\begin{{tabular}}{{{_columns(table, fit)}}}",
        r"\toprule",
        head,
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}" + "}" * fit.squeezed,
    ]
    if table.rule:
        lines.append(rf"\par\medskip{{\raggedright\footnotesize {latex(table.rule)}\par}}")
    return ["rotating"] if fit.sideways else [], [*lines, rf"\end{{{name}}}"]


def _long(table: Table, fit: Fit, head: str, rows: list[str]) -> tuple[list[str], list[str]]:
    """Return a table over as many pages as it takes, its head on each: packages and lines."""
    # A long table cannot be scaled down: one that is too wide even turned gets the smallest type.
    size, gap = (r"\tiny", 2) if fit.squeezed else (fit.size, 4)
    lines = [
        r"\begin{landscape}" if fit.sideways else r"\begingroup",
        rf"{size}\setlength{{\tabcolsep}}{{{gap}pt}}\setlength{{\LTcapwidth}}{{\linewidth}}",
        rf"\begin{{longtable}}{{{_columns(table, fit)}}}",
        rf"\caption{{{latex(table.title)}.}}\label{{{_label(table)}}}\\",
        *(r"\toprule", head, r"\midrule", r"\endfirsthead"),
        *(r"\toprule", head, r"\midrule", r"\endhead"),
        *(r"\bottomrule", r"\endfoot"),
        *rows,
        r"\end{longtable}",
    ]
    if table.rule:
        lines.append(rf"{{\raggedright\footnotesize {latex(table.rule)}\par}}")
    packages = ["longtable", *(["pdflscape"] if fit.sideways else [])]
    return packages, [*lines, r"\end{landscape}" if fit.sideways else r"\endgroup"]


def _lines(rows: Sequence[Sequence[Cell]], fit: Fit) -> list[str]:
    """Return the rows between the rules."""
    lines = []
    for row in rows:
        texts = [rf"\textbf{{{latex(cell.text)}}}" if cell.best else latex(cell.text) for cell in row]
        texts = [rf"\raggedright {text}" if wide else text for text, wide in zip(texts, fit.widths, strict=True)]
        # A row that begins with a bracket would be read as the argument of the \\ before it.
        first = "{}" + texts[0] if texts[0].startswith("[") else texts[0]
        # After \raggedright a plain \\ would end a line of the paragraph.
        lines.append(" & ".join([first, *texts[1:]]) + (r" \tabularnewline" if any(fit.widths) else r" \\"))
    return lines


def _columns(table: Table, fit: Fit) -> str:
    kinds = (
        f"p{{{width:.0f}pt}}" if width else "r" if column.is_number else "l"
        for column, width in zip(table.shown, fit.widths, strict=True)
    )
    return f"@{{}}{''.join(kinds)}@{{}}"


def _label(table: Table) -> str:
    return f"tab:{re.sub(r'[^a-z0-9]+', '-', table.name.lower())}"


def _head(column: Column, lines: Sequence[str]) -> str:
    """Return the name of a column, its lines on top of one another."""
    if len(lines) == 1:
        return latex(lines[0])
    side = "r" if column.is_number else "l"
    return rf"\shortstack[{side}]{{" + r"\\".join(map(latex, lines)) + "}"


# --- how a table fits a page ----------------------------------------------------------------------------------------

# Points of an A4 page's text between margins of an inch, and of one that is turned.
TEXT_WIDTH, TEXT_HEIGHT = 452, 640
# A column of longer texts is set as paragraphs, where there is no room for it, of at least so many letters a line.
LONGEST_CELL, SHORTEST_LINE = 40, 30
SIZES = ((10, r"\normalsize"), (9, r"\small"), (8, r"\footnotesize"), (7, r"\scriptsize"))


@dataclass(frozen=True)
class Fit:
    """The type of a table on its page, the width of columns of paragraphs in points (0: as wide as their texts)."""

    size: str
    widths: tuple[float, ...]
    sideways: bool = False
    squeezed: bool = False
    long: bool = False
    """True where it has more rows than a page holds beside the caption and the rule."""


def fit_page(labels: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[list[str]], Fit]:
    """Return the heads in lines as short as they can be, and the largest type in which the table fits a page upright.

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
    """Return the fit of columns of so many letters, `head` lines of heads above them."""
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
    """Return whether so many lines, a fifth apart, are too much for a page less a sixth for caption and rule."""
    return 1.2 * size * lines > (TEXT_WIDTH if sideways else TEXT_HEIGHT) * 5 / 6
