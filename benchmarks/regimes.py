"""Error rates of decisions where truth is planted and hard: `python -m benchmarks.regimes`, two minutes on a core.

Every row is a regime in which a usual method is wrong more often than the 5 % that it promises, with the rate of that
method and of the one in `ablate.stats`, by simulation. Writes `results/regimes.md`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import starmap
from math import sqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import signal, special

from ablate.measure.segmentation import iou, nan_mean
from ablate.stats.blocks import ImageScheme, draw_images, image_scheme, order_test
from ablate.stats.bootstrap import Replicates
from ablate.stats.bounded import betting_interval
from ablate.stats.interaction import factor_interactions, setting_interaction
from ablate.stats.intervals import larger_more_often, satterthwaite
from ablate.stats.saturation import projected_gain
from ablate.stats.sequential import group_sequential_holm, level_at
from benchmarks import decisions
from benchmarks.population import STUDIES, read_world, t_test, welch

Floats = NDArray[np.float64]
Row = tuple[str, str, float, str, float, str]

RESULTS = Path(__file__).resolve().parent / "results"
ALPHA = 0.05
DRAWS = 10_000


def autoregression(rng: np.random.Generator, correlation: float, shape: tuple[int, ...]) -> Floats:
    """Draw stationary AR(1) series of variance 1 along the last axis."""
    noise = sqrt(1 - correlation**2) * rng.normal(size=(*shape[:-1], shape[-1] + 100))
    return np.asarray(signal.lfilter([1.0], [1.0, -correlation], noise, axis=-1))[..., 100:]


def fewer(draws: int) -> int:
    """Return how many data sets are drawn where each is resampled or fitted."""
    return max(100, draws // 10)


def holm_any(p: Floats) -> float:
    """Return how often Holm rejects any of m true hypotheses: that its first step does, p (draws, m)."""
    return float((p.min(axis=1) <= ALPHA / p.shape[1]).mean())


def spreads(rng: np.random.Generator, draws: int) -> Iterator[Row]:
    """Compare wide variants with a narrow baseline, all equal in the mean."""
    for contrasts, spread, n in ((3, 3.0, 3), (3, 3.0, 10), (11, 10.0, 3), (11, 10.0, 6), (11, 10.0, 10)):
        baseline, variants = rng.normal(size=(draws, 1, n)), spread * rng.normal(size=(draws, contrasts, n))
        found = welch(variants, baseline)
        usual = t_test(found.value, found.se, 2 * (n - 1)).p
        note = "three seeds do not tell a spread" if n == 3 and contrasts > 3 else ""
        regime = f"spreads 1:{spread:g}, {contrasts} contrasts, {n} seeds"
        yield regime, "2(n − 1) df", holm_any(usual), "Welch's df", holm_any(found.p), note


def groups(rng: np.random.Generator, draws: int) -> Iterator[Row]:
    """Draw images of groups that share half of their variance, without a difference."""
    draws = fewer(draws)
    for count, length in ((20, 40), (12, 30), (4, 60)):
        names = [f"g{group}" for group in range(count) for _ in range(length)]
        members = image_scheme(count * length, names)
        blocks = ImageScheme("blocks", count * length, members.groups, 20)
        old, new = [], []
        for _ in range(draws):
            values = (rng.normal(size=(count, 1)) + rng.normal(size=(count, length))).ravel()
            p = []
            for scheme, df in ((blocks, np.inf), (image_scheme(count * length, names, values), members.df)):
                weights = draw_images(rng, scheme, 300)
                se = (weights @ values / weights.sum(axis=1)).std(ddof=1)
                p.append(float(t_test(values.mean(), se, df).p))
            old.append(p[0] <= ALPHA)
            new.append(p[1] <= ALPHA)
        note = "" if members.kind == "groups" else "said to be conditional on these groups"
        method = "whole groups, k − 1 df" if members.kind == "groups" else "blocks from the data, k − 1 df"
        regime = f"{count} groups of {length} images"
        yield regime, "blocks of 20", float(np.mean(old)), method, float(np.mean(new)), note


def undeclared(rng: np.random.Generator, draws: int) -> Iterator[Row]:
    """Take frames of one sequence for independent, without a difference."""
    for correlation in (0.0, 0.6):
        series = autoregression(rng, correlation, (fewer(draws), 100))
        se = series.std(axis=1, ddof=1) / 10
        usual = float((t_test(series.mean(axis=1), se, 99).p <= ALPHA).mean())
        warned = float(np.mean([order_test(row).warn for row in series]))
        regime = f"100 images in one sequence (AR {correlation:g}), declared independent"
        yield regime, "images one by one", usual, "share with a warning", warned, "no decision, a warning"


def confounds(rng: np.random.Generator, draws: int) -> Iterator[Row]:
    """Compare two variants at four rates: alike, or equal at own best and 10 points apart at the shared rate."""
    means = {
        "alike": np.array([[40.0, 52.0, 60.0, 48.0], [40.0, 52.0, 60.0, 48.0]]),
        "equal at own best, 10 points apart at the shared rate": np.array([[40.0, 52, 60, 48], [60.0, 52, 50, 20]]),
    }
    for label, truth in means.items():
        for n in (3, 5, 10):
            usual, tested = np.mean([confounded(rng, truth, n) for _ in range(fewer(draws))], axis=0)
            method = "interaction tested"
            yield f"{label}, {n} seeds: flagged", "two decisions differ", float(usual), method, float(tested), ""


def replicated(rng: np.random.Generator, runs: Floats) -> Floats:
    """Return the means of runs (..., n) in 300 replicates of the seeds (300, ...), as `MultiBootstrap` draws them."""
    n = runs.shape[-1]
    weights = rng.multinomial(n, np.full(n, 1 / n), size=(300, *runs.shape[:-1])) / n
    cell = runs.mean(axis=-1)
    return np.asarray(cell + sqrt(n / (n - 1)) * ((weights * runs).sum(axis=-1) - cell))


def confounded(rng: np.random.Generator, means: Floats, n: int) -> tuple[bool, bool]:
    """Draw one study (SD 2) and tell whether decisions differ, and whether the interaction is found."""
    runs = means[..., None] + rng.normal(0, 2, (*means.shape, n))
    cell, draws = runs.mean(axis=-1), replicated(rng, runs)
    shared = int(cell.mean(axis=0).argmax())
    own, own_draws = cell.max(axis=1), draws.max(axis=2)
    values = own[0] - own[1], cell[0, shared] - cell[1, shared]
    moved = own_draws[:, 0] - own_draws[:, 1], draws[:, 0, shared] - draws[:, 1, shared]
    words = []
    for value, drawn in zip(values, moved, strict=True):
        p = t_test(value, drawn.std(ddof=1), 2 * (n - 1)).p
        words.append("undecided" if p > ALPHA else "better" if value > 0 else "worse")
    found = setting_interaction(*values, *moved, df=2 * (n - 1))
    return "undecided" not in words and words[0] != words[1], bool(found.p <= ALPHA)


def factors(rng: np.random.Generator, draws: int) -> Iterator[Row]:
    """Compare what factor A changes at two levels of B, in three tables of equal truth (SD 2): Holm over the three."""
    truths = {
        "two factors without effect": (0.0, 0.0, 0.0, 0.0),
        "two factors that add up (5 and 10 points)": (0.0, 5.0, 10.0, 15.0),
        "two factors worth 10 points more together": (0.0, 5.0, 10.0, 25.0),
    }
    for label, means in truths.items():
        for n in (3, 6):
            usual, ours = [], []
            for _ in range(fewer(draws)):
                runs = np.array(means)[:, None] + rng.normal(0, 2, (3, 4, n))
                alone = [welch(table[[2, 3]], table[[0, 1]]).p <= ALPHA for table in runs]
                usual.append(any(bool(one[0] != one[1]) for one in alone))
                tables = [[{0: seeds_cell(rng, seeds)} for seeds in table] for table in runs]
                found = factor_interactions(tables, at=[[0] * 4] * 3)
                ours.append(any(one.decision != "undecided" for one in found))
            regime = f"{label}, {n} seeds: any interaction found"
            yield regime, "significant at one level only", float(np.mean(usual)), "tested", float(np.mean(ours)), ""


def seeds_cell(rng: np.random.Generator, runs: Floats) -> Replicates:
    """Return the replicates of a cell whose seeds alone vary: runs (n,)."""
    draws = replicated(rng, runs)
    mean, between = np.asarray(runs.mean()), np.asarray(runs.var(ddof=1))
    return Replicates(float(mean), mean, draws, draws, len(runs), between, np.zeros(()), np.zeros(len(draws)))


def optimism(rng: np.random.Generator, draws: int) -> Iterator[Row]:
    """Compare a variant that is alike at all rates with a baseline that has one good rate, equal at their best (SD 2).

    By the seeds that chose each rate (what they show on val and test correlates by 0.98), and by 6 fresh ones.
    """
    for rates, n in ((4, 3), (16, 3), (4, 10)):
        means = np.stack([np.full(rates, -20.0), np.zeros(rates)])
        means[0, 0] = 0
        bias, missed = np.zeros((draws, 2)), np.zeros((draws, 2), dtype=bool)
        for start in range(0, draws, 1000):
            part = slice(start, min(draws, start + 1000))
            size = part.stop - start
            luck = rng.normal(size=(size, 2, rates, n))
            own = 0.98 * luck + sqrt(1 - 0.98**2) * rng.normal(size=luck.shape)
            val, test = means[..., None] + 2 * luck, means[..., None] + 2 * own
            chosen = val.mean(axis=-1).argmax(axis=-1)[..., None, None]
            runs = np.take_along_axis(test, chosen, axis=2)[:, :, 0]
            fresh = 2 * rng.normal(size=(size, 2, 6))
            for place, seeds in enumerate((runs, fresh)):
                found = welch(seeds[:, 1], seeds[:, 0])
                bias[part, place], missed[part, place] = found.value, found.p <= ALPHA
        regime = f"flat against peaked over {rates} rates, equal at best, {n} seeds"
        usual, ours = (float(one) for one in missed.mean(axis=0))
        note = f"bias {bias[:, 0].mean():.1f} points, and {abs(bias[:, 1].mean()):.1f}"
        yield regime, "seeds that chose", usual, "6 fresh seeds", ours, note


def absent(rng: np.random.Generator, draws: int) -> Iterator[Row]:
    """Compare equal variants, one with a false pixel of a class that the target lacks: mean IoU over which classes."""
    for n in (3, 6):
        luck = rng.normal(0, 10, (2, draws, n, 1))
        counts = np.tile([900.0, 50.0, 50.0], (2, draws, n, 11, 1))  # tp, fp, fn
        counts[..., 0] += luck
        counts[..., 2] -= luck
        counts[..., 10, :] = 0
        counts[0, ..., 10, 1] = 1
        with np.errstate(invalid="ignore"):
            either = np.nanmean(counts[..., 0] / counts.sum(axis=-1), axis=-1)
        usual, ours = (float((welch(*scores).p <= ALPHA).mean()) for scores in (either, nan_mean(iou(counts))))
        regime = f"a false pixel of an absent class, {n} seeds"
        yield regime, "mean over classes predicted or present", usual, "over those of the target", ours, ""


def saturating(rng: np.random.Generator, draws: int) -> Iterator[Row]:
    """Judge curves with 0.35 points to come where 0.5 make a cell under-converged, and straight ones with just 0.5."""
    draws = fewer(draws)
    for epochs, ahead in ((12, 5), (30, 6), (100, 20)):
        t, tau = np.arange(1, epochs + 1), epochs / 4
        bent = 0.0035 * (1 - np.exp(-t / tau)) / np.exp(-epochs / tau) / (1 - np.exp(-ahead / tau))
        for label, curve in (("bent, 0.35 points to come", bent), ("straight, 0.5 points to come", 0.005 / ahead * t)):
            for n in (3, 5):
                line, projected = [], []
                for _ in range(draws):
                    y = curve + 0.01 * rng.normal(size=(n, 1)) + 0.006 * autoregression(rng, 0.6, (n, epochs))
                    places = np.arange(ahead) - (ahead - 1) / 2
                    slope = y[:, -ahead:] @ places / (places @ places) * ahead
                    reach = special.stdtrit(n - 1, 0.95) * slope.std(ddof=1) / sqrt(n)
                    line.append(slope.mean() - reach > 0.005)
                    projected.append(projected_gain(y, ahead).low > 0.005)
                regime = f"{label}, {epochs} epochs, {n} seeds: under-converged"
                yield regime, "last slope", float(np.mean(line)), "bend projected", float(np.mean(projected)), ""


def bounded(rng: np.random.Generator, draws: int) -> Iterator[Row]:
    """Draw inverse rises of runs: some diverged (0), the others hardly rose: how often the mean is missed."""
    draws = fewer(draws)
    for share in (0.2, 0.05):
        for n in (3, 5, 10):
            x = np.where(rng.random((draws, n)) < share, 0.0, rng.uniform(0.9, 1.0, (draws, n)))
            truth = 0.95 * (1 - share)
            reach = special.stdtrit(n - 1, 0.975) * x.std(axis=1, ddof=1) / sqrt(n)
            student = float((np.abs(x.mean(axis=1) - truth) > reach).mean())
            intervals = np.array([betting_interval(row) for row in x])
            betting = float(((intervals[:, 1] > truth) | (intervals[:, 2] < truth)).mean())
            yield (
                f"1/rise, {share:.0%} diverge, {n} seeds: truth missed",
                "Student's t",
                student,
                "betting",
                betting,
                "",
            )


def rises(rng: np.random.Generator, draws: int) -> Iterator[Row]:
    """Compare the rises of two variants of which a fifth of the runs diverges: of both alike, or of one alone.

    Where one alone diverges the other rises by 1.3 throughout, so that 1 − 1/rise has the same mean.
    """
    draws = fewer(draws)
    for n in (4, 6, 10):
        for label, tight in (("both alike", False), ("one alone, equal means", True)):
            left, right = (np.where(rng.random((draws, n)) < 0.2, 1.0, rng.uniform(0, 0.08, (draws, n))) for _ in "ab")
            if tight:
                right = 0.232 + rng.uniform(-0.02, 0.02, (draws, n))
            usual = float((welch(left, right).p <= ALPHA).mean())
            with np.errstate(divide="ignore"):
                pairs = zip(1 / (1 - left), 1 / (1 - right), strict=True)
            ours = float(np.mean([not found.low <= 0.5 <= found.high for found in starmap(larger_more_often, pairs)]))
            note = "a run of the one does rise less, in 80 % of the pairs: found" if tight else ""
            yield f"rise, a fifth diverges ({label}), {n} seeds", "Welch's t", usual, "which run rises more", ours, note


def collapse(rng: np.random.Generator, draws: int) -> Iterator[Row]:
    """Compare scores of which a fifth of the runs is 0 (diverged): of both sides alike, and of one alone."""
    for n in (3, 6, 20):
        for label, share in (("both sides", 0.2), ("one side; its true loss is missed", 0.0)):
            sides = [np.where(rng.random((draws, n)) < one, 0.0, rng.normal(60, 2, (draws, n))) for one in (0.2, share)]
            truth = -60 * (0.2 - share)
            found = welch(sides[0] - truth, sides[1])
            pooled = np.sqrt((sides[0].var(axis=1, ddof=1) + sides[1].var(axis=1, ddof=1)) / n)
            usual = float((t_test(found.value, pooled, 2 * (n - 1)).p <= ALPHA).mean())
            note = "few runs do not show what they do not hold" if share == 0 else ""
            ours = float((found.p <= ALPHA).mean())
            yield f"a fifth of the runs diverges, {label}, {n} seeds", "2(n − 1) df", usual, "Welch's df", ours, note


def rates_chosen(_rng: np.random.Generator, draws: int) -> Iterator[Row]:
    """Compare variants that are equal at their best rates and fall off differently over the others, as published."""
    ways: dict[str, decisions.Way] = {
        "6 fresh seeds": partial(decisions.two_phases, seeds=6),
        "until decided": decisions.until_decided,
        "until decided, screen.more: 3": partial(decisions.until_decided, more=3),
    }
    for name in STUDIES:
        world = read_world(name)
        for label, way in ways.items():
            found = decisions.simulate(way, world, draws, 0)
            regime = f"{name}, own fall-off over the rates, {label}: verdict false"
            yield (
                regime,
                "of the best rates",
                found.false,
                "of the rates chosen",
                found.wrong,
                "a verdict speaks of those",
            )


def looked_at(rng: np.random.Generator, draws: int) -> Iterator[Row]:
    """Test the interaction of factors that add up where variants train until their contrasts are decided (SD 1)."""
    looks, signs = (4, 8, 12, 16), np.array([1, -1, -1, 1])
    for one, other in ((0, 0), (1, 0), (1, 1), (2, 2), (-1, 1)):
        runs = rng.normal(size=(draws, 4, looks[-1])) + np.array([0, one, other, one + other])[:, None]
        found = [welch(runs[:, 1:, :n], runs[:, :1, :n]) for n in looks]
        value, se, df = (np.stack([getattr(look, part) for look in found]) for part in ("value", "se", "df"))
        ended = group_sequential_holm(value, se, df, looks=looks, alpha=ALPHA, futility=0.02).look
        seeds = np.array(looks)[np.column_stack([ended.max(axis=1), ended])]
        seen = np.where(np.arange(looks[-1]) < seeds[..., None], runs, np.nan)
        parts = np.nanvar(seen, axis=2, ddof=1) / seeds
        error = np.sqrt(parts.sum(axis=1))
        p = t_test(np.nanmean(seen, axis=2) @ signs, error, satterthwaite(parts, seeds - 1)).p
        regime = f"until decided, two factors of {one} and {other} SD that add up: an interaction found"
        usual, ours = (p <= level for level in (ALPHA, level_at(ALPHA, looks)[ended.max(axis=1)]))
        yield regime, "plain interval", float(usual.mean()), "of the latest look", float(ours.mean()), ""


REGIMES: tuple[Callable[[np.random.Generator, int], Iterator[Row]], ...] = (
    spreads,
    groups,
    undeclared,
    confounds,
    factors,
    optimism,
    saturating,
    bounded,
    rises,
    absent,
    collapse,
    rates_chosen,
    looked_at,
)


def monte_carlo(draws: int) -> float:
    """Return the standard error of a simulated share of 5 %, in points."""
    return 100 * sqrt(0.05 * 0.95 / draws)


def report(draws: int) -> str:
    """Return the page of results."""
    few = fewer(draws)
    lines = [
        "# Error rates where truth is planted",
        "",
        f"- command: `python -m benchmarks.regimes{'' if draws == DRAWS else f' --draws {draws}'}`",
        f"- {draws:,} simulated data sets a row, Monte-Carlo error of 5 %: {monte_carlo(draws):.1f} points; {few:,} "
        f"and {monte_carlo(few):.1f} points below the spreads, where each is resampled or fitted",
        "- rates in %; nominal is 5 for whatever is not true, and the planted effects should be found",
        "",
        "| regime | usual method | % | here | % | note |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for seed, simulate in enumerate(REGIMES):
        for regime, usual, rate, method, ours, note in simulate(np.random.default_rng(seed), draws):
            lines.append(f"| {regime} | {usual} | {100 * rate:.1f} | {method} | {100 * ours:.1f} | {note} |")
            print(lines[-1], flush=True)
    return "\n".join([*lines, ""])


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=DRAWS, help="data sets a row")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of regimes.md")
    options = parser.parse_args(arguments)
    (options.out / "regimes.md").write_text(report(options.draws), encoding="utf-8")


if __name__ == "__main__":
    main()
