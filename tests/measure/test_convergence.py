"""Convergence: the verdicts on planted curves, false alarms under dependent noise."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import ArrayLike
from scipy import stats

from ablate.measure.convergence import continuation, convergence, late_epochs, realised_gain
from ablate.stats.intervals import t_interval


def ar1(rng: np.random.Generator, shape: tuple[int, ...], phi: float) -> np.ndarray:
    """Stationary AR(1) noise of unit variance along the last axis."""
    noise = rng.standard_normal(shape)
    for t in range(1, shape[-1]):
        noise[..., t] = phi * noise[..., t - 1] + np.sqrt(1 - phi**2) * noise[..., t]
    return noise


def test_late_epochs() -> None:
    assert [late_epochs(e) for e in (1, 12, 25, 26, 60, 100, 101, 1000)] == [5, 5, 5, 6, 12, 20, 20, 20]


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
    curves = np.tile(0.6, (5, 12))
    assert convergence(curves, decays=True).verdict == "none"
    assert convergence(curves).verdict == "converged"


def test_t_interval_against_scipy() -> None:
    values = np.array([0.1, 0.4, 0.2, 0.7])
    mean, low, high = t_interval(values, 0.9)
    expected = stats.t.interval(0.9, 3, loc=values.mean(), scale=stats.sem(values))
    assert (low, high) == pytest.approx(expected)
    assert mean == pytest.approx(0.35)


def test_false_alarms_over_seeds_stay_near_nominal_under_dependent_noise() -> None:
    """Five seeds, AR(1) 0.6: with exactly the threshold to come the verdict is under-converged in about 5 %."""
    rng = np.random.default_rng(11)
    studies, seeds, epochs = 300, 5, 100
    trend = 0.005 / late_epochs(epochs) * np.arange(epochs)
    curves = 0.6 + trend + 0.01 * ar1(rng, (studies, seeds, epochs), 0.6)
    said = [convergence(study).verdict for study in curves]
    assert stats.binomtest(said.count("under-converged"), studies, 0.05, alternative="greater").pvalue > 0.05
    assert stats.binomtest(said.count("converged"), studies, 0.05, alternative="greater").pvalue > 0.05
    single = curves[:200, 0, -20:] - trend[-20:]
    alarms = [stats.kendalltau(np.arange(20), run).pvalue < 0.05 for run in single]
    assert np.mean(alarms) > 0.2


@pytest.mark.parametrize("to_come", [0.003, 0.004])
def test_a_curve_that_bends_is_not_taken_for_a_line(to_come: float) -> None:
    """A saturating curve with less than the threshold to come."""
    rng = np.random.default_rng(5)
    studies, seeds, epochs = 200, 5, 60
    ahead, decay = late_epochs(epochs), 12.0
    rest = np.exp(-np.arange(epochs) / decay)
    height = to_come / (rest[-1] * (1 - np.exp(-ahead / decay)))
    curves = 0.7 - height * rest + 0.0015 * rng.standard_normal((studies, seeds, epochs))
    under = [convergence(study).verdict for study in curves].count("under-converged")
    assert stats.binomtest(under, studies, 0.05, alternative="greater").pvalue > 0.05, under
