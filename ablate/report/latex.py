"""Tables for papers: booktabs, the best of a column bold, fitted to the page or, where they are long, to several."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ablate.report.latex_fit import Fit, fit_page
from ablate.report.render import Column, Table, best_rows, cell_text, rows_of

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

    One of more rows than a page holds goes on over the next ones. A name in a script that pdfLaTeX has no letters for
    stays as it is, and the first line says which engine prints it.
    """
    rows = [(index, [cell_text(column, row) for column in table.columns]) for index, row in rows_of(table)]
    heads, fit = fit_page([column.label for column in table.columns], [texts for _, texts in rows])
    first = " & ".join(map(_head, table.columns, heads)) + r" \\"
    frame = _long if fit.long else _floating
    needs, lines = frame(table, fit, first, _lines(table, rows, fit))
    text = "\n".join(lines) + "\n"
    engine = ", and XeLaTeX or LuaLaTeX for the letters of its names" if any(ord(c) > LAST_LATIN for c in text) else ""
    return rf"% needs \usepackage{{{','.join(['booktabs', *needs])}}}{engine}" + "\n" + text


def _floating(table: Table, fit: Fit, head: str, rows: list[str]) -> tuple[list[str], list[str]]:
    """A float of one page, upright or turned: packages and lines."""
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
    """A table over as many pages as it takes, its head on each: packages and lines."""
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


def _lines(table: Table, rows: Sequence[tuple[Any, list[str]]], fit: Fit) -> list[str]:
    """The rows between the rules."""
    bold = {column.key: best_rows(table, column) for column in table.columns}
    lines = []
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
    return lines


def _columns(table: Table, fit: Fit) -> str:
    kinds = (
        f"p{{{width:.0f}pt}}" if width else "r" if column.is_number else "l"
        for column, width in zip(table.columns, fit.widths, strict=True)
    )
    return f"@{{}}{''.join(kinds)}@{{}}"


def _label(table: Table) -> str:
    return f"tab:{re.sub(r'[^a-z0-9]+', '-', table.name.lower())}"


def _head(column: Column, lines: Sequence[str]) -> str:
    """The name of a column, its lines on top of one another."""
    if len(lines) == 1:
        return latex(lines[0])
    side = "r" if column.is_number else "l"
    return rf"\shortstack[{side}]{{" + r"\\".join(map(latex, lines)) + "}"
