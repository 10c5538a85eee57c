from __future__ import annotations

from math import inf

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW  # type: ignore[import-untyped]

from ablate.stats.welch import contrast_error, satterthwaite
from benchmarks.population import t_test, welch

RNG = np.random.default_rng(0)
SAMPLES = [
    (RNG.normal(0, 1, 3), RNG.normal(0, 10, 3)),
    (RNG.normal(0.5, 0.02, 5), RNG.normal(0.55, 0.03, 8)),
    (RNG.lognormal(0, 1, 6), RNG.normal(0, 1, 2)),
]


@pytest.mark.parametrize(("left", "right"), SAMPLES)
def test_welch_is_scipys_and_statsmodels(left: np.ndarray, right: np.ndarray) -> None:
    found = welch(left, right)
    known = stats.ttest_ind(left, right, equal_var=False)
    assert found.p == pytest.approx(known.pvalue, rel=1e-12)
    assert found.df == pytest.approx(known.df, rel=1e-12)
    low, high = CompareMeans(DescrStatsW(left), DescrStatsW(right)).tconfint_diff(usevar="unequal")
    assert (found.low, found.high) == (pytest.approx(low, rel=1e-10), pytest.approx(high, rel=1e-10))


def test_many_samples_at_once_are_those_one_by_one() -> None:
    left, right = RNG.normal(size=(4, 3, 5)), RNG.normal(size=(4, 3, 7))
    found = welch(left, right)
    assert found.p.shape == (4, 3)
    assert found.p[2, 1] == pytest.approx(stats.ttest_ind(left[2, 1], right[2, 1], equal_var=False).pvalue)


def test_degrees_of_freedom_lie_between_those_of_one_side_and_of_both() -> None:
    assert contrast_error([1.0, 1.0], [5, 5])[1] == pytest.approx(8)
    assert contrast_error([1.0, 1e-9], [5, 5])[1] == pytest.approx(4, rel=1e-6)
    assert satterthwaite([0.0, 0.0], [4, 2]) == 2


def test_images_add_variance_and_few_groups_take_degrees_of_freedom() -> None:
    se, df = contrast_error([2.0, 2.0], [4, 4], shared=3.0)
    assert se == pytest.approx(2.0)
    assert df == pytest.approx(16 / (2 * 0.25 / 3))
    assert contrast_error([2.0, 2.0], [4, 4], shared=1000.0, shared_df=2)[1] == pytest.approx(2, rel=0.01)
    assert contrast_error([0.0, 0.0], [4, 4], shared=1.0, shared_df=inf)[1] == inf


def test_an_infinite_number_of_degrees_is_the_normal_law() -> None:
    assert t_test(1.96, 1.0, inf).p == pytest.approx(2 * stats.norm.sf(1.96))


def test_no_spread_and_too_few_values_give_no_interval() -> None:
    for found in (welch([1.0, 1.0], [2.0, 2.0]), welch([1.0], [2.0, 3.0]), t_test(1.0, 1.0, 0)):
        assert np.isnan([found.low, found.high, found.p]).all()
        assert np.isfinite(found.value)


# A narrow baseline and wide variants, whose errors have least in common; family-wise, at the first step of Holm.
@pytest.mark.parametrize(("contrasts", "spread", "n"), [(3, 3.0, 3), (3, 3.0, 10), (11, 10.0, 10), (11, 10.0, 16)])
def test_the_level_holds_where_spreads_differ(contrasts: int, spread: float, n: int) -> None:
    rng = np.random.default_rng(1)
    baseline, variants = rng.normal(size=(8000, 1, n)), spread * rng.normal(size=(8000, contrasts, n))
    false = (welch(variants, baseline).p <= 0.05 / contrasts).any(axis=1)
    assert false.mean() <= 0.05 + 3.5 * np.sqrt(0.05 * 0.95 / 8000)
