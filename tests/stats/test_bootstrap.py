"""The resampling: what a replicate draws, and that the intervals made of replicates cover."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from math import isnan, sqrt
from typing import Any

import numpy as np
import pytest
from scipy import signal, stats

from ablate.measure.segmentation import iou, mean_iou
from ablate.stats.blocks import draw_images, image_scheme
from ablate.stats.bootstrap import (
    Contrast,
    MultiBootstrap,
    Replicates,
    Score,
    choose,
    combine,
    seed_scores,
    seed_weights,
    variance_split,
)

OF_CLASSES: dict[str, Score] = {"val_score": mean_iou, "test_score": mean_iou}


def ratio(sums: np.ndarray) -> np.ndarray:
    """A score that is a plain mean over images: counts (..., 2) = (sum, number)."""
    return sums[..., 0] / sums[..., 1]


def as_counts(values: np.ndarray) -> list[np.ndarray]:
    """Values (n, images) as the counts of n seeds."""
    return list(np.stack([values, np.ones_like(values)], axis=-1))


def difference(
    left: Mapping[Any, Replicates], right: Mapping[Any, Replicates], *, at: tuple[Hashable, Hashable] | None = None
) -> Contrast:
    """Left − right of a scalar score."""
    (contrast,) = combine([left, right], [1, -1], at=at)
    return contrast


# --- what is drawn -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("correlation", [0.6, 0.8])
def test_blocks_cover_a_sequence_where_independent_draws_do_not(correlation: float) -> None:
    """Mean of an AR(1) sequence of 100 images; theory for independent draws is 2Φ(1.96·√((1−ρ)/(1+ρ))) − 1."""
    rng = np.random.default_rng(1)
    n, series = 100, 1500
    x = signal.lfilter([1], [1, -correlation], rng.normal(size=(n + 100, series)), axis=0)[100:]
    covered = {}
    for block in (None, 20):
        weights = draw_images(rng, image_scheme(n, None if block is None else ["s"] * n, block=block), 400)
        spread = (weights @ x / n).std(axis=0, ddof=1)
        covered[block] = np.mean(np.abs(x.mean(axis=0)) <= 1.96 * spread)
    theory = 2 * stats.norm.cdf(1.96 * sqrt((1 - correlation) / (1 + correlation))) - 1
    assert covered[None] == pytest.approx(theory, abs=0.05)
    assert covered[20] == pytest.approx({0.6: 0.86, 0.8: 0.82}[correlation], abs=0.04)


# --- scores --------------------------------------------------------------------------------------------------------


def test_iou_of_sums_leaves_out_a_class_that_is_nowhere() -> None:
    sums = np.array([[6.0, 2, 2], [1, 0, 3], [0, 0, 0]])
    assert iou(sums)[:2] == pytest.approx([0.6, 0.25])
    assert isnan(iou(sums)[2])
    assert mean_iou(sums) == pytest.approx(0.425)
    assert isnan(mean_iou(np.zeros((2, 3))))


def test_drawn_scores_equal_the_loop_over_replicates() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 50, (7, 3, 3))
    weights = draw_images(rng, image_scheme(7, None), 20)
    expected = [mean_iou(np.repeat(counts, w, axis=0).sum(axis=0).astype(float)) for w in weights]
    assert seed_scores([counts], weights, mean_iou)[1][0] == pytest.approx(np.array(expected))


def test_counts_past_float32_stay_exact() -> None:
    counts = np.full((3, 1, 3), [2**27 + 1, 1, 0], dtype=np.int64)
    _, drawn = seed_scores([counts], np.ones((1, 3), dtype=np.int64), lambda sums: sums[..., 0, 0])
    assert drawn[0, 0] == 3 * (2**27 + 1)


# --- choosing and comparing -----------------------------------------------------------------------------------------


def cell(val: float, test: float, val_draws: Sequence[float], test_draws: Sequence[float], n: int = 3) -> Replicates:
    return Replicates(val, np.array(test), np.array(val_draws), np.array(test_draws), n)


def test_best_settings_are_chosen_in_every_replicate_and_given_ones_are_not() -> None:
    left = {
        1e-3: cell(0.5, 0.40, [0.5, 0.5, 0.1, 0.5], [0.40, 0.42, 0.44, 0.46]),
        1e-4: cell(0.4, 0.30, [0.4, 0.4, 0.4, 0.4], [0.30, 0.30, 0.20, 0.30]),
    }
    right = {1e-3: cell(0.5, 0.1, [0.5] * 4, [0.1] * 4)}
    assert choose(left) == 1e-3
    again = difference(left, right)
    once = difference(left, right, at=(1e-3, 1e-3))
    assert again.draws == pytest.approx([0.30, 0.32, 0.10, 0.36])
    assert once.draws == pytest.approx([0.30, 0.32, 0.34, 0.36])
    assert again.estimate.value == once.estimate.value == pytest.approx(0.3)
    assert again.stability == (0.75, 1.0)
    assert (again.estimate.method, once.estimate.method) == ("multi-bootstrap, retune", "multi-bootstrap, fixed")
    assert once.estimate.se == pytest.approx(np.std(once.draws, ddof=1))
    assert once.estimate.high - 0.3 == pytest.approx(stats.t.ppf(0.975, 4) * once.estimate.se)
    assert again.image + again.choice == pytest.approx(again.estimate.se**2)
    at = difference(left, right, at=(1e-4, 1e-3))
    assert at.estimate.value == pytest.approx(0.2)
    assert at.settings == (1e-4, 1e-3)
    assert np.isnan(at.stability).all()
    half = combine([left, right], [0.5, -0.5], at=(1e-3, 1e-3))[0].estimate
    assert (half.value, half.se) == pytest.approx((once.estimate.value / 2, once.estimate.se / 2))


def test_a_tie_goes_to_the_first_setting_and_no_setting_is_an_error() -> None:
    cells = {3: cell(0.5, 0.1, [0.5], [0.1]), 1: cell(0.5, 0.2, [0.5], [0.2])}
    assert choose(cells) == 3
    with pytest.raises(ValueError, match="without cells"):
        choose({})


def test_seeds_alone_give_the_two_sample_t_test() -> None:
    """With images that all say the same, the interval is Welch's: SE² = s²_a/n + s²_b/n, Satterthwaite's df."""
    a, b = np.array([0.50, 0.53, 0.58]), np.array([0.40, 0.44, 0.45])
    bootstrap = MultiBootstrap(val=image_scheme(4, None), test=image_scheme(6, None), resamples=20_000)
    sides = [
        {
            0: bootstrap.cell(
                name, *[as_counts(np.repeat(x[:, None], m, axis=1)) for m in (4, 6)], val_score=ratio, test_score=ratio
            )
        }
        for name, x in (("a", a), ("b", b))
    ]
    ours = difference(*sides).estimate
    theirs = stats.ttest_ind(a, b, equal_var=False)
    assert ours.value == pytest.approx(theirs.statistic * np.sqrt(a.var(ddof=1) / 3 + b.var(ddof=1) / 3))
    assert ours.se == pytest.approx(sqrt(a.var(ddof=1) / 3 + b.var(ddof=1) / 3), rel=0.02)
    assert ours.p == pytest.approx(theirs.pvalue, rel=0.1)


def test_a_cell_keeps_its_draws_whatever_else_is_compared() -> None:
    rng = np.random.default_rng(0)
    counts = [rng.integers(0, 50, (8, 3, 3)) for _ in range(3)]
    one = MultiBootstrap(val=image_scheme(8, None), test=image_scheme(8, None), resamples=50)
    other = MultiBootstrap(val=image_scheme(8, None), test=image_scheme(8, None), resamples=50)
    other.cell("another", counts, counts, **OF_CLASSES)
    assert (
        one.cell("unet/lr=0.001", counts, counts, **OF_CLASSES).test_draws
        == other.cell("unet/lr=0.001", counts, counts, **OF_CLASSES).test_draws
    ).all()


def test_a_diverged_seed_scores_zero_in_every_replicate() -> None:
    counts = np.full((5, 2, 3), [8, 1, 1], dtype=np.int64)
    bootstrap = MultiBootstrap(val=image_scheme(5, None), test=image_scheme(5, None), resamples=100)
    made = bootstrap.cell("x", [counts, None], [counts, None], **OF_CLASSES)
    assert made.val == pytest.approx(0.4)
    assert float(made.test) == pytest.approx(0.4)
    assert made.test_draws.min() == pytest.approx(0.4 - sqrt(2) * 0.4)


def test_one_seed_has_a_value_and_no_interval() -> None:
    rng = np.random.default_rng(0)
    bootstrap = MultiBootstrap(val=image_scheme(8, None), test=image_scheme(8, None), resamples=50)
    counts = [[rng.integers(1, 50, (8, 3, 3))] for _ in range(4)]
    sides = [
        {0: bootstrap.cell("a", counts[0], counts[1], **OF_CLASSES)},
        {0: bootstrap.cell("b", counts[2], counts[3], **OF_CLASSES)},
    ]
    contrast = difference(*sides).estimate
    assert np.isfinite(contrast.value)
    assert not contrast.has_interval
    assert "fewer than two seeds" in contrast.reason


def test_seeds_of_val_and_test_must_pair() -> None:
    bootstrap = MultiBootstrap(val=image_scheme(2, None), test=image_scheme(2, None), resamples=10)
    with pytest.raises(ValueError, match="cell x: 1 seeds on val, 2 on test"):
        bootstrap.cell("x", [None], [None, None], **OF_CLASSES)


def test_vectors_give_one_contrast_a_class_and_a_rare_class_none() -> None:
    rng = np.random.default_rng(0)
    bootstrap = MultiBootstrap(val=image_scheme(9, None), test=image_scheme(9, None), resamples=300)
    sides = []
    for name, bonus in (("a", 40), ("b", 0)):
        counts = rng.integers(20, 40, (3, 9, 3, 3))
        counts[:, :, 0, 0] += bonus
        counts[:, 1:, 2] = 0  # the third class is in one image only
        sides.append({0: bootstrap.cell(name, list(counts), list(counts), val_score=mean_iou, test_score=iou)})
    first, second, rare = combine(sides, [1, -1])
    assert first.estimate.low > 0.1
    assert abs(second.estimate.value) < 0.05
    assert "undefined" in rare.estimate.reason
    assert np.isfinite(rare.estimate.value)
    levels = [contrast.estimate.value for contrast in combine(sides[:1], [1])]
    assert [round(value, 6) for value in levels] == [round(float(x), 6) for x in sides[0][0].test]


# --- coverage ------------------------------------------------------------------------------------------------------

REGIMES = {
    # standard deviations of: the seed, the image effect of a variant, what is left of a seed and an image
    "seeds": (0.02, 0.0, 0.01),
    "interaction": (0.003, 0.0, 0.15),
    "images": (0.003, 0.10, 0.02),
}


def planted_cells(
    bootstrap: MultiBootstrap, rng: np.random.Generator, draw: int, means: Sequence[float], n: int, regime: str
) -> list[dict[int, Replicates]]:
    seed, image, rest = REGIMES[regime]
    images = bootstrap.test_weights.shape[1]
    shared = rng.normal(0, 0.1, (2, images))
    sides: list[dict[int, Replicates]] = []
    for side in range(2):
        own = shared + rng.normal(0, image, (2, images))
        sides.append({})
        for setting, mean in enumerate(means):
            luck = mean + rng.normal(0, seed, (n, 1))
            val, test = (as_counts(luck + own[split] + rng.normal(0, rest, (n, images))) for split in range(2))
            sides[side][setting] = bootstrap.cell(
                f"{draw}/{side}/{setting}", val, test, val_score=ratio, test_score=ratio
            )
    return sides


@pytest.mark.parametrize(
    ("n", "regime"), [(3, "seeds"), (5, "seeds"), (3, "interaction"), (5, "interaction"), (5, "images")]
)
def test_interval_of_a_contrast_covers_whatever_dominates(n: int, regime: str) -> None:
    """Between .95 less Monte-Carlo error and, since t_{2(n−1)} is too wide where images dominate, .995."""
    rng = np.random.default_rng(0)
    bootstrap = MultiBootstrap(val=image_scheme(30, None), test=image_scheme(30, None), resamples=150)
    estimates = [difference(*planted_cells(bootstrap, rng, draw, [0.0], n, regime)).estimate for draw in range(300)]
    covered = np.mean([x.low <= 0 <= x.high for x in estimates])
    assert 0.95 - 3 * sqrt(0.95 * 0.05 / 300) <= covered <= 0.995
    # the standard error is that of the estimate, not merely a safe one
    assert sqrt(np.mean([x.se**2 for x in estimates])) == pytest.approx(np.std([x.value for x in estimates]), rel=0.15)


@pytest.mark.parametrize("means", [(0.0, -0.05), (0.0, 0.0)])
def test_choosing_again_covers_with_clear_and_with_equal_settings(means: tuple[float, float]) -> None:
    rng = np.random.default_rng(2)
    bootstrap = MultiBootstrap(val=image_scheme(30, None), test=image_scheme(30, None), resamples=200)
    contrasts = [difference(*planted_cells(bootstrap, rng, draw, means, 3, "seeds")) for draw in range(200)]
    assert np.mean([c.estimate.low <= 0 <= c.estimate.high for c in contrasts]) >= 0.95 - 3 * sqrt(0.95 * 0.05 / 200)
    percentile = [np.percentile(c.draws, [2.5, 97.5]) for c in contrasts]
    assert all(np.isfinite(percentile).ravel())
    stability = np.mean([c.stability[0] for c in contrasts])
    assert stability > 0.9 if means[1] else 0.5 < stability < 0.9


# --- components of variance -----------------------------------------------------------------------------------------


def test_components_of_variance_are_found_again() -> None:
    rng = np.random.default_rng(3)
    images, n, seed, image, rest = 60, 400, 0.02, 0.1, 0.15
    values = rng.normal(0, seed, (n, 1)) + rng.normal(0, image, (1, images)) + rng.normal(0, rest, (n, images))
    split = variance_split(as_counts(values), draw_images(rng, image_scheme(images, None), 300), ratio)
    assert split.interaction == pytest.approx(rest**2 / images, rel=0.1)
    assert split.between_runs == pytest.approx(seed**2 + rest**2 / images, rel=0.2)
    assert split.seed == pytest.approx(seed**2, rel=0.3)
    assert split.image == pytest.approx(image**2 / images, rel=0.35)
    assert split.between_runs == pytest.approx(split.seed + split.interaction)


def test_components_need_two_seeds() -> None:
    assert isnan(variance_split([np.ones((4, 2, 3), dtype=np.int64)], np.ones((5, 4), dtype=np.int64), mean_iou).seed)


def test_seed_weights_draw_n_of_n() -> None:
    weights = seed_weights(np.random.default_rng(0), 3, 1000)
    assert (weights.sum(axis=1) == 3).all()
    assert (weights == 3).any(axis=1).mean() == pytest.approx(1 / 9, abs=0.03)
