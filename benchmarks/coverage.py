"""How often the intervals of `docs/methods.md` hold the truth, simulated: `python -m benchmarks.coverage`.

Prints the tables of `benchmarks/results/coverage.md`. Every data set is drawn from a population in which the truth is
known; coverage is the share of the data sets whose 0.95 interval holds it, with a Monte-Carlo error of
√(0.95·0.05/draws).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from math import sqrt

import numpy as np

from ablate.stats.blocks import draw_images, image_scheme
from ablate.stats.bootstrap import MultiBootstrap, Replicates, combine, seed_weights
from ablate.stats.intervals import t_interval

IMAGES = 30
# What dominates: SD of a seed's score, of what an image is worth to one variant, of what is left of seed and image.
REGIMES = {
    "seeds": (0.02, 0.0, 0.01),
    "interaction": (0.003, 0.0, 0.15),
    "images": (0.003, 0.10, 0.02),
    "all three alike": (0.01, 0.055, 0.055),
}
# True means of the settings of both variants; their best settings are equal, so that the true difference is 0.
SETTINGS = {
    "one setting": (0.0,),
    "four settings, clearly apart": (0.0, -0.05, -0.05, -0.05),
    "four settings, equal": (0.0, 0.0, 0.0, 0.0),
}


def ratio(sums: np.ndarray) -> np.ndarray:
    """Return a score that is a plain mean over images: counts (..., 2) = (sum, number)."""
    return sums[..., 0] / sums[..., 1]


def contrast_coverage(draws: int, n: int, regime: str, means: Sequence[float], rng: np.random.Generator) -> float:
    """Share of `draws` data sets whose retuned interval of the difference holds 0; n seeds a cell."""
    seed, image, rest = REGIMES[regime]
    bootstrap = MultiBootstrap(val=image_scheme(IMAGES, None), test=image_scheme(IMAGES, None), resamples=200)
    held = 0
    for draw in range(draws):
        shared = rng.normal(0, 0.1, (2, IMAGES))
        sides: list[dict[int, Replicates]] = []
        for side in range(2):
            own = shared + rng.normal(0, image, (2, IMAGES))
            sides.append({})
            for setting, mean in enumerate(means):
                luck = mean + rng.normal(0, seed, (n, 1))
                val, test = (list(_counts(luck + own[split] + rng.normal(0, rest, (n, IMAGES)))) for split in range(2))
                name = f"{draw}/{side}/{setting}"
                sides[side][setting] = bootstrap.cell(name, val, test, val_score=ratio, test_score=ratio)
        estimate = combine(sides, [1, -1])[0].estimate
        held += estimate.low <= 0 <= estimate.high
    return held / draws


def _counts(values: np.ndarray) -> np.ndarray:
    return np.stack([values, np.ones_like(values)], axis=-1)


def collapse_coverage(draws: int, n: int, rng: np.random.Generator) -> tuple[float, float]:
    """Coverage where seeds are not normal: every fifth run of one of two variants collapses by 0.3 (truth: −0.06).

    Second, the share of the data sets in which no run collapsed: there nothing tells of it.
    """
    bootstrap = MultiBootstrap(val=image_scheme(IMAGES, None), test=image_scheme(IMAGES, None), resamples=200)
    held, unseen = 0, 0
    for draw in range(draws):
        sides: list[dict[int, Replicates]] = []
        lost = rng.random(n) < 0.2
        unseen += not lost.any()
        for side, fall in enumerate((0.3 * lost, np.zeros(n))):
            values = 0.6 - fall[:, None] + rng.normal(0, 0.01, (n, 1)) + rng.normal(0, 0.05, (n, IMAGES))
            cell = bootstrap.cell(
                f"{draw}/{side}", list(_counts(values)), list(_counts(values)), val_score=ratio, test_score=ratio
            )
            sides.append({0: cell})
        estimate = combine(sides, [1, -1])[0].estimate
        held += estimate.low <= -0.06 <= estimate.high
    return held / draws, unseen / draws


def sequence_coverage(draws: int, correlation: float, block: int | None, rng: np.random.Generator) -> float:
    """Share of AR(1) sequences of 100 images whose image-only interval of the mean holds its expectation, 0."""
    n = 100
    noise = rng.normal(size=(n + 100, draws))
    series = np.zeros_like(noise)
    for step in range(1, n + 100):
        series[step] = correlation * series[step - 1] + noise[step]
    series = series[100:]
    weights = draw_images(rng, image_scheme(n, None if block is None else ["s"] * n, block=block), 1000)
    spread = (weights @ series / n).std(axis=0, ddof=1)
    return float(np.mean(np.abs(series.mean(axis=0)) <= 1.96 * spread))


def seeds_coverage(draws: int, n: int, rng: np.random.Generator) -> tuple[float, float]:
    """Coverage of the mean of n normal seeds by the percentile bootstrap, and by Student's t."""
    percentile, student = 0, 0
    for _ in range(draws):
        values = rng.normal(size=n)
        low, high = np.percentile(seed_weights(rng, n, 1000) @ values / n, [2.5, 97.5])
        percentile += low <= 0 <= high
        _, low, high = t_interval(values)
        student += low <= 0 <= high
    return percentile / draws, student / draws


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1000, help="data sets a figure")
    draws = parser.parse_args().draws
    print(f"{draws} data sets a figure, Monte-Carlo error {sqrt(0.95 * 0.05 / draws):.3f}\n")
    print(f"| what dominates | n | {' | '.join(SETTINGS)} |\n|---|---|{'---|' * len(SETTINGS)}")
    for regime in REGIMES:
        for n in (3, 5):
            rng = np.random.default_rng([n, *regime.encode()])
            row = [f"{contrast_coverage(draws, n, regime, means, rng):.3f}" for means in SETTINGS.values()]
            print(f"| {regime} | {n} | {' | '.join(row)} |", flush=True)
    print("\n| seeds | coverage where every fifth run collapses | no collapse seen |\n|---|---|---|")
    for n in (3, 5, 10, 20):
        row = [f"{share:.2f}" for share in collapse_coverage(draws, n, np.random.default_rng(n))]
        print(f"| {n} | {' | '.join(row)} |", flush=True)
    print("\n| correlation of neighbours | independent draws | blocks of 20 |\n|---|---|---|")
    for correlation in (0.0, 0.6, 0.8):
        rng = np.random.default_rng(int(10 * correlation))
        row = [f"{sequence_coverage(5 * draws, correlation, block, rng):.2f}" for block in (None, 20)]
        print(f"| {correlation:g} | {' | '.join(row)} |", flush=True)
    print("\n| seeds | percentile bootstrap | Student's t |\n|---|---|---|")
    for n in (3, 5):
        row = [f"{share:.2f}" for share in seeds_coverage(5 * draws, n, np.random.default_rng(n))]
        print(f"| {n} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
