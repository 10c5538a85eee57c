"""The slope of a short series, hardly moved by single points."""

from __future__ import annotations

import numpy as np


def theil_sen_slope(values: np.ndarray) -> np.ndarray:
    """Median of the slopes between all pairs of points, per index of the last axis: (...) from (..., K), K ≥ 2.

    Theil (1950) and Sen (1968); `scipy.stats.theilslopes` for one series, here for many at once. Beyond 1,000 points
    only the pairs half the length apart are used (Theil's abbreviated form), for all of them would fill the memory.
    """
    values = np.asarray(values, dtype=np.float64)
    points = values.shape[-1]
    if points > 1000:
        first = np.arange(points // 2)
        second = first + (points + 1) // 2
    else:
        first, second = np.triu_indices(points, k=1)
    return np.median((values[..., second] - values[..., first]) / (second - first), axis=-1)
