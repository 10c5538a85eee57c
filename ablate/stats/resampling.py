"""The parts of a replicate: how often each seed is drawn, and the scores of the drawn images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import NDArray

# Counts of the images of one run are (images, ...), such as (images, classes, 3) of tp, fp, fn; a score makes of their
# sums (...) a number, or a vector, for every leading index.
Counts = NDArray[np.int64]
Floats = NDArray[np.float64]
Score = Callable[[Floats], Floats]


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
    known = next((one for one in found if one is not None), (np.zeros(()), np.zeros(len(weights))))
    lost = tuple(map(np.zeros_like, known))
    points, scores = (np.stack(part) for part in zip(*(one or lost for one in found), strict=True))
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
