"""Differences of two means whose spreads differ: Welch's standard error, Satterthwaite's degrees of freedom."""

from __future__ import annotations

from math import inf

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def satterthwaite(variances: ArrayLike, dfs: ArrayLike) -> Floats:
    """Return the degrees of freedom of a sum of independent variance estimates (..., parts) -> (...).

    (Σ v)² / Σ v²/df: the chi-square law whose first two moments are those of the sum (Satterthwaite 1946; Welch 1947).
    A part of infinite df is known exactly. A sum of zero has the df of the least part.
    """
    v, df = np.broadcast_arrays(np.asarray(variances, dtype=float), np.asarray(dfs, dtype=float))
    total = v.sum(axis=-1)
    spent = (v**2 / df).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(total > 0, total**2 / spent, df.min(axis=-1))


def contrast_error(
    between: ArrayLike, seeds: ArrayLike, *, shared: ArrayLike = 0.0, shared_df: ArrayLike = inf
) -> tuple[Floats, Floats]:
    """Return the standard error and the degrees of freedom of a difference of two cells' means.

    `between` (..., 2) are the variances between the seeds of either cell and `seeds` (..., 2) their numbers n ≥ 2, so
    that the parts of the variance are between/n with n − 1 df each. `shared` (...) is what else the difference varies
    by (the sampling of the test images that both cells are scored on), with `shared_df` degrees of freedom: the number
    of groups less one where few groups of images are drawn, else taken as known. The df are `satterthwaite`'s; with
    equal spreads and sizes they are 2(n − 1), with one spread far larger those of that side alone.
    """
    n = np.asarray(seeds, dtype=float)
    v = np.asarray(between, dtype=float) / n
    rest, rest_df = np.asarray(shared, dtype=float), np.asarray(shared_df, dtype=float)
    v, n = np.broadcast_arrays(v, n)
    rest, rest_df = np.broadcast_to(rest, v.shape[:-1]), np.broadcast_to(rest_df, v.shape[:-1])
    parts = np.concatenate([v, rest[..., None]], axis=-1)
    return np.sqrt(parts.sum(axis=-1)), satterthwaite(parts, np.concatenate([n - 1, rest_df[..., None]], axis=-1))
