"""The loader: folders read by one process or several, plugins' measures, and files that are not what they should be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ablate.analysis import fine_detail, load
from ablate.analysis.analyse import analyse
from ablate.analysis.frames import load_results
from ablate.errors import ResultsError
from ablate.measure import TrialArrays
from ablate.registry import MEASURES, register_measure
from tests.planted import plant


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return plant(tmp_path / "study", variants=("unet", "noskip"), lrs=(1e-3, 3e-4), seeds=2, epochs=4, images=6)


@pytest.fixture
def _registered() -> Iterator[None]:
    """Forget what a test registered."""
    before = dict(MEASURES._known())
    yield
    MEASURES._entries.clear()
    MEASURES._entries.update(before)


def test_frames_are_the_same_however_many_processes_read_and_score(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = load_results(small)
    alone = analyse(frames)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0, 1, 2}, raising=False)
    monkeypatch.setattr(load, "MANY_TRIALS", 1)
    monkeypatch.setattr(fine_detail, "MANY_PIXELS", 1)
    again = load_results(small)
    pd.testing.assert_frame_equal(again.trials, frames.trials)
    pd.testing.assert_frame_equal(again.epochs, frames.epochs)
    pd.testing.assert_frame_equal(again.layers, frames.layers)
    together = analyse(again)
    pd.testing.assert_frame_equal(together.contrasts, alone.contrasts)
    assert len(alone.detail)
    pd.testing.assert_frame_equal(together.detail, alone.detail)
    pd.testing.assert_frame_equal(together.class_detail, alone.class_detail)


@pytest.mark.usefixtures("_registered")
def test_a_registered_measure_is_a_column_of_trials_and_cells(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @register_measure("last_val_loss", title="last val loss", unit="nats", section="stability", order=500)
    def last(trial: TrialArrays) -> float:
        return float(trial.epochs["val_loss"][-1])

    @register_measure("share_of_first_class")
    def share(trial: TrialArrays) -> float:
        if trial.steps_per_epoch < 100:
            raise ValueError("the epochs are too short")
        return 1.0

    assert (MEASURES["last_val_loss"].unit, MEASURES["share_of_first_class"].title) == ("nats", "share of first class")
    monkeypatch.setattr(load, "MANY_TRIALS", 1)  # other processes would not know them
    frames = load_results(small)
    analysis = analyse(frames)
    ended = frames.trials[frames.trials["status"].isin(load.ENDED)]
    expected = [frames.arrays[key].curves[-1, 2] for key in ended["key"]]
    assert np.allclose(ended["last_val_loss"], expected, equal_nan=True)
    cell = analysis.cells.query("variant == 'unet' and lr == 3e-4").iloc[0]
    of_cell = ended.query("variant == 'unet' and lr == 3e-4")["last_val_loss"]
    assert cell["last_val_loss"] == pytest.approx(of_cell.mean())
    row = analysis.stability.query("variant == 'unet' and lr == 3e-4 and measure == 'last_val_loss'").iloc[0]
    assert row["mean"] == cell["last_val_loss"] and row["low"] < row["mean"] < row["high"]
    assert frames.trials["share_of_first_class"].isna().all()
    assert {reasons["share_of_first_class"] for reasons in ended["missing"]} == {"the epochs are too short"}


def test_files_that_hold_something_else_are_refused_with_their_names(small: Path) -> None:
    frames = load_results(small)
    keys = frames.trials["key"].tolist()
    folders = [Path(folder) for folder in frames.trials["folder"]]
    np.savez(folders[0] / "images.npz", val=np.zeros((2, 3)), test=np.zeros((2, 3, 3)), test_loss=np.zeros(2))
    (folders[1] / "epochs.jsonl").write_text("no JSON\n{}\n")
    np.save(folders[2] / "images.npy", np.zeros(3))
    (folders[2] / "images.npy").rename(folders[2] / "images.npz")
    again = load_results(small)
    rows = again.trials.to_dict("records")
    assert [row["status"] for row in rows[:3]] == ["missing", "complete", "missing"]
    assert "counts of shape (2, 3), not (N, C, 3)" in rows[0]["reason"]
    assert "not a readable zip" in rows[2]["reason"]
    with pytest.raises(ResultsError, match=r"epochs\.jsonl:1: a line is not valid JSON"):
        _ = again.arrays[keys[1]].curves
    assert "a line is not valid JSON" in rows[1]["missing"]["late_oscillation"]
    assert frames.counts(keys[0])["val"].ndim == 3  # what was read before stays
