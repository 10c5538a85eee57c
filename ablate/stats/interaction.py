"""Dependence of a contrast on the setting it is made at: an interaction, tested with the same replicates."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ablate.stats.welch import t_test


class Interaction(NamedTuple):
    """The difference of a contrast between two ways of choosing settings, with its t interval and p-value."""

    value: float
    se: float
    df: float
    low: float
    high: float
    p: float

    def confounds(self, alpha: float = 0.05, *, p: float | None = None) -> bool:
        """Return whether the contrast depends on the setting at level `alpha`, by `p` adjusted for others if given."""
        return bool((self.p if p is None else p) <= alpha)


def setting_interaction(
    first: float,
    second: float,
    first_draws: ArrayLike,
    second_draws: ArrayLike,
    *,
    df: float,
    confidence: float = 0.95,
) -> Interaction:
    """Test whether one contrast, estimated at two ways of choosing settings, differs between them.

    `first` and `second` are the estimates (say at each variant's own best setting, and at the shared one), the draws
    (R,) those of the *same* replicates: what both ways have in common, cells and images, cancels in first − second,
    whose standard error is the SD of the draws' differences. `df` are the degrees of freedom of the contrasts. The
    contrast is confounded with the setting where this difference is not zero; that two decisions read differently is no
    such test (a difference of significances: Gelman and Stern 2006). Replicates in which either is undefined are left
    out; NaN where more than a tenth are, and where the draws do not vary (the same settings).
    """
    moved = np.asarray(first_draws, dtype=float) - np.asarray(second_draws, dtype=float)
    kept = moved[np.isfinite(moved)]
    se = float(kept.std(ddof=1)) if kept.size >= max(2, 0.9 * moved.size) else np.nan
    # Sums of equal numbers differ by rounding; that is no spread.
    found = t_test(first - second, se if se > 1e-12 else np.nan, df, confidence=confidence)
    return Interaction(*(float(part) for part in found))
