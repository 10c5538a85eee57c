from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from ablate.stats.saturation import projected_gain


def noise(rng: np.random.Generator, seeds: int, epochs: int) -> np.ndarray:
    """Levels of the seeds (SD 0.01) and AR(1) noise of their epochs (SD 0.006, correlation 0.6)."""
    steps = rng.normal(size=(seeds, epochs + 50)) * np.sqrt(1 - 0.6**2)
    wander = signal.lfilter([1.0], [1.0, -0.6], steps, axis=-1)[:, 50:]
    return np.asarray(0.01 * rng.normal(size=(seeds, 1)) + 0.006 * wander)


def saturating(epochs: int, ahead: int, gain: float) -> np.ndarray:
    """A(1 − exp(−t/τ)) with τ a quarter of the epochs, of which the next `ahead` epochs bring `gain`."""
    tau = epochs / 4
    return gain * (1 - np.exp(-np.arange(1, epochs + 1) / tau)) / np.exp(-epochs / tau) / (1 - np.exp(-ahead / tau))


@pytest.mark.parametrize("epochs", [12, 30, 100])
def test_an_exponential_approach_is_projected_to_where_it_goes(epochs: int) -> None:
    ahead = 5
    found = projected_gain(np.tile(saturating(epochs, ahead, 0.02), (3, 1)), ahead)
    assert found.gain == pytest.approx(0.02, rel=0.08)
    assert found.decay < 1


def test_a_straight_line_goes_straight_on() -> None:
    found = projected_gain([0.01 * np.arange(30), 0.03 * np.arange(30)], 6)
    assert (found.gain, found.decay) == (pytest.approx(0.12), pytest.approx(1.0))
    assert found.low < 0.12 < found.high


def test_a_falling_or_steepening_curve_is_no_approach() -> None:
    assert projected_gain(-0.01 * np.arange(30.0), 6).gain == pytest.approx(-0.06)
    assert projected_gain(np.arange(30.0) ** 2, 6).decay == 1


def test_too_little_is_told_so() -> None:
    assert np.isnan(projected_gain([[0.1, 0.2, 0.3]], 5)).all()
    assert np.isnan(projected_gain([0.1, 0.2, np.nan, 0.3], 5)).all()
    alone = projected_gain(np.arange(30.0), 5)
    assert alone.gain == pytest.approx(5)
    assert np.isnan([alone.low, alone.high]).all()


@pytest.mark.parametrize(("epochs", "ahead"), [(12, 5), (30, 6), (100, 20)])
@pytest.mark.parametrize("seeds", [3, 5])
def test_curves_that_saturate_are_no_longer_said_to_go_on(epochs: int, ahead: int, seeds: int) -> None:
    rng = np.random.default_rng([epochs, seeds])
    curve, line = saturating(epochs, ahead, 0.0035), 0.005 / ahead * np.arange(epochs)
    draws = 400
    error = 2.5 * np.sqrt(0.05 * 0.95 / draws)
    bent = [projected_gain(curve + noise(rng, seeds, epochs), ahead) for _ in range(draws)]
    assert np.mean([found.low > 0.005 for found in bent]) <= 0.05 + error
    straight = [projected_gain(line + noise(rng, seeds, epochs), ahead) for _ in range(draws)]
    assert np.mean([found.low > 0.005 for found in straight]) <= 0.05 + error
    assert np.mean([found.high < 0.005 for found in straight]) <= 0.05 + error


def test_curves_that_go_on_and_curves_that_ended_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    curve = saturating(30, 6, 0.02)
    going = [projected_gain(curve + noise(rng, 5, 30), 6).low > 0.005 for _ in range(200)]
    assert np.mean(going) > 0.95
    ended = [projected_gain(0.5 + noise(rng, 5, 100), 20).high < 0.005 for _ in range(200)]
    assert np.mean(ended) > 0.5
