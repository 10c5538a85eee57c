"""Learning-rate measures: closed forms of a parabola, enumeration of subsets."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from ablate.measure.sensitivity import basin, budget_curve, lr_sensitivity


def test_sensitivity_of_a_parabola_has_a_closed_form() -> None:
    # final loss = 0.4 + c x², x the log of rate / 1e-3, on a symmetric grid of spacing h reaching ±L: the mean of c x²
    # is c L²/3, and the trapezoid rule adds exactly c h²/6.
    spacing, half_width, c = 0.5, 2.0, 0.3
    x = np.arange(-half_width, half_width + spacing / 2, spacing)
    rates = 1e-3 * np.exp(x)
    found = lr_sensitivity(rates, 0.4 + c * x**2, initial_loss=100.0)
    assert found.value == pytest.approx(c * half_width**2 / 3 + c * spacing**2 / 6)
    shuffled = np.random.default_rng(0).permutation(len(x))
    assert lr_sensitivity(rates[shuffled], 0.4 + c * x[shuffled] ** 2, 100.0).value == pytest.approx(found.value)
    fine = np.linspace(-half_width, half_width, 2001)
    exact = lr_sensitivity(1e-3 * np.exp(fine), 0.4 + c * fine**2, 100.0).value
    assert exact == pytest.approx(c * half_width**2 / 3, rel=1e-5)


def test_a_diverged_rate_costs_no_more_than_not_training() -> None:
    rates = [1e-4, 1e-3, 1e-2]
    # (0.5·(1 + 0) + 0.5·(0 + 2)) / 2 over two equal gaps.
    assert lr_sensitivity(rates, [2.0, 1.0, np.nan], 3.0).value == pytest.approx(0.75)
    assert lr_sensitivity(rates, [2.0, 1.0, 50.0], 3.0).value == pytest.approx(0.75)
    assert lr_sensitivity(rates, [2.0, 1.0, np.inf], 3.0).value == pytest.approx(0.75)
    assert lr_sensitivity(rates, [1.0, 1.0, 1.0], 3.0).value == 0.0


def test_sensitivity_takes_the_mean_over_seeds_first() -> None:
    rates = [1e-4, 1e-3, 1e-2]
    losses = np.array([[1.5, 2.5], [0.8, 1.2], [np.nan, 1.0]])
    initial = np.array([[3.0, 3.0], [3.0, 3.0], [3.0, 4.0]])
    # Means 2, 1 and (3 + 1) / 2: one above the best at either end.
    assert lr_sensitivity(rates, losses, initial).value == pytest.approx(0.5)
    assert lr_sensitivity([1e-3], [1.0], 2.0).reason == "1 rate; a sensitivity needs two"
    assert np.isnan(lr_sensitivity(rates, losses, np.nan).value)


def test_basin_finds_a_planted_parabola() -> None:
    rates = np.array([1e-4, 3e-4, 5e-4, 1e-3])
    optimum, top, c = 4e-4, 0.6, 0.2
    scores = top - c * np.log10(rates / optimum) ** 2
    found = basin(rates, scores, delta=0.001)
    assert found.reason is None
    assert found.optimum == pytest.approx(optimum)
    assert found.value == pytest.approx(top)
    assert found.width == pytest.approx(2 * np.sqrt(0.001 / c))
    assert found.bracketed
    assert not found.extrapolated
    # Within 0.005 reaches below 3e-4, the lowest of the three rates that the parabola goes through.
    assert basin(rates, scores, delta=0.005).extrapolated
    assert basin(rates[::-1], scores[::-1], delta=0.001) == found


def test_basin_is_invalid_where_the_grid_does_not_hold_the_optimum() -> None:
    rates = np.array([1e-4, 3e-4, 1e-3])
    outside = basin(rates, 0.6 - 0.2 * np.log10(rates / 1e-5) ** 2, delta=0.005)
    assert not outside.bracketed
    assert np.isnan(outside.optimum)
    assert "outside" in str(outside.reason)
    wrong_way = basin(rates, [0.5, 0.4, 0.6], delta=0.005)
    assert np.isnan(wrong_way.width)
    assert "downward" in str(wrong_way.reason)
    assert basin(rates, [0.5, 0.5, 0.5], delta=0.005).reason is not None
    assert basin(rates[:2], [0.5, 0.4], delta=0.005).reason == "2 rates; a parabola needs three"
    assert basin(rates, [0.5, np.nan, 0.6], delta=0.005).reason == "a score is not finite"
    # Best on the edge, vertex still inside: valid, and said to be unbracketed.
    edge = basin([1e-4, 1e-3, 1e-2], [0.60, 0.59, 0.3], delta=0.005)
    assert edge.reason is None
    assert not edge.bracketed
    assert 1e-4 < edge.optimum < 1e-3


@pytest.mark.parametrize("tied", [False, True])
def test_budget_curve_equals_the_enumeration_of_subsets(tied: bool) -> None:
    rng = np.random.default_rng(5)
    val, test = rng.random(8), rng.random(8)
    if tied:
        val = np.round(val, 1)
        assert len(np.unique(val)) < 8
    expected = []
    for n in range(1, 9):
        chosen = []
        for subset in combinations(range(8), n):
            picked = np.array(subset)
            winners = picked[val[picked] == val[picked].max()]
            chosen.append(test[winners].mean())
        expected.append(np.mean(chosen))
    found = budget_curve(val, test)
    assert found == pytest.approx(expected)
    assert found[0] == pytest.approx(test.mean())


def test_budget_curve_of_the_maximum_is_unbiased() -> None:
    rng = np.random.default_rng(6)
    draws = rng.standard_normal((20_000, 4))
    estimates = np.mean([budget_curve(row, row)[3] for row in draws[:4000]])
    # E max of four standard normals is 1.0294; two standard errors of 4,000 draws are .022.
    assert estimates == pytest.approx(1.0294, abs=0.03)
