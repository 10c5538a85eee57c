from __future__ import annotations

from math import inf

import numpy as np
import pytest
from statsmodels.stats.power import TTestIndPower  # type: ignore[import-untyped]

from ablate.stats.detectable import detectable_difference, floor_of_detection, seeds_to_find, welch_power
from benchmarks.population import welch

SD = 0.019
EQUAL = [SD**2, SD**2]


@pytest.mark.parametrize("n", [2, 3, 6, 20])
@pytest.mark.parametrize("contrasts", [1, 3, 11])
def test_equal_spreads_are_the_two_sample_t_test(n: int, contrasts: int) -> None:
    reference = TTestIndPower()
    level = 0.05 / contrasts
    assert welch_power(0.03, EQUAL, [n, n], level=level) == pytest.approx(
        reference.power(0.03 / SD, n, level), abs=1e-6
    )
    found = detectable_difference(EQUAL, [n, n], contrasts=contrasts)
    # One-sided at half of the level: the other side is negligible there, and NaN in the reference.
    assert reference.power(found / SD, n, level / 2, alternative="larger") == pytest.approx(0.8, abs=1e-5)


@pytest.mark.parametrize("delta", [0.05, 0.02, 0.01])
def test_seeds_needed_are_the_two_sample_t_tests(delta: float) -> None:
    known = TTestIndPower().solve_power(delta / SD, None, 0.05 / 3, 0.8)
    assert seeds_to_find(delta, EQUAL, contrasts=3) == np.ceil(known)


@pytest.mark.parametrize(("spreads", "n"), [((0.01, 0.03), 5), ((0.005, 0.05), 6), ((0.03, 0.02), 10)])
def test_power_where_spreads_differ(spreads: tuple[float, float], n: int) -> None:
    rng = np.random.default_rng(n)
    level, between = 0.05 / 3, [spread**2 for spread in spreads]
    delta = detectable_difference(between, [n, n], contrasts=3)
    left, right = (rng.normal(0, spread, (20_000, n)) for spread in spreads)
    assert (welch(left + delta, right).p <= level).mean() == pytest.approx(0.8, abs=0.035)


def test_unequal_numbers_are_the_two_sample_t_test_of_their_sizes() -> None:
    assert welch_power(0.0, EQUAL, [4, 4], level=0.05) == pytest.approx(0.05)
    assert welch_power(0.03, EQUAL, [4, 40]) > welch_power(0.03, EQUAL, [4, 8])


def test_images_set_a_floor() -> None:
    assert seeds_to_find(0.01, EQUAL, shared=0.004**2) == inf
    assert seeds_to_find(0.03, EQUAL, shared=0.004**2) > seeds_to_find(0.03, EQUAL)
    assert detectable_difference([0.0, 0.0], [3, 3], shared=1.0) == pytest.approx(1.959964 + 0.841621, rel=1e-5)


def test_too_few_seeds_find_nothing() -> None:
    assert welch_power(1.0, EQUAL, [1, 5]) == 0
    assert np.isnan(detectable_difference(EQUAL, [1, 5]))
    assert np.isnan(seeds_to_find(0.0, EQUAL))
    assert np.isnan(seeds_to_find(0.1, [np.nan, 1.0]))
    assert seeds_to_find(1e-5, EQUAL) == inf
    assert detectable_difference([0.0, 0.0], [3, 3]) == 0


def test_more_seeds_cannot_pass_the_floor_that_the_images_set() -> None:
    floor = floor_of_detection(1e-4, level=0.05)
    assert floor == pytest.approx((1.959964 + 0.841621) * 0.01, abs=1e-6)
    assert seeds_to_find(0.9 * floor, EQUAL, shared=1e-4) == inf
    assert detectable_difference([1e-4, 1e-4], [1000, 1000], shared=1e-4) == pytest.approx(floor, rel=0.01)
