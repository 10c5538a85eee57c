"""Random numbers as functions of their coordinates: frozen values, and the tests of randomness."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ablate.data.rng import _GOLDEN, _mix, derive, permutation, uniform


def test_the_mixer_is_splitmix64() -> None:
    # The published reference sequence of splitmix64.c for the seed 1234567.
    with np.errstate(over="ignore"):
        states = np.uint64(1234567) + np.arange(1, 6, dtype=np.uint64) * _GOLDEN
    assert _mix(states).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_values_are_frozen() -> None:
    # A change of any of these would change every record that was ever made.
    assert uniform("flip", 0, 0, np.arange(3), 2).tolist() == [
        [0.7512336567387989, 0.770749970988365],
        [0.5874907246310991, 0.7972305582906862],
        [0.21941971747185596, 0.7088284809137404],
    ]
    assert permutation(0, 0, 8).tolist() == [0, 5, 4, 6, 1, 7, 3, 2]
    assert derive(0) == 1999793380834467432
    assert derive(0, "model", 3) == 1993246882183336879
    assert derive(0, "3") == 7085322161682853553
    assert derive(0, 3) == 3838105610450695251


def test_a_value_depends_on_its_own_coordinates_only() -> None:
    whole = uniform("place", 7, 3, np.arange(50), 4)
    some = uniform("place", 7, 3, np.array([31, 2, 2]), 2)
    np.testing.assert_array_equal(some, whole[[31, 2, 2], :2])


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_values_are_uniform(seed: int) -> None:
    values = uniform("place", seed, 5, np.arange(20_000), 5)
    assert values.shape == (20_000, 5)
    assert values.min() >= 0 and values.max() < 1
    for column in values.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3
        # The lowest bits of the 53 are as random as the highest.
        low = (column * 2**53).astype(np.int64) % 64
        assert stats.chisquare(np.bincount(low, minlength=64)).pvalue > 1e-3


def test_neighbouring_coordinates_are_independent() -> None:
    samples = np.arange(20_000)
    series = [
        uniform("flip", 0, 0, samples, 2)[:, 0],
        uniform("flip", 0, 0, samples, 2)[:, 1],
        uniform("flip", 0, 1, samples, 1)[:, 0],
        uniform("flip", 1, 0, samples, 1)[:, 0],
        uniform("place", 0, 0, samples, 1)[:, 0],
        uniform("flip", 0, 0, samples + 1, 1)[:, 0],
    ]
    correlation = np.corrcoef(series) - np.eye(len(series))
    assert np.abs(correlation).max() < 4.5 / np.sqrt(len(samples))
    assert len({tuple(column[:4]) for column in series}) == len(series)


def test_a_permutation_holds_every_index_once_and_no_place_is_preferred() -> None:
    orders = np.array([permutation(3, epoch, 10) for epoch in range(3000)])
    assert orders.dtype == np.int64
    np.testing.assert_array_equal(np.sort(orders, axis=1), np.tile(np.arange(10), (3000, 1)))
    for place in range(10):
        assert stats.chisquare(np.bincount(orders[:, place], minlength=10)).pvalue > 1e-4
    assert permutation(0, 0, 0).tolist() == []


def test_derived_seeds_differ_and_have_63_bits() -> None:
    seeds = [derive(seed, name, index) for seed in range(20) for name in ("a", "b") for index in range(20)]
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) >= 0 and 2**62 < max(seeds) < 2**63
