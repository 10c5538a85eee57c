"""A published study as a population that studies are drawn from: what its cells are worth, and how runs differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from ablate.stats.blocks import draw_images, image_scheme
from ablate.stats.intervals import contrast_error

Floats = NDArray[np.float64]

PUBLISHED = Path(__file__).resolve().parents[1] / "results" / "published"
STUDIES = {"street": "unet-ablation-three-seeds", "CamVid": "camvid-small"}
BASELINE = "unet"
RESAMPLES = 200
# Rates more points below a variant's best are not chosen, and their spread does not matter.
NEAR = 5.0


@dataclass(frozen=True)
class World:
    """A published study as a population, in points of mean IoU: cells (variants, rates), the baseline first.

    `below` is how far a rate lies below its variant's best, `spread` the SD between seeds on test, `correlation` that
    of a run's luck on val and on test, `image` the SD of a difference of two variants by the sampling of test images.
    """

    name: str
    below: Floats
    spread: float
    correlation: float
    image: float

    def alike(self) -> World:
        """Return the population in which every variant falls off over the rates as the baseline does."""
        return replace(self, below=np.tile(self.below[:1], (len(self.below), 1)))

    def means(self, effect: float) -> Floats:
        """Return the true scores of the cells (variants, rates): all but the baseline are better by `effect`."""
        return self.below + effect * (np.arange(len(self.below)) > 0)[:, None]

    def runs(self, rng: np.random.Generator, studies: int, seeds: int, effect: float) -> tuple[Floats, Floats]:
        """Draw val and test scores (studies, variants, rates, seeds)."""
        common, own = rng.normal(size=(2, studies, *self.below.shape, seeds))
        mean = self.means(effect)[..., None]
        luck = self.correlation * common + sqrt(1 - self.correlation**2) * own
        test = mean + self.spread * luck + self.images(rng, studies)[:, :, None, None]
        return mean + self.spread * common, test

    def images(self, rng: np.random.Generator, studies: int) -> Floats:
        """Draw what the test images are worth to each variant, the same for all of its runs: (studies, variants)."""
        return self.image / sqrt(2) * rng.normal(size=(studies, len(self.below)))


def read_world(name: str, root: Path = PUBLISHED) -> World:
    """Read a published study's spreads and fall-off over the rates from its records."""
    folder = root / STUDIES[name]
    scores: dict[tuple[str, float], list[tuple[float, float]]] = {}
    counts: dict[tuple[str, float], list[NDArray[np.int64]]] = {}
    for path in sorted((folder / "trials").glob("*/record.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        cell, metrics = (record["variant"], record["settings"]["lr"]), record["metrics"]
        scores.setdefault(cell, []).append((100 * metrics["val_mean_iou"], 100 * metrics["test_mean_iou"]))
        with np.load(path.with_name("images.npz")) as arrays:
            counts.setdefault(cell, []).append(arrays["test"])
    variants = sorted({variant for variant, _ in scores}, key=lambda variant: (variant != BASELINE, variant))
    rates = sorted({rate for _, rate in scores})
    cells = np.array([[scores[variant, rate] for rate in rates] for variant in variants])  # variants, rates, seeds, 2
    centred = (cells - cells.mean(axis=2, keepdims=True)).reshape(-1, 2)
    means, variances = cells[..., 1].mean(axis=2), cells[..., 1].var(axis=2, ddof=1)
    best = [counts[variant, rates[place]] for variant, place in zip(variants, means.argmax(axis=1), strict=True)]
    groups = json.loads((folder / "test" / "index.json").read_text(encoding="utf-8"))["groups"]
    near = means > means.max(axis=1, keepdims=True) - NEAR
    below = shrunk(means, float(variances.mean()) / cells.shape[2])
    return World(
        name,
        below - below.max(axis=1, keepdims=True),
        sqrt(variances[near].mean()),
        float(np.corrcoef(centred.T)[0, 1]),
        image_sd([np.stack(seeds) for seeds in best], groups),
    )


def shrunk(means: Floats, error: float) -> Floats:
    """Shrink what sets cells (variants, rates) apart from additive effects by the share that their `error` explains.

    Means of few seeds make variants fall off more differently over the rates than they truly do (James and Stein).
    """
    additive = means.mean(axis=1, keepdims=True) + means.mean(axis=0) - means.mean()
    apart = means - additive
    observed = (apart**2).sum() / ((means.shape[0] - 1) * (means.shape[1] - 1))
    return np.asarray(additive + max(0.0, 1 - error / observed) * apart)


def image_sd(cells: Sequence[NDArray[np.int64]], groups: Sequence[str] | None) -> float:
    """Return the SD of a difference with the first cell by the sampling of images (root mean square over the others).

    `cells` are counts (seeds, images, classes, 3). What drawing images does to single runs (their luck with just these)
    is part of the spread between seeds, and taken off.
    """
    scheme = image_scheme(cells[0].shape[1], groups)
    weights = draw_images(np.random.default_rng(0), scheme, RESAMPLES)
    moved, luck = [], []
    for seeds in cells:
        drawn, whole = _mean_iou(np.einsum("ri,sick->srck", weights, seeds)), _mean_iou(seeds.sum(axis=1))
        moved.append(100 * drawn.mean(axis=0))
        luck.append(1e4 * (drawn - whole[:, None]).var(axis=0, ddof=1).mean() / len(seeds))
    variances = [(own - moved[0]).var() - left - luck[0] for own, left in zip(moved[1:], luck[1:], strict=True)]
    return sqrt(max(0.0, float(np.mean(np.maximum(variances, 0)))))


def _mean_iou(sums: NDArray[np.int64]) -> Floats:
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nanmean(sums[..., 0] / sums.sum(axis=-1), axis=-1))


class TTest(NamedTuple):
    """Estimates with their t intervals and two-sided p-values, arrays of one shape; NaN where there is none."""

    value: Floats
    se: Floats
    df: Floats
    low: Floats
    high: Floats
    p: Floats


def t_test(value: ArrayLike, se: ArrayLike, df: ArrayLike, *, confidence: float = 0.95, null: float = 0.0) -> TTest:
    """Return value ± t_df · se at two-sided level `confidence`, and the p-value of the same t against `null`.

    The arguments broadcast. A standard error of zero is no evidence of exactness: interval and p are NaN then, as
    where the df are not positive or a number is not finite.
    """
    x, error, degrees = np.broadcast_arrays(*(np.asarray(part, dtype=float) for part in (value, se, df)))
    known = np.isfinite(x) & np.isfinite(error) & (error > 0) & (degrees > 0)
    error, degrees = np.where(known, error, np.nan), np.where(known, degrees, np.nan)
    reach = special.stdtrit(degrees, 0.5 + confidence / 2) * error
    p = 2 * special.stdtr(degrees, -np.abs(x - null) / error)
    return TTest(x, error, degrees, x - reach, x + reach, p)


def welch(left: ArrayLike, right: ArrayLike, *, confidence: float = 0.95) -> TTest:
    """Compare the means of independent samples, `left` (..., n) and `right` (..., m) -> arrays (...).

    mean(left) − mean(right) with Welch's t interval and p-value: spreads and sizes may differ. The leading axes
    broadcast, so that one baseline serves several contrasts. NaN below two values on a side.
    """
    a, b = np.asarray(left, dtype=float), np.asarray(right, dtype=float)
    value = a.mean(axis=-1) - b.mean(axis=-1)
    if min(a.shape[-1], b.shape[-1]) < 2:
        return t_test(value, np.nan, np.nan, confidence=confidence)
    between = np.stack(np.broadcast_arrays(a.var(axis=-1, ddof=1), b.var(axis=-1, ddof=1)), axis=-1)
    se, df = contrast_error(between, [a.shape[-1], b.shape[-1]])
    return t_test(value, se, df, confidence=confidence)
