"""Stability measures: curves whose measure is known in closed form, planted spikes, and slow re-implementations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
import pytest

from ablate.measure import Measured
from ablate.measure.stability import (
    epoch_medians,
    excess_variation,
    late_oscillation,
    rise,
    roughness,
    rounding_bounds,
    spike_rate,
    spike_score,
    spike_steps,
    tail_risk,
)
from ablate.records.record import MeasureOfSteps
from ablate.registry import MEASURES


@dataclass
class Trial:
    """What a trial left behind, as its measures are given it."""

    steps: np.ndarray
    epochs: Mapping[str, np.ndarray]
    steps_per_epoch: int
    diverged: bool = False
    counts: Mapping[str, np.ndarray] = field(default_factory=dict)
    layers: Mapping[str, Mapping[str, list[float | None]]] = field(default_factory=dict)


def measured(trial: Trial) -> dict[str, Measured]:
    """Every measure of stability but that of the probes."""
    names = [name for name, one in MEASURES.items() if one.section == "stability" and name != "lr_headroom"]
    return {name: MEASURES[name].function(trial) for name in names}


def falling(steps: int, seed: int = 0, noise: float = 0.1) -> np.ndarray:
    """Loss and gradient norm (S, 2) that fall steadily under lognormal batch noise."""
    rng = np.random.default_rng(seed)
    trend = 2.0 * np.exp(-np.arange(steps) / steps)
    return (trend[:, None] * np.exp(noise * rng.standard_normal((steps, 2)))).astype(np.float32)


def test_a_monotone_curve_is_stable_by_every_measure() -> None:
    loss = np.linspace(2.0, 0.5, 400)
    steps = np.stack([loss, loss], axis=1)
    epochs = {"val_loss": np.linspace(2, 1, 20), "val_mean_iou": np.linspace(0.1, 0.6, 20)}
    found = measured(Trial(steps, epochs, 20))
    assert {name: measure.reason for name, measure in found.items()} == dict.fromkeys(found)
    assert found["rise"].value == 1.0
    assert found["val_rise"].value == 1.0
    assert found["spike_rate"].value == 0.0
    assert found["spike_score"].value == 0.0
    assert found["roughness"].value == pytest.approx(0.0, abs=1e-12)
    assert found["excess_variation"].value == 0.0
    assert found["tail_risk"].value < 0.0
    assert found["late_oscillation"].value == pytest.approx(0.0, abs=1e-12)


def test_rise_is_the_worst_ratio_to_the_lowest_before() -> None:
    assert rise([4.0, 2.0, 3.0, 1.0, 1.4, 1.2]).value == pytest.approx(1.5)
    assert rise([1.0, 2.0, 0.5, 1.5]).value == pytest.approx(3.0)
    assert rise([1.0, 0.0, 0.0]).value == 1.0
    assert rise([1.0, 0.0, 0.1]).value == np.inf
    assert rise([1.0, np.nan]).value == np.inf
    assert rise([1.0]).reason == "1 epoch; a rise needs two"
    assert np.isnan(rise([-1.0, -2.0]).value)


def test_single_spikes_do_not_move_the_rise_but_a_bad_epoch_does() -> None:
    steps = falling(400, noise=0.01)
    calm = rise(epoch_medians(steps[:, 0], 20)).value
    spiky = steps.copy()
    spiky[[50, 130, 131, 300], 0] *= 30
    assert rise(epoch_medians(spiky[:, 0], 20)).value == pytest.approx(calm, abs=0.01)
    steps[200:220, 0] *= 2
    assert rise(epoch_medians(steps[:, 0], 20)).value == pytest.approx(2.0, rel=0.1)


def test_epoch_medians_are_of_whole_epochs() -> None:
    values = np.array([3.0, 1.0, 2.0, 9.0, 8.0, 7.0, 5.0])
    assert epoch_medians(values, 3).tolist() == [2.0, 8.0]
    values[4] = np.inf
    assert epoch_medians(values, 3).tolist() == pytest.approx([2.0, np.nan], nan_ok=True)
    assert len(epoch_medians(values[:2], 3)) == 0


@pytest.mark.parametrize("stream", [0, 1])
def test_planted_spikes_are_recalled_exactly(stream: int) -> None:
    steps = falling(2000, seed=4)
    planted = [40, 160, 161, 162, 700, 1300, 1999]
    steps[planted, stream] *= 5
    assert spike_steps(steps).tolist() == [40, 160, 700, 1300, 1999]
    assert spike_rate(steps).value == pytest.approx(1000 * 5 / (2000 - 32))


def test_spikes_hide_the_next_from_mean_and_deviation_but_not_from_median_and_mad() -> None:
    # k equal spikes among 128 values raise the threshold of 6 deviations over the spikes themselves from
    # 6·√(k/128) > √(1 − k/128) on, that is from k = 4: the OLMo form sees the first four of seven.
    steps = falling(2000, seed=4)
    planted = list(range(500, 640, 20))
    steps[planted, 0] = 50
    assert spike_steps(steps).tolist() == planted
    assert spike_score(steps).value == pytest.approx(4 / 2000)


def test_lognormal_noise_is_no_spike() -> None:
    rng = np.random.default_rng(7)
    steps = np.exp(0.5 * rng.standard_normal((10_000, 2)))
    assert spike_rate(steps).value < 0.2
    # Unlogged, the same noise raises a flag now and then.
    assert spike_score(steps).value > 0


def test_a_spike_in_both_streams_is_one() -> None:
    steps = falling(300)
    steps[100] *= 6
    steps[101, 0] *= 6
    assert spike_steps(steps).tolist() == [100]


def test_a_loss_that_is_not_finite_is_a_spike() -> None:
    steps = falling(200)
    steps[150, 0] = np.nan
    assert spike_steps(steps).tolist() == [150]


def test_spike_flags_equal_the_slow_definition() -> None:
    rng = np.random.default_rng(1)
    steps = np.exp(np.cumsum(0.02 * rng.standard_normal((400, 2)), axis=0) + 0.1 * rng.standard_t(2, (400, 2)))
    flagged = np.zeros(400, dtype=bool)
    olmo = np.zeros(400, dtype=bool)
    for stream in steps.T:
        log = np.log(stream)
        for t in range(32, 400):
            before = log[max(0, t - 128) : t]
            median = np.median(before)
            mad = np.median(np.abs(before - median))
            flagged[t] |= log[t] > median + 6 * 1.4826 * max(mad, 1e-3)
        for t in range(128, 400):
            before = stream[t - 128 : t]
            olmo[t] |= stream[t] > before.mean() + 6 * before.std()
    starts = [t for t in range(400) if flagged[t] and not flagged[t - 1]]
    assert len(starts) > 3
    assert spike_steps(steps).tolist() == starts
    assert olmo.sum() > 0
    assert spike_score(steps).value == olmo.mean()


def test_roughness_of_a_line_with_alternating_steps() -> None:
    # Differences alternate between -3 and +1: their quartiles are -3 and 1.
    loss = 1000 + np.concatenate([[0], np.cumsum(np.tile([-3.0, 1.0], 100))])
    descent = np.median(loss[:5]) - np.percentile(loss, 5)
    assert roughness(loss).value == pytest.approx(4 / descent)
    assert roughness(loss * 7).value == pytest.approx(roughness(loss).value)
    assert np.isnan(roughness(np.linspace(1, 2, 50)).value)
    assert "never fell" in str(roughness(np.linspace(1, 2, 50)).reason)
    broken = np.concatenate([loss, [np.nan, 5.0]])
    assert roughness(broken).value == roughness(loss).value


def test_excess_variation_counts_the_way_back() -> None:
    assert excess_variation([3.0, 2.0, 1.0]).value == 0.0
    assert excess_variation([1.0, 1.0, 1.0]).value == 0.0
    assert excess_variation([3.0, 1.0, 2.0]).value == pytest.approx((3 - 1) / 2)
    assert excess_variation([1.0, 0.0, 1.0, 0.0, 1.0]).value == pytest.approx(4.0)
    assert excess_variation([1.0, 0.0]).reason is not None


def test_tail_risk_is_the_mean_of_the_worst_twentieth() -> None:
    changes = np.full(200, -0.01)
    changes[[20, 50, 80, 110, 140]] = [0.1, 0.2, 0.3, 0.4, 0.5]
    changes[170:175] = 0.05
    loss = np.exp(np.concatenate([[0.0], np.cumsum(changes)]))
    assert tail_risk(loss).value == pytest.approx((0.1 + 0.2 + 0.3 + 0.4 + 0.5 + 5 * 0.05) / 10)
    assert tail_risk(loss * 9).value == pytest.approx(tail_risk(loss).value)
    assert np.isnan(tail_risk(loss[:20]).value)


@pytest.mark.parametrize("amplitude", [0.01, 0.2])
def test_late_oscillation_of_a_cosine_is_its_amplitude_over_root_two(amplitude: float) -> None:
    epochs = 200
    late = 40  # a fifth of them, four whole periods
    phase = 2 * np.pi * (np.arange(late) + 0.5) / 10
    curve = np.concatenate([np.linspace(0, 0.5, epochs - late), 0.5 + amplitude * np.cos(phase)])
    assert late_oscillation(curve).value == pytest.approx(amplitude / np.sqrt(2), rel=1e-9)
    # A steady gain on top is not oscillation.
    drifting = curve + 0.001 * np.arange(epochs)
    assert late_oscillation(drifting).value == pytest.approx(amplitude / np.sqrt(2), rel=0.02)
    assert np.isnan(late_oscillation(curve[:4]).value)


def test_too_few_data_are_unknown_with_a_reason(recwarn: pytest.WarningsRecorder) -> None:
    found = measured(Trial(np.empty((0, 2)), {"val_loss": np.empty(0), "val_mean_iou": np.empty(0)}, 10))
    assert len(found) == 8
    assert all(np.isnan(measure.value) and measure.reason for measure in found.values())
    assert not recwarn.list


def test_a_run_that_diverges_inside_its_first_epoch_has_risen_without_bound(recwarn: pytest.WarningsRecorder) -> None:
    steps = falling(100)[:70]
    steps[-1] = np.nan
    found = measured(Trial(steps, {"val_loss": np.array([np.nan]), "val_mean_iou": np.array([np.nan])}, 80))
    assert found["rise"] == (np.inf, None)
    assert found["val_rise"] == (np.inf, None)
    assert found["spike_rate"].value == pytest.approx(1000 / 38)
    assert np.isfinite(found["tail_risk"].value)
    assert found["excess_variation"].reason is not None
    assert not recwarn.list


def test_a_diverged_trial_has_risen_without_bound_whatever_its_steps_are() -> None:
    curves = {"val_loss": np.linspace(2, 1, 5), "val_mean_iou": np.linspace(0, 1, 5)}
    assert measured(Trial(falling(100), curves, 20, diverged=True))["rise"] == (np.inf, None)


def test_headroom_is_the_least_of_the_probed_points() -> None:
    headroom = MEASURES["lr_headroom"].function
    steps = falling(40)
    assert np.isnan(headroom(Trial(steps, {}, 20)))
    assert headroom(Trial(steps, {}, 20, layers={"lr_headroom": {"all": [4.0, None, 2.0]}})) == 2.0


def test_the_measures_stand_in_their_order() -> None:
    names = ["rise", "val_rise", "spike_rate", "spike_score", "roughness", "excess_variation", "tail_risk"]
    found = [name for name, one in MEASURES.items() if one.section == "stability"]
    assert found == [*names, "late_oscillation", "lr_headroom"]
    assert all(MEASURES[name].title for name in found)


@pytest.mark.parametrize("seed", range(20))
def test_measures_before_a_rounding_lie_within_its_bounds(seed: int) -> None:
    rng, bits, per_epoch = np.random.default_rng(seed), 8, 25
    steps = np.exp(-np.linspace(0, 2, 500))[:, None] * np.exp(rng.normal(0, 0.2, (500, 2)))
    steps[rng.integers(130, 500, 4)] *= 5
    # As far off as a value can be, to either side.
    off = rng.choice([-1, 0, 1], steps.shape) if seed % 2 else np.where(np.arange(500) % 2, -1, 1)[:, None]
    before = measured(Trial(steps * (1 + off * 2.0**-bits), {"val_loss": steps[:, 0], "val_mean_iou": steps[:, 0]}, 25))
    bounds = rounding_bounds(steps, per_epoch, bits)
    assert set(bounds) == set(get_args(MeasureOfSteps))
    for name, (least, most) in bounds.items():
        assert least <= before[name].value <= most, name
    assert bounds["roughness"][1] < 1.5 * before["roughness"].value


def test_bounds_of_steps_that_give_no_measure_hold_nothing() -> None:
    for steps in (np.empty((0, 2)), np.zeros((100, 2)), np.full((100, 2), np.nan), np.full((300, 2), np.inf)):
        for name, (least, most) in rounding_bounds(steps, 10, 8).items():
            assert not least <= 1.5 <= most, name
