"""All that a trial leaves beside its record: curves as it runs, and at its end counts, predictions, weights, a card."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from ablate.data.dataset import Dataset
from ablate.measure import segmentation
from ablate.records.files import append, cut, durable, read_file, write_atomic
from ablate.records.images import pack
from ablate.records.store import TrialFolder, finite, to_json
from ablate.study.trial import Trial
from ablate.train.checkpoint import save, write_state
from ablate.train.evaluate import Evaluation

Keep = Literal["best", "last", "none"]
Colour = Annotated[list[Annotated[int, Field(ge=0, le=255)]], Field(min_length=3, max_length=3)]
STEP_BYTES = 8  # two little-endian float32: loss and gradient norm
# The last state lets `--extend` go on instead of starting over; of a large model it would fill the disk.
LARGEST_LAST_STATE = 64 * 2**20
# Metrics that a complete trial may lack, and why.
ABSENT = {
    "test_pixel_accuracy": "a pixel may bear several classes, and counts of classes tell no share of right pixels"
}


class Curves:
    """`epochs.jsonl` and `steps.f32` of a trial, appended as it runs, cut back to a checkpoint where it is resumed."""

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

    def add_epoch(self, epoch: int, **values: float | None) -> dict[str, Any]:
        """Append an epoch (1-based) and return its row; values that are not finite are stored as null."""
        row: dict[str, Any] = {"epoch": epoch, **{name: finite(value) for name, value in values.items()}}
        self.epochs.append(row)
        append(self._folder.epochs, (json.dumps(row) + "\n").encode())
        return row


class ModelCard(BaseModel):
    """A network's settings, classes and normalisation.

    An image enters as (value / `white` - `mean`) / `std` by channel, resized to `size` (height, width); where `window`
    is given, stored values were mapped from it to 0..`white` before. Logits are those of a softmax over the classes;
    of each class's own sigmoid where the network is `multilabel`.
    """

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    schema_version: int = 1
    key: str
    variant: str
    model: dict[str, Any]
    in_channels: Annotated[int, Field(ge=1, le=4096)]
    classes: Annotated[list[str], Field(min_length=2, max_length=255)]
    palette: list[Colour]
    mean: list[float]
    std: list[float]
    white: int
    window: tuple[float, float] | None = None
    size: tuple[Annotated[int, Field(ge=1, le=16_384)], Annotated[int, Field(ge=1, le=16_384)]]
    multilabel: bool = False

    @classmethod
    def of(cls, trial: Trial, dataset: Dataset) -> ModelCard:
        """Return the card of a trial's network, trained on `dataset`."""
        begins = str(trial.model.get("name")).startswith("transformers/") and "weights"
        return cls(
            key=trial.key,
            variant=trial.variant,
            # The weights that it began with are all replaced by its own.
            model={name: value for name, value in trial.model.items() if name != begins},
            in_channels=dataset.in_channels,
            classes=list(dataset.classes),
            palette=[list(colour) for colour in dataset.palette],
            mean=list(dataset.mean),
            std=list(dataset.std),
            white=dataset.white,
            window=dataset.window,
            size=dataset.size,
            multilabel=dataset.multilabel,
        )

    def document(self) -> dict[str, Any]:
        """Return the card as JSON values; `multilabel` stands there only where it is true."""
        return self.model_dump(mode="json", exclude=None if self.multilabel else {"multilabel"})


@dataclass
class Outcome:
    """The results of a finished trial, all of it on the CPU.

    `test` is the best epoch's evaluation at the size trained at; `native` holds counts (N, C, 3) and predictions at the
    masks' own size, where they were asked for. `gate_maps`: each gate's α on the panel images, float16 (images, h, w).
    """

    val_counts: np.ndarray
    weights: dict[str, torch.Tensor]
    card: ModelCard
    test: Evaluation
    last: dict[str, Any] | None
    gate_maps: dict[str, np.ndarray]
    native: tuple[np.ndarray, list[np.ndarray]] | None = None

    @property
    def counts(self) -> np.ndarray:
        """The test counts that the scores are made of, int64 (N, C, 3)."""
        return self.test.counts if self.native is None else self.native[0]

    def metrics(self) -> dict[str, float | None]:
        """Return the test scores, fractions; the loss, in nats, is always that at the size trained at."""
        return {
            "test_loss": finite(self.test.loss),
            **of_cross_entropy("test", self.test.cross_entropy),
            "test_mean_iou": float(segmentation.mean_iou(self.counts, axis=0)),
            "test_dice": float(segmentation.mean_dice(self.counts, axis=0)),
            "test_pixel_accuracy": None
            if self.card.multilabel
            else float(segmentation.pixel_accuracy(self.counts, axis=0)),
        }

    def write(self, folder: TrialFolder, keep: Keep) -> None:
        """Write counts, gates and predictions, and of the network what `keep` says, each file durably.

        `best.pt` holds the weights of the best epoch and `best.json` what they need to be used; `last.pt` the last
        state, for trials that go on.
        """
        preds = self.test.preds if self.native is None else self.native[1]
        assert preds is not None
        write_arrays(folder.images, val=self.val_counts, test=self.counts, test_loss=self.test.losses)
        if self.gate_maps:
            write_arrays(folder.gates, **self.gate_maps)
        write_atomic(folder.predictions, pack(preds))
        if keep == "none":
            return
        with durable(folder.best) as handle:  # readable by plain `torch.load`
            save(dict(self.weights), handle)
        write_atomic(folder.card, to_json(self.card.document()))
        if self.last is not None:
            write_state(folder.last, self.last)


def of_cross_entropy(split: str, value: float | None) -> dict[str, float | None]:
    """Return the metric of the cross entropy on a split, where the trial's loss is another; else nothing."""
    return {} if value is None else {f"{split}_cross_entropy": finite(value)}


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write arrays as a compressed .npz, whole or not at all."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    write_atomic(path, buffer.getvalue())
