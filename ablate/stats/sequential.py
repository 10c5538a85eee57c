"""Deciding as seeds come in: group-sequential Holm, O'Brien–Fleming spending, and stopping for futility."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from math import sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from ablate.stats.intervals import Floats

Words = NDArray[np.str_]

# Points of the grid on which the law of the running statistic is carried from look to look: bounds to 1e-6.
_POINTS = 501
_WIDEST = 38.0
OPEN, FUTILE, UNDECIDED = "open", "futile", "undecided"


def spent(alpha: float, fraction: ArrayLike) -> Floats:
    """Return the part of a two-sided level `alpha` that may be spent until a fraction t of the seeds has come.

    4(1 − Φ(z_{1−α/4}/√t)): O'Brien and Fleming's bounds as a spending function (Lan and DeMets 1983), each side with
    α/2. Hardly anything is spent early, so that the last bound is close to that of one look.
    """
    t = np.asarray(fraction, dtype=float)
    return 4 * special.ndtr(-special.ndtri(1 - alpha / 4) / np.sqrt(t))


@lru_cache(maxsize=256)
def bounds(alpha: float, looks: tuple[int, ...]) -> tuple[float, ...]:
    """Return the bound of |z| at every look, two-sided at level `alpha` over all looks together.

    `looks` are the increasing numbers of seeds at the looks, the last one the most; information is their share of the
    last. Bound k solves P(|Z_1| < c_1, ..., |Z_{k−1}| < c_{k−1}, |Z_k| ≥ c_k) = spent(t_k) − spent(t_{k−1}) for a
    Brownian motion seen at t_k, whose law is carried from look to look on a grid (Armitage, McPherson and Rowe 1969).
    Four equal looks at 0.05: 4.333, 2.963, 2.359, 2.014. Raises ValueError where the looks do not increase.
    """
    if not looks or looks[0] < 1 or any(b <= a for a, b in pairwise(looks)):
        raise ValueError(f"looks must increase from 1 on: {looks}")
    fractions = [look / looks[-1] for look in looks]
    spend = np.diff(np.concatenate([[0.0], spent(alpha, fractions)]))
    found: list[float] = []
    grid, mass = np.zeros(1), np.ones(1)  # where the motion is, and with which chance it came there without a stop
    before = 0.0
    for t, chance in zip(fractions, spend, strict=True):
        step = sqrt(t - before)
        bound = _crossing(grid, mass, step, sqrt(t), chance)
        found.append(bound)
        nodes, weights = _simpson(bound * sqrt(t))
        density = np.exp(-0.5 * ((nodes[:, None] - grid) / step) ** 2) / (step * sqrt(2 * np.pi))
        grid, mass, before = nodes, weights * (density @ mass), t
    return tuple(found)


def _crossing(grid: Floats, mass: Floats, step: float, scale: float, chance: float) -> float:
    """Return the c at which the motion, `step` after lying on `grid`, is beyond ±c·scale with the given chance."""
    low, high = 0.0, _WIDEST
    for _ in range(60):
        c = (low + high) / 2
        beyond = special.ndtr((grid - c * scale) / step) + special.ndtr((-c * scale - grid) / step)
        low, high = (c, high) if float(beyond @ mass) > chance else (low, c)
    return low


def _simpson(reach: float) -> tuple[Floats, Floats]:
    """Return nodes in [−reach, reach] and the weights of Simpson's rule."""
    nodes = np.linspace(-reach, reach, _POINTS)
    weights = np.full(_POINTS, 2.0)
    weights[1::2] = 4.0
    weights[[0, -1]] = 1.0
    return nodes, weights * (nodes[1] - nodes[0]) / 3


def level_at(alpha: float, looks: Sequence[int]) -> Floats:
    """Return the two-sided p-value that suffices at every look, 2(1 − Φ(bound)): (looks,)."""
    return np.asarray(2 * special.ndtr(-np.array(bounds(alpha, tuple(looks)))))


class Verdicts(NamedTuple):
    """The state of contrasts (..., m) after the looks so far; what is of every look has shape (looks so far, ..., m).

    `word`: better, worse, equivalent, futile (stopped: it would hardly be decided any more), undecided (at the last
    look), or open (goes on). `look`: the index of the look at which a contrast ended, −1 where it is open. `p` and
    `p_equivalent` are those of the looks; `level` is what either had to reach there (NaN where the contrast had ended
    before), `bound` the same as |z|, and `power` the conditional power that futility was judged by.
    """

    word: Words
    look: NDArray[np.int64]
    p: Floats
    p_equivalent: Floats
    level: Floats
    bound: Floats
    power: Floats


def group_sequential_holm(
    effects: ArrayLike,
    errors: ArrayLike,
    dfs: ArrayLike,
    *,
    looks: Sequence[int],
    alpha: float = 0.05,
    rope: float = 0.0,
    futility: float = 0.0,
) -> Verdicts:
    """Decide contrasts with one baseline as seeds come in; any false difference comes with a chance of at most `alpha`.

    `effects`, `errors` and `dfs` (l, ..., m) are the differences, their standard errors and degrees of freedom at the
    first l of the planned `looks` (numbers of seeds a cell). What stands in them for a contrast after its end is not
    looked at; one that is NaN while open cannot be decided at that look.

    Every look is one step of the graphical group-sequential Holm procedure (Maurer and Bretz 2013): the r contrasts of
    the m that are not rejected yet have α/r each, spent over the looks by `spent`; one is rejected where its p-value
    reaches the `level_at` this look of a design at level α/r; what it had then passes to the others, which are judged
    anew at the same look. Rejected is better or worse by its sign. The same procedure, in a family of its own, judges
    twice the p-value of the two one-sided tests against ±`rope` (a repeated confidence interval inside the rope):
    equivalent, which comes first, as a difference below the rope counts as none. The t quantile of the p-value stands
    for z (Jennison and Turnbull 2000, significance levels).

    A contrast is futile where, were its present difference the true one, the chance of deciding it at the last look is
    below `futility`: stopping only takes chances of an error away, so that α holds whether it is heeded or not.
    Stopped contrasts keep their share of α. Where the shared images hold part of the variance, looks are more alike
    than their numbers of seeds say, and the level is kept with something to spare.
    """
    x, se, df = np.broadcast_arrays(*(np.asarray(part, dtype=float) for part in (effects, errors, dfs)))
    if len(x) > len(looks):
        raise ValueError(f"{len(x)} looks were taken and {len(looks)} planned")
    se = np.where(se > 0, se, np.nan)  # no spread between the seeds is no evidence of exactness
    p = 2 * special.stdtr(df, -np.abs(x) / se)
    q = np.minimum(1.0, 2 * special.stdtr(df, -(rope - np.abs(x)) / se))
    m = x.shape[-1]
    table = np.stack([level_at(alpha / r, looks) for r in range(1, m + 1)])
    word = np.full(x.shape[1:], OPEN, dtype="<U10")
    ended = np.full(x.shape[1:], -1)
    level, power = np.full(x.shape, np.nan), np.full(x.shape, np.nan)
    for k in range(len(x)):
        going = word == OPEN
        different = _holm_step(p[k], going, np.isin(word, ("better", "worse")), table[:, k])
        equal = _holm_step(q[k], going, word == "equivalent", table[:, k])
        level[k] = np.where(going, different.level, np.nan)
        word = np.where(different.rejected, np.where(x[k] > 0, "better", "worse"), word)
        word = np.where(equal.rejected, "equivalent", word)
        if k == len(looks) - 1:
            word = np.where(word == OPEN, UNDECIDED, word)
        elif futility > 0:
            last = table[different.remaining - 1, -1]
            chance = _conditional_power(x[k], se[k], p[k], looks[k] / looks[-1], last, rope)
            power[k] = np.where(word == OPEN, chance, np.nan)
            word = np.where((word == OPEN) & (power[k] < futility), FUTILE, word)
        ended = np.where(going & (word != OPEN), k, ended)
    return Verdicts(word, ended, p, q, level, -special.ndtri(level / 2), power)


class _Step(NamedTuple):
    rejected: NDArray[np.bool_]
    level: Floats
    remaining: NDArray[np.int64]


def _holm_step(p: Floats, going: NDArray[np.bool_], before: NDArray[np.bool_], levels: Floats) -> _Step:
    """Reject at one look, round by round, what reaches the level of as many as are not rejected yet.

    `p` (..., m), `going` the contrasts that are still judged, `before` those rejected at earlier looks, `levels` (m,)
    by the number that is left. A rejected contrast comes with the level that it reached, the others with the last one.
    """
    rejected = before
    level = np.full(p.shape, np.nan)
    while True:
        remaining = np.broadcast_to(np.maximum(1, (~rejected).sum(axis=-1, keepdims=True)), p.shape)
        level = np.where(rejected & ~before, level, levels[remaining - 1])
        new = going & ~rejected & (p <= levels[remaining - 1])
        if not new.any():
            return _Step(rejected & ~before, level, remaining)
        rejected = rejected | new


def _conditional_power(x: Floats, se: Floats, p: Floats, fraction: float, level: Floats, rope: float) -> Floats:
    """Return the chance that a contrast is decided at the last look if its present difference is the true one.

    With B(t) = Z√t, Z the normal quantile of the p-value, B(1) is normal about B(t)/t with variance 1 − t; decided is
    |B(1)| beyond the last bound, or the last interval inside the rope (standard errors falling with the root of n).
    """
    bound, spread = -special.ndtri(level / 2), sqrt(1 - fraction)
    expected = -special.ndtri(p / 2) / sqrt(fraction)
    beyond = special.ndtr((expected - bound) / spread) + special.ndtr((-expected - bound) / spread)
    last = se * sqrt(fraction)
    room = np.maximum(0.0, rope - bound * last)
    inside = special.ndtr((room - np.abs(x)) / (last * spread)) - special.ndtr((-room - np.abs(x)) / (last * spread))
    return np.where(np.isfinite(p), np.minimum(1.0, beyond + inside), 1.0)
