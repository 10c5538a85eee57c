"""The planner: its power against scipy's noncentral t and against simulated decisions."""

from __future__ import annotations

from math import inf, isnan, sqrt

import numpy as np
import pytest
from scipy import stats

from ablate.stats.power import (
    Pilot,
    detectable,
    floor_of_detection,
    holm_level,
    power,
    seeds_needed,
)


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_without_image_noise_it_is_the_noncentral_t(n: int) -> None:
    df, shift = 2 * (n - 1), 0.02 / sqrt(2 * 1e-4 / n)
    edge = stats.t.ppf(0.975, df)
    expected = stats.nct.sf(edge, df, shift) + stats.nct.cdf(-edge, df, shift)
    assert power(0.02, n, Pilot(1e-4, 0.0, 4), 0.05) == pytest.approx(expected, abs=2e-5)


def test_no_difference_is_found_at_the_level() -> None:
    assert power(0.0, 4, Pilot(1e-4, 0.0, 4), 0.05) == pytest.approx(0.05, abs=1e-4)
    assert power(0.1, 1, Pilot(1e-4, 0.0, 4), 0.05) == 0


@pytest.mark.parametrize("image", [0.0, 1e-4])
def test_power_is_the_share_of_simulated_decisions(image: float) -> None:
    rng = np.random.default_rng(0)
    n, seed, delta, alpha, draws = 5, 4e-4, 0.04, 0.05 / 3, 20_000
    difference = rng.normal(delta, sqrt(2 * seed / n + image), draws)
    spread = np.sqrt(2 * seed * rng.chisquare(8, draws) / 8 / n + image)
    found = np.mean(2 * stats.t.sf(np.abs(difference) / spread, 8) <= alpha)
    assert power(delta, n, Pilot(seed, image, 8), alpha) == pytest.approx(found, abs=3 * sqrt(0.25 / draws))


def test_detectable_difference_and_seeds_needed_are_each_others_inverse() -> None:
    pilot = Pilot(1e-4, 2e-5, 4)
    delta = detectable(7, pilot, 0.05)
    assert power(delta, 7, pilot, 0.05) == pytest.approx(0.8, abs=1e-4)
    assert seeds_needed(delta * 1.0001, pilot, 0.05) == 7
    assert seeds_needed(delta * 0.999, pilot, 0.05) == 8


def test_more_seeds_cannot_pass_the_floor_that_the_images_set() -> None:
    pilot = Pilot(1e-4, 1e-4, 4)
    floor = floor_of_detection(pilot, 0.05)
    assert floor == pytest.approx((1.959964 + 0.841621) * 0.01, abs=1e-6)
    assert seeds_needed(0.9 * floor, pilot, 0.05) == inf
    assert detectable(1000, pilot, 0.05) == pytest.approx(floor, rel=0.01)


def test_holms_strictest_step_asks_for_more() -> None:
    assert holm_level(0.05, 3) == pytest.approx(0.05 / 3)
    assert holm_level(0.05, 3, step=3) == 0.05
    pilot = Pilot(1e-4, 0.0, 4)
    assert detectable(5, pilot, holm_level(0.05, 3)) > detectable(5, pilot, 0.05)


def test_a_plan_says_what_a_careful_reader_of_a_small_pilot_would_ask() -> None:
    pilot = Pilot(1e-4, 0.0, 4)
    assert detectable(3, pilot, 0.05) > detectable(5, pilot, 0.05)
    # chi²_{4, .2} = 1.6488: the variance may be 2.43 times the pilot's
    assert pilot.cautious().seed == pytest.approx(1e-4 * 4 / 1.64878, rel=1e-4)
    assert seeds_needed(0.02, pilot.cautious(), 0.05) > seeds_needed(0.02, pilot, 0.05)


def test_no_pilot_no_plan() -> None:
    pilot = Pilot(float("nan"), 0.0, 0)
    assert isnan(detectable(3, pilot, 0.05))
    assert isnan(seeds_needed(0.02, pilot, 0.05))
