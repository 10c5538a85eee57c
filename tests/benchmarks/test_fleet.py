"""The simulated cluster: whatever befalls its workers, every trial has one record, and a lost step is counted."""

from __future__ import annotations

from pathlib import Path

import tests.tiny_plugin  # noqa: F401 (registers the tiny components)
from ablate.plugins import Plugins
from ablate.records.record import Record
from ablate.run.setup import prepare, writable
from ablate.study.reader import read_study
from benchmarks.fleet import DRAWING, LOOKING, World, render, simulate
from tests.run.conftest import PLUGIN, STUDY


def test_dying_workers_stragglers_and_a_storage_that_pauses_cost_no_trial(tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(STUDY.replace("seeds: 1", "seeds: 25").replace("run: {", "run: {attempts: 9, "))
    prepared = prepare(read_study(study), writable(tmp_path / "out"), plugins=Plugins(), allow_code_change=False)
    world = World(20, trial_seconds=30.0, start_seconds=5.0, checkpoint_seconds=5.0, death_every=100.0, stragglers=0.1)
    record = Record.of(prepared.plan[0], "complete", reason=None, metrics={"best_epoch": 1.0, "val_mean_iou": 0.5})
    row = simulate(prepared, world, record, plugins=Plugins(files=(PLUGIN,)))
    assert (row["trials"], row["records"], row["doubled"], row["failed"]) == (100, 100, 0, 0)
    assert row["events"]["workers died"] > 10 and row["events"]["stragglers"] > 2
    assert 0 < row["repeated"] < row["lost"] < 0.5
    least = 100 * world.trial_seconds * 0.8 / world.workers
    assert least < row["simulated_s"] < 10 * least
    assert {LOOKING, DRAWING, "the Optuna mirror", "reading records"} <= row["parts_ms"].keys()
    assert "| records; doubled; failed | 100; 0; 0 |" in render([row], "command", "machine")
