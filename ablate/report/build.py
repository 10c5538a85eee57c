"""The report of a results folder: `build_report(path)` writes tables, figures and the page, once or as trials end."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext as uncollected
from pathlib import Path
from types import ModuleType

from ablate.analysis.load import read_folder
from ablate.records.store import Results
from ablate.wording import count_of

# Seconds between two looks at a results folder that is being watched.
LOOK_EVERY = 2.0


def build_report(
    path: Path | str,
    *,
    only: Iterable[str] | None = None,
    watch: bool = False,
    formats: Sequence[str] | None = None,
) -> list[Path]:
    """Write `tables/`, `figures/` and `report.html` into the results folder at `path`; the files written.

    `only` names parts ("tables", "figures", "page") or single figures. `formats` are those of the figures, None for
    all. With `watch` it goes on: whenever a trial ends it writes them anew, until every planned trial has a result.
    Raises `ResultsError` where there is nothing to report, or a name of `only` is none.
    """
    if only is not None:
        only = list(only)
        _composer().check_parts(only)
    results = Results(path)
    seen = _state(results) if watch else ()
    written, waiting = _build(results, only, formats, reload=watch)
    while watch and waiting:
        print(f"{results.page}: {count_of(waiting, 'trial')} without a result yet", flush=True)
        while _state(results) == seen:
            time.sleep(LOOK_EVERY)
        seen = _state(results)
        written, waiting = _build(results, only, formats, reload=True)
    return written


def _state(results: Results) -> tuple[tuple[str, int], ...]:
    """What tells that something has happened: the records, their times, and the study's own files."""
    looked = [results.study, results.run, results.profile, *(folder.record for folder in results.folders())]
    return tuple((str(path), path.stat().st_mtime_ns) for path in looked if path.exists())


def _build(
    results: Results, only: Iterable[str] | None, formats: Sequence[str] | None, *, reload: bool
) -> tuple[list[Path], int]:
    """Write the report once: the files written, and how many trials have no result yet."""
    with uncollected():
        folder = read_folder(results.path, meanwhile=_composer)
    written = _composer().compose(folder, results, only=only, formats=formats, reload=reload)
    return written, sum(row["status"] == "missing" for row in folder.rows)


def _composer() -> ModuleType:
    # Imported when records are being read by others: it brings in everything that draws.
    from ablate.report import compose

    return compose
