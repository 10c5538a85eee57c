"""Holm, equivalence and the four words of the primary decision."""

from __future__ import annotations

from math import isnan, nan, sqrt

import numpy as np
import pytest
from scipy import stats

from ablate.stats.decisions import blind_score, decide, equivalence_p, holm, trained
from ablate.stats.intervals import Estimate, from_standard_error


def estimate(value: float, se: float, df: float = 8) -> Estimate:
    return from_standard_error(value, se, df, n=5, confidence=0.95, method="test")


def test_holm_by_hand() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.5]) == pytest.approx([1.0, 1.0])
    assert holm([]).size == 0


def test_holm_keeps_an_unknown_p_in_the_family() -> None:
    adjusted = holm([0.02, nan, 0.02])
    assert isnan(adjusted[1])
    assert adjusted[0] == pytest.approx(0.06)


def test_equivalence_is_two_one_sided_tests() -> None:
    ours = equivalence_p(estimate(0.001, 0.001), 0.005)
    assert ours == pytest.approx(stats.t.sf(4, 8))
    assert isnan(equivalence_p(Estimate(0.0, nan, nan), 0.005))


def test_the_four_decisions() -> None:
    decisions = decide(
        [estimate(0.03, 0.002), estimate(-0.03, 0.002), estimate(0.0002, 0.0005), estimate(0.004, 0.004)], rope=0.005
    )
    assert [d.verdict for d in decisions] == ["better", "worse", "equivalent", "undecided"]


def test_a_sure_difference_inside_the_rope_counts_as_none() -> None:
    assert decide([estimate(0.002, 0.0002)], rope=0.005)[0].verdict == "equivalent"


def test_holm_takes_back_what_one_contrast_alone_would_decide() -> None:
    alone = estimate(0.03, 0.011)
    assert alone.p < 0.05
    assert decide([alone], rope=0.005)[0].verdict == "better"
    three = decide([alone, estimate(0.0, 0.01), estimate(0.0, 0.01)], rope=0.005)
    assert three[0].verdict == "undecided"
    assert three[0].p_holm == pytest.approx(3 * alone.p)


def test_no_interval_is_undecided() -> None:
    made = decide([from_standard_error(0.4, nan, nan, n=1, confidence=0.95, method="test")], rope=0.005)[0]
    assert made.verdict == "undecided"


def test_false_decisions_over_a_family_of_no_difference_keep_the_level() -> None:
    """Three contrasts with one baseline, all equal: some decision in at most 5 % of the draws."""
    rng = np.random.default_rng(0)
    draws, n, wrong = 1500, 5, 0
    for _ in range(draws):
        x = rng.normal(0, 0.02, (4, n))
        var = x.var(axis=1, ddof=1) / n
        family = [estimate(x[i].mean() - x[0].mean(), sqrt(var[i] + var[0])) for i in (1, 2, 3)]
        wrong += any(d.verdict in ("better", "worse") for d in decide(family, rope=0.0001))
    assert wrong / draws <= 0.05 + 3 * sqrt(0.05 * 0.95 / draws)
    assert wrong / draws >= 0.02  # and the level is used, not left lying


def test_false_equivalence_keeps_the_level() -> None:
    """True differences at the edge of the rope: called equivalent in at most 5 % of the draws."""
    rng = np.random.default_rng(1)
    draws, wrong = 2000, 0
    for _ in range(draws):
        se = 0.001 * sqrt(rng.chisquare(8) / 8)
        wrong += decide([estimate(rng.normal(0.005, 0.001), se)], rope=0.005)[0].verdict == "equivalent"
    assert wrong / draws <= 0.05 + 3 * sqrt(0.05 * 0.95 / draws)


def mean_iou(preds: np.ndarray, target: np.ndarray) -> float:
    """Mean IoU over the classes of the target."""
    scores = [((preds == c) & (target == c)).sum() / ((preds == c) | (target == c)).sum() for c in np.unique(target)]
    return float(np.mean(scores))


def test_without_an_image_the_commonest_class_or_a_draw_by_lot_scores_best() -> None:
    rng = np.random.default_rng(0)
    target = rng.choice(3, size=400_000, p=[0.5, 0.3, 0.2])
    assert blind_score(np.bincount(target)) == pytest.approx(mean_iou(rng.permutation(target), target), abs=0.002)
    rare = np.repeat([0, 1, 3], [900, 60, 40])
    constant = max(mean_iou(np.full(1000, c), rare) for c in range(5))
    assert constant == pytest.approx(blind_score(np.bincount(rare, minlength=5))) == pytest.approx(0.3)
    assert blind_score([90, 10]) == pytest.approx(0.45)  # by lot: 0.435
    assert blind_score([50, 50]) == pytest.approx(1 / 3)  # by lot: 1/3; constant: 1/4
    assert blind_score([7]) == 1
    assert np.isnan(blind_score([0, 0])) and trained([0.5, 0.6], blind_score([0, 0])) == "unclear"


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
