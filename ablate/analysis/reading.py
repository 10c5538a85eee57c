"""What the files of a trial tell: its row of the frame of trials, with every measure that one trial alone has.

Trials are read a portion at a time: what a call of numpy costs, of many short runs most of the time, is paid once for
all that are of equal length.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ablate.analysis.source import CURVES, FolderSource, Kept
from ablate.errors import ResultsError
from ablate.measure.segmentation import fine_means
from ablate.measure.stability import stability_of_runs
from ablate.records.record import Record
from ablate.records.store import TrialFolder, read_record
from ablate.study.metrics import STABILITY
from ablate.study.spec import StudySpec
from ablate.study.trial import Setting

QUALITY = ("test_mean_iou_images", "test_mean_iou_classes", "test_worst_images")

Row = dict[str, Any]


class Planned(NamedTuple):
    """A trial as the plan has it ("name", "key", "variant", "settings", "seed", "role"), and its folder."""

    entry: Row
    folder: TrialFolder


class Found(NamedTuple):
    """What became of a planned trial: its row, what was read for it, and why its record cannot be read, or ""."""

    row: Row
    kept: Kept
    unreadable: str


def read_trials(planned: Sequence[Planned], axes: Sequence[str], study: StudySpec, source: FolderSource) -> list[Found]:
    """What became of trials that `source` knows; what is read for them is in `source` afterwards."""
    resolution = "native" if study.measure.native else "trained"
    rows, problems = [], []
    for entry, folder in planned:
        record, problem = _read(folder, entry["key"])
        row = _identity(entry, axes, study, record)
        row |= {"status": "missing", "reason": problem, "missing": {}, "folder": str(folder.path)}
        if record is not None:
            source.keep(entry["key"], Kept(layers=record.layers))
            row |= _of_record(record, source, resolution)
        rows.append(row)
        problems.append(problem)
    _add_quality(rows, source)
    _add_stability(rows, source)
    return [Found(row, source.kept(row["key"]), problem) for row, problem in zip(rows, problems, strict=True)]


def _read(folder: TrialFolder, key: str) -> tuple[Record | None, str]:
    """The record, None where there is none, and why what is there is none."""
    try:
        record = read_record(folder.record)
    except ResultsError as error:
        return None, str(error)
    if record is not None and record.key != key:
        return None, f"{folder.record}: the record of another trial ({record.key[:8]}, not {key[:8]})"
    return record, ""


def _identity(entry: Row, axes: Sequence[str], study: StudySpec, record: Record | None) -> Row:
    settings = entry["settings"]
    row = {name: entry[name] for name in ("name", "key", "variant", "seed", "role")}
    row["setting"] = Setting(settings).text
    row |= {axis: _hashable(settings.get(axis)) for axis in axes}
    if "lr" not in settings:
        own = study.variants[row["variant"]].train if row["variant"] in study.variants else {}
        row["lr"] = record.train.get("lr") if record else own.get("lr", study.train.lr)
    return row


def _hashable(level: Any) -> Any:
    return tuple(level) if isinstance(level, list) else level


def _of_record(record: Record, source: FolderSource, resolution: str) -> Row:
    """The columns that the record fills; a complete trial without usable counts is "missing"."""
    complete, diverged = record.status == "complete", record.status == "diverged"
    if complete and record.resolution != resolution:
        # Its scores are of another measure than those beside it.
        said = f"complete, but scored at the {record.resolution} size, this study at the {resolution} one"
        return {"status": "missing", "reason": said, "missing": {"counts": said}}
    if complete:
        try:
            source.counts(record.key)
        except ResultsError as error:
            # Without its counts a trial can be neither compared nor resampled, whatever its record says.
            return {"status": "missing", "reason": f"complete, but {error}", "missing": {"counts": str(error)}}
    row: Row = {"status": record.status, "reason": record.reason or "", "schedule": record.train.get("schedule")}
    row |= {name: math.nan if value is None else float(value) for name, value in record.metrics.items()}
    row["wall_s"] = float(record.timing.get("wall_s") or math.nan)
    for split in ("val", "test"):
        row[f"{split}_score"] = 0.0 if diverged else row.get(f"{split}_mean_iou", math.nan) if complete else math.nan
    headroom = [
        value for values in record.layers.get("lr_headroom", {}).values() for value in values if value is not None
    ]
    if headroom:
        row["lr_headroom"] = min(headroom)
    return row | {"missing": dict(record.missing)}


def _add_quality(rows: Sequence[Row], source: FolderSource) -> None:
    counts = {place: source.counts(row["key"])["test"] for place, row in enumerate(rows) if row["status"] == "complete"}
    for places in _alike((place, table.shape) for place, table in counts.items()):
        means = fine_means(np.stack([counts[place] for place in places])).tolist()
        for place, values in zip(places, means, strict=True):
            rows[place] |= dict(zip(QUALITY, values, strict=True))


def _add_stability(rows: Sequence[Row], source: FolderSource) -> None:
    curves: dict[int, np.ndarray] = {}
    steps: dict[int, np.ndarray] = {}
    for place, row in enumerate(rows):
        if row["status"] in ("complete", "diverged"):
            try:
                curves[place], steps[place] = source.curves(row["key"]), source.steps(row["key"])
            except ResultsError as error:
                row["missing"] |= dict.fromkeys(STABILITY, str(error))
                continue
            if not math.isfinite(row.get("steps_per_epoch", math.nan)):
                row["missing"] |= dict.fromkeys(STABILITY, "the record does not tell the steps of an epoch")
                del steps[place]
    kinds = ((place, (len(run), len(curves[place]), rows[place]["steps_per_epoch"])) for place, run in steps.items())
    for places in _alike(kinds):
        table = np.stack([curves[place] for place in places])
        by_epoch = {name: table[:, :, 1 + CURVES.index(name)] for name in CURVES[1:]}
        runs = np.stack([steps[place] for place in places])
        measured = stability_of_runs(runs, by_epoch, int(rows[places[0]]["steps_per_epoch"]))
        for place, found in zip(places, measured, strict=True):
            rows[place] |= {name: value.value for name, value in found.items()}
            rows[place]["missing"] |= {name: value.reason for name, value in found.items() if value.reason is not None}
    for row in rows:
        if row["status"] == "diverged":
            # Whatever left the finite, loss or gradient: a run that diverged has risen without bound.
            row["rise"] = math.inf
            row["missing"].pop("rise", None)


def _alike(kinds: Iterable[tuple[int, Hashable]]) -> list[list[int]]:
    """Places of one kind together."""
    found: dict[Hashable, list[int]] = {}
    for place, kind in kinds:
        found.setdefault(kind, []).append(place)
    return list(found.values())
