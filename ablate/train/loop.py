"""One trial from its settings to its record: training, checkpoints, the best epoch by validation, the test once."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ablate.data.augment import Augmenter
from ablate.records.files import sweep
from ablate.records.record import Record
from ablate.records.store import TrialFolder, finite, publish_record
from ablate.study.spec import MeasureSpec
from ablate.study.trial import Trial
from ablate.train import checkpoint
from ablate.train.batches import epoch_order
from ablate.train.checkpoint import failpoint
from ablate.train.context import Context
from ablate.train.device import seed_step
from ablate.train.engine import Epoch
from ablate.train.evaluate import Evaluation, evaluate, evaluate_native, score
from ablate.train.optim import Average, rate_at, set_rate
from ablate.train.outcome import ABSENT, LARGEST_LAST_STATE, Curves, Keep, ModelCard, Outcome, of_cross_entropy
from ablate.train.probes import Probes

Event = Callable[[dict[str, Any]], None]


class Interrupted(Exception):
    """The trial was asked to stop and has left a checkpoint to go on from."""


class Diverged(Exception):
    """Loss, gradient or validation loss is not finite."""

    def __init__(self, reason: str, epoch: int, step: int) -> None:
        super().__init__(reason)
        self.epoch, self.step = epoch, step


@dataclass
class Options:
    """The orders of a trial besides its settings; none of them changes the record's numbers."""

    measure: MeasureSpec
    checkpoint_every: float = 30.0
    keep: Keep = "best"
    on_event: Event = lambda _event: None
    should_stop: Callable[[], str | None] = lambda: None
    provenance: dict[str, Any] = field(default_factory=dict)


@dataclass
class Best:
    """The best epoch so far by val mIoU, the earliest where equal."""

    epoch: int = 0
    mean_iou: float = -1.0
    loss: float = float("nan")
    cross_entropy: float | None = None
    counts: torch.Tensor | None = None
    weights: dict[str, Any] | None = None


def run_trial(trial: Trial, context: Context, folder: TrialFolder, options: Options) -> Record:
    """Train, validate and test `trial`, going on from its newest good checkpoint, and publish its record.

    Raises `Interrupted` after a checkpoint where it was asked to stop; every other exception is the machine's
    (out of memory, a full disk, an error in a plugin) and is for the caller to record.
    """
    run = _Run(trial, context, folder, options)
    outcome: Outcome | None = None
    try:
        run.train()
        outcome = run.finish()
        record = run.record("complete", None, run.metrics() | outcome.metrics())
    except Diverged as error:
        # A result of the study, not a failure.
        place = {"diverged_epoch": error.epoch, "diverged_step": error.step}
        record = run.record("diverged", str(error), run.metrics() | place)
    finally:
        run.writer.close()
    if outcome is not None:
        outcome.write(folder, options.keep)
    publish_record(folder, record)
    failpoint("published", 1)
    folder.drop_checkpoints()
    return record


class _Run:
    """The state of a trial while it runs; the position (`step`) counts over the whole training."""

    def __init__(self, trial: Trial, context: Context, folder: TrialFolder, options: Options) -> None:
        self.began = time.monotonic()
        folder.make()
        sweep(folder.path)
        self.trial, self.folder, self.options = trial, folder, options
        self.settings = trial.train
        self.data = context.data(trial.data)
        self.network = context.network(trial)
        train = self.data.splits["train"]
        self.batch_size = min(self.settings["batch_size"], len(train))
        # Images of a step of the optimizer, which may take several batches.
        self.step_size = min(self.settings["batch_size"] * self.settings.get("accumulate", 1), len(train))
        self.steps_per_epoch = len(train) // self.step_size
        self.augment = Augmenter(self.settings["augment"], self.settings["crop"], self.data.dataset.size)
        channels = self.data.dataset.in_channels
        self.learn = context.step(trial, (self.step_size, *self.augment.output, channels))
        self.numbers = context.numbers(self.network)
        decay = self.settings.get("ema")
        self.average = None if decay is None else Average(self.network.model, decay)
        self.probes = Probes(self.network, options.measure, self.settings)
        self.writer = checkpoint.CheckpointWriter(folder, options.checkpoint_every)
        self.best = Best()
        self.step = self.epoch_began = 0
        self.initial_val_loss = float("nan")
        self.notes: list[str] = []
        self.seconds = {"train": 0.0, "validation": 0.0, "test": 0.0, "earlier": 0.0}
        self.images = {"train": 0, "validation": 0}
        self._resume()

    # -- training -----------------------------------------------------------------------------------------

    def train(self) -> None:
        """Train all epochs that are left; the best one's weights are kept."""
        if self.step == 0:
            began = time.monotonic()
            self.initial_val_loss = evaluate(self.network, self.data.splits["val"], self.batch_size).loss
            self.seconds["validation"] += time.monotonic() - began
            self.images["validation"] += len(self.data.splits["val"])
        while self.step < self.settings["epochs"] * self.steps_per_epoch:
            self._epoch(1 + self.step // self.steps_per_epoch)
        self._judge(self.numbers.take(wait=True))

    def _epoch(self, epoch: int) -> None:
        order = epoch_order(self.trial.seed, epoch, len(self.data.splits["train"]), self.step_size)
        order = order[self.step % self.steps_per_epoch :]
        self.network.model.train()
        self.epoch_began = self.step
        self.numbers.begin()
        for batch in order:
            self._between_steps()
            self._one_step(epoch, batch)
        self.numbers.trained()
        with nullcontext() if self.average is None else self.average.in_place():
            losses, counts, _ = score(self.network, self.data.splits["val"], self.batch_size)
            self._judge(self.numbers.take(wait=True))  # the epoch before, where it came only now
            self.numbers.end(epoch, losses, counts, len(order) * self.step_size)
            self._judge(self.numbers.take(wait=False))

    def _between_steps(self) -> None:
        """Leave when asked to, checkpoint when it is time, judge an epoch whose numbers have come."""
        reason = self.options.should_stop()
        if reason is not None:
            self._checkpoint()
            self.writer.wait()
            raise Interrupted(reason)
        if self.writer.due():
            self._checkpoint()
        self._judge(self.numbers.take(wait=False))
        failpoint("step", self.step)

    def _one_step(self, epoch: int, batch: np.ndarray) -> None:
        # Seeded by position, so that a trial can be resumed between any two steps.
        seed_step(self.trial.seed, self.step)
        images, masks = self.data.splits["train"].take(batch)
        images, masks = self.augment(images, masks, seed=self.trial.seed, epoch=epoch, samples=batch)
        set_rate(self.learn.optimizer, rate_at(self.step, self.settings, self.steps_per_epoch))
        probe = self.step % self.steps_per_epoch == 0 and self.probes.due(epoch)
        if probe:
            first = slice(self.batch_size)
            self.probes.before(epoch, self.learn.optimizer, images[first], masks[first])
        row = self.learn(images, masks)
        if probe:
            self.probes.after()
        if self.average is not None:
            self.average.update(self.step)
        self.step += 1
        if self.numbers.add(row):
            self._take_steps(self.numbers.steps().numpy(), self.step)

    # -- what the numbers say -----------------------------------------------------------------------------

    def _take_steps(self, rows: np.ndarray, end: int) -> None:
        """Add the rows of the steps before the position `end` to the curves; raises `Diverged`."""
        begin = end - len(rows)
        bad = np.flatnonzero(~np.isfinite(rows).all(1))
        rows = rows[: bad[0] + 1] if len(bad) else rows
        self.curves.add_steps(rows)
        self._note_nothing(rows, begin)
        if len(bad):
            step = begin + int(bad[0]) + 1
            what = "loss" if not np.isfinite(rows[-1, 0]) else "gradient norm"
            epoch = 1 + (step - 1) // self.steps_per_epoch
            raise Diverged(f"{what} not finite in epoch {epoch}, step {step}", epoch, step)

    def _note_nothing(self, rows: np.ndarray, begin: int) -> None:
        """Say once that a step learned nothing."""
        nothing = np.flatnonzero((rows == 0).all(1))
        words = "loss and gradient are 0"
        if len(nothing) and not any(words in note for note in self.notes):
            step = begin + int(nothing[0]) + 1
            self.notes.append(
                f"{words} in step {step}, the first such: no pixel of the batch counts (ignored, or of weight 0)"
            )

    def _judge(self, epoch: Epoch | None) -> None:
        """Draw the consequences of an epoch: its row of the curves, divergence, the best so far."""
        if epoch is None:
            return
        end = epoch.number * self.steps_per_epoch
        self.seconds["train"] += epoch.train_s
        self.seconds["validation"] += epoch.validation_s
        self.images["train"] += epoch.images
        self.images["validation"] += len(epoch.losses)
        self._take_steps(epoch.rows.numpy(), end)
        validation = Evaluation(epoch.losses.numpy(), epoch.counts.numpy())
        losses = self.curves.steps[end - self.steps_per_epoch : end, 0]
        row = self.curves.add_epoch(
            epoch.number,
            lr=rate_at(end - 1, self.settings, self.steps_per_epoch),
            train_loss=float(losses.astype(np.float64).mean()),
            val_loss=validation.loss,
            val_mean_iou=validation.mean_iou,
            **of_cross_entropy("val", validation.cross_entropy),
        )
        if not np.isfinite(validation.loss):
            raise Diverged(f"validation loss not finite after epoch {epoch.number}", epoch.number, end)
        if validation.mean_iou > self.best.mean_iou:
            scores = validation.mean_iou, validation.loss, validation.cross_entropy
            weights = {name: value.clone() for name, value in epoch.weights.items()}
            self.best = Best(epoch.number, *scores, epoch.counts, weights)
        self.options.on_event({"event": "epoch", "trial": self.trial.name, **row})
        failpoint("epoch", epoch.number)

    # -- checkpoints --------------------------------------------------------------------------------------

    def _checkpoint(self) -> None:
        self._judge(self.numbers.take(wait=True))
        self._take_steps(self.numbers.steps().numpy(), self.step)
        # The epoch under way counts as far as it has come: the next go trains what is left of it.
        images = (self.step - self.epoch_began) * self.step_size
        self.writer.write(
            {
                **self._state(),
                "best": vars(self.best),
                "initial_val_loss": self.initial_val_loss,
                "layers": self.probes.layers,
                "seconds": self.seconds["earlier"] + time.monotonic() - self.began,
                "spent": self.seconds | {"train": self.seconds["train"] + self.numbers.elapsed()},
                "images": self.images | {"train": self.images["train"] + images},
            }
        )

    def _state(self) -> checkpoint.State:
        return {
            "key": self.trial.key,
            "step": self.step,
            "model": self.network.model.state_dict(),
            "optimizer": self.learn.optimizer.state_dict(),
            **({} if self.average is None else {"ema": self.average.weights}),
        }

    def _resume(self) -> None:
        state, self.notes = checkpoint.load_newest(self.folder, self.trial.key, self._state())
        step = 0 if state is None else state["step"]
        try:
            self.curves = Curves(self.folder, steps=step, epochs=step // self.steps_per_epoch)
        except ValueError as error:
            self.notes.append(f"checkpoint not used: {error}")
            state, self.curves = None, Curves(self.folder, steps=0, epochs=0)
        if state is None:
            return
        self.network.model.load_state_dict(state["model"])
        self.learn.load(state["optimizer"])
        if self.average is not None:
            self.average.load(state["ema"])
        self.step = step
        self.initial_val_loss = state["initial_val_loss"]
        self.best = Best(**state["best"])
        self.probes.layers = state["layers"]
        # Checkpoints of earlier versions tell the seconds as a whole alone.
        self.seconds |= state.get("spent", {}) | {"earlier": state["seconds"]}
        self.images |= state.get("images", {})
        self.notes.append(f"resumed at step {self.step}")
        self._note_nothing(self.curves.steps, 0)

    # -- the end ------------------------------------------------------------------------------------------

    def finish(self) -> Outcome:
        """Score the best epoch's weights on the test split, once."""
        began = time.monotonic()
        # Copying and packing the state of a large model takes longer than an epoch on a GPU.
        last: dict[str, Any] | None = self._state() if self.options.keep == "last" else None
        last = checkpoint.snapshot(last) if checkpoint.tensor_bytes(last) <= LARGEST_LAST_STATE else None
        assert self.best.weights is not None and self.best.counts is not None
        self.network.model.load_state_dict(self.best.weights)
        split = self.data.splits["test"]
        test = evaluate(self.network, split, self.batch_size, keep_preds=True)
        native = None
        if self.options.measure.native:
            native = evaluate_native(self.network, split, self.data.dataset.native_test_masks(), self.batch_size)
        maps = self.probes.finish(split, self.batch_size, self.trial.seed)
        weights = checkpoint.snapshot(self.best.weights)
        self.seconds["test"] = time.monotonic() - began
        card = ModelCard.of(self.trial, self.data.dataset)
        return Outcome(self.best.counts.numpy(), weights, card, test, last, maps, native)

    def metrics(self) -> dict[str, float | None]:
        """Return what is known of the training and its best epoch."""
        epochs = self.curves.epochs
        scored = self.best.epoch > 0
        return {
            "best_epoch": self.best.epoch if scored else None,
            "epochs_run": len(epochs),
            "val_mean_iou": self.best.mean_iou if scored else None,
            "val_loss": finite(self.best.loss),
            **of_cross_entropy("val", self.best.cross_entropy),
            "final_val_loss": epochs[-1]["val_loss"] if epochs else None,
            "initial_val_loss": finite(self.initial_val_loss),
            **self.network.sizes,
            "steps_per_epoch": self.steps_per_epoch,
        }

    def record(self, status: str, reason: str | None, metrics: dict[str, float | None]) -> Record:
        """Return the trial's record."""
        wall = self.seconds["earlier"] + time.monotonic() - self.began
        return Record.of(
            self.trial,
            status,
            resolution="native" if self.options.measure.native else "trained",
            reason=reason,
            metrics=metrics,
            missing={name: ABSENT.get(name, "the trial diverged") for name, value in metrics.items() if value is None},
            layers=self.probes.layers,
            timing={
                "wall_s": wall,
                **{f"{name}_s": value for name, value in self.seconds.items() if name != "earlier"},
                "shared_train_images_per_s": self.images["train"] / max(self.seconds["train"], 1e-9),
                "shared_validation_images_per_s": self.images["validation"] / max(self.seconds["validation"], 1e-9),
            },
            provenance={**self.options.provenance, "notes": self.notes},
        )
