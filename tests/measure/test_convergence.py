"""Convergence: the verdicts on planted curves, false alarms under dependent noise."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import ArrayLike
from scipy import stats

from ablate.measure.convergence import (
    continuation,
    convergence,
    ends_near_zero,
    late_epochs,
    projected_gain,
    realised_gain,
    theil_sen_slope,
)
from ablate.stats.intervals import t_interval


def ar1(rng: np.random.Generator, shape: tuple[int, ...], phi: float) -> np.ndarray:
    """Stationary AR(1) noise of unit variance along the last axis."""
    noise = rng.standard_normal(shape)
    for t in range(1, shape[-1]):
        noise[..., t] = phi * noise[..., t - 1] + np.sqrt(1 - phi**2) * noise[..., t]
    return noise


def test_late_epochs() -> None:
    assert [late_epochs(e) for e in (1, 12, 25, 26, 60, 100, 101, 1000)] == [5, 5, 5, 6, 12, 20, 20, 20]


def test_projected_gain_of_a_line_is_its_slope_times_the_window() -> None:
    curve = np.concatenate([np.zeros(40), 0.002 * np.arange(10)])
    assert projected_gain(curve).value == pytest.approx(0.02)
    assert projected_gain(curve[:4]).reason == "4 epochs; a late slope needs 5"
    curve[-1] = np.nan
    assert np.isnan(projected_gain(curve).value)


def test_verdicts_on_planted_curves() -> None:
    def lines(gains: ArrayLike) -> np.ndarray:
        return 0.6 + np.array(gains)[:, None] / 10 * np.arange(50)

    spread = np.array([-0.002, -0.001, 0.0, 0.001, 0.002])
    half = stats.t.ppf(0.95, 4) * np.sqrt(2.5e-6 / 5)
    for centre, verdict in ((0.03, "under-converged"), (0.0, "converged"), (-0.03, "converged")):
        found = convergence(lines(centre + spread))
        assert found.verdict == verdict
        assert (found.gain, found.low, found.high) == pytest.approx((centre, centre - half, centre + half))
    # The bounds decide, not the mean: just inside of one half-width of the threshold nothing is said.
    for centre, verdict in (
        (0.005 + 1.01 * half, "under-converged"),
        (0.005 + 0.99 * half, "inconclusive"),
        (0.005 - 0.99 * half, "inconclusive"),
        (0.005 - 1.01 * half, "converged"),
    ):
        assert convergence(lines(centre + spread)).verdict == verdict


def test_two_seeds_never_suffice() -> None:
    curves = np.tile(0.01 * np.arange(30), (2, 1))
    found = convergence(curves)
    assert found.verdict == "inconclusive"
    assert found.gain == pytest.approx(0.06)
    assert "needs 3" in found.reason


def test_a_seed_without_a_late_slope_is_left_out_and_said_so() -> None:
    curves = [0.01 * np.arange(30) for _ in range(3)] + [np.array([0.1, np.nan])]
    found = convergence(curves)
    assert (found.verdict, found.seeds) == ("under-converged", 3)
    assert "1 of 4 seeds left out" in found.reason


def test_realised_gain_is_the_difference_of_two_windows() -> None:
    # Rises by 0.01 an epoch to the budget of 30 (k = 6), then by 0.001 an epoch.
    curve = np.concatenate([0.01 * np.arange(30), 0.29 + 0.001 * np.arange(1, 31)])
    assert realised_gain(curve, 30).value == pytest.approx(0.29 + 0.001 * 27.5 - 0.01 * 26.5)
    # Noise without a trend gives nothing on average, though the best value grows with the number of epochs.
    noise = np.random.default_rng(0).standard_normal((4000, 60))
    gains = [realised_gain(row, 30).value for row in noise]
    assert abs(np.mean(gains)) < 3 * np.sqrt(2 / 6 / 4000)
    assert np.mean(noise.max(axis=1) - noise[:, :30].max(axis=1)) > 0.2
    assert realised_gain(curve[:35], 30).reason == "35 epochs; the gain beyond 30 needs 36"
    assert realised_gain(curve, 4).reason == "60 epochs; the gain beyond 4 needs 10"
    curve[-1] = np.nan
    assert not realised_gain(curve, 30).known


def test_training_on_decides_what_the_projection_could_not() -> None:
    seeds = 0.001 * np.array([-1, 0, 1])[:, None]
    flat, steep = np.full(30, 0.6), 0.6 + 0.004 * np.arange(30)
    late = np.concatenate([flat, steep])  # a plateau before the next rise: the projection sees nothing coming
    assert convergence(late[:30] + seeds).verdict == "converged"
    found = continuation(late + seeds * np.arange(60), 30)
    assert (found.verdict, found.seeds) == ("under-converged", 3)
    assert found.gain == pytest.approx(0.004 * 26.5)
    assert "of the realised gain lies above" in found.reason
    assert continuation(np.concatenate([flat, flat]) + seeds, 30).verdict == "converged"
    assert continuation((late + seeds)[:2], 30).reason == "2 seeds with a gain; a verdict needs 3"


def test_no_verdict_where_the_schedule_makes_its_own_plateau() -> None:
    t = np.arange(12)
    cosine, poly = 0.5 * (1 + np.cos(np.pi * t / 12)), (1 - t / 12) ** 0.9
    curves = np.tile(0.6, (5, 12))
    for rates in (cosine, poly, (1 - np.arange(5) / 5) ** 0.9):
        assert ends_near_zero(rates)
        assert convergence(curves, rates=rates).verdict == "none"
    warm = np.minimum(1.0, (t + 1) / 3)
    assert not ends_near_zero(warm)
    assert convergence(curves, rates=warm).verdict == "converged"


def test_t_interval_against_scipy() -> None:
    values = np.array([0.1, 0.4, 0.2, 0.7])
    mean, low, high = t_interval(values, 0.9)
    expected = stats.t.interval(0.9, 3, loc=values.mean(), scale=stats.sem(values))
    assert (low, high) == pytest.approx(expected)
    assert mean == pytest.approx(0.35)


def test_false_alarms_over_seeds_stay_near_nominal_under_dependent_noise() -> None:
    """Five seeds, AR(1) 0.6: the t verdict at the threshold alarms near 5 %, a trend test on one run far above."""
    rng = np.random.default_rng(11)
    studies, seeds, k = 3000, 5, 20
    trend = 0.005 / k * np.arange(k)  # a true projected gain of exactly the threshold
    curves = 0.6 + trend + 0.01 * ar1(rng, (studies, seeds, k), 0.6)
    gains = theil_sen_slope(curves) * k
    half = stats.t.ppf(0.95, seeds - 1) * gains.std(axis=-1, ddof=1) / np.sqrt(seeds)
    too_short = gains.mean(axis=-1) - half > 0.005
    settled = gains.mean(axis=-1) + half < 0.005
    # Two standard errors of a share of .05 in 3,000 draws are .008; tails heavier than normal cost a little more.
    assert too_short.mean() == pytest.approx(0.05, abs=0.015)
    assert settled.mean() == pytest.approx(0.05, abs=0.015)
    # The function itself says the same of the first studies.
    padded = np.concatenate([np.full((200, seeds, 80), 0.6), curves[:200]], axis=-1)
    said = [convergence(study).verdict for study in padded]
    assert [verdict == "under-converged" for verdict in said] == too_short[:200].tolist()
    assert [verdict == "converged" for verdict in said] == settled[:200].tolist()
    single = curves[:600, 0] - trend
    alarms = [stats.kendalltau(np.arange(k), run).pvalue < 0.05 for run in single]
    assert np.mean(alarms) > 0.2


def test_slope_equals_scipy() -> None:
    values = np.random.default_rng(0).standard_normal((6, 13))
    ours = theil_sen_slope(values)
    assert ours == pytest.approx([stats.theilslopes(row, np.arange(13)).slope for row in values])


def test_slope_of_a_very_long_line() -> None:
    assert theil_sen_slope(0.25 * np.arange(3001)) == pytest.approx(0.25)
