"""Interactions, tested with the same replicates as the contrasts: of a contrast with the setting, of two factors."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from ablate.stats.bootstrap import Replicates, combine
from ablate.stats.decisions import decide
from ablate.stats.intervals import Estimate, from_standard_error

# The cells of a variant by setting, as `combine` takes them.
Side = Mapping[Any, Replicates]
Joint = Literal["synergistic", "antagonistic", "additive", "undecided"]
_WORDS: Mapping[str, Joint] = {"better": "synergistic", "worse": "antagonistic", "equivalent": "additive"}


def setting_interaction(
    first: float,
    second: float,
    first_draws: ArrayLike,
    second_draws: ArrayLike,
    *,
    df: float,
    confidence: float = 0.95,
) -> Estimate:
    """Test whether one contrast, estimated at two ways of choosing settings, differs between them.

    `first` and `second` are the estimates (say at each variant's own best setting, and at the shared one), the draws
    (R,) those of the *same* replicates: what both ways have in common, cells and images, cancels in first − second,
    whose standard error is the SD of the draws' differences. `df` are the degrees of freedom of the contrasts. The
    contrast is confounded with the setting where this difference is not zero; that two decisions read differently is no
    such test (a difference of significances: Gelman and Stern 2006). Replicates in which either is undefined are left
    out; no interval and no p where more than a tenth are, and where the draws do not vary (the same settings).
    """
    moved = np.asarray(first_draws, dtype=float) - np.asarray(second_draws, dtype=float)
    kept = moved[np.isfinite(moved)]
    se = float(kept.std(ddof=1)) if kept.size >= max(2, 0.9 * moved.size) else np.nan
    # Sums of equal numbers differ by rounding; that is no spread.
    se = se if se > 1e-12 else np.nan
    return from_standard_error(first - second, se, df, n=2, confidence=confidence, method="multi-bootstrap")


@dataclass(frozen=True)
class FactorInteraction:
    """The joint effect of two factors of two levels each, in the units of the score.

    `means` are of the cells 00, 01, 10, 11: the first digit is the level of factor A, the second that of B. `effects`
    are what A's second level changes at B's first and at B's second, T10 − T00 and T11 − T01; `estimate` is the second
    less the first, T11 − T10 − T01 + T00. `p_holm` is adjusted over the family. `decision`: *synergistic* where
    together they bring more than each alone would let expect, *antagonistic* where less, *additive* where the
    difference lies within the rope, else *undecided*.
    """

    means: tuple[Estimate, ...]
    effects: tuple[Estimate, Estimate]
    estimate: Estimate
    p_holm: float
    decision: Joint


def factor_interactions(
    tables: Sequence[Sequence[Side]],
    *,
    at: Sequence[Sequence[Hashable]] | None = None,
    rope: float = 0.0,
    confidence: float = 0.95,
    levels: Sequence[float] | None = None,
) -> list[FactorInteraction]:
    """Return the interaction of every pair of factors of a declared family, a contrast of contrasts.

    Each of `tables` has the sides of its cells 00, 01, 10, 11 (see `FactorInteraction`). A side stands at its best
    setting, chosen again in every replicate, or at the setting that `at` names for it, as with fresh seeds. Of a score
    with several entries the first is compared. Interval and p are those of the contrasts, from the same replicates
    (`combine`): what images are worth to all cells alike cancels. The decisions are those of `decide`, by Holm over the
    tables. `levels` are the confidences of the differences of each table, where they have to hold over several looks.
    """
    places = [None] * len(tables) if at is None else at
    plain = [confidence] * len(tables)

    def estimates(weights: Sequence[float], levels: Sequence[float] = levels or plain) -> list[Estimate]:
        used = [place for place, weight in enumerate(weights) if weight]
        return [
            combine(
                [table[place] for place in used],
                [weights[place] for place in used],
                at=None if chosen is None else [chosen[place] for place in used],
                confidence=level,
            )[0].estimate
            for table, chosen, level in zip(tables, places, levels, strict=True)
        ]

    means = zip(*(estimates(row, plain) for row in np.eye(4).tolist()), strict=True)
    effects = zip(estimates([-1, 0, 1, 0]), estimates([0, -1, 0, 1]), strict=True)
    found = estimates([1, -1, -1, 1])
    decisions = decide(found, rope=rope, confidence=confidence)
    return [
        FactorInteraction(tuple(mean), effect, estimate, one.p_holm, _WORDS.get(one.verdict, "undecided"))
        for mean, effect, estimate, one in zip(means, effects, found, decisions, strict=True)
    ]
