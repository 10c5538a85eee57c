"""The one reader of results folders: the study, the run, and a row with every measure for each planned trial."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from ablate.errors import Problem, ResultsError
from ablate.measure import Measured, unknown
from ablate.parallel import parallel_map
from ablate.records import images as stored
from ablate.records.files import read_file
from ablate.records.record import Record, computed_by
from ablate.records.store import Results, TrialFolder, read_lines, read_record
from ablate.registry import MEASURES, Measure, broken
from ablate.study.spec import StudySpec
from ablate.study.trial import Setting, canonical, level_text
from ablate.study.yamlfile import MAX_BYTES, parse_bytes

CURVES = ("train_loss", "val_loss", "val_mean_iou", "val_cross_entropy")
CROSS_ENTROPY = "cross_entropy"
# How a trial ended that has a result.
ENDED = ("complete", "diverged")
# From so many trials on several processes read them sooner than one.
MANY_TRIALS = 500
# Predictions are large beside everything else; what draws or scores them does so trial by trial.
_PREDS_KEPT = 4

Row = dict[str, Any]
Maps = np.ndarray | list[np.ndarray]
# A trial as the plan has it ("name", "key", "variant", "settings", "seed", "role"), and its folder.
Planned = tuple[Row, TrialFolder]


class Arrays:
    """The content of one trial's files (`ablate.measure.TrialArrays`), each file read when it is first asked for.

    Raises `ResultsError` for what the trial does not have.
    """

    def __init__(self, folder: TrialFolder, record: Record | None) -> None:
        self.folder = folder
        self.diverged = record is not None and record.status == "diverged"
        self.layers: Mapping[str, Mapping[str, list[float | None]]] = {} if record is None else record.layers
        self._own_loss = CROSS_ENTROPY if record is None else record.train.get("loss")
        self._steps_per_epoch = math.nan if record is None else record.metrics.get("steps_per_epoch") or math.nan

    @property
    def steps_per_epoch(self) -> int:
        """Return how many steps make an epoch."""
        if not math.isfinite(self._steps_per_epoch):
            raise ResultsError("the record does not tell the steps of an epoch")
        return int(self._steps_per_epoch)

    @cached_property
    def steps(self) -> np.ndarray:
        """Return training loss and gradient norm of every step: float32 (S, 2); a row being written is left out."""
        return read_steps(self.folder.steps)

    @property
    def stated(self) -> Mapping[str, float]:
        """Return the measures that stand beside rounded steps; none where the steps are not those that were rounded."""
        note = self.folder.note()
        return note["measures"] if note and note["files"].items() <= self.folder.digests().items() else {}

    @cached_property
    def curves(self) -> np.ndarray:
        """Return the number of every epoch and its `CURVES`: float64 (E, 5), NaN where a value is not finite."""
        lines = read_lines(self.folder.epochs)
        if self._own_loss == CROSS_ENTROPY:
            lines = [{f"val_{CROSS_ENTROPY}": line.get("val_loss"), **line} for line in lines]
        rows = [[row.get(name) for name in ("epoch", *CURVES)] for row in lines]
        return np.array(rows, dtype=float).reshape(-1, 1 + len(CURVES))

    @property
    def epochs(self) -> dict[str, np.ndarray]:
        """Return the `CURVES` by name: float64 (E,)."""
        return {name: self.curves[:, place] for place, name in enumerate(CURVES, start=1)}

    @cached_property
    def images(self) -> dict[str, np.ndarray]:
        """Return the counts of the images, "val" and "test" (N, C, 3), and their losses, "test_loss" (N,)."""
        path = self.folder.images
        arrays = stored.read_arrays(path, ("val", "test", "test_loss"))
        for split in ("val", "test"):
            if arrays[split].ndim != 3 or arrays[split].shape[2] != 3:
                raise ResultsError(f"counts of shape {arrays[split].shape}, not (N, C, 3)", file=str(path))
        return arrays

    @property
    def counts(self) -> dict[str, np.ndarray]:
        """Return tp, fp, fn of each image and class by split: int64 (N, C, 3)."""
        if self.diverged:
            raise ResultsError("a diverged trial has no counts")
        return {split: self.images[split] for split in ("val", "test")}

    @property
    def preds(self) -> Maps:
        """Return the test predictions as class indices: uint8 (N, H, W), or N maps (h, w) where sizes differ."""
        return _unpacked(self.folder.predictions)


@lru_cache(maxsize=_PREDS_KEPT)
def _unpacked(path: Path) -> Maps:
    return stored.unpack_maps(path)


def read_spec(path: Path) -> StudySpec:
    """Read the study as resolved, without looking for its components; raises `ResultsError` where there is none."""
    try:
        data = read_file(path, MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        what = "there is no study in this folder" if path.parent.is_dir() else "there is no such folder"
        raise ResultsError(what, file=str(path.parent), cure="name a results folder") from None
    try:
        document = parse_bytes(data, str(path)).value
        run = document.get("run") if isinstance(document, dict) else None
        if isinstance(run, dict) and "lanes" in run:  # what earlier versions called the workers
            run["workers"] = run.pop("lanes")
        return StudySpec.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ResultsError(f"not a study: {place}: {first['msg']}", file=str(path)) from None


def read_plan(results: Results, run: Mapping[str, Any]) -> tuple[list[Planned], dict[Path, str]]:
    """Return the planned trials, and the records that cannot be read with the reason.

    Of a folder without a plan the trials are those that its records tell of.
    """
    planned = [(dict(entry), results.trial(entry["name"])) for entry in run.get("plan", [])]
    unreadable: dict[Path, str] = {}
    for folder in () if planned else results.folders():
        try:
            record = read_record(folder.record)
        except ResultsError as error:
            unreadable[folder.record] = str(error)
            continue
        if record is not None:
            entry = record.model_dump(include={"key", "variant", "settings", "seed", "role"})
            planned.append((entry | {"name": folder.name}, folder))
    return planned, unreadable


def read_trials(planned: Sequence[Planned], axes: Sequence[str], study: StudySpec) -> list[tuple[Row, Arrays, str]]:
    """Return of every planned trial its row, its files, and why its record cannot be read ("" where it can).

    Many are read by several processes.
    """
    # Other processes do not know the measures of plugins.
    own = all(measure.function.__module__.startswith("ablate.") for measure in MEASURES.values())
    workers = None if own and len(planned) >= MANY_TRIALS else 1
    return parallel_map(partial(_read_trial, axes=axes, study=study), planned, workers=workers)


def _read_trial(planned: Planned, axes: Sequence[str], study: StudySpec) -> tuple[Row, Arrays, str]:
    """Return the row of the frame of trials, with every registered measure, and what else `read_trials` tells."""
    entry, folder = planned
    record, problem = _read_record(folder, entry["key"])
    arrays = Arrays(folder, record)
    row = _identity(entry, axes, study, record)
    row |= {"status": "missing", "reason": problem, "missing": {}, "folder": str(folder.path)}
    row["computed_by"] = {} if record is None else computed_by(record.provenance)
    if record is not None:
        row |= _of_record(record, arrays, "native" if study.measure.native else "trained")
    if row["status"] in ENDED:
        values = measured(arrays)
        row |= {name: value.value for name, value in values.items()}
        reasons = {name: value.reason for name, value in values.items() if value.reason is not None}
        row["missing"] = reasons | row["missing"]
    # Many, and seldom asked for again.
    with contextlib.suppress(AttributeError):
        del arrays.steps
    return row, arrays, problem


def _read_record(folder: TrialFolder, key: str) -> tuple[Record | None, str]:
    """Read the record: None where there is none, and why what is there is none."""
    try:
        record = read_record(folder.record)
    except ResultsError as error:
        return None, str(error)
    if record is not None and record.key != key:
        said = f"the record of another trial ({record.key[:8]}, not {key[:8]})"
        return None, str(Problem(said, file=str(folder.record)))
    return record, ""


def _identity(entry: Row, axes: Sequence[str], study: StudySpec, record: Record | None) -> Row:
    settings = entry["settings"]
    row = {name: entry[name] for name in ("name", "key", "variant", "seed", "role")}
    row["setting"] = Setting(settings).text
    # A level that is a list is one value of a column.
    levels = {axis: settings.get(axis) for axis in axes}
    row |= {
        a: tuple(v) if isinstance(v, list) else level_text(v) if isinstance(v, dict) else v for a, v in levels.items()
    }
    if "lr" not in settings:
        own = study.variants[row["variant"]].train if row["variant"] in study.variants else {}
        row["lr"] = record.train.get("lr") if record else own.get("lr", study.train.lr)
    return row


def _of_record(record: Record, arrays: Arrays, resolution: str) -> Row:
    """Return the columns that the record fills; a complete trial without usable counts is "missing"."""
    complete, diverged = record.status == "complete", record.status == "diverged"
    if complete and record.resolution != resolution:
        # Its scores are of another measure than those beside it.
        said = f"complete, but scored at the {record.resolution} size, this study at the {resolution} one"
        return {"status": "missing", "reason": said, "missing": {"counts": said}}
    if complete:
        try:
            _ = arrays.images
        except ResultsError as error:
            # Without its counts a trial can be neither compared nor resampled, whatever its record says.
            return {"status": "missing", "reason": f"complete, but {error}", "missing": {"counts": str(error)}}
    row: Row = {"status": record.status, "reason": record.reason or "", "schedule": record.train.get("schedule")}
    row |= {name: math.nan if value is None else float(value) for name, value in record.metrics.items()}
    loss = record.train.get("loss")
    row["loss_function"] = loss if isinstance(loss, str) else canonical(loss)
    for split in ("val", "test"):
        if loss == CROSS_ENTROPY:  # no other one was computed
            row.setdefault(f"{split}_{CROSS_ENTROPY}", row.get(f"{split}_loss", math.nan))
    row["wall_s"] = float(record.timing.get("wall_s") or math.nan)
    for split in ("val", "test"):
        row[f"{split}_score"] = 0.0 if diverged else row.get(f"{split}_mean_iou", math.nan) if complete else math.nan
    return row | {"missing": dict(record.missing)}


def measured(arrays: Arrays) -> dict[str, Measured]:
    """Return every registered measure of a trial.

    Those of steps that were rounded to be published are what they were before, as is stated beside them.
    """
    try:
        exact = arrays.stated
    except ResultsError as error:
        return dict.fromkeys(MEASURES, unknown(str(error)))
    return {
        name: Measured(exact[name]) if name in exact else measure_of(measure, arrays)
        for name, measure in MEASURES.items()
    }


def measure_of(measure: Measure, arrays: Arrays) -> Measured:
    """Return one measure of a trial; raises `PluginError` where that of a plugin raises anything but a reason."""
    try:
        found = measure.function(arrays)
    except (ResultsError, ValueError) as error:
        return Measured(math.nan, str(error))
    except Exception as error:
        if measure.function.__module__.startswith("ablate."):
            raise
        raise broken(f"the measure '{measure.name}'", measure.source, error) from error
    try:
        return found if isinstance(found, Measured) else Measured(float(found))
    except (TypeError, ValueError):
        reason = f"expected a number, got {found!r:.60}"
        raise broken(f"the measure '{measure.name}'", measure.source, reason) from None


def read_steps(path: Path) -> np.ndarray:
    """Return training loss and gradient norm of every step: float32 (S, 2); a row being written is left out."""
    try:
        data = read_file(path)
    except OSError as error:
        raise ResultsError(f"cannot be read ({error.strerror})", file=str(path)) from None
    return np.frombuffer(data[: len(data) // 8 * 8], dtype="<f4").reshape(-1, 2)
