"""`ablate merge`: the trials of two results folders of one study in one folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablate.errors import ResultsError
from ablate.records.files import lock, make_folder, placed, refuse_links, write_atomic
from ablate.records.record import FINISHED, Record, computed_by, computed_differently
from ablate.records.store import TRIAL_FILES, Results, TrialFolder, read_record, to_json
from ablate.run.setup import writable
from ablate.run.status import lock_note
from ablate.wording import count_of

# What numbers of one table have to have in common. Another release of PyTorch is said on the page and not refused.
ALIKE = ("processor", "engine", "precision")


def refuse_mixture(found: Iterable[Mapping[str, str]], place: Path | str, *, key: str = "") -> None:
    """Raise `ResultsError` where `computed_by` of several records differs in device, engine or precision."""
    kinds = [{name: one[name] for name in ALIKE if name in one} for one in found]
    if differ := computed_differently(kinds):
        raise ResultsError(
            f"trials that were not computed alike: {'; '.join(differ)}",
            key=key,
            file=str(place),
            cure="keep them in folders of their own, or pass --mixed-devices: the page then says so",
        )


def check_alike(folders: Iterable[Path], own: Mapping[str, str], place: Path) -> None:
    """Raise `ResultsError` where the trials in `folders` were not computed as `own` says that this run computes."""
    records = [read_record(folder / "record.json") for folder in folders]
    found = [computed_by(record.provenance) for record in records if record is not None]
    refuse_mixture([*found, own], place, key="run.reuse")


def merge(left: Path, right: Path, out: Path, *, mixed_devices: bool, say: Callable[[str], None] = print) -> int:
    """Write the trials of two folders of one study to the new or empty folder `out`; return 0.

    Raises `ResultsError`, before anything is written, where the folders are of different studies or data, where a
    trial that both have came out differently, or where (without `mixed_devices`) trials were not computed alike.
    """
    sides = (Results(left), Results(right))
    for results in sides:
        refuse_links(results.path)
    runs = [results.read_run() for results in sides]
    _check_same_study(sides, runs)
    trials = [_finished(results) for results in sides]
    _check_equal(sides, trials)
    if not mixed_devices:
        refuse_mixture((computed_by(record.provenance) for side in trials for _, record in side.values()), right)
    if out.exists() and Results(out).is_marked():
        raise ResultsError("results stand here already", file=str(out), cure="choose a new folder with --out")
    place = writable(out)
    with placed(out), lock(place.lock, lock_note()) as held:
        if not held:
            raise ResultsError("another run holds this folder", file=str(out), cure="wait for it")
        # In a folder of its own first: a merge that is broken off while it copies leaves nothing that hinders the next.
        merged = Results(out / ".probe-merge")
        shutil.rmtree(merged.path, ignore_errors=True)
        make_folder(merged.path)
        try:
            _fill(merged, sides, runs, trials, command=f"ablate merge {left} {right} --out {out}")
            marks = (merged.resolved, merged.run)  # of a results folder
            for item in sorted(merged.path.iterdir(), key=lambda item: item in marks):
                item.rename(out / item.name)
        finally:
            shutil.rmtree(merged.path, ignore_errors=True)
    both = len(trials[0].keys() & trials[1].keys())
    count = len(trials[0].keys() | trials[1].keys())
    say(f"{count_of(count, 'trial')} in {out} ({len(trials[0])} and {len(trials[1])}, {both} of them in both)")
    return 0


def _fill(
    merged: Results,
    sides: Sequence[Results],
    runs: Sequence[dict[str, Any]],
    trials: Sequence[dict[str, tuple[TrialFolder, Record]]],
    command: str,
) -> None:
    """Write what both sides have into a new folder."""
    for key in sorted(trials[0].keys() | trials[1].keys()):
        # The copy that has more of the trial: a published one lacks predictions, weights and digits of its steps.
        copies = sorted((side[key][0] for side in trials if key in side), key=lambda one: one.published.exists())
        fullest = max(copies, key=lambda folder: sum((folder.path / name).exists() for name in TRIAL_FILES))
        merged.trial(fullest.name).copy_from(fullest)
    # The folder whose plan is the larger says what the study is.
    first = 0 if len(runs[0]["plan"]) >= len(runs[1]["plan"]) else 1
    plan = {entry["key"]: entry for run in (runs[1 - first], runs[first]) for entry in run["plan"]}
    for source in (sides[first].path / "data.json", sides[first].profile):
        if source.exists():
            shutil.copyfile(source, merged.path / source.name)
    if sides[first].test.is_dir():
        shutil.copytree(sides[first].test, merged.test)
    shutil.copyfile(sides[first].study, merged.resolved)
    write_atomic(merged.run, to_json(runs[first] | {"plan": list(plan.values()), "command": command}))


def _finished(results: Results) -> dict[str, tuple[TrialFolder, Record]]:
    found = {}
    for folder in results.folders():
        record = read_record(folder.record)
        if record is not None and record.status in FINISHED:
            found[record.key] = (folder, record)
    return found


def _check_same_study(sides: tuple[Results, Results], runs: list[dict[str, Any]]) -> None:
    for results, run in zip(sides, runs, strict=True):
        if not results.is_marked() or "plan" not in run:
            raise ResultsError("no results here", file=str(results.path), cure="name a results folder")
    for name, get in (
        ("studies", lambda run: run["study"]),
        ("data", lambda run: run["data"]["fingerprint"]),
        ("resolutions of the scores", lambda run: run["data"].get("resolution", "trained")),
    ):
        values = [get(run) for run in runs]
        if values[0] != values[1]:
            what = f"other {name} ({values[1]}) than in {sides[0].path} ({values[0]})"
            raise ResultsError(what, file=str(sides[1].path), cure="only folders of one study can be merged")


def _check_equal(sides: tuple[Results, Results], trials: list[dict[str, tuple[TrialFolder, Record]]]) -> None:
    """Raise `ResultsError` with every trial that both sides have and whose records differ."""
    free = {"timing", "provenance"}
    differ = [
        trials[0][key][0].name
        for key in trials[0].keys() & trials[1].keys()
        if trials[0][key][1].model_dump(exclude=free) != trials[1][key][1].model_dump(exclude=free)
    ]
    if differ:
        names = ", ".join(sorted(differ)[:3]) + (" …" if len(differ) > 3 else "")
        raise ResultsError(
            f"{count_of(len(differ), 'trial')} came out differently in {sides[0].path}: {names}",
            file=str(sides[1].path),
            cure="`ablate verify` says whether one is damaged; else run them in one folder on one kind of device",
        )
