"""Work in several processes gives what one process gives, in order, and its errors."""

from __future__ import annotations

import os
import threading

import numpy as np
import pandas as pd
import pytest
from planted import plant

from ablate.analysis import detail_frames, folder, scores, spread
from ablate.analysis.analyse import analyse
from ablate.analysis.frames import load_results


@pytest.fixture
def four_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0, 1, 2, 3}, raising=False)


def test_results_come_in_order_and_from_other_processes(four_cores):
    found = spread.spread(lambda item: (item**2, os.getpid()), range(50))
    assert [square for square, _ in found] == [item**2 for item in range(50)]
    assert os.getpid() not in {process for _, process in found}


def test_an_error_is_raised_where_it_was_asked_for(four_cores):
    with pytest.raises(ZeroDivisionError):
        spread.spread(lambda item: 1 // item, [2, 1, 0])


def test_beside_other_threads_nothing_is_forked(four_cores):
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert spread.spread(lambda _item: os.getpid(), [1, 2]) == [os.getpid()] * 2
    finally:
        done.set()
        thread.join()


def test_cells_are_the_same_however_many_processes_make_them(tmp_path, monkeypatch, four_cores):
    frames = load_results(plant(tmp_path / "study", seeds=2, epochs=4, images=6, classes=4))
    alone = analyse(frames)
    for module in (detail_frames, folder, scores):
        monkeypatch.setattr(module, "MANY_TRIALS", 1)
    again = load_results(frames.path)
    pd.testing.assert_frame_equal(again.trials, frames.trials)
    pd.testing.assert_frame_equal(again.epochs, frames.epochs)
    pd.testing.assert_frame_equal(again.layers, frames.layers)
    read = [[one.source.kept(key).images for key in one.trials["key"]] for one in (frames, again)]  # type: ignore[attr-defined]
    assert [images is None for images in read[0]] == [images is None for images in read[1]]
    together = analyse(again)
    assert len(together.scores._cells) >= 16
    for column in ("delta", "low", "high"):
        assert np.array_equal(alone.contrasts[column], together.contrasts[column], equal_nan=True)
    assert len(alone.detail)
    pd.testing.assert_frame_equal(together.detail, alone.detail)
    pd.testing.assert_frame_equal(together.class_detail, alone.class_detail)
