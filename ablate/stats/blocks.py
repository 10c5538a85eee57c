"""Resampling of dependent images: whole groups, blocks of a length that the data tell, and a warning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf, log10, nan, sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from ablate.stats.intervals import Floats

Indices = NDArray[np.int64]

# From this many groups on, whole groups are drawn: with fewer they are too few to stand for others.
LEAST_GROUPS_DRAWN_WHOLE = 10
# So many small correlations in a row end the memory of a sequence.
_RUN = 5
# Level below which an order of the images is taken for dependence: a warning, not a decision.
ORDER_LEVEL = 0.01
_ORDER_LAGS = 5


@dataclass(frozen=True)
class ImageScheme:
    """The way in which the images of a split are resampled, and what an interval made so speaks of.

    `kind` is "independent" (image by image), "groups" (whole groups) or "blocks" (circular blocks of `block` images
    within every group). `groups` holds the indices of the images of each group, in their order. `df` are the degrees
    of freedom of the images' part of a variance; `conditional` says that the interval holds for just these groups and
    not for others like them.
    """

    kind: Literal["independent", "groups", "blocks"]
    images: int
    groups: tuple[Indices, ...] = ()
    block: int = 1
    df: float = inf
    conditional: bool = False


def image_scheme(
    images: int,
    groups: Sequence[str] | None,
    differences: ArrayLike | None = None,
    *,
    block: int | None = None,
) -> ImageScheme:
    """Choose how n images are resampled from their groups (one name an image; None where they are independent).

    - No groups: image by image, df = n − 1.
    - At least ten groups: whole groups, whatever their length (cluster bootstrap: Field and Welsh 2007; Cameron,
      Gelbach and Miller 2008). Dependence within a group needs no model; df = k − 1, k the number of groups.
    - Fewer: circular blocks within each group (Politis and Romano 1992), so that the interval is *conditional* on these
      groups; df = k − 1, at least 1. The block is the `block_length` of the `differences`, what each image adds to the
      compared difference, (images,) or (contrasts, images), the longest of the contrasts; ∛n without them. A number as
      `block` is taken as it is.

    Raises ValueError where there is no image, or not one name an image.
    """
    if images < 1:
        raise ValueError("there are no images to draw")
    if groups is None:
        return ImageScheme("independent", images, df=max(1, images - 1))
    if len(groups) != images:
        raise ValueError(f"{len(groups)} group names for {images} images")
    names = np.asarray(groups)
    members = tuple(np.flatnonzero(names == name) for name in dict.fromkeys(names.tolist()))
    df = float(max(1, len(members) - 1))
    if len(members) >= LEAST_GROUPS_DRAWN_WHOLE:
        return ImageScheme("groups", images, members, df=df)
    if block is not None:
        pass
    elif differences is None:
        block = ceil(images ** (1 / 3))
    else:
        rows = np.atleast_2d(np.asarray(differences, dtype=float))
        block = max(block_length([row[index] for index in members]) for row in rows)
    return ImageScheme("blocks", images, members, block, df, conditional=True)


def draw_images(rng: np.random.Generator, scheme: ImageScheme, resamples: int) -> Indices:
    """Return how often each image is drawn in each replicate: (resamples, images) non-negative integers.

    Of whole groups as many are drawn as there are, so that a replicate's number of images varies. In blocks, a group of
    m images gives ⌈m/L⌉ circular blocks of L = min(block, ⌊m/3⌋) images, the last one cut so that m images are drawn:
    every group keeps its size.
    """
    if scheme.kind == "independent":
        return rng.multinomial(scheme.images, np.full(scheme.images, 1 / scheme.images), size=resamples)
    weights = np.zeros((resamples, scheme.images), dtype=np.int64)
    if scheme.kind == "groups":
        k = len(scheme.groups)
        drawn = rng.multinomial(k, np.full(k, 1 / k), size=resamples)
        for column, index in enumerate(scheme.groups):
            weights[:, index] = drawn[:, [column]]
        return weights
    rows = np.arange(resamples)[:, None]
    for index in scheme.groups:
        m = index.size
        length = max(1, min(scheme.block, m // 3))
        starts = rng.integers(0, m, size=(resamples, -(-m // length), 1))
        chosen = ((starts + np.arange(length)) % m).reshape(resamples, -1)[:, :m]
        np.add.at(weights, (rows, index[chosen]), 1)
    return weights


def block_length(sequences: Sequence[ArrayLike]) -> int:
    """Return the block length of the circular bootstrap that suits the dependence in sequences (each (m,)).

    Politis and White (2004; the correction of Patton, Politis and White 2009 leaves the circular bootstrap as it is):
    b = (2G²/D)^(1/3) · N^(1/3), rounded up, with G = Σ λ(k/M)|k|R(k), D = 4/3 · (Σ λ(k/M)R(k))² over |k| ≤ M, R the
    autocovariances, λ the flat-top window (1 up to 1/2, then falling to 0 at 1), and M twice the lag after which five
    correlations in a row are within ±1.96·√(log₁₀ N/N). At most min(3√N, N/3), rounded up. Several sequences share one
    law: the autocovariances, each about its sequence's own mean, are summed over them; N is the number of all values.
    """
    parts = [np.asarray(part, dtype=float).ravel() for part in sequences]
    n = sum(part.size for part in parts)
    if n < 4:
        return 1
    most_lag = min(ceil(sqrt(n)) + _RUN, max(part.size for part in parts) - 1)
    covariances = _autocovariances(parts, most_lag)
    if covariances[0] <= 0:
        return 1
    small = np.abs(covariances[1:] / covariances[0]) < special.ndtri(0.975) * sqrt(log10(n) / n)
    # The lag after which a whole run of correlations is small; where none is, the last that is not.
    after = next((lag for lag in range(most_lag) if small[lag : lag + _RUN].all()), most_lag)
    cut = min(2 * after, most_lag)
    if cut == 0:
        return 1
    lags = np.arange(1, cut + 1)
    weighted = np.clip(2 * (1 - lags / cut), 0, 1) * covariances[1 : cut + 1]
    slope, density = 2 * (lags * weighted).sum(), covariances[0] + 2 * weighted.sum()
    if density == 0:
        return 1
    length = (1.5 * slope**2 / density**2 * n) ** (1 / 3)
    return max(1, ceil(min(length, 3 * sqrt(n), n / 3)))


def _autocovariances(parts: Sequence[Floats], most_lag: int) -> Floats:
    """Return the autocovariances at lags 0 ... most_lag of sequences, each about its own mean."""
    centred = [part - part.mean() for part in parts if part.size]
    n = sum(part.size for part in centred)
    return np.array(
        [
            sum(float(part[: part.size - lag] @ part[lag:]) for part in centred if part.size > lag) / n
            for lag in range(most_lag + 1)
        ]
    )


@dataclass(frozen=True)
class OrderTest:
    """The dependence of images on their order: `correlation` of neighbours, `p` of there being none, and `warn`."""

    correlation: float
    p: float
    warn: bool


def order_test(differences: ArrayLike) -> OrderTest:
    """Test whether what each image adds to a difference (images,) is correlated in the order of the files.

    Ljung and Box's portmanteau Q = n(n + 2) Σ_k r_k²/(n − k) over the first five lags, of the ranks (so that
    a few extreme images do not decide), against χ². `warn` where p < `ORDER_LEVEL` and neighbours correlate
    positively: the images are then likely frames of sequences, drawing them one by one makes intervals too narrow, and
    groups should be declared. NaN and no warning below 20 images or where the differences do not vary.
    """
    x = np.asarray(differences, dtype=float).ravel()
    if x.size < 20 or not np.isfinite(x).all() or np.ptp(x) == 0:
        return OrderTest(nan, nan, False)
    covariances = _autocovariances([np.asarray(stats.rankdata(x), dtype=float)], _ORDER_LAGS)
    correlations = covariances[1:] / covariances[0]
    q = x.size * (x.size + 2) * (correlations**2 / (x.size - np.arange(1, _ORDER_LAGS + 1))).sum()
    p = float(special.chdtrc(_ORDER_LAGS, q))
    return OrderTest(float(correlations[0]), p, bool(p < ORDER_LEVEL and correlations[0] > 0))
