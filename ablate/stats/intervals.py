"""Intervals of closed form: a mean over seeds, a difference, a ratio, a share, and how often one run beats another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb, inf, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

Floats = NDArray[np.float64]

# Below this many seeds on a side, the chance that one run beats another gets no verdict.
LEAST_SEEDS_FOR_SUPERIORITY = 5
# Seeds a side from which on the exact permutation test can tell two sides apart at a level of 0.05.
LEAST_SEEDS_TO_TELL = 4
# The exact permutation test enumerates at most this many splits.
MOST_SPLITS = 200_000
NO_SPREAD = "no spread between the seeds"


@dataclass(frozen=True)
class Estimate:
    """A number with its interval: `low` and `high` at level `confidence`, `p` two-sided against no difference.

    `se` is the standard error that the interval was made from and `df` its degrees of freedom; what could
    not be had is NaN, and `reason` says why. `n` counts the seeds (or rounds) of the smaller side.
    """

    value: float
    low: float
    high: float
    se: float = nan
    df: float = nan
    p: float = nan
    n: int = 0
    confidence: float = 0.95
    method: str = ""
    reason: str = ""

    @property
    def has_interval(self) -> bool:
        """Tell whether the data allowed an interval at all."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))


def from_standard_error(value: float, se: float, df: float, *, n: int, confidence: float, method: str) -> Estimate:
    """Return value ± t_df · se, with the two-sided p of the same t against 0.

    A standard error of zero is no evidence of exactness (every seed gave the same number): no interval then.
    """
    if not (np.isfinite(value) and np.isfinite(se) and df > 0):
        reason = "fewer than two seeds" if n < 2 else "a value is not finite"
        return Estimate(value, nan, nan, se, df, nan, n, confidence, method, reason)
    if se <= 0:
        return Estimate(value, nan, nan, se, df, nan, n, confidence, method, NO_SPREAD)
    reach = float(special.stdtrit(df, 0.5 + confidence / 2)) * se
    p = float(2 * special.stdtr(df, -abs(value) / se))
    return Estimate(value, value - reach, value + reach, se, df, p, n, confidence, method)


def t_interval(values: ArrayLike, confidence: float = 0.95) -> tuple[float, float, float]:
    """Return the mean of `values` (n,) with Student's t interval: (mean, low, high).

    mean ± t_{n−1} · s/√n, s with n − 1 in the denominator. Non-finite values are refused by returning NaN
    for all three (dropping a diverged seed would bias the mean); bounds are NaN below two values.
    """
    x = np.asarray(values, dtype=float).ravel()
    if x.size == 0 or not np.isfinite(x).all():
        return nan, nan, nan
    mean = float(x.mean())
    if x.size < 2:
        return mean, nan, nan
    reach = float(special.stdtrit(x.size - 1, 0.5 + confidence / 2) * x.std(ddof=1) / sqrt(x.size))
    return mean, mean - reach, mean + reach


def geometric_interval(values: ArrayLike, confidence: float = 0.95) -> tuple[float, float, float]:
    """Return the geometric mean of positive `values` (n,) with its interval: (mean, low, high).

    The interval is Student's t on the logarithm.
    """
    mean, low, high = np.exp(t_interval(np.log(np.asarray(values, dtype=float).ravel()), confidence))
    return float(mean), float(low), float(high)


def mean_estimate(values: ArrayLike, confidence: float = 0.95) -> Estimate:
    """Return the mean as `t_interval` does, with p against 0, and no interval where the values do not vary."""
    x = np.asarray(values, dtype=float).ravel()
    mean = float(x.mean()) if x.size else nan
    se = float(x.std(ddof=1) / sqrt(x.size)) if x.size > 1 else nan
    return from_standard_error(mean, se, x.size - 1, n=x.size, confidence=confidence, method="t over seeds")


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


def contrast_error(between: ArrayLike, seeds: ArrayLike, *, shared: ArrayLike = 0.0) -> tuple[Floats, Floats]:
    """Return the standard error and the degrees of freedom of a difference of two cells' means.

    `between` (..., 2) are the variances between the seeds of either cell and `seeds` (..., 2) their numbers n ≥ 2, so
    that the parts of the variance are between/n with n − 1 df each. `shared` (...) is what else the difference varies
    by (the sampling of the test images that both cells are scored on), taken as known. The df are `satterthwaite`'s;
    with equal spreads and sizes they are 2(n − 1), with one spread far larger those of that side alone.
    """
    n = np.asarray(seeds, dtype=float)
    v, n = np.broadcast_arrays(np.asarray(between, dtype=float) / n, n)
    rest = np.broadcast_to(np.asarray(shared, dtype=float), v.shape[:-1])[..., None]
    parts = np.concatenate([v, rest], axis=-1)
    return np.sqrt(parts.sum(axis=-1)), satterthwaite(parts, np.concatenate([n - 1, np.full_like(rest, inf)], axis=-1))


def welch_interval(left: ArrayLike, right: ArrayLike, confidence: float = 0.95, *, factor: float = 1.0) -> Estimate:
    """Return mean(left) − factor · mean(right) with Welch's t interval (unequal variances, Welch–Satterthwaite df).

    `left` (n,) and `right` (m,) are one value a seed, taken as unpaired. With one side constant the df are
    those of the other side alone.
    """
    a, b = np.asarray(left, dtype=float).ravel(), factor * np.asarray(right, dtype=float).ravel()
    n = min(a.size, b.size)
    value = float(a.mean() - b.mean()) if n else nan
    if n < 2 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return from_standard_error(value, nan, nan, n=n, confidence=confidence, method="Welch t over seeds")
    se, df = contrast_error([a.var(ddof=1), b.var(ddof=1)], [a.size, b.size])
    return from_standard_error(value, float(se), float(df), n=n, confidence=confidence, method="Welch t over seeds")


def ratio_interval(numerator: ArrayLike, denominator: ArrayLike, confidence: float = 0.95) -> Estimate:
    """Return the geometric mean of numerator_i / denominator_i with a t interval on the log scale; arrays (rounds,).

    Both variants are measured once in every round (A B A B), so the rounds pair them and a drift of the
    machine cancels. `p` is against a ratio of one. `se` is that of the log ratio.
    """
    a, b = np.asarray(numerator, dtype=float).ravel(), np.asarray(denominator, dtype=float).ravel()
    if a.size != b.size:
        raise ValueError(f"rounds do not pair: {a.size} and {b.size}")
    method = "t over rounds on the log ratio"
    if a.size == 0 or not (np.isfinite(a).all() and np.isfinite(b).all()) or (a <= 0).any() or (b <= 0).any():
        return Estimate(nan, nan, nan, n=a.size, confidence=confidence, method=method, reason="no positive rates")
    logs = mean_estimate(np.log(a / b), confidence)
    reason = logs.reason.replace("seeds", "rounds")
    low, high = float(np.exp(logs.low)), float(np.exp(logs.high))
    return Estimate(float(np.exp(logs.value)), low, high, logs.se, logs.df, logs.p, a.size, confidence, method, reason)


def share_interval(count: int, n: int, confidence: float = 0.95) -> tuple[float, float, float]:
    """Return the share count/n with Wilson's score interval: (share, low, high); NaN where n is 0."""
    if n == 0:
        return nan, nan, nan
    z = float(special.ndtri(0.5 + confidence / 2))
    share = count / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return share, max(0.0, centre - reach), min(1.0, centre + reach)


def share_difference(count: int, n: int, other_count: int, other_n: int, confidence: float = 0.95) -> Estimate:
    """Return the difference of two independent shares with Newcombe's hybrid score interval.

    It is count/n − other_count/other_n. Combines the two Wilson intervals (Newcombe 1998, method 10); unlike Wald's it
    has a width at 0 and 1.
    """
    p, low, high = share_interval(count, n, confidence)
    q, other_low, other_high = share_interval(other_count, other_n, confidence)
    method = "Newcombe's score interval of two shares"
    if not n or not other_n:
        return Estimate(nan, nan, nan, n=0, confidence=confidence, method=method, reason="no seeds")
    below = p - q - sqrt((p - low) ** 2 + (other_high - q) ** 2)
    above = p - q + sqrt((high - p) ** 2 + (q - other_low) ** 2)
    return Estimate(p - q, below, above, n=min(n, other_n), confidence=confidence, method=method)


@dataclass(frozen=True)
class Superiority:
    """P(A > B) for one run of each: `value` with `low`, `high`; `verdict` is None where none may be given."""

    value: float
    low: float
    high: float
    verdict: str | None
    reason: str = ""


def probability_of_superiority(left: ArrayLike, right: ArrayLike, confidence: float = 0.95) -> Superiority:
    """Estimate P(a run of `left` (n,) beats one of `right` (m,)) = U/(n·m), ties one half.

    The interval solves |U/nm − θ| = z·√V(θ) for θ with
    V(θ) = θ(1−θ)[1 + k(1−θ)/(2−θ) + kθ/(1+θ)]/(nm), k = (n+m)/2 − 1: Hanley and McNeil's variance at θ itself
    (Newcombe 2006, method 5), so that U = nm does not give an empty interval. Read as "meaningful" where
    low > 0.5 and high > 0.75 (after Bouthillier et al. 2021) or, the other way round, high < 0.5 and low < 0.25,
    "noise" where 0.5 is not excluded, "negligible" between; no verdict below five seeds a side.
    """
    a, b = np.asarray(left, dtype=float).ravel(), np.asarray(right, dtype=float).ravel()
    if a.size == 0 or b.size == 0 or np.isnan(a).any() or np.isnan(b).any():
        return Superiority(nan, nan, nan, None, "a side has no values")
    pairs = a.size * b.size
    gap = a[:, None], b[None, :]
    theta = float(((gap[0] > gap[1]).sum() + 0.5 * (gap[0] == gap[1]).sum()) / pairs)
    z2 = float(special.ndtri(0.5 + confidence / 2)) ** 2
    k = (a.size + b.size) / 2 - 1

    def excess(t: float) -> float:
        variance = t * (1 - t) * (1 + k * (1 - t) / (2 - t) + k * t / (1 + t)) / pairs
        return (theta - t) ** 2 - z2 * variance

    low = 0.0 if theta == 0 else _zero(excess, 0.0, min(theta, 1 - 1e-9))
    high = 1.0 if theta == 1 else _zero(excess, max(theta, 1e-9), 1.0)
    if min(a.size, b.size) < LEAST_SEEDS_FOR_SUPERIORITY:
        return Superiority(theta, low, high, None, f"no verdict below {LEAST_SEEDS_FOR_SUPERIORITY} seeds a side")
    if low <= 0.5 <= high:
        return Superiority(theta, low, high, "noise")
    return Superiority(theta, low, high, "meaningful" if max(high, 1 - low) > 0.75 else "negligible")


def _zero(function: Callable[[float], float], low: float, high: float) -> float:
    return float(optimize.brentq(function, low, high, xtol=1e-15, rtol=8.9e-16))


def permutation_p(left: ArrayLike, right: ArrayLike) -> float:
    """Return the exact two-sided p of the difference of means under exchange of the seeds; infinite values are allowed.

    All C(n+m, n) splits are taken where that is at most 200,000, or NaN is returned. Infinities count as the
    largest rank: values are replaced by their mid-ranks, so this is the exact Wilcoxon–Mann–Whitney test.
    """
    a, b = np.asarray(left, dtype=float).ravel(), np.asarray(right, dtype=float).ravel()
    if a.size == 0 or b.size == 0 or np.isnan(a).any() or np.isnan(b).any():
        return nan
    if comb(a.size + b.size, a.size) > MOST_SPLITS:
        return nan
    from scipy import stats  # half a second to import, and seldom needed

    ranks: Floats = stats.rankdata(np.concatenate([a, b]))
    expected = a.size * (a.size + b.size + 1) / 2
    observed = abs(ranks[: a.size].sum() - expected)
    splits = np.array(list(combinations(range(ranks.size), a.size)))
    return float((np.abs(ranks[splits].sum(axis=1) - expected) >= observed - 1e-9).mean())


def welch_or_permutation(
    left: ArrayLike, right: ArrayLike, confidence: float = 0.95, *, factor: float = 1.0
) -> Estimate:
    """Return `welch_interval`; where neither side varies, the exact permutation test says whether it is a point.

    The test is of no difference, so that with a `factor` other than 1 there is none. Where one side alone does not
    vary, Welch's degrees of freedom are those of the other. Between variants whose runs are alike, some quiet and some
    not, that decides no more often than the level says (tested by simulation).
    """
    made = welch_interval(left, right, confidence, factor=factor)
    if made.has_interval or factor != 1 or made.reason != NO_SPREAD:
        return made
    p = permutation_p(left, right)
    method = f"neither side varies between its seeds; exact permutation test, p = {p:.3g}"
    if p > 1 - confidence:
        return replace(made, method=method, p=p, reason=f"{made.reason}; exact permutation p = {p:.3g}")
    return replace(made, low=made.value, high=made.value, method=method, p=p, reason="")


def larger_more_often(left: ArrayLike, right: ArrayLike, confidence: float = 0.95) -> Estimate:
    """Return the chance that a value of `left` (n,) is the larger one of a pair, as an estimate against one half.

    Of quantities without a mean (infinite values are allowed). The interval is that of `probability_of_superiority`;
    there is one only where the exact permutation test tells the sides apart at this level or the interval holds one
    half: few values, of which all on one side are larger, would give an interval that excludes it too often.
    """
    n = min(np.size(left), np.size(right))
    found = probability_of_superiority(left, right, confidence)
    few = f"at least {LEAST_SEEDS_TO_TELL} seeds a side can tell" if n < LEAST_SEEDS_TO_TELL else ""
    method = "P(larger), Newcombe's interval"
    made = Estimate(
        found.value, found.low, found.high, n=n, confidence=confidence, method=method, reason=found.reason and few
    )
    if found.low <= 0.5 <= found.high:
        return made
    p = permutation_p(left, right)
    if p > 1 - confidence:
        reason = "; ".join(filter(None, (f"exact permutation p = {p:.3g}", few)))
        return replace(made, low=nan, high=nan, p=p, reason=reason)
    return replace(made, p=p)


def sample_sd(values: Sequence[float] | Floats) -> float:
    """Return the standard deviation between seeds (n − 1 in the denominator); NaN below two values."""
    x = np.asarray(values, dtype=float)
    return float(x.std(ddof=1)) if x.size > 1 else nan
