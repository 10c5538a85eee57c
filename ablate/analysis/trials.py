"""The frame of trials: the plan beside what became of it, with every measure that one trial alone has."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ablate.analysis.source import FolderSource, Source
from ablate.analysis.spread import MANY_TRIALS, spread
from ablate.errors import ResultsError
from ablate.measure import segmentation
from ablate.measure.stability import stability
from ablate.records.record import Record
from ablate.records.store import Results, TrialFolder, read_record
from ablate.study.keys import level_text
from ablate.study.metrics import STABILITY
from ablate.study.schema import StudySpec

QUALITY = ("test_mean_iou_images", "test_mean_iou_classes", "test_worst_images")
CURVES = ("train_loss", "val_loss", "val_mean_iou")
ONLY_SETTING = "as given"

Row = dict[str, Any]


def setting_label(settings: Mapping[str, Any]) -> str:
    """The text that identifies a setting: {"lr": 0.0003} is "lr=3e-4"; "as given" where nothing varies."""
    return ", ".join(f"{axis}={level_text(level)}" for axis, level in settings.items()) or ONLY_SETTING


def trials_frame(
    results: Results, run: Mapping[str, Any], study: StudySpec, source: FolderSource
) -> tuple[pd.DataFrame, tuple[str, ...], dict[Path, str]]:
    """A row a planned trial (see `frames`), the axes of the grid ("lr" always), and the records that cannot be read."""
    unreadable: dict[Path, str] = {}
    planned: list[tuple[Row, TrialFolder, Record | None]] = []
    for entry in run.get("plan", []):
        folder = results.trial(entry["name"])
        planned.append((dict(entry), folder, _read(folder, entry["key"], unreadable)))
    if not planned:
        planned += _unplanned(results, {entry["key"] for entry, _, _ in planned}, unreadable)

    axes = tuple(dict.fromkeys(["lr", *(axis for entry, _, _ in planned for axis in entry["settings"])]))
    rows = []
    for entry, folder, record in planned:
        source.add(entry["key"], folder, record)
        row = _identity(entry, axes, study, record)
        row |= {"status": "missing", "reason": unreadable.get(folder.record, ""), "missing": {}}
        rows.append(row | {"folder": str(folder.path)})
    ended = [(place, entry["key"], record) for place, (entry, _, record) in enumerate(planned) if record is not None]
    resolution = "native" if study.measure.native else "trained"

    def measured(number: int) -> tuple[Row, dict[str, np.ndarray] | None]:
        _, key, record = ended[number]
        return _of_record(key, record, source, resolution), source.read_images(key)

    for number, (row, arrays) in enumerate(spread(measured, range(len(ended)), least=MANY_TRIALS)):
        place, key, _ = ended[number]
        rows[place] |= row
        if arrays is not None:
            source.keep_images(key, arrays)
    columns = ["name", "key", "variant", "setting", *axes, "seed", "role", "status", "reason"]
    # Columns that exist whatever the trials left behind, so that a study without a result has them too.
    always = ["val_mean_iou", "test_mean_iou", "val_score", "test_score", *QUALITY, *STABILITY, "lr_headroom", "wall_s"]
    frame = pd.DataFrame(rows)
    frame = frame.reindex(columns=list(dict.fromkeys([*columns, *always, *frame.columns])))
    numbers = [name for name in frame.columns if name in always]
    return frame.astype(dict.fromkeys(numbers, float)), axes, unreadable


def _read(folder: TrialFolder, key: str, unreadable: dict[Path, str]) -> Record | None:
    try:
        record = read_record(folder.record)
    except ResultsError as error:
        unreadable[folder.record] = str(error)
        return None
    if record is not None and record.key != key:
        unreadable[folder.record] = f"{folder.record}: the record of another trial ({record.key[:8]}, not {key[:8]})"
        return None
    return record


def _unplanned(
    results: Results, known: set[str], unreadable: dict[Path, str]
) -> list[tuple[Row, TrialFolder, Record | None]]:
    """Trials that only their records tell of: those of a folder without a plan."""
    found: list[tuple[Row, TrialFolder, Record | None]] = []
    for folder in results.folders():
        try:
            record = read_record(folder.record)
        except ResultsError as error:
            unreadable[folder.record] = str(error)
            continue
        if record is not None and record.key not in known:
            entry = record.model_dump(include={"key", "variant", "settings", "seed", "role"})
            found.append((entry | {"name": folder.name}, folder, record))
    return found


def _identity(entry: Row, axes: Sequence[str], study: StudySpec, record: Record | None) -> Row:
    settings = entry["settings"]
    row = {name: entry[name] for name in ("name", "key", "variant", "seed", "role")}
    row["setting"] = setting_label(settings)
    row |= {axis: _hashable(settings.get(axis)) for axis in axes}
    if "lr" not in settings:
        own = study.variants[row["variant"]].train if row["variant"] in study.variants else {}
        row["lr"] = record.train.get("lr") if record else own.get("lr", study.train.lr)
    return row


def _hashable(level: Any) -> Any:
    return tuple(level) if isinstance(level, list) else level


def _of_record(key: str, record: Record, source: Source, resolution: str) -> Row:
    row: Row = {"status": record.status, "reason": record.reason or "", "schedule": record.train.get("schedule")}
    row |= {name: math.nan if value is None else float(value) for name, value in record.metrics.items()}
    row["wall_s"] = float(record.timing.get("wall_s") or math.nan)
    missing = dict(record.missing)
    complete, diverged = record.status == "complete", record.status == "diverged"
    for split in ("val", "test"):
        row[f"{split}_score"] = 0.0 if diverged else row.get(f"{split}_mean_iou", math.nan) if complete else math.nan
    if complete and record.resolution != resolution:
        # Its scores are of another measure than those beside it.
        said = f"complete, but scored at the {record.resolution} size, this study at the {resolution} one"
        return {"status": "missing", "reason": said, "missing": {"counts": said}}
    if complete:
        try:
            row |= _quality(key, source)
        except ResultsError as error:
            # Without its counts a trial can be neither compared nor resampled, whatever its record says.
            return {"status": "missing", "reason": f"complete, but {error}", "missing": {"counts": str(error)}}
    if complete or diverged:
        row |= _stability(key, source, row.get("steps_per_epoch", math.nan), missing)
    if diverged:
        # Whatever left the finite, loss or gradient: a run that diverged has risen without bound.
        row["rise"] = math.inf
        missing.pop("rise", None)
    headroom = [
        value for values in record.layers.get("lr_headroom", {}).values() for value in values if value is not None
    ]
    if headroom:
        row["lr_headroom"] = min(headroom)
    return row | {"missing": missing}


def _quality(key: str, source: Source) -> Row:
    return dict(zip(QUALITY, segmentation.fine_means(source.counts(key)["test"]), strict=True))


def _stability(key: str, source: Source, steps_per_epoch: float, missing: dict[str, str]) -> Row:
    try:
        epochs, steps = source.epochs(key), source.steps(key)
    except ResultsError as error:
        return missing.update(dict.fromkeys(STABILITY, str(error))) or {}
    if not math.isfinite(steps_per_epoch):
        return missing.update(dict.fromkeys(STABILITY, "the record does not tell the steps of an epoch")) or {}
    measured = stability(steps, {name: curve(epochs, name) for name in CURVES[1:]}, int(steps_per_epoch))
    missing.update({name: value.reason for name, value in measured.items() if value.reason is not None})
    return {name: value.value for name, value in measured.items()}


def curve(epochs: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """One value an epoch: float64 (E,), NaN where it was not finite."""
    return np.array([math.nan if row.get(name) is None else row[name] for row in epochs], dtype=float)


def epochs_frame(trials: pd.DataFrame, axes: Sequence[str], source: Source) -> pd.DataFrame:
    """A row an epoch of every trial that has begun (see `frames`)."""
    identity = ["key", "variant", "setting", *axes, "seed"]
    # Columns of the whole study rather than a frame a trial: thousands of small frames take minutes to join.
    begun: list[int] = []
    lengths: list[int] = []
    values: dict[str, list[float | None]] = {name: [] for name in ("epoch", *CURVES)}
    for place, key in enumerate(trials["key"]):
        try:
            epochs = source.epochs(key)
        except ResultsError:
            continue  # not begun
        if epochs:
            begun.append(place)
            lengths.append(len(epochs))
            for name, column in values.items():
                column.extend([entry.get(name) for entry in epochs])
    columns = [*identity, "epoch", *CURVES]
    if not begun:
        return pd.DataFrame(columns=columns)
    frame = trials[identity].iloc[np.repeat(begun, lengths)].reset_index(drop=True)
    frame["epoch"] = np.array(values.pop("epoch"), dtype=int)
    for name, column in values.items():
        frame[name] = np.array(column, dtype=float)
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
