"""Resampling: seeds within every cell together with images, the setting chosen again in each replicate."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf, nan, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablate.stats.blocks import ImageScheme, draw_images
from ablate.stats.intervals import Estimate, Floats, from_standard_error, satterthwaite

# Counts of the images of one run are (images, ...), such as (images, classes, 3) of tp, fp, fn; a score makes of their
# sums (...) a number, or a vector, for every leading index.
Counts = NDArray[np.int64]
Score = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Replicates:
    """One cell under the bootstrap: the score that chooses, the score that is compared, and both in every replicate.

    `val` is a scalar with draws (R,); `test` may be a scalar or a vector (one entry a class) with draws (R, ...).
    `between` is the variance of `test` between the seeds, `interaction` the part of it that is each run's own luck
    with just these images (see `interaction_of`): as `test`, or a scalar for all its entries; NaN below two seeds.
    `image_draws` are the draws of `test` with the seeds as they are, in which the images alone vary; `image_df` are the
    degrees of freedom of that part of a variance.
    """

    val: float
    test: Floats
    val_draws: Floats
    test_draws: Floats
    seeds: int
    between: Floats = field(default_factory=lambda: np.zeros(()))
    interaction: Floats = field(default_factory=lambda: np.zeros(()))
    image_draws: Floats = field(default_factory=lambda: np.zeros(()))
    image_df: float = inf

    def entry(self, place: int) -> Replicates:
        """Return one entry of a score that is a vector, such as that of one class."""

        def pick(value: Floats) -> Floats:
            return np.asarray(value)[..., place] if np.ndim(value) else value

        parts: dict[str, Any] = {name: pick(getattr(self, name)) for name in ("between", "interaction", "image_draws")}
        return replace(self, test=np.asarray(self.test[place]), test_draws=self.test_draws[:, place], **parts)


class MultiBootstrap:
    """Multi-Bootstrap of a study (Sellam et al., The MultiBERTs, 2022): one set of image draws for everything compared.

    Each replicate draws the images of val and of test once, for all cells alike, and the seeds of every cell
    independently of other cells: image noise is shared by the variants and cancels as far as they agree, seed noise
    does not. With s_i the score of seed i on all images, s̄ their mean, s̄* the mean on the drawn images and w_i how
    often seed i is drawn, a replicate of the cell is s̄* + √(n/(n−1))·(Σ w_i s_i/n − s̄).

    Two changes against the plain form, both for few seeds. The root stands in the replicate instead of before its
    SD: seeds drawn from n vary by (n−1)/n too little, images do not. And the drawn seeds' deviations are those on
    all images: the spread of the s_i holds each run's luck with these images already, and drawing images for each run
    separately would count it again (the excess of the two-way bootstrap, Owen 2007).

    A cell's seed draws depend only on `seed` and the cell's name, so a cell keeps its draws in every contrast and
    whatever else is in the study.
    """

    def __init__(self, *, val: ImageScheme, test: ImageScheme, resamples: int = 2000, seed: int = 0) -> None:
        self.resamples, self.seed = resamples, seed
        self.schemes = {"val": val, "test": test}
        rng = np.random.default_rng([seed, 0])
        self.val_weights = draw_images(rng, val, resamples)
        self.test_weights = draw_images(rng, test, resamples)

    def cell(
        self,
        name: str,
        val: Sequence[Counts | None],
        test: Sequence[Counts | None],
        *,
        val_score: Score,
        test_score: Score,
    ) -> Replicates:
        """Return the replicates of the cell called `name` from the counts of its seeds.

        `val[i]` (val images, ...) and `test[i]` (test images, ...) are of the same seed: they are drawn together. None
        stands for a diverged seed, which scores 0.
        """
        if len(val) != len(test) or not val:
            raise ValueError(f"cell {name}: {len(val)} seeds on val, {len(test)} on test")
        rng = np.random.default_rng([self.seed, 1, zlib.crc32(name.encode())])
        drawn = seed_weights(rng, len(val), self.resamples)
        points, scores = seed_scores(test, self.test_weights, test_score)
        val_points, val_scores = seed_scores(val, self.val_weights, val_score)
        alone = len(test) < 2
        return Replicates(
            float(val_points.mean(axis=0)),
            points.mean(axis=0),
            _draws(val_points, val_scores, drawn),
            _draws(points, scores, drawn),
            len(test),
            np.full(points.shape[1:], nan) if alone else points.var(axis=0, ddof=1),
            np.full(points.shape[1:], nan) if alone else interaction_of(points, scores),
            scores.mean(axis=0),
            self.schemes["test"].df,
        )


def _draws(points: Floats, scores: Floats, drawn: NDArray[np.int64]) -> Floats:
    """Return the mean score in every replicate (R, ...).

    `points` are of the seeds on all images (n, ...), `scores` on the drawn ones (n, R, ...).
    """
    n = len(points)
    draws = scores.mean(axis=0)
    if n < 2:
        return draws
    return draws + sqrt(n / (n - 1)) * np.tensordot(drawn / n, points - points.mean(axis=0), axes=1)


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of the compared scores of some sides, such as left − right, and what its variance is made of.

    By side: `settings` at which it stands, `stability`, the share of the replicates that choose that setting again (NaN
    where it was given), and `between`, the variance between its seeds. `image` is what the sampling of the images,
    common to all sides, adds to the variance of the sum, `choice` what choosing the settings adds; `draws` are the sum
    in every replicate (R,).
    """

    estimate: Estimate
    settings: tuple[Hashable, ...]
    stability: tuple[float, ...]
    draws: Floats
    between: tuple[float, ...]
    image: float
    choice: float


def no_contrast(reason: str) -> Contrast:
    """Return what stands for a contrast that cannot be made, for that reason: it has no number and no draws."""
    unknown = (nan, nan)
    return Contrast(Estimate(nan, nan, nan, reason=reason), (), unknown, np.empty(0), unknown, nan, nan)


def choose(cells: Mapping[Any, Replicates]) -> Hashable:
    """Return the setting with the best mean val score; the first of equals in the mapping's order."""
    if not cells:
        raise ValueError("a variant without cells has no best setting")
    return max(cells, key=lambda setting: cells[setting].val)


def combine(
    sides: Sequence[Mapping[Any, Replicates]],
    weights: Sequence[float],
    *,
    at: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
) -> list[Contrast]:
    """Return Σ w · T over the sides, one for each entry of the compared score: a level, a difference, an interaction.

    `sides` are the cells of a variant by setting. Each stands at the setting with the best mean val score over seeds,
    chosen again in every replicate (*retune*), so that the interval holds the noise of choosing; or at the setting that
    `at` names for it (*fixed*), where only seeds and images vary.

    Interval: estimate ± t · SE. SE² = Var(replicates) − Σ w² i/n, with i the interaction of the chosen cells (drawing
    images moves s̄ by it once more than the truth does), but not below what the seeds alone give, Σ w² between/n. The
    degrees of freedom are Satterthwaite's over the parts of SE²: w² between/n of each side with n − 1, the images' with
    those of the way they are drawn, and what choosing adds with the n − 1 of all sides together. With seeds alone a
    difference is Welch's test, whose level holds where the spreads of the two sides differ.
    """
    settings = tuple(map(choose, sides)) if at is None else tuple(at)
    cells = [side[setting] for side, setting in zip(sides, settings, strict=True)]
    if at is None:
        drawn, stability = zip(*(_chosen_draws(*side) for side in zip(sides, settings, strict=True)), strict=True)
    else:
        drawn, stability = tuple(cell.test_draws for cell in cells), (nan,) * len(cells)
    values, draws, images = (
        sum((w * part for w, part in zip(weights[1:], parts[1:], strict=True)), weights[0] * parts[0])
        for parts in ([cell.test for cell in cells], drawn, [cell.image_draws for cell in cells])
    )
    draws, values = draws.reshape(len(draws), -1), np.ravel(values)
    # Without draws of the images alone, as in cells whose seeds all diverged, they have no part.
    alone = images.reshape(len(images), -1) if images.ndim else np.zeros_like(draws)
    n = np.array([cell.seeds for cell in cells])
    squares = np.asarray(weights, dtype=float) ** 2
    # A cell whose seeds all diverged knows one variance for all its entries.
    between = np.stack([np.broadcast_to(np.ravel(cell.between), values.shape) for cell in cells], axis=1)
    luck = (square * np.ravel(cell.interaction) / cell.seeds for square, cell in zip(squares, cells, strict=True))
    excess = sum(luck, np.zeros(len(values)))
    dfs = [*(n - 1), min(cell.image_df for cell in cells), sum(n - 1)]
    told: dict[str, Any] = {"n": int(min(n)), "confidence": confidence}
    told["method"] = f"multi-bootstrap, {'retune' if at is None else 'fixed'}"
    made = []
    for place, value in enumerate(values.tolist()):
        # A replicate may leave the score undefined (a class in no drawn image); above one in ten there is no interval.
        known, moved = (part[np.isfinite(part)] for part in (draws[:, place], alone[:, place]))
        of_seeds, parts = tuple(between[place].tolist()), (nan, nan, nan, nan)
        if min(n) >= 2 and known.size < 0.9 * len(draws):
            reason = "undefined in more than a tenth of the replicates"
            estimate, of_seeds = Estimate(value, nan, nan, reason=reason, **told), (nan,) * len(cells)
        else:
            if min(n) >= 2:
                parts = _variance(known, moved, squares * between[place] / n, excess[place], dfs)
            estimate = from_standard_error(value, *parts[:2], **told)
        made.append(Contrast(estimate, settings, stability, draws[:, place], of_seeds, *parts[2:]))
    return made


def _variance(
    draws: Floats, images: Floats, seeds: Floats, excess: float, dfs: Sequence[float]
) -> tuple[float, float, float, float]:
    """Return the standard error of a sum of cells, its df, and what the images and the choice add to its variance.

    `draws` are the replicates, `images` those in which the images alone vary, `seeds` the parts of the seeds of each
    cell, `excess` what the replicates vary too much by, `dfs` the degrees of freedom of seeds, images and choice.
    """
    variance = max(float(draws.var(ddof=1)) - excess, seeds.sum())
    rest = variance - seeds.sum()
    image = min(rest, max(0.0, float(images.var(ddof=1)) - excess))
    df = float(satterthwaite([*seeds, image, rest - image], dfs))
    # Sums of equal numbers differ by rounding; that is no spread.
    return 0.0 if variance < 1e-24 else sqrt(variance), df, image, rest - image


def _chosen_draws(cells: Mapping[Any, Replicates], setting: Hashable) -> tuple[Floats, float]:
    """Return the test score in every replicate (R, ...) at the setting chosen there, and how often it is `setting`."""
    order = list(cells)
    val = np.stack([cells[key].val_draws for key in order])
    # A cell whose score is undefined in a replicate cannot be chosen there.
    chosen = np.argmax(np.where(np.isfinite(val), val, -np.inf), axis=0)
    test = np.stack([cells[key].test_draws for key in order])
    return test[chosen, np.arange(test.shape[1])], float((chosen == order.index(setting)).mean())


# --- the parts of a replicate: how often each seed is drawn, and the scores of the drawn images -----------------------


def seed_weights(rng: np.random.Generator, n: int, resamples: int) -> NDArray[np.int64]:
    """Draw how often each of n seeds is drawn in each replicate: (resamples, n)."""
    # Drawn one by one and counted: the same distribution as `multinomial`, which takes five times as long for 50 seeds.
    drawn = rng.integers(0, n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=n * resamples).reshape(resamples, n)


def seed_scores(counts: Sequence[Counts | None], weights: NDArray[np.int64], score: Score) -> tuple[Floats, Floats]:
    """Return the scores of the n seeds of a cell on all images (n, ...) and in every replicate (n, R, ...).

    None scores 0. Sums are matrix products in float64, exact below 2^53.
    """
    drawn = np.ascontiguousarray(weights.T, dtype=np.float64)

    def scored(trial: Counts) -> tuple[Floats, Floats]:
        # A row for every count and a column for every replicate, so that what is added and divided lies side by side.
        rows = np.ascontiguousarray(np.moveaxis(trial, 0, -1), dtype=np.float64)
        sums = (rows.reshape(-1, rows.shape[-1]) @ drawn).reshape(*rows.shape[:-1], -1)
        return score(trial.sum(axis=0, dtype=float)), score(np.moveaxis(sums, -1, 0))

    found = [None if trial is None else scored(np.asarray(trial)) for trial in counts]
    # Where every seed diverged nothing tells the length of a score that is a vector.
    shapes = next(([part.shape for part in one] for one in found if one is not None), [(), (len(weights),)])
    zeros = tuple(map(np.zeros, shapes))
    points, scores = map(np.stack, zip(*(zeros if one is None else one for one in found), strict=True))
    return points, scores


def interaction_of(points: Floats, scores: Floats) -> Floats:
    """Return the variance of one run's luck with just these images: points (n, ...), scores (n, R, ...) -> (...).

    For n ≥ 2 seeds: mean over the replicates of the variance between seeds of (score on the drawn images − score on
    all images); what moves all runs alike drops out.
    """
    moved = (scores - points[:, None]).var(axis=0, ddof=1)
    there = np.isfinite(moved)
    total = np.where(there, moved, 0.0).sum(axis=0)
    return np.asarray(np.divide(total, there.sum(axis=0), out=np.full(total.shape, nan), where=there.any(axis=0)))


@dataclass(frozen=True)
class VarianceSplit:
    """The sources of the uncertainty of a cell's mean test score; variances of one run in squared score units.

    `between_runs` is what the seeds show on this test set; `seed` is what would remain on unlimited test images;
    `image` is the sampling of the test images common to all runs; `interaction` is what a single run gains or loses
    on just these images. Variance of the mean of n runs: (seed + interaction)/n + image.
    """

    between_runs: float
    seed: float
    image: float
    interaction: float
    n: int


def variance_split(counts: Sequence[Counts | None], weights: NDArray[np.int64], score: Score) -> VarianceSplit:
    """Return the components of variance of a cell: counts of its n ≥ 2 seeds, image weights (R, images).

    After the separation of Jordan (2023, "Calibrated chaos"): runs differ on a finite test set more than they would
    on the distribution, by the part that resampling the images moves differently for each run. With s_i the score
    of run i: between_runs = var_i(s_i); interaction = mean over replicates of var_i(s*_i − s_i);
    seed = max(0, between_runs − interaction); image = max(0, var(mean_i s*_i) − interaction/n). NaN below two seeds.
    """
    n = len(counts)
    if n < 2:
        return VarianceSplit(nan, nan, nan, nan, n)
    points, draws = seed_scores(counts, weights, score)
    between = float(points.var(ddof=1))
    interaction = float(interaction_of(points, draws))
    image = max(0.0, float(np.nanvar(draws.mean(axis=0), ddof=1)) - interaction / n)
    return VarianceSplit(between, max(0.0, between - interaction), image, interaction, n)
