"""The price of a verdict: power, errors and runs of ways to decide. `python -m benchmarks.decisions [--quick]`.

Simulated from the spreads of the published studies. All variants are equal at their own best rate (false verdicts),
or all but the baseline are better by some points (power); over the other rates they fall off as the baseline does, or
each as it was seen to. Writes `results/decisions.md` and `results/decisions.png`; about a minute of one core.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from math import sqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ablate.stats.intervals import contrast_error
from ablate.stats.sequential import group_sequential_holm
from benchmarks.population import STUDIES, TTest, World, read_world, t_test

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

HERE = Path(__file__).resolve().parent
ALPHA, ROPE, FUTILITY = 0.05, 0.5, 0.02
EFFECTS = (1, 2, 5)
LOOKS = (4, 8, 12, 16)
RESAMPLES = 200
CHUNK = 250


@dataclass(frozen=True)
class Outcome:
    """The verdicts of simulated studies: `better`, `worse` (studies, contrasts), and their `runs` (studies,).

    `truth` (studies, contrasts) are the true differences at the rates that each study compared at.
    """

    better: Flags
    worse: Flags
    runs: Floats
    truth: Floats

    @property
    def power(self) -> float:
        """Share of the contrasts found to be better."""
        return float(self.better.mean())

    @property
    def false(self) -> float:
        """Share of the studies with any verdict, which is false where all are equal."""
        return float((self.better | self.worse).any(axis=1).mean())

    @property
    def wrong(self) -> float:
        """Share of the studies with any verdict that is not true of the rates they compared at."""
        wrong = (self.better & (self.truth <= 0)) | (self.worse & (self.truth >= 0))
        return float(wrong.any(axis=1).mean())


Way = Callable[[np.random.Generator, World, int, float], Outcome]


def holm(p: Floats) -> Flags:
    """Return what Holm's procedure rejects at ALPHA: p (studies, m) -> (studies, m)."""
    m = p.shape[1]
    order = np.argsort(p, axis=1)
    passed = np.take_along_axis(p, order, axis=1) <= ALPHA / (m - np.arange(m))
    rejected = np.zeros_like(passed)
    np.put_along_axis(rejected, order, np.logical_and.accumulate(passed, axis=1), axis=1)
    return rejected


def judged(rejected: Flags, value: Floats, runs: float | Floats, truth: Floats) -> Outcome:
    """Split what is rejected by the sign of the difference."""
    spent = np.broadcast_to(np.float64(runs), len(value))
    return Outcome(rejected & (value > 0), rejected & (value < 0), spent, np.broadcast_to(truth, value.shape))


def truth_at(world: World, effect: float, place: NDArray[np.int64]) -> Floats:
    """Return the true differences from the baseline at the rates `place` (studies, variants): (studies, contrasts)."""
    mean = world.means(effect)[np.arange(len(world.below)), place]
    return np.asarray(mean[..., 1:] - mean[..., :1])


def everywhere(
    rng: np.random.Generator, world: World, studies: int, effect: float, *, seeds: int, welch: bool = True
) -> Outcome:
    """Run as many seeds in all cells; own best rates by val, chosen again in every replicate of a bootstrap of seeds.

    Difference ± t · SD of the replicates, Holm. Degrees of freedom by Welch, or 2(n − 1) as if spreads were equal.
    """
    val, test = world.runs(rng, studies, seeds, effect)
    place = val.mean(axis=3).argmax(axis=2)
    score = _take(test.mean(axis=3), place)
    between = _take(test.var(axis=3, ddof=1), place)
    # Deviations drawn from n seeds vary by (n − 1)/n too little.
    drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=(*world.below.shape, RESAMPLES))
    weights = sqrt(seeds / (seeds - 1)) * (drawn / seeds - 1 / seeds)
    replicates = np.empty((len(world.below), studies, RESAMPLES))
    for variant, of_cells in enumerate(weights):
        val_draws, test_draws = (
            scores[:, variant].mean(axis=2).T[..., None]
            + np.moveaxis(scores[:, variant], 0, 1) @ of_cells.transpose(0, 2, 1)
            for scores in (val, test)
        )
        replicates[variant] = np.take_along_axis(test_draws, val_draws.argmax(axis=0)[None], axis=0)[0]
    value = score[:, 1:] - score[:, :1]
    variance = (replicates[1:] - replicates[:1]).var(axis=2, ddof=1).T
    parts = np.stack(np.broadcast_arrays(between[:, 1:], between[:, :1]), axis=-1)
    least, _ = contrast_error(parts, [seeds, seeds])
    # What choosing and the images add is known as well as the spread of the seeds, and better.
    shared = np.maximum(variance - least**2, 0) + world.image**2
    se, df = contrast_error(parts, [seeds, seeds], shared=shared)
    found = t_test(value, se, df if welch else 2 * (seeds - 1))
    return judged(holm(found.p), value, world.below.size * seeds, truth_at(world, effect, place))


def _take(cells: Floats, place: NDArray[np.int64]) -> Floats:
    """Values of the chosen rates: (studies, variants, rates) -> (studies, variants)."""
    return np.take_along_axis(cells, place[..., None], axis=2)[..., 0]


def screened(
    rng: np.random.Generator, world: World, studies: int, effect: float, more: int = 1
) -> tuple[NDArray[np.int64], int]:
    """Choose rates by val with one seed a cell and `more` at each variant's two best; return them and the runs."""
    val, _ = world.runs(rng, studies, 1 + more, effect)
    best = np.argsort(-val[..., 0], axis=2)[..., :2]
    again = np.take_along_axis(val.mean(axis=3), best, axis=2)
    chosen = np.take_along_axis(best, again.argmax(axis=2)[..., None], axis=2)[..., 0]
    return chosen, world.below.size + 2 * more * len(world.below)


def fresh(rng: np.random.Generator, world: World, chosen: NDArray[np.int64], seeds: int, effect: float) -> Floats:
    """Draw test scores of fresh seeds at the chosen rates: (studies, variants, seeds)."""
    rows = np.arange(len(world.below))
    mean = world.means(effect)[rows, chosen] + world.images(rng, len(chosen))
    return mean[..., None] + world.spread * rng.normal(size=(*chosen.shape, seeds))


def confirmed(world: World, scores: Floats) -> TTest:
    """Compare the variants with the baseline by fresh seeds (studies, variants, seeds); df by Welch."""
    n = scores.shape[2]
    variance = scores.var(axis=2, ddof=1)
    parts = np.stack(np.broadcast_arrays(variance[:, 1:], variance[:, :1]), axis=-1)
    se, df = contrast_error(parts, [n, n], shared=world.image**2)
    mean = scores.mean(axis=2)
    return t_test(mean[:, 1:] - mean[:, :1], se, df)


def two_phases(
    rng: np.random.Generator, world: World, studies: int, effect: float, *, seeds: int, more: int = 1
) -> Outcome:
    """Screen, then fresh seeds at the chosen rates; Welch, Holm."""
    chosen, spent = screened(rng, world, studies, effect, more)
    found = confirmed(world, fresh(rng, world, chosen, seeds, effect))
    return judged(holm(found.p), found.value, spent + seeds * len(world.below), truth_at(world, effect, chosen))


def until_decided(
    rng: np.random.Generator,
    world: World,
    studies: int,
    effect: float,
    *,
    looks: Sequence[int] = LOOKS,
    futility: float = FUTILITY,
    more: int = 1,
) -> Outcome:
    """Screen, then fresh seeds look by look, only where a contrast is open (and for the baseline while one is)."""
    chosen, spent = screened(rng, world, studies, effect, more)
    scores = fresh(rng, world, chosen, looks[-1], effect)
    tests = [confirmed(world, scores[..., :n]) for n in looks]
    value, se, df = (np.array([getattr(test, name) for test in tests]) for name in ("value", "se", "df"))
    found = group_sequential_holm(value, se, df, looks=looks, alpha=ALPHA, rope=ROPE, futility=futility)
    runs = np.array(looks)[found.look]
    spent = spent + runs.sum(axis=1) + runs.max(axis=1)
    return Outcome(found.word == "better", found.word == "worse", spent, truth_at(world, effect, chosen))


def by_eye(rng: np.random.Generator, world: World, studies: int, effect: float, *, seeds: int = 3) -> Outcome:
    """Compare mean ± SD at the baseline's best rate by eye: different where the bars do not touch."""
    _, test = world.runs(rng, studies, seeds, effect)
    rate = np.array([int(world.below[0].argmax())] * len(world.below))
    at = test[:, :, rate[0]]
    mean, sd = at.mean(axis=2), at.std(axis=2, ddof=1)
    value = mean[:, 1:] - mean[:, :1]
    apart = np.abs(value) > sd[:, 1:] + sd[:, :1]
    return judged(apart, value, len(world.below) * seeds, truth_at(world, effect, rate))


def one_rate(rng: np.random.Generator, world: World, studies: int, effect: float, *, seeds: int = 3) -> Outcome:
    """Test each variant at the baseline's best rate by Student's t, at 0.05 each."""
    _, test = world.runs(rng, studies, seeds, effect)
    rate = np.array([int(world.below[0].argmax())] * len(world.below))
    at = test[:, :, rate[0]]
    value = at[:, 1:].mean(axis=2) - at[:, :1].mean(axis=2)
    pooled = (at[:, 1:].var(axis=2, ddof=1) + at[:, :1].var(axis=2, ddof=1)) / 2
    p = t_test(value, np.sqrt(2 * pooled / seeds), 2 * (seeds - 1)).p
    return judged(p <= ALPHA, value, len(world.below) * seeds, truth_at(world, effect, rate))


def best_of_sweep(rng: np.random.Generator, world: World, studies: int, effect: float) -> Outcome:
    """Run every rate once and call the higher of the best test scores better."""
    _, test = world.runs(rng, studies, 1, effect)
    best, place = test[..., 0].max(axis=2), test[..., 0].argmax(axis=2)
    value = best[:, 1:] - best[:, :1]
    return judged(value != 0, value, world.below.size, truth_at(world, effect, place))


WAYS: dict[str, tuple[str, Way]] = {
    "mean ± SD of 3 seeds at one rate, by eye": ("peers", by_eye),
    "t test of 3 seeds at one rate": ("peers", one_rate),
    "best of a sweep of one seed": ("peers", best_of_sweep),
    "3 seeds everywhere": ("everywhere", partial(everywhere, seeds=3)),
    "5 seeds everywhere": ("everywhere", partial(everywhere, seeds=5)),
    "10 seeds everywhere": ("everywhere", partial(everywhere, seeds=10)),
    "3 seeds everywhere, df as if spreads were equal": ("everywhere", partial(everywhere, seeds=3, welch=False)),
    "10 seeds everywhere, df as if spreads were equal": ("everywhere", partial(everywhere, seeds=10, welch=False)),
    "screen, 6 fresh seeds": ("two phases", partial(two_phases, seeds=6)),
    "screen with 3 more at the two best, 6 fresh seeds": ("two phases", partial(two_phases, seeds=6, more=3)),
    "until decided at 4, 8, 12, 16": ("until decided", until_decided),
    "screen with 3 more at the two best, until decided": ("until decided", partial(until_decided, more=3)),
}
# What the figure and the search for 80 % vary: the seeds of a cell (everywhere, fresh, at most).
FAMILIES: dict[str, Callable[[int], Way]] = {
    "everywhere": lambda n: partial(everywhere, seeds=n),
    "two phases": lambda n: partial(two_phases, seeds=n),
    "until decided": lambda n: partial(until_decided, looks=[n // 4, n // 2, 3 * n // 4, n]),
}
STEPS = {"everywhere": range(2, 81), "two phases": range(2, 81), "until decided": range(8, 101, 4)}


def simulate(way: Way, world: World, studies: int, effect: float, seed: int = 0) -> Outcome:
    """Simulate many studies a portion at a time."""
    rng = np.random.default_rng([seed, round(100 * effect)])
    parts = [way(rng, world, min(CHUNK, studies - start), effect) for start in range(0, studies, CHUNK)]
    return Outcome(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(Outcome)))


def least_for_power(family: str, world: World, effect: float, studies: int, power: float = 0.8) -> tuple[int, float]:
    """Return the least seeds of a cell with which a family reaches `power`, and the mean runs; (0, nan) for none."""
    steps = STEPS[family]
    low, high, runs = -1, len(steps), float("nan")  # power grows with the seeds, but for the noise of the simulation
    while high - low > 1:
        middle = (low + high) // 2
        outcome = simulate(FAMILIES[family](steps[middle]), world, studies, effect)
        if outcome.power >= power:
            high, runs = middle, float(outcome.runs.mean())
        else:
            low = middle
    return (steps[high], runs) if high < len(steps) else (0, runs)


def main_table(worlds: Sequence[World], studies: int) -> list[str]:
    """Return the rows of runs, power and false verdicts of every way."""
    names = [world.name for world in worlds]
    effects = "/".join(str(effect) for effect in EFFECTS)
    columns = [f"runs, {name}" for name in names] + [f"power at {effects} points, {name}" for name in names]
    lines = _header(["way to decide", *columns, "false, alike", "false, own", "false at the rates chosen, own"])
    for label, (_, way) in WAYS.items():
        runs, powers, alike, own, at_chosen = [], [], [], [], []
        for world in worlds:
            same = world.alike()
            found = [simulate(way, same, studies, effect) for effect in EFFECTS]
            null = simulate(way, same, studies, 0)
            lowest, highest = sorted((float(null.runs.mean()), float(found[-1].runs.mean())))
            runs.append(f"{lowest:.0f}" if highest - lowest < 0.5 else f"{lowest:.0f}–{highest:.0f}")
            powers.append(" / ".join(f"{100 * outcome.power:.0f}" for outcome in found))
            alike.append(f"{100 * null.false:.1f}")
            apart = simulate(way, world, studies, 0)
            own.append(f"{100 * apart.false:.1f}")
            at_chosen.append(f"{100 * apart.wrong:.1f}")
        lines.append(_row([label, *runs, *powers, *map(" / ".join, (alike, own, at_chosen))]))
        print(lines[-1], flush=True)
    return lines


def power_table(worlds: Sequence[World], studies: int) -> list[str]:
    """Return the rows of how many runs find an effect in four of five studies."""
    effects = sorted((*EFFECTS[1:], 3), reverse=True)
    lines = _header(["way to decide", *(f"{effect} points, {world.name}" for world in worlds for effect in effects)])
    for family in FAMILIES:
        cells = []
        for world in worlds:
            for effect in effects:
                seeds, runs = least_for_power(family, world.alike(), effect, studies)
                cells.append(f"{runs:.0f} ({seeds})" if seeds else f"more than {STEPS[family][-1]} seeds")
        lines.append(_row([family, *cells]))
        print(lines[-1], flush=True)
    return lines


def _header(names: Sequence[str]) -> list[str]:
    return [_row(names), _row(["---"] * len(names))]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def draw(worlds: Sequence[World], studies: int, path: Path) -> None:
    """Draw power against runs: lines for ways with more or fewer seeds, marks for what is done elsewhere."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    seeds = {
        "everywhere": (2, 3, 4, 5, 7, 10, 14, 20, 30),
        "two phases": (2, 3, 4, 6, 8, 12, 16, 24, 40, 60),
        "until decided": (8, 12, 16, 24, 32, 48, 64),
    }
    peers = [(label, way) for label, (kind, way) in WAYS.items() if kind == "peers"]
    figure, axes = plt.subplots(1, len(worlds), figsize=(9, 4.4), sharey=True, layout="constrained")
    for axis, world in zip(axes, [world.alike() for world in worlds], strict=True):
        for colour, (family, make) in enumerate(FAMILIES.items()):
            for effect, style in ((5, "-"), (2, "--")):
                found = [simulate(make(n), world, studies, effect) for n in seeds[family]]
                runs, power = [outcome.runs.mean() for outcome in found], [100 * outcome.power for outcome in found]
                axis.plot(runs, power, style, color=f"C{colour}", label=f"{family}, {effect} points")
        for marker, (label, way) in zip("osD", peers, strict=True):
            outcome, null = simulate(way, world, studies, 5), simulate(way, world, studies, 0)
            place = (float(outcome.runs.mean()), 100 * outcome.power)
            axis.plot(*place, marker, color="0.4", label=f"{label}, 5 points")
            axis.annotate(f"{100 * null.false:.0f} % false", place, (6, -3), textcoords="offset points", fontsize=7)
        axis.axhline(80, color="0.8", linewidth=0.8, zorder=0)
        axis.set(xscale="log", xlabel="training runs", title=world.name, ylim=(0, 101))
        axis.set_xticks([12, 24, 48, 96, 192, 384], ["12", "24", "48", "96", "192", "384"])
        axis.minorticks_off()
    axes[0].set_ylabel("differences found, %")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=7, frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def report(worlds: Sequence[World], studies: int, picture: str) -> str:
    """Return the page of results."""
    error = 100 * sqrt(0.05 * 0.95 / studies)
    spreads = "; ".join(
        f"{world.name} {world.spread:.1f} points between seeds, {world.image:.1f} by the test images"
        for world in worlds
    )
    names = " / ".join(world.name for world in worlds)
    lines = [
        "# What a verdict costs",
        "",
        "- command: `python -m benchmarks.decisions`",
        f"- {studies:,} simulated studies a figure; Monte-Carlo error of 5 %: {error:.1f} points",
        f"- four variants, four rates; spreads of the published studies: {spreads}",
        "- power: the share of three contrasts that are found, all of them real; runs: of equal variants and of 5 "
        "points, where that differs",
        f"- false: studies of variants that are equal at their best rates with any verdict, in % ({names}); alike: all "
        "fall off from the best rate as the baseline does; own: each as its seeds show it, shrunk by their noise",
        "- false at the rates chosen: studies with a verdict that does not hold between the variants *at the rates "
        "chosen*, which is what a verdict speaks of; a variant whose best rate was missed is truly worse there",
        "",
        *main_table(worlds, studies),
        "",
        "Runs (and seeds: of a cell, fresh, or at most) that find a difference in 80 % of the studies; the mean where "
        "the number of runs differs between studies:",
        "",
        *power_table(worlds, max(500, studies // 4)),
        "",
        f"![Power against training runs]({picture})",
        "",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, and write the tables and the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a twentieth of the studies: a look, not a result")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of decisions.md and decisions.png")
    options = parser.parse_args(arguments)
    studies = 500 if options.quick else 10_000
    started = time.perf_counter()
    worlds = [read_world(name) for name in STUDIES]
    text = report(worlds, studies, "decisions.png")
    (options.out / "decisions.md").write_text(text, encoding="utf-8")
    draw(worlds, max(200, studies // 4), options.out / "decisions.png")
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
