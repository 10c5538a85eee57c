"""The frames of a study's trials, of their epochs and of their probed layers, from its plan and its files."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ablate.analysis.reading import QUALITY, Found, Planned, Row, read_trials
from ablate.analysis.source import CURVES, FolderSource, Source
from ablate.analysis.spread import MANY_TRIALS, spread
from ablate.errors import ResultsError
from ablate.records.store import Results, read_record
from ablate.study.metrics import STABILITY
from ablate.study.schema import StudySpec

# How many trials are read at a time: enough to share what a call costs, few enough to lie in the processor's cache.
PORTION = 32


def trials_frame(
    results: Results,
    run: Mapping[str, Any],
    study: StudySpec,
    source: FolderSource,
    meanwhile: Callable[[], object] = lambda: None,
) -> tuple[pd.DataFrame, tuple[str, ...], dict[Path, str]]:
    """A row a planned trial (see `frames`), the axes of the grid ("lr" always), and the records that cannot be read.

    `meanwhile` is called once, of a large study while other processes read.
    """
    unreadable: dict[Path, str] = {}
    planned = [Planned(dict(entry), results.trial(entry["name"])) for entry in run.get("plan", [])]
    if not planned:
        planned = _unplanned(results, unreadable)
    axes = tuple(dict.fromkeys(["lr", *(axis for entry, _ in planned for axis in entry["settings"])]))
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
    columns = ["name", "key", "variant", "setting", *axes, "seed", "role", "status", "reason"]
    # Columns that exist whatever the trials left behind, so that a study without a result has them too.
    always = ["val_mean_iou", "test_mean_iou", "val_score", "test_score", *QUALITY, *STABILITY, "lr_headroom", "wall_s"]
    frame = pd.DataFrame(rows)
    frame = frame.reindex(columns=list(dict.fromkeys([*columns, *always, *frame.columns])))
    numbers = [name for name in frame.columns if name in always]
    return frame.astype(dict.fromkeys(numbers, float)), axes, unreadable


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


def epochs_frame(trials: pd.DataFrame, axes: Sequence[str], source: Source) -> pd.DataFrame:
    """A row an epoch of every trial that has begun (see `frames`)."""
    identity = ["key", "variant", "setting", *axes, "seed"]
    # Columns of the whole study rather than a frame a trial: thousands of small frames take minutes to join.
    begun: list[int] = []
    tables: list[np.ndarray] = []
    for place, key in enumerate(trials["key"].tolist()):
        try:
            table = source.curves(key)
        except ResultsError:
            continue  # not begun
        begun.append(place)
        tables.append(table)
    columns = [*identity, "epoch", *CURVES]
    values = np.concatenate(tables) if tables else np.empty(0)
    if not len(values):
        return pd.DataFrame(columns=columns)
    frame = trials[identity].iloc[np.repeat(begun, [len(table) for table in tables])].reset_index(drop=True)
    frame["epoch"] = values[:, 0].astype(int)
    for place, name in enumerate(CURVES, start=1):
        frame[name] = values[:, place]
    return frame[columns]


def layers_frame(trials: pd.DataFrame, axes: Sequence[str], source: Source) -> pd.DataFrame:
    """A row a probed value of every trial with a record; `point` counts the probes from 0."""
    identity = ["key", "variant", "setting", *axes, "seed"]
    rows = [
        [*(row[name] for name in identity), measure, layer, point, math.nan if value is None else value]
        for row in trials.to_dict("records")
        for measure, layers in source.layers(row["key"]).items()
        for layer, values in layers.items()
        for point, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=[*identity, "measure", "layer", "point", "value"])


def numbered_classes(trials: pd.DataFrame, source: Source) -> tuple[str, ...]:
    """Names for classes that nothing names: "0", "1", ... as many as the counts have."""
    return tuple(map(str, range(_shape(trials, source, "test")[1])))


def numbered_images(trials: pd.DataFrame, source: Source, split: str) -> tuple[str, ...]:
    """Names for images that nothing names: "0", "1", ... as many as the counts have."""
    return tuple(map(str, range(_shape(trials, source, split)[0])))


def _shape(trials: pd.DataFrame, source: Source, split: str) -> tuple[int, ...]:
    for key in trials.loc[trials["status"] == "complete", "key"]:
        try:
            return source.counts(key)[split].shape
        except ResultsError:
            continue
    return 0, 0, 3
