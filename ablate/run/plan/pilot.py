"""The output of `ablate plan --power`: the differences that a study can see, and the seeds that smaller ones take."""

from __future__ import annotations

import json
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ablate.run.plan.reach import deciding_seeds
from ablate.study.spec import StudySpec
from ablate.study.study import Study
from ablate.study.trial import without_location

if TYPE_CHECKING:
    import pandas as pd

    from ablate.run.plan.planner import PowerPlan


def print_power(study: Study, pilot: Path, console: Console | None = None) -> None:
    """Print, from the results of a pilot, what `study` with its seeds (and with others) can find out.

    Differences are in points of mIoU (per cent). Raises `ResultsError` for a folder without results.
    """
    # `ablate plan` without --power needs no pandas.
    from ablate.analysis.frames import load_results
    from ablate.run.plan.planner import SEEDS, plan_power

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
    return (
        f"Found with a chance of {plan.wanted:.0%} by the primary decision at level {plan.level:.3g} (Holm's first "
        f"step over {plan.contrasts} contrasts; the last has {plan.level * plan.contrasts:.3g}): power of Welch's "
        "t test, its standard error from either side's variance between the pilot's runs and from the sampling of its "
        "test images, which more seeds do not lessen (floor). cautious_seeds: at the upper 80 % confidence bound of "
        "the pilot's variance. Without fresh seeds the noise of choosing the setting is not counted."
    )


def differences(study: StudySpec, pilot: StudySpec) -> list[str]:
    """In what, besides variants, grid and seeds, a pilot is another experiment: its variances may be others there."""
    ours, theirs = (_flat(spec) for spec in (study, pilot))
    return [
        f"{name} {_said(theirs.get(name))}, here {_said(ours.get(name))}"
        for name in dict.fromkeys([*ours, *theirs])
        if _said(ours.get(name)) != _said(theirs.get(name))
    ]


def _flat(spec: StudySpec) -> dict[str, Any]:
    data = {"name": spec.data.name, **without_location(spec.data.settings)}
    model = {"name": spec.model.name, **spec.model.settings}
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
    for (variant, against), part in frame.groupby(["variant", "against"], sort=False):
        found = part.set_index("seeds")["detectable"]
        table.add_row(Text(f"{variant} − {against}"), *(_points(float(found[n])) for n in seeds))
    return table


def _needed(frame: pd.DataFrame) -> Table:
    table = Table(title="seeds that find a difference of mIoU (cautiously)", title_justify="left")
    table.add_column("contrast")
    deltas = list(dict.fromkeys(frame["delta"]))
    for delta in deltas:
        table.add_column(f"{100 * delta:g} points", justify="right")
    table.add_column("no seeds find less than", justify="right")
    for (variant, against), part in frame.groupby(["variant", "against"], sort=False):
        rows = part.set_index("delta")
        counts = [f"{_count(rows['seeds'][delta])} ({_count(rows['cautious_seeds'][delta])})" for delta in deltas]
        table.add_row(Text(f"{variant} − {against}"), *counts, _points(float(part["floor"].iloc[0])))
    return table


def _points(fraction: float) -> str:
    return f"{100 * fraction:.2f}" if isfinite(fraction) else "–"


def _count(seeds: float) -> str:
    # NaN is "the pilot cannot tell", infinity is "none would do".
    return f"{seeds:.0f}" if isfinite(seeds) else "∞" if seeds > 0 else "–"
