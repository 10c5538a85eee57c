from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ablate.stats.untrained import blind_scores, trained


def mean_iou(preds: np.ndarray, target: np.ndarray) -> float:
    """Mean IoU over the classes of the target."""
    scores = [((preds == c) & (target == c)).sum() / ((preds == c) | (target == c)).sum() for c in np.unique(target)]
    return float(np.mean(scores))


def test_the_best_constant_prediction_is_the_commonest_class() -> None:
    target = np.repeat([0, 1, 3], [600, 300, 100])
    found = blind_scores(np.bincount(target, minlength=5))
    assert found.constant == pytest.approx(max(mean_iou(np.full(1000, c), target) for c in range(5)))
    assert (found.best, found.constant) == (0, pytest.approx(0.2))


def test_class_frequencies_are_a_prediction_by_lot() -> None:
    rng = np.random.default_rng(0)
    target = rng.choice(3, size=400_000, p=[0.6, 0.3, 0.1])
    found = blind_scores(np.bincount(target))
    assert found.frequencies == pytest.approx(mean_iou(rng.permutation(target), target), abs=0.002)


def test_the_higher_of_the_two_is_the_reference() -> None:
    assert blind_scores([50, 50]).score == pytest.approx(1 / 3)  # by lot: 1/3; constant: 1/4
    assert blind_scores([90, 10]).score == pytest.approx(0.45)  # by lot: 0.435
    assert blind_scores([7]).score == 1


def test_a_target_without_a_pixel_has_no_reference() -> None:
    found = blind_scores([0, 0])
    assert np.isnan([found.constant, found.frequencies]).all()
    assert trained([0.5, 0.6], found.score) == "unclear"


def test_a_cell_is_beyond_its_reach_or_not() -> None:
    assert trained([0.31, 0.30, 0.32], 0.10) == "trained"
    assert trained([0.10, 0.105, 0.108], 0.10) == "untrained"
    assert trained([0.05], 0.10) == "untrained"
    assert trained([0.5], 0.10) == "unclear"
    assert trained([0.1, 0.9, 0.11], 0.10) == "unclear"
    assert trained([], 0.10) == "unclear"


def test_the_bound_is_a_one_sided_t_test() -> None:
    scores = np.array([0.12, 0.14, 0.13, 0.125])
    limit = stats.ttest_1samp(scores, 0.0, alternative="greater").confidence_interval(0.95).low
    assert trained(scores, float(limit) - 0.01 - 1e-6) == "trained"
    assert trained(scores, float(limit) - 0.01 + 1e-6) == "unclear"
