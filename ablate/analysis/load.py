"""A results folder as it was read: the study, the run, and what every planned trial left behind.

Free of pandas, which takes as long to import as thousands of trials to read: a report begins to read first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ablate.analysis.reading import Found, Planned, Row, read_trials
from ablate.analysis.source import FolderSource
from ablate.analysis.spread import MANY_TRIALS, spread
from ablate.errors import ResultsError
from ablate.records.store import Results, read_json, read_record
from ablate.study.spec import StudySpec
from ablate.study.trial import Setting
from ablate.study.yamlfile import parse_bytes

# How many trials are read at a time: enough to share what a call costs, few enough to lie in the processor's cache.
PORTION = 32


@dataclass(frozen=True, eq=False)
class Folder:
    """What was read of a results folder."""

    path: Path
    study: StudySpec
    run: Mapping[str, Any]
    profile: Mapping[str, Any]
    index: Mapping[str, Any]
    """What is known of the test images, and of the val images beside them."""
    axes: tuple[str, ...]
    """The axes of the grid, "lr" always."""
    settings: Mapping[str, Setting]
    """Every setting of the plan, by its text."""
    rows: list[Row]
    """A row a planned trial."""
    source: FolderSource
    unreadable: Mapping[Path, str]
    """Records that cannot be read, with the reason."""


def read_folder(path: Path | str, meanwhile: Callable[[], object] = lambda: None) -> Folder:
    """Read the results folder at `path`; `meanwhile` is called once, of a large study while other processes read.

    Raises `ResultsError` where there is no study, or what should be read cannot be.
    """
    results = Results(path)
    study = read_spec(results.study)
    run = results.read_run()
    index, profile = read_json(results.test / "index.json") or {}, read_json(results.profile) or {}
    source = FolderSource(results)
    unreadable: dict[Path, str] = {}
    planned = [Planned(dict(entry), results.trial(entry["name"])) for entry in run.get("plan", [])]
    if not planned:
        planned = _unplanned(results, unreadable)
    axes = tuple(dict.fromkeys(["lr", *(axis for entry, _ in planned for axis in entry["settings"])]))
    settings = {setting.text: setting for setting in (Setting(entry["settings"]) for entry, _ in planned)}
    for entry, folder in planned:
        source.add(entry["key"], folder)

    def portion(start: int) -> list[Found]:
        return read_trials(planned[start : start + PORTION], axes, study, source)

    starts = range(0, len(planned), PORTION)
    portions = spread(portion, starts, least=-(-MANY_TRIALS // PORTION), meanwhile=meanwhile)
    rows: list[Row] = []
    for (entry, folder), found in zip(planned, (found for part in portions for found in part), strict=True):
        rows.append(found.row)
        source.keep(entry["key"], found.kept)
        if found.unreadable:
            unreadable[folder.record] = found.unreadable
    return Folder(results.path, study, run, profile, index, axes, settings, rows, source, unreadable)


def read_spec(path: Path) -> StudySpec:
    """The study as resolved, without looking for its components; raises `ResultsError` where there is none."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ResultsError("there is no study in this folder", file=str(path), cure="name a results folder") from None
    try:
        return StudySpec.model_validate(parse_bytes(data, str(path)).value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ResultsError(f"not a study: {place}: {first['msg']}", file=str(path)) from None


def _unplanned(results: Results, unreadable: dict[Path, str]) -> list[Planned]:
    """Trials that only their records tell of: those of a folder without a plan."""
    found = []
    for folder in results.folders():
        try:
            record = read_record(folder.record)
        except ResultsError as error:
            unreadable[folder.record] = str(error)
            continue
        if record is not None:
            entry = record.model_dump(include={"key", "variant", "settings", "seed", "role"})
            found.append(Planned(entry | {"name": folder.name}, folder))
    return found
