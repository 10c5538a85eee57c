"""The simulation of what a verdict costs: its population, its ways to decide, and the page that it writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests  # type: ignore[import-untyped]

from benchmarks import decisions
from benchmarks.decisions import everywhere, holm, simulate, two_phases, until_decided
from benchmarks.population import World, image_sd, read_world, shrunk

WORLD = World("plain", np.tile([-20.0, -10.0, 0.0], (3, 1)), 2.0, 0.9, 0.0)
RESULTS = Path(decisions.__file__).parent / "results"


def test_the_population_is_the_published_study() -> None:
    world = read_world("street")
    assert world.below.shape == (4, 4)
    assert (world.below.max(axis=1) == 0).all()
    assert world.spread == pytest.approx(1.97, abs=0.01)
    assert world.correlation == pytest.approx(0.981, abs=0.001)
    assert 0 < world.image < 0.5
    assert (world.alike().below == world.below[0]).all()


def test_cells_are_shrunk_by_their_noise_and_no_further_than_additive() -> None:
    additive = np.array([[1.0], [3.0]]) + np.array([0.0, 2.0, 5.0])
    apart = additive + np.array([[1.0, 0.0, -1.0], [-1.0, 0.0, 1.0]])
    np.testing.assert_allclose(shrunk(apart, 0.0), apart)
    np.testing.assert_allclose(shrunk(apart, 1.0), (additive + apart) / 2)
    np.testing.assert_allclose(shrunk(apart, 9.0), additive)


def test_images_matter_where_variants_are_good_at_different_ones() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = (np.tile(rng.integers(1, 50, (20, 4, 3)), (3, 1, 1, 1)) for _ in range(2))  # seeds alike
    assert image_sd([ours, ours], None) == 0
    assert image_sd([ours, theirs], None) > 0


def test_holm_is_statsmodels() -> None:
    p = np.random.default_rng(0).random((12, 4)) ** 4
    known = [multipletests(row, 0.05, "holm")[0] for row in p]
    np.testing.assert_array_equal(holm(p), known)


def test_runs_are_counted() -> None:
    rng = np.random.default_rng(0)
    assert (everywhere(rng, WORLD, 5, 0, seeds=3).runs == 27).all()
    assert (two_phases(rng, WORLD, 5, 0, seeds=6).runs == 9 + 6 + 18).all()
    large = until_decided(rng, WORLD, 50, 60)
    assert large.better.all()
    assert large.runs.max() == 9 + 6 + 3 * 8
    assert until_decided(rng, WORLD, 20, 0, futility=0).runs.max() == 9 + 6 + 3 * 16


@pytest.mark.parametrize(
    "way", [lambda *args: everywhere(*args, seeds=5), lambda *args: two_phases(*args, seeds=6), until_decided]
)
def test_ways_find_what_is_there_and_seldom_what_is_not(way: decisions.Way) -> None:
    assert simulate(way, WORLD, 500, 8).power > 0.95
    null = simulate(way, WORLD, 1500, 0)
    assert null.false <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1500)


def test_the_published_page_has_every_way() -> None:
    page = (RESULTS / "decisions.md").read_text(encoding="utf-8")
    for label in (*decisions.WAYS, *decisions.FAMILIES):
        assert f"\n| {label} |" in page
    assert (RESULTS / "decisions.png").stat().st_size > 10_000
