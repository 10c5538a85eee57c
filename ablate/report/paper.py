"""All that a paper takes from a study, ready for LaTeX in the folder `paper/`: figure, table, methods, references."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from ablate.analysis.analyse import Analysis
from ablate.records.files import make_folder, write_atomic
from ablate.report.figures.consolidated import NARROW, draw_consolidated
from ablate.report.figures.saving import encode, timeless
from ablate.report.figures.theme import theme
from ablate.report.format import short_names
from ablate.report.lookup import NotDrawn, seeds_text, untuned
from ablate.report.tables.latex import latex, to_latex
from ablate.report.tables.main import results
from ablate.report.tables.table import Column, Table, markdown
from ablate.report.words.methods import methods_paragraph

# Inches: a column of a paper of two, and both.
WIDTHS = {"consolidated_1col": 3.5, "consolidated_2col": 7.2}
COLUMNS = ("variant", "chosen", "test_mean", "delta", "p_holm", "decision_text", "parameters", "train_ratio")
# What is cited behind a phrase (a regular expression) where it first stands in the methods.
CITED = {
    r"data set camvid\b": ("brostow2009",),
    "U-Nets": ("ronneberger2015",),
    "residual blocks": ("he2016",),
    "attention gates": ("oktay2018",),
    r"\bAdam\b": ("kingma2015",),
    "Multi-Bootstrap": ("sellam2022",),
    "Satterthwaite's degrees of freedom|Satterthwaite": ("satterthwaite1946", "welch1947"),
    "Holm": ("holm1979",),
    "one-sided tests": ("schuirmann1987",),
    "O'Brien–Fleming's spending of the error": ("obrien1979", "maurer2013"),
    "PyTorch": ("paszke2019",),
}
FLOAT = r"""% needs \usepackage{{graphicx}}; drawn for columns of 3.5 in
\begin{{figure{star}}}
\centering
\includegraphics[width=\linewidth]{{{name}.pdf}}
\caption{{{caption}}}
\label{{fig:{name}}}
\end{{figure{star}}}
"""
EXAMPLE = r"""% How the parts of this folder stand in a paper of two columns; needs graphicx and booktabs.
\documentclass[twocolumn]{article}
\usepackage{graphicx,booktabs}
\begin{document}
\section{Methods}
\input{methods}
\input{consolidated_2col}
\input{results}
\bibliographystyle{plain}
\bibliography{references}
\end{document}
"""


def write_paper(analysis: Analysis, folder: Path) -> list[Path]:
    """Write figure, table, methods and references of a study into the folder; return the files written.

    The consolidated figure at one and two columns (PDF, PNG, and as a float with its caption), the table of results
    for both columns, the methods for LaTeX and Markdown, the works that they cite, and `example.tex`, which puts them
    together.
    """
    made: dict[str, bytes] = {}
    with theme(), timeless():
        for name, width in WIDTHS.items():
            try:
                figure = draw_consolidated(analysis, width)
            except NotDrawn:
                continue  # before the first epoch there is nothing to draw, and the methods stand all the same
            made |= {f"{name}.{kind}": data for kind, data in encode(figure, ["pdf", "png"]).items()}
            made[f"{name}.tex"] = FLOAT.format(
                star="*" * (width > NARROW), name=name, caption=latex(str(figure.get_label()))
            ).encode()
    marked, keys = _marked(f"{methods_paragraph(analysis)}{_further(analysis)}")
    texts = {
        "methods.tex": _cite(latex(marked), r"~\cite{{{}}}", ",") + "\n",
        "methods.md": _cite(markdown(marked), " [@{}]", "; @") + "\n",
        "references.bib": _references(keys),
        "results.tex": _results(analysis),
        "example.tex": EXAMPLE,
    }
    made |= {name: text.encode() for name, text in texts.items()}
    make_folder(folder)
    for name, data in made.items():
        write_atomic(folder / name, data, lasting=False)
    return [folder / name for name in made]


def _further(analysis: Analysis) -> str:
    """Return what the methods say beyond the paragraph of the page: the networks, and how often was looked."""
    described = (analysis.frames.run.get("variants") or {}).values()
    models = [one.get("model") or {} for one in described]
    said = ""
    if models and all(model.get("name") == "unet" for model in models):
        parts = {"block": ("residual", "residual blocks"), "skip": ("attention", "attention gates")}
        used = [name for field, (level, name) in parts.items() if any(model.get(field) == level for model in models)]
        some = f", some with {' or '.join(used)}" if used else ""
        said = f" The networks are U-Nets{some}."
    if len(analysis.looks):
        said += (
            " The fresh seeds were judged at every look by the level that O'Brien–Fleming's spending of the error "
            "leaves there, with Holm's correction over the comparisons."
        )
    return said


def _marked(text: str) -> tuple[str, list[str]]:
    """Return a text with its citations marked behind the phrases that need them, and the keys that are cited."""
    cited: list[str] = []
    for phrase, keys in CITED.items():
        if found := re.search(phrase, text):
            text = f"{text[: found.end()]}\0{' '.join(keys)}\0{text[found.end() :]}"
            cited += keys
    return text, cited


def _cite(marked: str, form: str, between: str) -> str:
    """Return a marked text with its citations in the form of a language, several keys with `between` them."""
    return re.sub("\0([^\0]+)\0", lambda found: form.format(between.join(found[1].split())), marked)


def _references(keys: list[str]) -> str:
    """Return the entries of these works, without the notes on what of them was read."""
    text = (files("ablate.report") / "references.bib").read_text(encoding="utf-8")
    entries = {one[1]: one[0] for one in re.finditer(r"^@\w+\{(\w+),\n.*?^\}\n", text, re.MULTILINE | re.DOTALL)}
    plain = {key: re.sub(r",\s*note = \{.*\}(?=\n\})", "", entry, flags=re.DOTALL) for key, entry in entries.items()}
    return "\n".join(plain[key] for key in sorted(set(keys)))


def _results(analysis: Analysis) -> str:
    """Return the table of results for both columns of a paper, with a note of one line."""
    table = results(analysis)
    short = short_names([str(name) for name in table.frame["variant"]], 26)
    frame = table.frame.assign(variant=[short[str(name)] for name in table.frame["variant"]])
    known = {column.key: column for column in table.shown}
    known["p_holm"] = Column("p_holm", "p (Holm)", "number", digits=2)
    if "train_ratio" in known:
        known["train_ratio"] = replace(known["train_ratio"], label="Training speed")
    kept = [known[key] for key in COLUMNS if key in known]
    level = f"{100 * analysis.confidence:.0f} %"
    edge = "; *: on the edge of the grid" if frame["unbracketed"].astype(bool).any() else ""
    edge += "; †: no other has a result yet" if untuned(analysis) else ""
    note = f"± and brackets: {level} intervals over {seeds_text(analysis)} and images; decisions by Holm's p{edge}."
    if not frame["test_low"].notna().any():
        note = f"Of {seeds_text(analysis)}; without an interval nothing is decided{edge}."
    title = f"Test mIoU at each variant's own best setting, and its difference Δ to {short[analysis.baseline]}"
    made = to_latex(Table(frame, kept, note, name="results", title=title))
    return made.replace("{table}", "{table*}")
