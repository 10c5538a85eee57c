"""The cells under the bootstrap: the vector of scores, the seeds of a cell, and what is kept between contrasts."""

from __future__ import annotations

import numpy as np
import pytest

from ablate.analysis.analyse import Analysis
from ablate.analysis.scores import StudyScores, mean_and_classes
from tests.planted_counts import draw_study


def test_the_vector_is_the_mean_and_the_classes() -> None:
    sums = np.array([[6.0, 2, 2], [0, 0, 0], [1, 3, 0]])  # the second class is nowhere
    assert mean_and_classes(sums).tolist() == pytest.approx([(0.6 + 0.25) / 2, 0.6, np.nan, 0.25], nan_ok=True)
    stack = np.stack([sums, np.zeros_like(sums)])
    assert np.isnan(mean_and_classes(stack)[1]).all()


def test_replicates_of_a_cell_average_its_seeds(planted_analysis: Analysis) -> None:
    scores = planted_analysis.scores
    cell = scores.cell("unet", "lr=3e-4")
    trials = planted_analysis.frames.trials.query("variant == 'unet' and lr == 3e-4")
    assert cell.val == pytest.approx(trials["val_mean_iou"].mean())
    assert cell.test[0] == pytest.approx(trials["test_mean_iou"].mean())
    assert cell.test[0] == pytest.approx(cell.test[1:].mean())
    assert cell.test_draws.shape == (400, 6)
    assert scores.cell("unet", "lr=3e-4") is cell  # made once


def test_members_are_the_seeds_with_a_result(planted_analysis: Analysis) -> None:
    scores = planted_analysis.scores
    assert [seed.status for seed in scores.members("noskip", "lr=1e-3")] == ["complete", "diverged", "complete"]
    assert scores.counts("test", "noskip", "lr=1e-3")[1] is None
    assert len(scores.members("residual", "lr=1e-3")) == 2
    assert scores.members("residual", None) == []
    assert scores.unfinished("residual", "lr=1e-3")
    assert scores.unfinished("residual", None)
    assert not scores.unfinished("residual", "lr=3e-4")


def test_a_cell_of_diverged_seeds_is_zero_throughout() -> None:
    gone = [("b", 3e-4, seed) for seed in range(3)]
    frames = draw_study(np.random.default_rng(0), effects={"a": [0.0], "b": [0.0]}, lrs=(3e-4,), seeds=3, diverged=gone)
    scores = StudyScores(frames)
    cell = scores.cell("b", "lr=3e-4")
    assert (cell.val, cell.seeds) == (0.0, 3)
    assert not cell.test_draws.any()
    assert cell.test_draws.shape == scores.cell("a", "lr=3e-4").test_draws.shape
    assert scores.variance("b", "lr=3e-4").between_runs == 0.0


def test_the_share_of_replicates_that_choose_again() -> None:
    frames = draw_study(np.random.default_rng(1), effects={"a": [0.0, 1.0], "b": [0.0, 0.0]}, lrs=(1e-3, 3e-4))
    scores = StudyScores(frames)
    assert scores.stability_of_choice("a", "lr=3e-4") == 1.0  # far better
    both = [scores.stability_of_choice("b", setting) for setting in ("lr=1e-3", "lr=3e-4")]
    assert sum(both) == pytest.approx(1.0)
    assert max(both) < 1.0


def test_a_study_without_a_complete_trial_has_no_images_to_draw() -> None:
    gone = [("a", 3e-4, seed) for seed in range(2)]
    frames = draw_study(np.random.default_rng(0), effects={"a": [0.0]}, lrs=(3e-4,), seeds=2, diverged=gone)
    with pytest.raises(ValueError, match="no trial is complete"):
        _ = StudyScores(frames).bootstrap
