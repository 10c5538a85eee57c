"""`ablate check`: one line a part of a study that was found sound, and what the run will take of this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from ablate.data.dataset import SPLITS, Dataset
from ablate.run.plan.disk import room_of
from ablate.run.plan.estimate import decisions_of
from ablate.run.plan.view import checked
from ablate.run.wandb import has_key, resolve_mode
from ablate.stats.blocks import LEAST_GROUPS_DRAWN_WHOLE
from ablate.study.study import Study
from ablate.train.device import device_names
from ablate.wording import count_of, few_groups, listed, range_of


def check_document(study: Study, results: Path) -> dict[str, str]:
    """Return what was found sound of a study and what it will take, in words by part; raises as `checked`."""
    report, data = checked(study)
    decisions = decisions_of(study, report)
    counts = " / ".join(str(len(data.splits[name])) for name in ("train", "val", "test"))
    height, width = data.size
    several = "; a pixel may bear several, each class is judged by itself" if data.multilabel else ""
    devices = ", ".join(device_names(study.spec.run.devices))
    mode = resolve_mode(study.spec.track.wandb)
    offline = " (no key on this machine: written offline)" if mode == "online" and not has_key() else ""
    room = room_of(study, report, data, results, decisions.workers)
    return {
        "study": f"{count_of(len(study.variants), 'variant')}, {count_of(range_of(report.runs), 'trial')} in all",
        "data": f"{counts} images (train / val / test) at {height} × {width}, {data.num_classes} classes{several}",
        **({"limits": "; ".join(limits)} if (limits := _limits(data)) else {}),
        "networks": f"{count_of(len(study.variants), 'variant')} passed a batch in training and in evaluation mode",
        "device": f"{devices}: {count_of(decisions.workers, 'worker')} of {count_of(decisions.threads, 'thread')}, "
        f"{decisions.precision}, {decisions.engine}",
        **({"memory": memory} if (memory := _memory()) else {}),
        "disk": room.text.removeprefix("disk: "),
        "W&B": mode + offline,
        "results": str(results),
    }


def _limits(data: Dataset) -> list[str]:
    """Return what a report will say against these data, before the machine time is spent."""
    found = []
    for name in SPLITS:
        pixels = data.pixels_of_classes(name)
        if absent := [label for label, count in zip(data.classes, pixels, strict=False) if not count]:
            found.append(f"{name} has no pixel of {listed(absent)}")
    groups = len(set(data.splits["test"].groups or ()))
    if 0 < groups < LEAST_GROUPS_DRAWN_WHOLE:
        found.append(few_groups(groups))
    return found


def _memory() -> str:
    """Return the memory of this machine in words; "" where it does not say."""
    try:
        size = os.sysconf("SC_PAGE_SIZE")
        total, free = (size * os.sysconf(name) / 1e9 for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return ""
    return f"{free:.1f} of {total:.1f} GB free"


def print_check(study: Study, results: Path, console: Console | None = None) -> dict[str, Any]:
    """Print what `check_document` returns."""
    console = console or Console()
    found = check_document(study, results)
    console.print(Text(f"{study.name}: nothing wrong was found", style="bold"))
    for part, text in found.items():
        console.print(Text(f"  {part}: {text}"), soft_wrap=True)
    return found
