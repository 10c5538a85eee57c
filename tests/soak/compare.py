"""What a disturbed study lost, did twice or did otherwise, next to the undisturbed one."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

# What two runs of one trial may differ in: when and where it was computed.
FREE = ("timing", "provenance")
# Compared byte by byte: the curves, the counts of every image, the predicted masks, the weights that were tested.
FILES = ("epochs.jsonl", "steps.f32", "images.npz", "predictions.zip", "best.pt")
# A state that can be resumed, which a finished trial no longer needs.
SPENT = ("checkpoint.pt", "checkpoint.previous.pt")


@dataclass
class Comparison:
    """Trials that are lost, doubled or unequal, and files that should not be there any more."""

    wanted: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    unequal: list[str] = field(default_factory=list)
    litter: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """True where nothing is lost, doubled or unequal."""
        return not (self.lost or self.doubled or self.unequal)


def compare(undisturbed: Path, disturbed: Path) -> Comparison:
    """Compare two results folders of one study, trial by trial; the first is taken to be right."""
    expected = {folder.name: folder for folder in sorted((undisturbed / "trials").iterdir()) if _record(folder)}
    found = {folder.name: folder for folder in sorted((disturbed / "trials").iterdir()) if folder.is_dir()}
    result = Comparison(wanted=len(expected))
    for name, folder in expected.items():
        if name not in found or _record(found[name]) is None:
            result.lost.append(name)
        elif differing := _differences(folder, found[name]):
            result.unequal.append(f"{name}: {', '.join(differing)}")
    keys = Counter(record["key"] for folder in found.values() if (record := _record(folder)) is not None)
    result.doubled += [f"record of {key[:8]}" for key, count in keys.items() if count > 1]
    result.doubled += [f"Optuna trial of {key[:8]}" for key, count in _optuna(disturbed).items() if count > 1]
    result.doubled += [f"record of no trial: {name}" for name in found if name not in expected and _record(found[name])]
    result.litter += [str(path.relative_to(disturbed)) for path in disturbed.rglob("*.part")]
    result.litter += [f"{name}/{file}" for name, folder in found.items() for file in SPENT if (folder / file).exists()]
    return result


def _record(folder: Path) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads((folder / "record.json").read_bytes())
    except FileNotFoundError:
        return None
    return record


def _differences(expected: Path, found: Path) -> list[str]:
    """Return the fields of the record and the files in which two folders of one trial differ, with what is there."""
    left, right = _record(expected) or {}, _record(found) or {}
    fields = sorted((left.keys() | right.keys()) - set(FREE))
    differing = [f"{name} {right.get(name)!r}" for name in fields if left.get(name) != right.get(name)]
    return differing + [name for name in FILES if _bytes(expected / name) != _bytes(found / name)]


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _optuna(results: Path) -> Counter[str]:
    """Return how many completed Optuna trials there are of each trial key."""
    storage = JournalStorage(JournalFileBackend(str(results / "optuna.log")))
    (study,) = optuna.study.get_all_study_summaries(storage)
    trials = optuna.load_study(study_name=study.study_name, storage=storage).trials
    return Counter(trial.user_attrs["key"] for trial in trials if trial.state == optuna.trial.TrialState.COMPLETE)
