"""Error rates of decisions where truth is planted and hard: `python -m benchmarks.regimes`, half a minute on a core.

Every row is a regime in which a usual method is wrong more often than the 5 % that it promises, with the rate of that
method and of the one in `ablate.stats`, by simulation. Writes `results/regimes.md`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from math import sqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import signal, special

from ablate.stats.blocks import ImageScheme, draw_images, image_scheme, order_test
from ablate.stats.bounded import betting_interval
from ablate.stats.interaction import setting_interaction
from ablate.stats.saturation import projected_gain
from ablate.stats.welch import t_test, welch_test

Floats = NDArray[np.float64]
Row = tuple[str, str, float, str, float, str]

RESULTS = Path(__file__).resolve().parent / "results"
ALPHA = 0.05


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
        found = welch_test(variants, baseline)
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


def confounded(rng: np.random.Generator, means: Floats, n: int) -> tuple[bool, bool]:
    """Draw one study (SD 2) and tell whether decisions differ, and whether the interaction is found."""
    runs = means[..., None] + rng.normal(0, 2, (*means.shape, n))
    cell = runs.mean(axis=-1)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=(300, *means.shape)) / n
    draws = cell + sqrt(n / (n - 1)) * ((weights * runs).sum(axis=-1) - cell)
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


REGIMES: tuple[Callable[[np.random.Generator, int], Iterator[Row]], ...] = (
    spreads,
    groups,
    undeclared,
    confounds,
    saturating,
    bounded,
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
        "- command: `python -m benchmarks.regimes`",
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
    parser.add_argument("--draws", type=int, default=10_000, help="data sets a row")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of regimes.md")
    options = parser.parse_args(arguments)
    (options.out / "regimes.md").write_text(report(options.draws), encoding="utf-8")


if __name__ == "__main__":
    main()
