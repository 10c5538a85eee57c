"""`ablate plan --power`: from a pilot's results folder, what a study of n seeds can see and how many seeds it needs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text
from scipy import special

from ablate.analysis.frames import Frames, load_results
from ablate.analysis.scores import StudyScores
from ablate.analysis.selection import best_of_each
from ablate.measure.segmentation import mean_iou
from ablate.run.plan.reach import POWER, deciding_seeds
from ablate.stats.bootstrap import Counts, Score, interaction_of, seed_scores
from ablate.stats.detectable import detectable_difference, floor_of_detection, holm_first, seeds_to_find
from ablate.study.spec import StudySpec
from ablate.study.study import Study
from ablate.study.trial import without_folder, without_location
from ablate.wording import count_of

SEEDS = (3, 5, 8, 12, 20)
DELTAS = (0.005, 0.01, 0.02, 0.03, 0.05)


@dataclass(frozen=True)
class Pilot:
    """A pilot's word on one contrast: the variances, in squared score units, that the planner needs.

    `between` are those between the runs of either side (seed and interaction: what more seeds average away), estimated
    with `df` degrees of freedom together; `image` is the variance of the difference by the sampling of test images,
    which both sides share and no number of seeds removes.
    """

    between: tuple[float, float]
    image: float
    df: int

    @property
    def seed(self) -> float:
        """The mean of the two variances between runs."""
        return sum(self.between) / 2

    def cautious(self, confidence: float = 0.8) -> Pilot:
        """Return the same at the upper one-sided confidence bound of the seed variance, df·s²/χ²_{df, 1−confidence}."""
        factor = self.df / float(special.chdtri(self.df, confidence))
        return Pilot((factor * self.between[0], factor * self.between[1]), self.image, self.df)


@dataclass(frozen=True)
class PowerPlan:
    """The planner's answer; a row a contrast and seed count, or a contrast and difference, in fractions of mIoU.

    - `detectable`: variant, against, setting, against_setting, pilot_seeds, seed_sd (of one run), image_sd (of the
      difference), level, seeds, detectable, reason.
    - `needed`: variant, against, level, delta, seeds (inf: more seeds cannot, see `floor`), cautious_seeds, floor,
      reason.
    """

    detectable: pd.DataFrame
    needed: pd.DataFrame
    contrasts: int
    """How many contrasts Holm's correction is over."""
    level: float
    """The level of its first step, at which every answer is given."""


def plan_power(frames: Frames, *, seeds: Sequence[int] = SEEDS, deltas: Sequence[float] = DELTAS) -> PowerPlan:
    """Plan a study like the pilot in `frames`, for each of its contrasts at own best (A/A controls left out).

    From the fresh seeds of a cell where the pilot has confirmed it, else from those of its grid.
    """
    measure = frames.study.measure
    scores = StudyScores(frames)
    choice = best_of_each(scores.eligible)
    sides = {name: other for name, other in frames.against.items() if name not in frames.controls}
    level = holm_first(1 - measure.confidence, len(sides))
    seen, needed = [], []
    for name, other in sides.items():
        pilot, reason = _pilot(scores, (name, choice[name]), (other, choice[other]))
        # A pilot of few seeds knows its variance badly.
        careful = pilot.cautious() if pilot.df > 0 else pilot
        floor = floor_of_detection(pilot.image, level=level, power=POWER)
        shared = {"variant": name, "against": other, "level": level, "reason": reason}
        settings = {"setting": choice[name] or "", "against_setting": choice[other] or ""}
        spreads = {"seed_sd": float(np.sqrt(pilot.seed)), "image_sd": float(np.sqrt(pilot.image))}
        pilot_seeds = pilot.df // 2 + 1 if pilot.df else 0
        found = [
            (n, detectable_difference(pilot.between, [n, n], alpha=level, power=POWER, shared=pilot.image))
            for n in seeds
        ]
        seen += [
            shared | settings | spreads | {"pilot_seeds": pilot_seeds, "seeds": n, "detectable": least}
            for n, least in found
        ]
        counts = [
            (d, *(seeds_to_find(d, p.between, alpha=level, power=POWER, shared=p.image) for p in (pilot, careful)))
            for d in deltas
        ]
        needed += [shared | {"delta": d, "seeds": n, "cautious_seeds": more, "floor": floor} for d, n, more in counts]
    return PowerPlan(
        pd.DataFrame(seen, columns=[
            "variant", "against", "setting", "against_setting", "pilot_seeds", "seed_sd", "image_sd", "level", "seeds",
            "detectable", "reason",
        ]),
        pd.DataFrame(needed, columns=[
            "variant", "against", "level", "delta", "seeds", "cautious_seeds", "floor", "reason",
        ]),
        len(sides),
        level,
    )  # fmt: skip


def pilot_of(
    left: Sequence[Counts | None],
    right: Sequence[Counts | None],
    weights: np.ndarray,
    score: Score = mean_iou,
) -> Pilot:
    """Return the variances of a contrast from the counts of the seeds of its two cells.

    Two or more seeds a cell, None for a diverged one. image: variance over drawn images of the difference of the cells'
    means, less the runs' own luck with the images (interaction/n of each side), which is in `seed` already.
    """
    between, interactions, means = [], [], []
    for side in (left, right):
        points, draws = seed_scores(side, weights, score)
        between.append(float(points.var(ddof=1)))
        interactions.append(float(interaction_of(points, draws)) / len(side))
        means.append(draws.mean(axis=0))
    image = float(np.nanvar(means[0] - means[1], ddof=1)) - sum(interactions)
    return Pilot((between[0], between[1]), max(0.0, image), len(left) + len(right) - 2)


def _pilot(scores: StudyScores, left: tuple[str, str | None], right: tuple[str, str | None]) -> tuple[Pilot, str]:
    counts: list[list[Counts | None]] = []
    for variant, setting in (left, right):
        roles = ("confirm", "main") if setting is not None else ()
        seeds = max((scores.counts("test", variant, str(setting), role) for role in roles), key=len, default=[])
        if len(seeds) < 2:
            found = count_of(len(seeds), "seed")
            return Pilot((nan, nan), nan, 0), f"{variant} has {found} with a result; a variance needs two"
        counts.append(seeds)
    return pilot_of(counts[0], counts[1], scores.bootstrap.test_weights), ""


def print_power(study: Study, pilot: Path, console: Console | None = None) -> None:
    """Print, from the results of a pilot, what `study` with its seeds (and with others) can find out.

    Differences are in points of mIoU (per cent). Raises `ResultsError` for a folder without results.
    """
    console = console or Console()
    own = deciding_seeds(study)[-1]
    seeds = sorted({*SEEDS, own})
    frames = load_results(pilot)
    plan = plan_power(frames, seeds=seeds)
    console.print(_detectable(plan.detectable, seeds, own))
    console.print(_needed(plan.needed))
    frame = plan.detectable.drop_duplicates("variant")
    for variant, reason in zip(frame["variant"], frame["reason"], strict=True):
        if reason:
            console.print(Text(f"note: {variant}: {reason}"), soft_wrap=True)
    for difference in differences(study.spec, frames.study):
        console.print(Text(f"note: the pilot differs: {difference}"), soft_wrap=True)
    console.print(Text(power_rule(plan)), soft_wrap=True)


def power_rule(plan: PowerPlan) -> str:
    """Return the sentence under the planner's tables."""
    last = f"; the last has {plan.level * plan.contrasts:.3g}" if plan.contrasts > 1 else ""
    return (
        f"Found with a chance of {POWER:.0%} by the primary decision at level {plan.level:.3g} (Holm's first "
        f"step over {count_of(plan.contrasts, 'contrast')}{last}): power of Welch's "
        "t test, its standard error from either side's variance between the pilot's runs and from the sampling of its "
        "test images, which more seeds do not lessen (last column). In brackets: seeds at the upper 80 % confidence "
        "bound of the pilot's variance. Without fresh seeds the noise of choosing the setting is not counted."
    )


def differences(study: StudySpec, pilot: StudySpec) -> list[str]:
    """Return in what, besides variants, grid and seeds, a pilot differs: its variances may be others there."""
    ours, theirs = (_flat(spec) for spec in (study, pilot))
    return [
        f"{name} {_said(theirs.get(name))}, here {_said(ours.get(name))}"
        for name in dict.fromkeys([*ours, *theirs])
        if _said(ours.get(name)) != _said(theirs.get(name))
    ]


def _flat(spec: StudySpec) -> dict[str, Any]:
    data = {"name": spec.data.name, **without_location(spec.data.settings)}
    model = without_folder({"name": spec.model.name, **spec.model.settings})
    train = {name: value for name, value in spec.train.model_dump(mode="json").items() if name not in spec.grid}
    parts = {"data": data, "model": model, "train": train, "measure": {"native": spec.measure.native}}
    return {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}


def _said(value: Any) -> str:
    return "none" if value is None else json.dumps(value, sort_keys=True)


def _detectable(frame: pd.DataFrame, seeds: list[int], own: int) -> Table:
    table = Table(title="smallest difference of mIoU that is found, in points", title_justify="left")
    table.add_column("contrast")
    for n in seeds:
        table.add_column(f"{n} seeds" + (" (this study)" if n == own else ""), justify="right")
    for (variant, other), part in frame.groupby(["variant", "against"], sort=False):
        found = part.set_index("seeds")["detectable"]
        table.add_row(Text(f"{variant} − {other}"), *(_points(float(found[n])) for n in seeds))
    return table


def _needed(frame: pd.DataFrame) -> Table:
    table = Table(title="seeds that find a difference of mIoU (to be safe)", title_justify="left")
    table.add_column("contrast")
    deltas = list(dict.fromkeys(frame["delta"]))
    for delta in deltas:
        table.add_column(count_of(f"{100 * delta:g}", "point"), justify="right")
    table.add_column("no number of seeds finds less than", justify="right")
    for (variant, other), part in frame.groupby(["variant", "against"], sort=False):
        rows = part.set_index("delta")
        counts = [f"{_count(rows['seeds'][delta])} ({_count(rows['cautious_seeds'][delta])})" for delta in deltas]
        table.add_row(Text(f"{variant} − {other}"), *counts, _points(float(part["floor"].iloc[0])))
    return table


def _points(fraction: float) -> str:
    return f"{100 * fraction:.2f}" if isfinite(fraction) else "–"


def _count(seeds: float) -> str:
    # NaN is "the pilot cannot tell", infinity is "none would do".
    return f"{seeds:.0f}" if isfinite(seeds) else "∞" if seeds > 0 else "–"
