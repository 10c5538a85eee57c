"""The report of a results folder: `build_report(path)` writes tables, figures and the page, once or as trials end."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from ablate.analysis.analyse import Analysis, analyse
from ablate.analysis.frames import load_results
from ablate.errors import ResultsError, nearest
from ablate.plugins import load_plugins
from ablate.records.files import make_folder, write_atomic, writing
from ablate.records.store import Results
from ablate.registry import FIGURES
from ablate.report.figures.saving import FORMATS, draw_all, panel_names
from ablate.report.page.document import make_page
from ablate.report.page.render import render
from ablate.report.paper import write_paper
from ablate.report.tables.latex import to_latex
from ablate.report.tables.table import Table, all_tables, to_csv, to_markdown
from ablate.wording import count_of

# Seconds between two looks at a results folder that is being watched.
LOOK_EVERY = 2.0
# A table of more rows is data, not something to print.
MOST_PRINTED = 1000
PAPER = "paper"
PARTS = ("tables", "figures", "page")


def build_report(
    path: Path | str,
    *,
    only: Iterable[str] | None = None,
    watch: bool = False,
    pdf: bool = False,
    paper: bool = False,
    plugins: Sequence[Path | str] = (),
    out: Path | str | None = None,
) -> list[Path]:
    """Write `tables/`, `figures/` and `report.html` into the results folder at `path`; return the files written.

    With `out` they go into that folder instead, so that results that may only be read have their report, too.

    `only` names parts ("tables", "figures", "page") or single figures. With `watch` it goes on: whenever a trial ends
    it writes them anew, until every planned trial has a result. Figures are PNG and SVG, with `pdf` PDF too. With
    `paper` the folder `paper/` holds what `write_paper` makes. `plugins` are files that register figures and tables of
    their own; installed ones are loaded anyway.

    Raises `ResultsError` where there is nothing to report, a name of `only` is none or the folder cannot be written,
    `PluginError` where a plugin cannot be loaded or fails.
    """
    load_plugins(plugins)
    wanted = set(PARTS if only is None else only)
    for name in wanted.difference(PARTS, FIGURES):
        raise ResultsError(f"unknown part of a report '{name}'", cure=nearest(name, [*PARTS, *FIGURES]))
    formats = (*FORMATS, "pdf") if pdf else FORMATS
    results = Results(path)
    if out is None and results.is_packed():
        cure = "write one without them elsewhere, with --out; or unpack the trials in a copy of the folder"
        message = "the report here was made with predictions that were not published"
        raise ResultsError(message, file=str(path), cure=cure)
    target = _target(path if out is None else out, own=out is None)
    while True:
        seen = _state(results) if watch else ()
        analysis = analyse(load_results(results.path))
        written = write_report(analysis, target, wanted, formats, reload=watch)
        written += write_paper(analysis, target.path / PAPER) if paper else []
        waiting = int((analysis.frames.trials["status"] == "missing").sum())
        if not (watch and waiting):
            return written
        print(f"{target.page}: {count_of(waiting, 'trial')} without a result yet", flush=True)
        while _state(results) == seen:
            time.sleep(LOOK_EVERY)


def _target(path: Path | str, *, own: bool) -> Results:
    """Return the folder that a report is written to, found writable before anything is computed.

    One that is not the results' own must be new, empty, or hold an earlier report only.
    """
    target = Results(path)
    known = {target.tables.name, target.figures.name, target.page.name, PAPER}
    with writing(path, "write the report elsewhere with --out" if own else "choose another folder with --out"):
        if not own and target.path.exists() and {item.name for item in target.path.iterdir()} - known:
            raise ResultsError("holds something else than a report", file=str(path), cure="name a new folder")
        make_folder(target.path)
        tempfile.TemporaryFile(dir=target.path).close()
    return target


def _state(results: Results) -> tuple[tuple[str, int], ...]:
    """Return what tells that something has happened: the records, their times, and the study's own files."""
    looked = [results.study, results.run, results.profile, *(folder.record for folder in results.folders())]
    return tuple((str(path), path.stat().st_mtime_ns) for path in looked if path.exists())


def write_report(
    analysis: Analysis, results: Results, wanted: set[str], formats: Sequence[str], *, reload: bool = False
) -> list[Path]:
    """Write the `wanted` parts and figures of a report into the folder `results`; return the files written.

    With `reload` the page of an unfinished study loads itself anew.
    """
    tables = all_tables(analysis) if wanted & {"tables", "page"} else []
    written = write_tables(results.tables, tables) if "tables" in wanted else []
    whole = wanted & {"figures", "page"}
    names = [name for name in FIGURES if whole or name in wanted]
    # The page holds its own figures; files are written of those that were asked for.
    kept = {name: formats for name in names if "figures" in wanted or name in wanted}
    kept |= dict.fromkeys(panel_names(analysis) if "figures" in wanted else (), formats)
    drawn = draw_all(analysis, list(dict.fromkeys([*names, *kept])), results.figures, kept)
    written += [path for one in drawn for path in one.files]
    if "page" in wanted:
        page = render(make_page(analysis, tables, drawn), reload=reload)
        write_atomic(results.page, page.encode(), lasting=False)
        written.append(results.page)
    return written


def write_tables(folder: Path, tables: Sequence[Table]) -> list[Path]:
    """Write every table with rows as CSV, and as Markdown and LaTeX where somebody would read as many.

    The rules behind their numbers are `rules.json`, by the names of the tables. Returns the files written.
    """
    make_folder(folder)
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
    rules = {table.name: table.rule for table in tables if len(table.frame)}
    path = folder / "rules.json"
    write_atomic(path, f"{json.dumps(rules, indent=1, ensure_ascii=False)}\n".encode(), lasting=False)
    return [*written, path]
