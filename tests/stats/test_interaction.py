from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ablate.stats.blocks import image_scheme
from ablate.stats.bootstrap import MultiBootstrap, Replicates
from ablate.stats.interaction import factor_interactions, setting_interaction
from ablate.stats.intervals import Estimate

RESAMPLES = 300


def study(rng: np.random.Generator, means: np.ndarray, n: int) -> Estimate:
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
    found = [study(rng, CONFOUNDED, n).p <= 0.05 for _ in range(150)]
    assert np.mean(found) >= least


@pytest.mark.parametrize("n", [3, 5, 10])
def test_equal_variants_are_seldom_called_confounded(n: int) -> None:
    rng = np.random.default_rng(n)
    assert np.mean([study(rng, EQUAL, n).p <= 0.05 for _ in range(300)]) <= 0.05


def test_the_interval_is_a_t_interval_of_the_draws_differences() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.1, 0.02, 500), rng.normal(0.0, 0.02, 500)
    found = setting_interaction(0.1, 0.0, first, second, df=4)
    se = np.std(first - second, ddof=1)
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, 4, 0.1, se))
    assert found.p == pytest.approx(2 * stats.t.sf(0.1 / se, 4))


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
    holes = np.where(np.arange(100) < 20, np.nan, draws)
    assert np.isnan(setting_interaction(0.2, 0.1, holes, 2 * draws, df=4).p)


# --- two factors ----------------------------------------------------------------------------------------------------

IMAGES = 20


def ratio(sums: np.ndarray) -> np.ndarray:
    """Return a score that is a plain mean over images: counts (..., 2) = (sum, number)."""
    return sums[..., 0] / sums[..., 1]


def factorial(
    rng: np.random.Generator, means: list[float], n: int, spread: float = 0.02
) -> list[dict[str, Replicates]]:
    """The four cells of two factors: n seeds each, test images that are harder or easier for all alike."""
    bootstrap = MultiBootstrap(val=image_scheme(IMAGES, None), test=image_scheme(IMAGES, None), resamples=300)
    image = rng.normal(0, 0.05, IMAGES)
    sides = []
    for place, mean in enumerate(means):
        values = mean + image + rng.normal(0, spread, (n, 1)) + rng.normal(0, 0.01, (n, IMAGES))
        counts = list(np.stack([values, np.ones_like(values)], axis=-1))
        sides.append({"only": bootstrap.cell(str(place), counts, counts, val_score=ratio, test_score=ratio)})
    return sides


def test_two_factors_that_help_together_more_or_less_than_alone() -> None:
    """Skips worth 19 points with plain blocks and 12 with residual ones: less together than the sum."""
    rng = np.random.default_rng(0)
    less, more, as_much = factor_interactions(
        [
            factorial(rng, [0.40, 0.45, 0.59, 0.57], 6, 0.005),
            factorial(rng, [0.40, 0.42, 0.42, 0.60], 6, 0.005),
            factorial(rng, [0.40, 0.45, 0.59, 0.64], 6, 0.005),
        ],
        rope=0.02,
    )
    assert (less.decision, more.decision, as_much.decision) == ("antagonistic", "synergistic", "additive")
    assert less.estimate.value == pytest.approx(-0.07, abs=0.015)
    assert less.estimate.high < 0
    assert [effect.value for effect in less.effects] == pytest.approx([0.19, 0.12], abs=0.015)
    assert less.effects[1].value - less.effects[0].value == pytest.approx(less.estimate.value)
    assert len(less.means) == 4
    assert as_much.effects[0].value > 0.15  # each alone helps much: no interaction is not no effect


@pytest.mark.parametrize("means", [[0.5] * 4, [0.4, 0.45, 0.59, 0.64]], ids=["none", "additive"])
def test_an_interaction_that_is_not_there_is_seldom_found(means: list[float]) -> None:
    rng = np.random.default_rng(1)
    words = [factor_interactions([factorial(rng, means, 5) for _ in range(2)]) for _ in range(200)]
    false = np.mean([any(one.decision != "undecided" for one in study) for study in words])
    assert false <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)


def test_with_seeds_alone_the_interaction_is_the_textbook_contrast() -> None:
    """Σ ± means with the sum of the variances, Satterthwaite's df; the images are held fixed."""
    rng = np.random.default_rng(2)
    runs = rng.normal(0.5, 0.02, (4, 5))
    one = MultiBootstrap(val=image_scheme(1, None), test=image_scheme(1, None), resamples=20_000)
    counts = np.stack([runs, np.ones_like(runs)], axis=-1)[..., None, :]
    sides = [
        {0: one.cell(str(place), list(cell), list(cell), val_score=ratio, test_score=ratio)}
        for place, cell in enumerate(counts)
    ]
    (found,) = factor_interactions([sides], at=[(0, 0, 0, 0)])
    parts = runs.var(axis=1, ddof=1) / 5
    df = parts.sum() ** 2 / (parts**2 / 4).sum()
    value = runs[0].mean() - runs[1].mean() - runs[2].mean() + runs[3].mean()
    assert found.estimate.value == pytest.approx(value)
    assert found.estimate.se == pytest.approx(np.sqrt(parts.sum()), rel=0.02)
    assert found.estimate.p == pytest.approx(2 * stats.t.sf(abs(value) / np.sqrt(parts.sum()), df), rel=0.1)
    assert found.p_holm == found.estimate.p
    assert {effect.method for effect in found.effects} == {"multi-bootstrap, fixed"}
