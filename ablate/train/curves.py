"""The curves of a trial on disk, appended as it runs and cut back to a checkpoint when it is resumed."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from ablate.records.files import append, cut, read_file
from ablate.records.store import TrialFolder, finite

STEP_BYTES = 8  # two little-endian float32: loss and gradient norm


class Curves:
    """`epochs.jsonl` and `steps.f32` of a trial.

    `steps` holds every step so far as float32 (steps, 2); the file is behind it until `flush`.
    """

    def __init__(self, folder: TrialFolder, *, steps: int, epochs: int) -> None:
        """Open for writing, cut back to `steps` steps and `epochs` epochs (0, 0 begins anew)."""
        self._folder = folder
        for path in (folder.epochs, folder.steps):
            append(path, b"")
        lines = read_file(folder.epochs).splitlines(keepends=True)[:epochs]
        stored = np.frombuffer(read_file(folder.steps)[: STEP_BYTES * steps], dtype="<f4")
        if len(lines) < epochs or len(stored) < 2 * steps:
            raise ValueError("the curves are shorter than the checkpoint says")
        self.epochs: list[dict[str, Any]] = [json.loads(line) for line in lines]
        self._rows: list[np.ndarray] = [stored.reshape(-1, 2)] if steps else []
        cut(folder.epochs, sum(len(line) for line in lines))
        cut(folder.steps, steps * STEP_BYTES)

    @property
    def steps(self) -> np.ndarray:
        """All steps so far, float32 (steps, 2)."""
        if len(self._rows) > 1:
            self._rows = [np.concatenate(self._rows)]
        return self._rows[0] if self._rows else np.zeros((0, 2), dtype="<f4")

    def add_steps(self, rows: np.ndarray) -> None:
        """Append rows (n, 2) of loss and gradient norm."""
        rows = np.ascontiguousarray(rows, dtype="<f4")
        self._rows.append(rows)
        append(self._folder.steps, rows.tobytes())

    def add_epoch(self, epoch: int, **values: float) -> dict[str, Any]:
        """Append an epoch (1-based); values that are not finite are stored as null."""
        row: dict[str, Any] = {"epoch": epoch, **{name: finite(value) for name, value in values.items()}}
        self.epochs.append(row)
        append(self._folder.epochs, (json.dumps(row) + "\n").encode())
        return row
