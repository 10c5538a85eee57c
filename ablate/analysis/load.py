"""The one reader of results folders: the study, the run, and a row with every measure for each planned trial."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import ValidationError

from ablate.errors import ResultsError
from ablate.measure import Measured, unknown
from ablate.parallel import parallel_map
from ablate.records import images as stored
from ablate.records.files import read_file
from ablate.records.record import Record, computed_by
from ablate.records.store import Results, TrialFolder, read_json, read_lines, read_record
from ablate.registry import MEASURES, Measure, broken
from ablate.study.spec import StudySpec
from ablate.study.trial import Setting, canonical, level_text
from ablate.study.yamlfile import parse_bytes

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
        return _read_steps(self.folder.steps)

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


@lru_cache(maxsize=_PREDS_KEPT)
def _unpacked(path: Path) -> Maps:
    return stored.unpack_maps(path)


class Source:
    """The arrays behind the frames by the key of their trial.

    Every method raises `ResultsError` for what a trial does not have.
    """

    def __init__(self, results: Results, trials: Mapping[str, Arrays]) -> None:
        self._results, self._trials = results, trials

    def counts(self, key: str) -> dict[str, np.ndarray]:
        """Return tp, fp, fn of each image and class of "val" and "test": int64 (N, C, 3)."""
        return self._trials[key].counts

    def image_loss(self, key: str) -> np.ndarray:
        """Return the test loss of each image: float64 (N,)."""
        return self._trials[key].images["test_loss"]

    def steps(self, key: str) -> np.ndarray:
        """Return training loss and gradient norm of every step: float32 (S, 2)."""
        # Not kept: those of thousands of trials would fill the memory.
        return _read_steps(self._trials[key].folder.steps)

    def curves(self, key: str) -> np.ndarray:
        """Return the number of every epoch and its `CURVES`: float64 (E, 5), NaN where a value is not finite."""
        return self._trials[key].curves

    def layers(self, key: str) -> Mapping[str, Mapping[str, list[float | None]]]:
        """Return the probes: measure -> layer -> values; empty for a trial without a record."""
        return self._trials[key].layers

    def preds(self, key: str) -> Maps:
        """Return the test predictions as class indices: uint8 (N, H, W), or N maps (h, w) where sizes differ."""
        return _unpacked(self.preds_path(key))

    def preds_path(self, key: str) -> Path:
        """Return the path of the file of `preds`."""
        return self._trials[key].folder.predictions

    def target(self) -> Maps:
        """Return the test targets in the form of `preds`."""
        path = self._results.test / "targets.zip"
        if not path.exists():
            raise ResultsError("the results folder holds no test masks", file=str(path))
        return stored.unpack_maps(path)


@dataclass(frozen=True, eq=False)
class Folder:
    """All that was read of a results folder."""

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
    source: Source
    unreadable: Mapping[Path, str]
    """Records that cannot be read, with the reason."""


class Planned(NamedTuple):
    """A trial as the plan has it ("name", "key", "variant", "settings", "seed", "role"), and its folder."""

    entry: Row
    folder: TrialFolder


class Found(NamedTuple):
    """The fate of a planned trial: its row, its files, and why its record cannot be read, or ""."""

    row: Row
    arrays: Arrays
    unreadable: str


def read_folder(path: Path | str) -> Folder:
    """Read the results folder at `path`.

    Raises `ResultsError` where there is no study, or what should be read cannot be.
    """
    results = Results(path)
    study = read_spec(results.study)
    run = results.read_run()
    index, profile = read_json(results.test / "index.json") or {}, read_json(results.profile) or {}
    unreadable: dict[Path, str] = {}
    planned = [Planned(dict(entry), results.trial(entry["name"])) for entry in run.get("plan", [])]
    if not planned:
        planned = _unplanned(results, unreadable)
    axes = tuple(dict.fromkeys(["lr", *(axis for entry, _ in planned for axis in entry["settings"])]))
    settings = {setting.text: setting for setting in (Setting(entry["settings"]) for entry, _ in planned)}
    # Other processes do not know the measures of plugins.
    own = all(measure.function.__module__.startswith("ablate.") for measure in MEASURES.values())
    workers = None if own and len(planned) >= MANY_TRIALS else 1
    found = parallel_map(partial(read_trial, axes=axes, study=study), planned, workers=workers)
    for (_, folder), one in zip(planned, found, strict=True):
        if one.unreadable:
            unreadable[folder.record] = one.unreadable
    source = Source(results, {one.row["key"]: one.arrays for one in found})
    rows = [one.row for one in found]
    return Folder(results.path, study, run, profile, index, axes, settings, rows, source, unreadable)


def read_spec(path: Path) -> StudySpec:
    """Read the study as resolved, without looking for its components; raises `ResultsError` where there is none."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ResultsError("there is no study in this folder", file=str(path), cure="name a results folder") from None
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


def _unplanned(results: Results, unreadable: dict[Path, str]) -> list[Planned]:
    """Find the trials that only their records tell of: those of a folder without a plan."""
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


def read_trial(planned: Planned, axes: Sequence[str], study: StudySpec) -> Found:
    """Read what became of a trial: its row of the frame of trials, with every registered measure."""
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
    return Found(row, arrays, problem)


def _read_record(folder: TrialFolder, key: str) -> tuple[Record | None, str]:
    """Read the record: None where there is none, and why what is there is none."""
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
        name: Measured(exact[name]) if name in exact else _measured(measure, arrays)
        for name, measure in MEASURES.items()
    }


def _measured(measure: Measure, arrays: Arrays) -> Measured:
    try:
        found = measure.function(arrays)
    except (ResultsError, ValueError) as error:
        return Measured(math.nan, str(error))
    except Exception as error:
        if measure.function.__module__.startswith("ablate."):
            raise
        raise broken(f"the measure '{measure.name}'", measure.source, error) from error
    return found if isinstance(found, Measured) else Measured(float(found))


def _read_steps(path: Path) -> np.ndarray:
    data = _bytes(path)
    return np.frombuffer(data[: len(data) // 8 * 8], dtype="<f4").reshape(-1, 2)


def _bytes(path: Path) -> bytes:
    try:
        return read_file(path)
    except OSError as error:
        raise ResultsError(f"cannot be read ({error.strerror})", file=str(path)) from None
