from __future__ import annotations

from collections.abc import Callable
from math import inf

import numpy as np
import pytest
from scipy import stats

from ablate.stats.bounded import (
    betting_interval,
    bounded_mean,
    logit_interval,
    seeds_to_exclude,
)

Draw = Callable[[np.random.Generator, int], np.ndarray]
LAWS: dict[str, tuple[float, Draw]] = {
    "a rare failure": (0.95, lambda rng, n: (rng.random(n) < 0.95).astype(float)),
    "skewed": (0.8, lambda rng, n: rng.beta(4, 1, n)),
    "at the bound but for a few": (0.98, lambda rng, n: np.where(rng.random(n) < 0.1, 0.8, 1.0)),
    "uniform": (0.5, lambda rng, n: rng.random(n)),
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("n", [3, 20])
def test_betting_holds_the_mean_at_least_as_often_as_it_says(law: str, n: int) -> None:
    truth, draw = LAWS[law]
    rng = np.random.default_rng(n)
    held = [low <= truth <= high for _, low, high in (betting_interval(draw(rng, n)) for _ in range(400))]
    assert np.mean(held) >= 0.94


def test_students_interval_does_not_where_failures_are_rare() -> None:
    rng = np.random.default_rng(0)
    x = (rng.random((2000, 10)) < 0.95).astype(float)
    reach = stats.t.ppf(0.975, 9) * x.std(axis=1, ddof=1) / np.sqrt(10)
    assert (np.abs(x.mean(axis=1) - 0.95) <= reach).mean() < 0.7


def test_capital_of_values_at_the_bound_is_known() -> None:
    # All ones: K(m) = half of the mean over the lesser bets of (1 + λ(1/m − 1))^n, and half of (1/m)^n.
    _, low, high = betting_interval(np.ones(12))
    bets = np.arange(1, 50) / 50
    assert 0.5 * np.mean((1 + bets * (1 / low - 1)) ** 12) + 0.5 * low**-12 == pytest.approx(40, rel=1e-6)
    assert high == 1
    # No bound can be above α/2 to the 1/n (the exact one for shares).
    assert low < 0.025 ** (1 / 12)


def test_betting_costs_half_of_the_width_for_many_values() -> None:
    x = np.random.default_rng(0).beta(5, 3, 100)
    _, low, high = betting_interval(x)
    student = 2 * stats.t.ppf(0.975, 99) * x.std(ddof=1) / np.sqrt(100)
    assert student < high - low < 1.6 * student


def test_betting_knows_no_order_and_no_direction() -> None:
    x = np.random.default_rng(0).random(6)
    assert betting_interval(x) == pytest.approx(betting_interval(x[::-1]))
    _, low, high = betting_interval(1 - x)
    assert betting_interval(x)[1:] == pytest.approx((1 - high, 1 - low))


def test_one_value_tells_little_and_none_nothing() -> None:
    mean, low, high = betting_interval([0.5])
    assert (mean, low < 0.03, high > 0.97) == (0.5, True, True)
    assert np.isnan(betting_interval([])).all()
    assert np.isnan(betting_interval([0.5, np.nan])).all()
    with pytest.raises(ValueError, match="outside of"):
        betting_interval([0.5, 1.2])


def test_it_takes_many_runs_without_a_rise() -> None:
    height = 1 - 1 / 1.1
    assert betting_interval(np.zeros(43))[2] > height > betting_interval(np.zeros(44))[2]


def test_areas_under_a_curve_stay_within_their_scale() -> None:
    values = [0.97, 0.999, 0.985]
    centre, low, high = logit_interval(values)
    logits = np.log(values) - np.log1p(-np.array(values))
    known = stats.t.interval(0.95, 2, logits.mean(), stats.sem(logits))
    assert (low, high) == pytest.approx(1 / (1 + np.exp(-np.array(known))))
    assert 0 < low < centre < high < 1
    assert np.mean(values) + stats.t.ppf(0.975, 2) * stats.sem(values) > 1  # the plain interval leaves it


def test_an_area_of_one_has_no_logit() -> None:
    assert logit_interval([1.0, 0.9, 0.95]) == betting_interval([1.0, 0.9, 0.95])
    assert logit_interval([0.9])[0] == pytest.approx(0.9)
    assert np.isnan(logit_interval([0.9])[1:]).all()
    assert np.isnan(logit_interval([0.9, 0.9])[1:]).all()


def test_logit_intervals_hold_the_centre_as_often_as_they_say() -> None:
    rng = np.random.default_rng(2)
    x = 1 / (1 + np.exp(-rng.normal(3, 1, (2000, 4))))
    truth = 1 / (1 + np.exp(-3))
    held = [low <= truth <= high for _, low, high in map(logit_interval, x)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)


def test_so_many_seeds_at_one_end_exclude_a_mean() -> None:
    for gap in (1 - 1 / 1.1, 0.3):
        n = int(seeds_to_exclude(gap))
        assert betting_interval(np.zeros(n))[2] <= gap < betting_interval(np.zeros(n - 1))[2]
        assert betting_interval(np.ones(n))[1] >= 1 - gap
    assert seeds_to_exclude(1 - 1 / 1.1) == 44
    assert seeds_to_exclude(0.0) == inf


def test_values_at_one_end_say_how_many_would_tell() -> None:
    made = bounded_mean(np.zeros(3), 1 - 1 / 1.1, least=0.95, ends=("never rose", "diverged"))
    assert (made.value, made.low, made.high) == betting_interval(np.zeros(3))
    assert made.reason == "all 3 seeds never rose; at least 44 such seeds would tell"
    assert bounded_mean(np.ones(2), 1.0, least=0.95).reason == "all 2 seeds at 1; no number would tell"
    assert bounded_mean([0.0, 0.4], 0.5, least=0.95).reason == ""
