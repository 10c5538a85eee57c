"""A report put together from what was read: analysis, tables, figures and page, written into the folder.

What this module imports takes a second, which `build` spends while other processes read the records.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Sequence
from contextlib import nullcontext as uncollected
from dataclasses import replace
from pathlib import Path

from ablate import __version__
from ablate.analysis.analyse import Analysis, analyse
from ablate.analysis.frames import frames_of
from ablate.analysis.load import Folder
from ablate.analysis.protocol import methods_paragraph
from ablate.analysis.sentences import findings
from ablate.claims.verdicts import judge
from ablate.errors import ResultsError, nearest
from ablate.records.files import write_atomic
from ablate.records.store import Results
from ablate.report import answers, figures, page, tiles, verdicts
from ablate.report.draw import FORMATS, Drawn, draw_all, figure_names, panel_names
from ablate.report.figures.common import NotDrawn, order, progress
from ablate.report.figures.panels import gallery
from ablate.report.grid import grid
from ablate.report.latex import to_latex
from ablate.report.render import Table, to_csv, to_markdown
from ablate.report.tables import all_tables
from ablate.wording import count_of

# A table of more rows is data, not something to print.
MOST_PRINTED = 1000
PARTS = ("tables", "figures", "page")


def check_parts(only: Iterable[str]) -> None:
    """Raise `ResultsError` for a name that is neither a part of a report nor a figure."""
    names = figure_names()
    for name in only:
        if name not in PARTS and name not in names:
            raise ResultsError(f"unknown part of a report '{name}'", cure=nearest(name, [*PARTS, *names]))


def compose(
    folder: Folder,
    results: Results,
    *,
    only: Iterable[str] | None = None,
    formats: Sequence[str] | None = None,
    reload: bool = False,
) -> list[Path]:
    """Write what `only` names of the report of what was read, everything for None; the files written.

    `formats` are those of the figures, None for all. With `reload` the page of an unfinished study loads itself anew.
    """
    formats = FORMATS if formats is None else formats
    wanted = set(PARTS if only is None else only)
    with uncollected():
        frames = frames_of(folder)
        analysis = analyse(frames)
    written: list[Path] = []
    pages: list[page.Page] = []

    def meanwhile() -> None:
        claims = judge(frames, analysis)
        if len(claims):
            claims["reason"] = claims["reason"].str.replace(f"{frames.path}/", "", regex=False)
        tables = all_tables(analysis, claims)
        if "tables" in wanted:
            written.extend(write_tables(results.tables, tables))
        if "page" in wanted:
            pages.append(make_page(analysis, tables))

    names = figure_names()
    chosen = names if {"figures", "page"} & wanted else [name for name in names if name in wanted]
    files = "figures" in wanted or "page" not in wanted
    if "figures" in wanted:
        chosen = [*chosen, *panel_names(analysis)]
    # What has been read stays: the processes that draw need not look through it for rubbish.
    gc.freeze()
    try:
        drawn = draw_all(analysis, chosen, results.figures, formats if files else (), meanwhile)
    finally:
        gc.unfreeze()
    written += [path for one in drawn for path in one.files]
    for made in pages:
        write_atomic(results.page, page.render(with_figures(made, drawn), reload=reload).encode(), lasting=False)
        written.append(results.page)
    return written


def write_tables(folder: Path, tables: Sequence[Table]) -> list[Path]:
    """Every table with rows as CSV, and as Markdown and LaTeX where somebody would read as many; the files written."""
    folder.mkdir(exist_ok=True)
    written = []
    for table in tables:
        for suffix, text in ((".csv", to_csv), (".md", to_markdown), (".tex", to_latex)):
            path = folder / f"{table.name}{suffix}"
            if not len(table.frame) or (suffix != ".csv" and len(table.frame) > MOST_PRINTED):
                # One of an earlier state would contradict the page.
                path.unlink(missing_ok=True)
                continue
            write_atomic(path, text(table).encode(), lasting=False)
            written.append(path)
    return written


def with_figures(made: page.Page, drawn: Sequence[Drawn]) -> page.Page:
    """The page with its figures, and with the reasons why there are none."""
    shown = [one.shown for one in drawn if one.shown is not None]
    return replace(
        made,
        consolidated=next((one for one in shown if one.name == "consolidated"), None),
        figures=[one for one in shown if one.name != "consolidated" and one.name not in figures.OF_IMAGES],
        absent=[(one.title, one.reason) for one in drawn if one.reason and not one.name.startswith("panel_")],
        sheets=[one for one in shown if one.name in figures.OF_IMAGES],
    )


def make_page(analysis: Analysis, tables: Sequence[Table]) -> page.Page:
    """The page without its figures, from the analysis and the tables."""
    frames = analysis.frames
    done, planned = progress(analysis)
    of_trials = f"{done} of {count_of(planned, 'trial')}"
    rows, scale = verdicts.verdict_rows(analysis)
    by_name = {table.name: grid(table) for table in tables if len(table.frame)}
    try:
        panels, no_panels = tiles.panels(analysis), ""
        pictures = gallery(analysis)
        legend = [
            page.ClassColour(name, "#{:02x}{:02x}{:02x}".format(*pictures.palette[label]))
            for label, name in enumerate(pictures.classes)
        ]
    except NotDrawn as reason:
        panels, no_panels, legend = [], f"No predictions are shown: {reason}.", []
    said = findings(frames, analysis)

    def own(text: str) -> str:
        # A page is passed on: a file of this folder is named from here, not from the root of somebody's disk.
        return text.replace(f"{frames.path}/", "")

    return page.Page(
        study=frames.study.study,
        subject=f"{frames.study.data.name}, {count_of(len(order(analysis)), 'variant')}, {of_trials}",
        headline=answers.headline(analysis),
        unfinished=f"{of_trials} {'has' if done == 1 else 'have'} a result. Every number here may still change."
        if done < planned
        else "",
        cards=answers.cards(analysis),
        verdicts=rows,
        verdict_note=verdicts.SHORT_RULE,
        verdict_rule=verdicts.rule(analysis),
        scale=scale,
        findings=[
            page.Findings(variant, tuple((one.topic, page.typeset(one.text)) for one in said if one.variant == variant))
            for variant in dict.fromkeys(one.variant for one in said)
        ],
        notes=[f"{note[0].upper()}{note[1:]}." for note in map(own, analysis.notes) if note],
        claims=by_name.get("claims"),
        consolidated=None,
        tables=[table for name, table in by_name.items() if name not in ("claims", "failures")],
        figures=[],
        absent=[],
        panels=panels,
        sheets=[],
        legend=legend,
        no_panels=no_panels,
        failures=by_name.get("failures"),
        methods=[page.typeset(methods_paragraph(frames, analysis))],
        rules=[
            (name.replace("/", ", ").replace("_", " "), page.typeset(own(text)))
            for name, text in analysis.rules.items()
            if text
        ],
        command=str(frames.run.get("command") or f"ablate run {frames.study.study}.yaml"),
        provenance=page.provenance(frames.run),
        version=__version__,
    )
