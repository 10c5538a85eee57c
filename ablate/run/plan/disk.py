"""The room that a study takes on the disk: what stays of it, and what comes on top while it runs."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ablate.data.dataset import Dataset, as_bytes
from ablate.records.images import pack, pack_images
from ablate.run.plan.describe import PlanReport
from ablate.study.study import Study
from ablate.wording import size_text

# States of a network that a checkpoint holds: its weights, the best ones, and two moments of an Adam optimizer.
STATES = 4
GENERATIONS = 2
# Of every trial: record, curves and counts; of the study: report and mirrors.
TRIAL_BYTES, STUDY_BYTES = 60_000, 12_000_000
# Predictions of a network are rougher than the targets that their size is estimated from.
ROUGHER = 1.5
LOOKED_AT = 8


@dataclass(frozen=True)
class Room:
    """Bytes: `kept` when all is done, `running` on top of them at most, `free` where the results go."""

    kept: int
    running: int
    free: int

    @property
    def text(self) -> str:
        """The room in words."""
        enough = "" if self.kept + self.running < self.free else ": NOT ENOUGH"
        return (
            f"disk: about {size_text(self.kept)} when done, {size_text(self.running)} more while it runs "
            f"({size_text(self.free)} free){enough}"
        )


def room_of(study: Study, report: PlanReport, data: Dataset, results: Path, workers: int) -> Room:
    """Return the room that a study takes, by its networks' parameters, its test split and `run.keep`.

    Predictions and test images are estimated from a few of the split, compressed as they will be.
    """
    weights = 4 * max((item.parameters or 0) for item in report.variants)
    test = data.splits["test"]
    some = np.unique(np.linspace(0, len(test) - 1, min(LOOKED_AT, len(test))).astype(int))
    masks = len(pack(test.masks[index] for index in some)) / len(some) * len(test)
    images = len(pack_images(as_bytes(test.images[index]) for index in some)) / len(some) * len(test)
    states = {"best": 1, "last": STATES, "none": 0}[study.spec.run.keep]
    trial = TRIAL_BYTES + states * weights + ROUGHER * masks
    here = next(parent for parent in (results, *results.absolute().parents) if parent.exists())
    return Room(
        kept=round(report.runs[1] * trial + masks + images + STUDY_BYTES),
        running=workers * GENERATIONS * STATES * weights,
        free=shutil.disk_usage(here).free,
    )
