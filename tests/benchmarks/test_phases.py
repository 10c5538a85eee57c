"""Where the time of a run goes, from a folder whose times are set by hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ablate.records.record import Record
from ablate.records.store import Results, publish_record
from benchmarks.phases import phases

BEGAN = 1_700_000_000.0


def plant(results: Results, name: str, worker: int, begin: float, end: float, train: float) -> None:
    folder = results.trial(name)
    folder.path.mkdir(parents=True)
    folder.lock.touch()
    timing = {"train_s": train, "validation_s": 1.0, "test_s": 0.5}
    record = Record(
        key=name, study="s", variant="unet", settings={}, seed=0, model={}, data={}, train={"epochs": 1},
        status="complete", timing=timing, provenance={"pid": worker},
    )  # fmt: skip
    publish_record(folder, record)
    os.utime(folder.lock, (BEGAN + begin, BEGAN + begin))
    os.utime(folder.record, (BEGAN + end, BEGAN + end))


def test_phases_add_up_to_the_wall_clock(tmp_path: Path) -> None:
    results = Results(tmp_path)
    plant(results, "a1", 1, 4.0, 14.0, 7.0)
    plant(results, "a2", 1, 15.0, 21.0, 4.0)
    plant(results, "b1", 2, 6.0, 18.0, 9.0)
    found = phases(tmp_path, began=BEGAN, ended=BEGAN + 25.0)
    # Two workers: each phase is the mean of both. The first trial of worker 1 trained 3 s longer than its second.
    expected = {
        "start_up": 5.0, "training": 8.5, "warming_up": 1.5, "validation": 1.5, "test": 0.75, "rest_of_trials": 1.75,
        "between_trials": 0.5, "idle": 1.5, "closing": 4.0,
    }  # fmt: skip
    assert found == pytest.approx(expected)
    assert sum(found.values()) == pytest.approx(25.0)


def test_a_folder_without_trials_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no finished trials"):
        phases(tmp_path, began=BEGAN, ended=BEGAN)
