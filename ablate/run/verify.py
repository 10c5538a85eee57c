"""Every file of a results folder checked again: types, digests, records against the plan, curves and scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ablate.analysis.load import read_spec, read_steps
from ablate.errors import AblateError, ResultsError, in_place, visible
from ablate.measure.segmentation import mean_iou
from ablate.measure.stability import rounding_bounds
from ablate.records.files import lock, refuse_link, refuse_links
from ablate.records.images import read_arrays, unpack_image, unpack_maps
from ablate.records.record import EXACT_BITS, Record
from ablate.records.store import (
    NUMBERS,
    PACKED,
    WEIGHTS,
    Results,
    TrialFolder,
    quarantine,
    read_json,
    read_lines,
    read_record,
)
from ablate.wording import count_of

STEP_BYTES = 8
# The files of a trial that its record rests on; the others may have been deleted to save room.
KEPT = ("epochs.jsonl", "steps.f32", "images.npz")


@dataclass(frozen=True)
class Fault:
    """Something that is damaged, and the files to put aside so that the next run makes them again."""

    file: Path
    message: str
    aside: tuple[Path, ...] = ()


def print_verification(path: Path, *, repair: bool, say: Callable[[str], None] = print) -> int:
    """Say what is damaged in the results folder at `path`; with `repair` put it aside, so that it is made again.

    Return 0 where nothing is damaged or all of it was put aside, else 1. Raises `ResultsError` where a run holds the
    folder that is to be repaired.
    """
    results = Results(path)
    if not repair:
        return _report(results, list(faults(results)), repair=False, say=say)
    refuse_links(path)
    results.refuse_packed()
    with lock(results.lock, "ablate verify --repair") as held:
        if not held:
            raise ResultsError("a run holds this folder", file=str(path), cure="repair it when the run has ended")
        return _report(results, list(faults(results)), repair=True, say=say)


def _report(results: Results, found: list[Fault], *, repair: bool, say: Callable[[str], None]) -> int:
    moved: set[Path] = set()
    for fault in found:
        say(visible(in_place(f"{fault.file}: {fault.message}")))
        for file in fault.aside:
            if repair and file not in moved and file.exists():
                say(visible(f"  moved to {quarantine(file, fault.message).name}"))
                moved.add(file)
            elif not repair:
                say(visible(f"  would be put aside: {file.name}"))
    folders = list(results.folders())
    if rounded := sum(folder.published.exists() for folder in folders):
        say(
            f"{count_of(rounded, 'trial')} with steps rounded to be published, and the measures of them as they were "
            f"before: see {folders[0].published.name} beside each record"
        )
    checked = f"{count_of(len(folders), 'trial')} checked"
    if not found:
        say(f"{checked}: no damage found")
        return 0
    say(f"{checked}: {count_of(len(found), 'fault')} found")
    if not repair:
        unpack = f"unpack the trials with `tar xf {PACKED}`: " if results.is_packed() else ""
        say(f"{unpack}`ablate verify --repair` puts the damaged files aside; `ablate run` then makes them again")
        return 1
    say("`ablate run` with the study makes again what was put aside")
    return 0 if all(fault.aside for fault in found) else 1


def faults(results: Results) -> Iterator[Fault]:
    """Find what is damaged in a results folder; nothing is changed."""
    plan: dict[str, Mapping[str, Any]] = {}
    try:
        plan = {entry["name"]: entry for entry in results.read_run().get("plan", [])}
    except ResultsError as error:
        yield _fault(results.run, error, results.run)
    for file in (results.profile, results.path / "data.json"):
        try:
            read_json(file)
        except ResultsError as error:
            yield _fault(file, error, file)
    try:
        read_spec(results.study)
    except AblateError as error:
        yield _fault(results.study, error, results.study)
    yield from _test_split(results)
    for folder in results.folders():
        yield from faults_of_trial(folder, plan.get(folder.name))


def _fault(file: Path, error: Exception, *aside: Path) -> Fault:
    # The cure of a message is for who reads the file alone; here `--repair` is the cure.
    text = error.problems[0].message if isinstance(error, AblateError) else str(error)
    return Fault(file, text, aside)


def _test_split(results: Results) -> Iterator[Fault]:
    index, targets, images = (results.test / name for name in ("index.json", "targets.zip", "images.zip"))
    if not (index.exists() and targets.exists() and images.exists()):
        return  # a published folder leaves the images out
    try:
        count = len((read_json(index) or {}).get("names", []))
        found = len(unpack_maps(targets))
        if found != count:
            raise ResultsError(f"expected {count} targets, as index.json has names, got {found}")
        for number in range(count):
            unpack_image(images, number)
    except ResultsError as error:
        place = Path(error.problems[0].file or targets)
        # The three are written together, and only where there is no index.
        yield _fault(place, error, index, *([place] if place != index else []))


def faults_of_trial(folder: TrialFolder, planned: Mapping[str, Any] | None) -> Iterator[Fault]:
    """Find the damage of one trial; a trial whose record is put aside runs again."""
    try:
        refuse_link(folder.path)
        record = read_record(folder.record)
        if record is None:
            return
        _check_identity(folder, record, planned)
    except ResultsError as error:
        place = Path(error.problems[0].file or folder.record)
        yield _fault(place, error, *dict.fromkeys((place, folder.record)))
        return
    smaller: Mapping[str, str] = {}
    try:
        smaller = _made_smaller(folder, record)
    except ResultsError as error:
        yield _fault(Path(error.problems[0].file or folder.published), error, folder.published)
    weights = record.provenance.get("weights")
    for name, digest in {**record.files, **(weights if isinstance(weights, dict) else {})}.items():
        file = folder.path / name
        if name not in (*NUMBERS, *WEIGHTS):
            yield Fault(folder.record, f"a digest of '{name}', which is no file of a trial", (folder.record,))
        elif not file.exists():
            if name in KEPT:
                yield Fault(file, "missing, although the record was made with it", (folder.record,))
        elif folder.digests((name,)).get(name) not in (digest, smaller.get(name)):
            aside = (file,) if name in WEIGHTS else (file, folder.record)
            yield Fault(file, "its SHA-256 is not the one in the record", aside)
    for file, check in ((folder.epochs, _check_curves), (folder.images, _check_scores)):
        try:
            if record.status in ("complete", "diverged") and file.exists():
                check(folder, record)
        except ResultsError as error:
            yield _fault(Path(error.problems[0].file or file), error, file, folder.record)
    if folder.predictions.exists():
        try:
            unpack_maps(folder.predictions)
        except ResultsError as error:
            yield _fault(folder.predictions, error, folder.predictions, folder.record)


def _check_identity(folder: TrialFolder, record: Record, planned: Mapping[str, Any] | None) -> None:
    if not folder.name.endswith(f"-{record.key[:8]}"):
        raise ResultsError("the record of another trial than the folder's name says")
    # Not the variant: a trial that is reused keeps the name that the other study gave to the same settings.
    own = {"key": record.key, "settings": record.settings, "seed": record.seed}
    for name, value in own.items():
        if planned is not None and planned[name] != value:
            raise ResultsError(f"its {name} is not that of the plan in run.json")


def _check_curves(folder: TrialFolder, record: Record) -> None:
    """Raise `ResultsError` where the curves are not those of the record."""
    rows = read_lines(folder.epochs)
    epochs, metrics = record.metrics.get("epochs_run"), record.metrics
    if [row.get("epoch") for row in rows] != list(range(1, len(rows) + 1)):
        raise ResultsError("its epochs are not numbered 1, 2, …", file=str(folder.epochs))
    if epochs is not None and len(rows) != epochs:
        raise ResultsError(f"expected {epochs:.0f} epochs, as in the record, got {len(rows)}", file=str(folder.epochs))
    if rows and rows[-1].get("val_loss") != metrics.get("final_val_loss"):
        raise ResultsError("its last validation loss is not the record's", file=str(folder.epochs))
    best = metrics.get("best_epoch")
    scored = [row.get("val_mean_iou") for row in rows if best is not None and row["epoch"] == best]
    if best is not None and scored != [metrics.get("val_mean_iou")]:
        raise ResultsError("its mIoU at the best epoch is not the record's", file=str(folder.epochs))
    if folder.steps.exists() and record.status == "complete":
        size, steps = folder.steps.stat().st_size, metrics.get("steps_per_epoch")
        if epochs is not None and steps is not None and size != epochs * steps * STEP_BYTES:
            raise ResultsError("its length is not that of the steps in the record", file=str(folder.steps))


def _made_smaller(folder: TrialFolder, record: Record) -> Mapping[str, str]:
    """Return the digests of the files that were made smaller to be published.

    Raises `ResultsError` where what is said of them is not so: `measures` must lie within the rounding of the steps.
    """
    note = folder.note()
    if not note:
        return {}
    bits, files = note["significant_bits"], note["files"]
    if "steps.f32" not in files and not note["measures"]:
        return files
    steps = read_steps(folder.steps)
    if (steps[np.isfinite(steps)].view("<u4") & (2 ** (EXACT_BITS - bits) - 1)).any():
        found = f"it has more than the {bits} significant bits of {folder.published.name}"
        raise ResultsError(found, file=str(folder.steps))
    per_epoch = record.metrics.get("steps_per_epoch") or 1
    bounds = rounding_bounds(steps, max(1, int(per_epoch)) if math.isfinite(per_epoch) else 1, bits)
    for name, stated in note["measures"].items():
        least, most = bounds[name]
        if not least <= stated <= most:
            found = f"{name} is {stated:.4g} in it, and between {least:.4g} and {most:.4g} by the steps"
            raise ResultsError(found, file=str(folder.published))
    return files


def _check_scores(folder: TrialFolder, record: Record) -> None:
    """Raise `ResultsError` where the scores of the record are not those of the counts in `images.npz`."""
    for split, counts in read_arrays(folder.images, ("val", "test")).items():
        if counts.ndim != 3 or counts.shape[2] != 3 or not np.issubdtype(counts.dtype, np.integer):
            raise ResultsError(f"counts of shape {counts.shape}, not (N, C, 3)", file=str(folder.images))
        said = record.metrics.get(f"{split}_mean_iou")
        found = float(mean_iou(counts, axis=0))
        if said is not None and not math.isclose(said, found, rel_tol=0, abs_tol=1e-9):
            raise ResultsError(
                f"{split}_mean_iou is {said:.6f} in the record, and {found:.6f} by the counts",
                file=str(folder.record),
            )
