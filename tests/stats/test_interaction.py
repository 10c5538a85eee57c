from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ablate.stats.interaction import Interaction, setting_interaction

RESAMPLES = 300


def study(rng: np.random.Generator, means: np.ndarray, n: int) -> Interaction:
    """Two variants at four settings, n seeds of SD 2 a cell: own best against the shared setting, with retuning."""
    runs = means[..., None] + rng.normal(0, 2, (*means.shape, n))
    weights = rng.multinomial(n, np.full(n, 1 / n), size=(RESAMPLES, *means.shape)) / n
    cell = runs.mean(axis=-1)
    draws = cell + np.sqrt(n / (n - 1)) * ((weights * runs).sum(axis=-1) - cell)
    own = cell.max(axis=1)
    shared = int(cell.mean(axis=0).argmax())
    own_draws = draws.max(axis=2)
    return setting_interaction(
        own[0] - own[1],
        cell[0, shared] - cell[1, shared],
        own_draws[:, 0] - own_draws[:, 1],
        draws[:, 0, shared] - draws[:, 1, shared],
        df=2 * (n - 1),
    )


# Equal at own best; at the setting that is best on average the second variant is 10 points worse.
CONFOUNDED = np.array([[40.0, 52.0, 60.0, 48.0], [60.0, 52.0, 50.0, 20.0]])
EQUAL = np.array([[40.0, 52.0, 60.0, 48.0], [40.0, 52.0, 60.0, 48.0]])


@pytest.mark.parametrize(("n", "least"), [(3, 0.6), (5, 0.9), (10, 0.99)])
def test_a_planted_confound_is_found(n: int, least: float) -> None:
    rng = np.random.default_rng(n)
    found = [study(rng, CONFOUNDED, n).confounds() for _ in range(150)]
    assert np.mean(found) >= least


@pytest.mark.parametrize("n", [3, 5, 10])
def test_equal_variants_are_seldom_called_confounded(n: int) -> None:
    rng = np.random.default_rng(n)
    assert np.mean([study(rng, EQUAL, n).confounds() for _ in range(300)]) <= 0.05


def test_the_interval_is_a_t_interval_of_the_draws_differences() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.1, 0.02, 500), rng.normal(0.0, 0.02, 500)
    found = setting_interaction(0.1, 0.0, first, second, df=4)
    se = np.std(first - second, ddof=1)
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, 4, 0.1, se))
    assert found.p == pytest.approx(2 * stats.t.sf(0.1 / se, 4))
    assert found.confounds()
    assert not found.confounds(p=0.2)  # as adjusted for other contrasts


def test_common_noise_cancels() -> None:
    rng = np.random.default_rng(0)
    common = rng.normal(0, 1, 500)
    found = setting_interaction(0.3, 0.1, common + rng.normal(0, 0.01, 500), common, df=4)
    assert found.se == pytest.approx(0.01, rel=0.1)


def test_the_same_settings_have_no_interaction() -> None:
    draws = np.random.default_rng(0).normal(size=100)
    found = setting_interaction(0.2, 0.2, draws, draws, df=4)
    assert found.value == 0
    assert np.isnan(found.p)
    assert not found.confounds()
    holes = np.where(np.arange(100) < 20, np.nan, draws)
    assert np.isnan(setting_interaction(0.2, 0.1, holes, 2 * draws, df=4).p)
