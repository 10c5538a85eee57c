"""What `ablate plan --power` prints: the differences that a study can see, and the seeds that smaller ones take."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ablate.study.design import Study

if TYPE_CHECKING:
    import pandas as pd


def print_power(study: Study, pilot: Path, console: Console | None = None) -> None:
    """Print, from the results of a pilot, what `study` with its seeds (and with others) can find out.

    Differences are in points of mIoU (per cent). Raises `ResultsError` for a folder without results.
    """
    # `ablate plan` without --power needs no pandas.
    from ablate.analysis.frames import load_results
    from ablate.analysis.planner import SEEDS, plan_power

    console = console or Console()
    seeds = sorted({*SEEDS, len(study.seeds)})
    plan = plan_power(load_results(pilot), seeds=seeds)
    console.print(_detectable(plan.detectable, seeds, len(study.seeds)))
    console.print(_needed(plan.needed))
    frame = plan.detectable.drop_duplicates("variant")
    for variant, reason in zip(frame["variant"], frame["reason"], strict=True):
        if reason:
            console.print(Text(f"note: {variant}: {reason}"), soft_wrap=True)
    console.print(Text(plan.rule), soft_wrap=True)


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
