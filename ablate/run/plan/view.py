"""The output of `ablate plan` and `ablate check`: trials, what variants change, what a run will cost and rest on."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ablate.data.dataset import SPLITS, Dataset
from ablate.run.plan.describe import PlanReport, Shape, VariantPlan, describe, idle_poolings
from ablate.run.plan.dry import dry_pass, load_data, own_data
from ablate.run.plan.estimate import NOT_ENOUGH, Estimate, decisions_of, estimate_seconds, room_of
from ablate.run.tracker import mlflow_state, refuse_missing
from ablate.run.wandb import has_key, resolve_mode
from ablate.stats.blocks import LEAST_GROUPS_DRAWN_WHOLE
from ablate.study.study import Study
from ablate.study.trial import level_text
from ablate.train.device import device_names
from ablate.wording import count_of, few_groups, listed, range_of

MODULES_SHOWN = 8
TRIALS_SHOWN = 60


def print_plan(
    study: Study, console: Console | None = None, *, estimate: bool = True, results: Path = Path("results")
) -> None:
    """Print the trials, what differs from the baseline, parameters, FLOPs, the time and the room that they will take.

    Raises, as the run would: `DataError` for data that cannot be used, and what `dry_pass` finds.
    """
    console = console or Console()
    report, data, _ = checked(study)
    _summary(console, report)
    console.print(variants_table(report))
    _modules(console, report)
    if report.trials:
        console.print(trials_table(report))
    if estimate:
        found = estimate_seconds(study, report, start_up=time.process_time())
        if found is not None:
            console.print(_cost(found, report))
    room = room_of(study, report, data, results)
    console.print(Text(room.text), soft_wrap=True)
    for note in report.notes:
        console.print(Text(f"note: {note}"), soft_wrap=True)


def checked(study: Study) -> tuple[PlanReport, Dataset, dict[str, Dataset]]:
    """Return the plan of a study whose parts have been tried, its data, and those by variant; raises as `dry_pass`."""
    refuse_missing(study)
    with Console(stderr=True).status("reading the data and trying every variant"):
        data = load_data(study, again=True)
        own = own_data(study, data)
        dry_pass(study, data, own=own)
    return describe(study, Shape.of(data), {name: Shape.of(part) for name, part in own.items()}), data, own


def plan_document(study: Study, results: Path) -> dict[str, Any]:
    """Return what `print_plan` prints as JSON values: seconds, bytes and FLOPs instead of words."""
    report, data, _ = checked(study)
    found = estimate_seconds(study, report, start_up=time.process_time())
    seconds = None if found is None else _seconds(found, report)
    document = json.loads(json.dumps(asdict(report), default=str))
    document["trials"] = [
        {name: getattr(trial, name) for name in ("name", "key", "variant", "settings", "seed")}
        for trial in report.trials
    ]
    room = room_of(study, report, data, results)
    return document | {"runs": list(report.runs), "seconds": seconds, "bytes": asdict(room)}


def _seconds(found: Estimate, report: PlanReport) -> tuple[float, float]:
    """Return the seconds of all runs, at least and at most: a run of a later phase takes its share by its FLOPs."""
    first = report.train_flops or 1
    least, most = (found.fixed + found.trials * (1 + later / first) for later in report.later_flops)
    return least, most


def _cost(found: Estimate, report: PlanReport) -> str:
    """Return the time and the arithmetic of all runs, at least and at most where they are not known beforehand."""
    times = dict.fromkeys(map(duration, _seconds(found, report)))
    amounts = dict.fromkeys(f"{(report.train_flops + flops) / 1e12:,.1f}" for flops in report.later_flops)
    work = f"{' to '.join(amounts)} TFLOP of training"
    return f"time: about {' to '.join(times)} on this machine, when it is quiet ({work})"


def _summary(console: Console, report: PlanReport) -> None:
    axes = " × ".join(f"{len(levels)} {name}" for name, levels in report.axes.items())
    if report.searched:
        axes = count_of(report.searched // len(report.variants) // len(report.seeds), "setting")
    parts = [count_of(len(report.variants), "variant"), *([axes] if axes else []), count_of(len(report.seeds), "seed")]
    count = count_of(report.searched, "searched trial") if report.searched else count_of(len(report.trials), "trial")
    planned = math.prod(map(len, (report.variants, *report.axes.values(), report.seeds)))
    left_out = planned - len(report.trials) if not report.searched else 0
    less = f", less {left_out} excluded" if left_out else ""
    console.print(Text(f"{report.study}: {count} ({' × '.join(parts)}{less})", style="bold"))
    if report.searched:
        ranges = "; ".join(f"{name} {text}" for name, text in report.space.items())
        console.print(Text(f"searched for each variant by a sampler of its own: {ranges}"), soft_wrap=True)
    for phase in report.later:
        console.print(f"then {count_of(range_of(phase.total), 'trial')}: {phase.text}", soft_wrap=True)
    if report.later:
        console.print(f"in all {count_of(range_of(report.runs), 'trial')}")
    for line in report.reach:
        console.print(line, soft_wrap=True)
    height, width = report.shape.size
    images = " / ".join(str(report.shape.images[split]) for split in SPLITS)
    console.print(f"data: {images} images (train / val / test) at {height}×{width}, {report.shape.num_classes} classes")


def variants_table(report: PlanReport) -> Table:
    """Return a row a variant: its difference from the baseline, parameters and FLOPs with their ratio to those."""
    table = Table(title="variants", title_justify="left")
    table.add_column("variant", overflow="fold")  # a name that is cut off cannot be typed after --only
    table.add_column("differs from the baseline in")
    table.add_column("parameters", justify="right")
    table.add_column("FLOPs an image", justify="right")
    base = next(item for item in report.variants if item.name == report.baseline)
    for item in report.variants:
        table.add_row(
            Text(item.name),
            Text(_difference(item, report)),
            _with_ratio(item.parameters, base.parameters),
            _with_ratio(item.forward_flops, base.forward_flops),
        )
    return table


def _difference(item: VariantPlan, report: PlanReport) -> str:
    if item.name == report.baseline:
        return "(baseline)"
    if item.control:
        return "(control: an A/A copy)"
    return ", ".join(f"{name}: {_value(left)} → {_value(right)}" for name, (left, right) in item.differs.items())


def _value(value: Any) -> str:
    return "–" if value is None else level_text(value)


def _with_ratio(value: int, base: int) -> str:
    ratio = f" ({value / base:.2f}×)" if base else ""
    return f"{value:,}{ratio}"


def _modules(console: Console, report: PlanReport) -> None:
    for item in report.variants:
        lines = [*(f"+ {line}" for line in item.added), *(f"- {line}" for line in item.removed)]
        if not lines:
            continue
        console.print(Text(f"modules of {item.name}: {len(item.added)} added, {len(item.removed)} removed"))
        for line in lines[:MODULES_SHOWN]:
            console.print(Text(f"  {line}", style="green" if line.startswith("+") else "red"), soft_wrap=True)
        if len(lines) > MODULES_SHOWN:
            console.print(f"  and {len(lines) - MODULES_SHOWN} more")


def trials_table(report: PlanReport) -> Table:
    """Return a row a cell: variant and setting, and its seeds."""
    table = Table(title="trials", title_justify="left")
    table.add_column("variant", overflow="fold")
    for axis in report.axes:
        table.add_column(axis, justify="right")
    table.add_column("seeds")
    table.add_column("first trial")
    cells: dict[tuple[str, ...], list[Any]] = {}
    for trial in report.trials:
        cells.setdefault((trial.variant, *map(level_text, trial.settings.values())), []).append(trial)
    for (variant, *levels), trials in list(cells.items())[:TRIALS_SHOWN]:
        table.add_row(Text(variant), *levels, ", ".join(str(trial.seed) for trial in trials), Text(trials[0].name))
    if len(cells) > TRIALS_SHOWN:
        table.caption = f"and {len(cells) - TRIALS_SHOWN} more cells"
    return table


def duration(seconds: float) -> str:
    """Return seconds in the unit that a person would use: 42 s, 7 min, 3.5 h."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


def check_document(study: Study, results: Path) -> dict[str, str]:
    """Return what was found sound of a study and what it will take, in words by part; raises as `checked`."""
    report, data, own = checked(study)
    decisions = decisions_of(study, report)
    counts = " / ".join(str(len(data.splits[name])) for name in SPLITS)
    height, width = data.size
    several = "; a pixel may bear several, each class is judged by itself" if data.multilabel else ""
    devices = ", ".join(device_names(study.spec.run.devices))
    mode = resolve_mode(study.spec.track.wandb)
    offline = " (no key on this machine: written offline)" if mode == "online" and not has_key() else ""
    room = room_of(study, report, data, results)
    shapes = {name: Shape.of(part) for name, part in own.items()}
    return {
        "study": f"{count_of(len(study.variants), 'variant')}, {count_of(range_of(report.runs), 'trial')} in all",
        "data": f"{counts} images (train / val / test) at {height} × {width}, {data.num_classes} classes{several}",
        **({"limits": "; ".join(limits)} if (limits := [*idle_poolings(study, shapes), *_limits(data, own)]) else {}),
        "networks": f"{count_of(len(study.variants), 'variant')} passed a batch in training and in evaluation mode",
        "device": f"{devices}: {count_of(decisions.workers, 'worker')} of {count_of(decisions.threads, 'thread')}, "
        f"{decisions.precision}, {decisions.engine}",
        **({"memory": memory} if (memory := _memory()) else {}),
        "disk": room.text.removeprefix("disk: "),
        "W&B": mode + offline,
        **({"MLflow": mlflow_state(study)} if study.spec.track.mlflow else {}),
        "results": str(results),
    }


def _limits(data: Dataset, own: Mapping[str, Dataset]) -> list[str]:
    """Return what a report will say against these data, before the machine time is spent."""
    found = []
    parts = {id(part): (f"train of '{name}'", "train", part) for name, part in own.items() if part is not data}
    for name, split, part in [*((split, split, data) for split in SPLITS), *parts.values()]:
        pixels = part.pixels_of_classes(split)
        if absent := [label for label, count in zip(data.classes, pixels, strict=False) if not count]:
            found.append(f"{name} has no pixel of {listed(absent)}")
    groups = len(set(data.splits["test"].groups or ()))
    if 0 < groups < LEAST_GROUPS_DRAWN_WHOLE:
        found.append(f"{few_groups(groups)} ({LEAST_GROUPS_DRAWN_WHOLE} can; a larger test split has more)")
    return found


def _memory() -> str:
    """Return the memory of this machine in words; "" where it does not say."""
    try:
        size = os.sysconf("SC_PAGE_SIZE")
        total, free = (size * os.sysconf(name) / 1e9 for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return ""
    return f"{free:.1f} of {total:.1f} GB free"


def print_check(study: Study, results: Path, console: Console | None = None) -> int:
    """Print what `check_document` returns; return 1 where the disk has too little room for the study, else 0."""
    console = console or Console()
    found = check_document(study, results)
    verdict = "nothing wrong was found" if fits(found) else "there is too little room on the disk"
    console.print(Text(f"{study.name}: {verdict}", style="bold"))
    for part, text in found.items():
        console.print(Text(f"  {part}: {text}"), soft_wrap=True)
    return 0 if fits(found) else 1


def fits(found: Mapping[str, str]) -> bool:
    """Return whether the disk has room for a study of which `check_document` says `found`."""
    return not found["disk"].endswith(NOT_ENOUGH)
