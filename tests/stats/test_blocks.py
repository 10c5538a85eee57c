from __future__ import annotations

from math import inf

import numpy as np
import pytest
from scipy import signal, stats
from statsmodels.stats.diagnostic import acorr_ljungbox  # type: ignore[import-untyped]

from ablate.stats.blocks import ImageScheme, block_length, draw_images, image_scheme, order_test


def autoregression(rng: np.random.Generator, correlation: float, shape: tuple[int, ...]) -> np.ndarray:
    """Stationary AR(1) series of variance 1 along the last axis."""
    noise = rng.normal(size=(*shape[:-1], shape[-1] + 100)) * np.sqrt(1 - correlation**2)
    return np.asarray(signal.lfilter([1.0], [1.0, -correlation], noise, axis=-1))[..., 100:]


def names(groups: int, length: int) -> list[str]:
    return [f"g{group}" for group in range(groups) for _ in range(length)]


def test_images_without_groups_are_independent() -> None:
    scheme = image_scheme(30, None)
    weights = draw_images(np.random.default_rng(0), scheme, 50)
    assert (scheme.kind, scheme.df, scheme.conditional) == ("independent", 29, False)
    assert weights.shape == (50, 30)
    assert (weights.sum(axis=1) == 30).all()


def test_ten_groups_are_drawn_whole_whatever_their_length() -> None:
    groups = names(10, 40)
    scheme = image_scheme(400, groups)
    weights = draw_images(np.random.default_rng(0), scheme, 20).reshape(20, 10, 40)
    assert (scheme.kind, scheme.df, scheme.conditional) == ("groups", 9, False)
    assert (weights == weights[:, :, :1]).all()
    assert (weights[:, :, 0].sum(axis=1) == 10).all()


def test_few_groups_are_drawn_in_blocks_and_said_to_be_just_these() -> None:
    scheme = image_scheme(120, names(3, 40))
    weights = draw_images(np.random.default_rng(0), scheme, 20)
    assert (scheme.kind, scheme.df, scheme.conditional, scheme.block) == ("blocks", 2, True, 5)
    assert (weights.reshape(20, 3, 40).sum(axis=2) == 40).all()


def test_images_of_a_group_may_lie_apart() -> None:
    scheme = image_scheme(60, ["a", "b"] * 30)
    weights = draw_images(np.random.default_rng(0), scheme, 5)
    assert (weights[:, ::2].sum(axis=1) == 30).all()


def test_blocks_are_neighbours_in_a_circle() -> None:
    scheme = ImageScheme("blocks", 9, (np.arange(9),), 3, 1, True)
    weights = draw_images(np.random.default_rng(1), scheme, 200)
    alone = (weights > 0) & (np.roll(weights, 1, axis=1) == 0) & (np.roll(weights, -1, axis=1) == 0)
    assert (weights.sum(axis=1) == 9).all()
    assert not alone.any()


def test_the_block_comes_from_the_compared_differences() -> None:
    rng = np.random.default_rng(0)
    slow, fast = autoregression(rng, 0.9, (2, 200)), rng.normal(size=(2, 200))
    groups = names(2, 200)
    long = image_scheme(400, groups, slow.ravel())
    short = image_scheme(400, groups, fast.ravel())
    both = image_scheme(400, groups, np.stack([slow.ravel(), fast.ravel()]))
    assert short.block <= 3 < 10 < long.block == both.block


def test_a_scheme_needs_images_and_a_name_for_each() -> None:
    with pytest.raises(ValueError, match="no images"):
        image_scheme(0, None)
    with pytest.raises(ValueError, match="2 group names for 3 images"):
        image_scheme(3, ["a", "b"])


@pytest.mark.parametrize("correlation", [0.4, 0.8])
def test_block_length_of_an_autoregression(correlation: float) -> None:
    # b = (6 φ² / (1 − φ²)²)^(1/3) N^(1/3): the optimum of the circular bootstrap at AR(1).
    rng = np.random.default_rng(0)
    found = [block_length([series]) for series in autoregression(rng, correlation, (40, 4000))]
    truth = (6 * correlation**2 / (1 - correlation**2) ** 2 * 4000) ** (1 / 3)
    assert np.median(found) == pytest.approx(truth, rel=0.15)


def test_block_length_of_independent_values_and_of_many_sequences() -> None:
    rng = np.random.default_rng(0)
    assert np.median([block_length([rng.normal(size=300)]) for _ in range(40)]) == 1
    series = autoregression(rng, 0.8, (8, 500))
    truth = (6 * 0.64 / 0.36**2 * 4000) ** (1 / 3)
    apart = series + 10 * np.arange(8)[:, None]  # the sequences' own levels are no dependence
    assert block_length(list(apart)) == block_length(list(series)) == pytest.approx(truth, rel=0.3)


def test_block_length_has_bounds() -> None:
    walks = np.random.default_rng(0).normal(size=(50, 60)).cumsum(axis=1)
    assert max(block_length([walk]) for walk in walks) == 20
    assert block_length([[1.0, 2.0]]) == 1
    assert block_length([np.ones(50)]) == 1


def image_variance(scheme: ImageScheme, values: np.ndarray, rng: np.random.Generator) -> float:
    weights = draw_images(rng, scheme, 400)
    return float((weights @ values / weights.sum(axis=1)).var(ddof=1))


@pytest.mark.parametrize(("groups", "length"), [(20, 40), (12, 30)])
def test_the_level_holds_with_long_groups(groups: int, length: int) -> None:
    # The planted truth: no difference; half of the variance is common to a group's images.
    rng = np.random.default_rng(groups)
    scheme = image_scheme(groups * length, names(groups, length))
    rejected = []
    for _ in range(300):
        values = (rng.normal(size=(groups, 1)) + rng.normal(size=(groups, length))).ravel()
        reach = stats.t.ppf(0.975, scheme.df) * np.sqrt(image_variance(scheme, values, rng))
        rejected.append(abs(values.mean()) > reach)
    assert np.mean(rejected) <= 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / 300)


def test_few_groups_cost_degrees_of_freedom() -> None:
    assert image_scheme(100, names(1, 100)).df == 1
    assert image_scheme(100, names(5, 20)).df == 4
    assert image_scheme(1, None).df < inf


def test_order_is_ljung_and_box_of_the_ranks() -> None:
    x = np.random.default_rng(0).lognormal(size=80)
    known = acorr_ljungbox(stats.rankdata(x), lags=[5])
    assert order_test(x).p == pytest.approx(float(known["lb_pvalue"].iloc[0]))


def test_order_warns_of_sequences_and_seldom_of_none() -> None:
    rng = np.random.default_rng(0)
    assert np.mean([order_test(x).warn for x in autoregression(rng, 0.6, (200, 80))]) > 0.9
    assert np.mean([order_test(x).warn for x in rng.lognormal(0, 2, (1000, 100))]) < 0.015


def test_order_does_not_warn_where_neighbours_alternate_or_nothing_is_known() -> None:
    assert not order_test(np.tile([1.0, -1.0], 30) + np.random.default_rng(0).normal(0, 0.1, 60)).warn
    for x in (np.ones(40), np.arange(10.0)):
        assert np.isnan(order_test(x).p)
        assert not order_test(x).warn
