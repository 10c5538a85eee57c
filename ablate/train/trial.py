"""One trial from its settings to its record: training, checkpoints, the best epoch by validation, the test once."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from ablate.data.augment import Augmenter
from ablate.data.dataset import IGNORE
from ablate.records.files import sweep
from ablate.records.record import Record
from ablate.records.store import TrialFolder, finite, publish_record
from ablate.study.spec import AugmentSpec
from ablate.study.trial import Trial
from ablate.train import checkpoint
from ablate.train.curves import Curves
from ablate.train.evaluate import Evaluation, evaluate, evaluation, score
from ablate.train.failpoints import failpoint
from ablate.train.native import score_native
from ablate.train.optimizers import rate_at
from ablate.train.outcome import LARGEST_LAST_STATE, write_outcome
from ablate.train.probing import Probes
from ablate.train.readback import Clock, Readback
from ablate.train.seeding import epoch_order, seed_epoch
from ablate.train.state import Best, Diverged, Interrupted, Options, Unread
from ablate.train.step import Network
from ablate.train.stepping import Step
from ablate.train.workbench import Workbench


def run_trial(trial: Trial, bench: Workbench, folder: TrialFolder, options: Options) -> Record:
    """Train, validate and test `trial`, going on from its newest good checkpoint, and publish its record.

    Raises `Interrupted` after a checkpoint where it was asked to stop; every other exception is the machine's
    (out of memory, a full disk, an error in a plugin) and is for the caller to record.
    """
    run = _Run(trial, bench, folder, options)
    try:
        run.train()
        record = run.finish()
    except Diverged as error:
        record = run.diverged(error)
    finally:
        run.writer.close()
    publish_record(folder, record)
    checkpoint.remove(folder)
    return record


class _Run:
    """The state of a trial while it runs; the position (`step`) counts over the whole training."""

    def __init__(self, trial: Trial, bench: Workbench, folder: TrialFolder, options: Options) -> None:
        self.began = time.monotonic()
        folder.make()
        sweep(folder.path)
        self.trial, self.bench, self.folder, self.options = trial, bench, folder, options
        self.settings = trial.train
        self.data = bench.data(trial.data)
        self.network: Network = bench.network(trial)
        self.ahead = bench.ahead
        train = self.data.splits["train"]
        self.batch_size = min(self.settings["batch_size"], len(train))
        self.steps_per_epoch = len(train) // self.batch_size
        self.augment = Augmenter(
            AugmentSpec.model_validate(self.settings["augment"]), self.settings["crop"], self.data.dataset.size, IGNORE
        )
        channels = self.data.dataset.in_channels
        self.learn: Step = bench.step(trial, (self.batch_size, *self.augment.output, channels))
        self.probes = Probes(options.measure, self.settings["epochs"], self.settings["clip_norm"])
        self.writer = checkpoint.CheckpointWriter(folder)
        self.best = Best()
        self.step = 0
        self.initial_val_loss = float("nan")
        self.pending: list[torch.Tensor] = []
        self.unread: Unread | None = None
        self.notes: list[str] = []
        self.seconds = {"train": 0.0, "validation": 0.0, "test": 0.0, "earlier": 0.0}
        self.images = {"train": 0, "validation": 0}
        self._resume()

    # -- resuming -----------------------------------------------------------------------------------------

    def _resume(self) -> None:
        state, self.notes = checkpoint.load_newest(self.folder, self.trial.key)
        if state is None:
            self.curves = Curves(self.folder, steps=0, epochs=0)
            return
        try:
            self.curves = Curves(self.folder, steps=state["step"], epochs=state["step"] // self.steps_per_epoch)
        except ValueError as error:
            self.notes.append(f"checkpoint not used: {error}")
            self.curves = Curves(self.folder, steps=0, epochs=0)
            return
        self.network.model.load_state_dict(state["model"])
        self.learn.load(state["optimizer"])
        self.step = state["step"]
        self.initial_val_loss = state["initial_val_loss"]
        best = dict(state["best"])
        best["counts"] = None if best["counts"] is None else best["counts"].numpy()
        self.best = Best(**best)
        self.probes.layers = state["layers"]
        self.seconds["earlier"] = state["seconds"]
        self.notes.append(f"resumed at step {self.step}")

    def _state(self) -> checkpoint.State:
        best = dict(vars(self.best))
        best["counts"] = None if best["counts"] is None else torch.from_numpy(best["counts"])
        best["weights"] = self._on_host(best["weights"])
        return {
            "key": self.trial.key,
            "step": self.step,
            "model": checkpoint.snapshot(self.network.model.state_dict()),
            "optimizer": checkpoint.snapshot(self.learn.optimizer.state_dict()),
            "best": best,
            "initial_val_loss": self.initial_val_loss,
            "layers": {measure: {k: list(v) for k, v in rows.items()} for measure, rows in self.probes.layers.items()},
            "seconds": self.seconds["earlier"] + time.monotonic() - self.began,
        }

    def _on_host(self, weights: dict[str, Any] | None) -> dict[str, Any] | None:
        copied: dict[str, Any] | None = checkpoint.snapshot(weights) if self.ahead else weights
        return copied

    def _checkpoint(self) -> None:
        self._settle()
        self._read_steps()
        self.writer.write(self._state())
        self._saved = time.monotonic()

    # -- training -----------------------------------------------------------------------------------------

    def train(self) -> None:
        epochs = self.settings["epochs"]
        self._saved = time.monotonic()
        if self.step == 0:
            self.initial_val_loss = self._validate().loss
        while self.step < epochs * self.steps_per_epoch:
            self._epoch(1 + self.step // self.steps_per_epoch)
        self._settle()

    def _epoch(self, epoch: int) -> None:
        order = epoch_order(self.trial.seed, epoch, len(self.data.splits["train"]), self.batch_size)
        first = self.step % self.steps_per_epoch
        self.network.model.train()
        clock = Clock(self.network.device)
        clock.mark()
        for batch in order[first:]:
            self._before_step()
            self._one_step(epoch, batch)
        if not self.ahead:
            self._read_steps()
        clock.mark()
        scores = score(self.network, self.data.splits["val"], self.batch_size)
        clock.mark()
        self._settle()  # the epoch before
        rows, self.pending = torch.stack(self.pending) if self.pending else torch.zeros(0, 2), []
        numbers = Readback([rows, scores.losses, scores.counts])
        weights = None
        if self.ahead:
            # Whether they are the best is known when the next epoch is under way and has changed them.
            weights = {name: value.clone() for name, value in self.network.model.state_dict().items()}
        self.unread = Unread(epoch, numbers, clock, (len(order) - first) * self.batch_size, weights)
        if not self.ahead:
            self._settle()

    def _settle(self) -> None:
        """Read the epoch that is unread, if there is one, and draw the consequences."""
        if self.unread is None:
            return
        unread, self.unread = self.unread, None
        rows, *scores = unread.numbers.wait()
        self.seconds["train"] += unread.clock.seconds(0, 1)
        self.seconds["validation"] += unread.clock.seconds(1, 2)
        self.images["train"] += unread.images
        self.images["validation"] += len(self.data.splits["val"])
        self._take_steps(rows.numpy(), unread.epoch * self.steps_per_epoch)
        self._end_epoch(unread.epoch, evaluation(*scores), unread.weights)

    def _before_step(self) -> None:
        """Between two steps: leave when asked to, checkpoint when it is time."""
        reason = self.options.should_stop()
        if reason is not None:
            self._checkpoint()
            self.writer.wait()
            raise Interrupted(reason)
        if time.monotonic() - self._saved >= self.options.checkpoint_every:
            self._checkpoint()
        if self.unread is not None and self.unread.numbers.ready():
            self._settle()
        failpoint("step", self.step)

    def _one_step(self, epoch: int, batch: np.ndarray) -> None:
        # Seeded by position, so that a trial can be resumed between any two steps.
        seed_epoch(self.trial.seed, self.step)
        images, masks = self.data.splits["train"].take(batch)
        images, masks = self.augment(images, masks, seed=self.trial.seed, epoch=epoch, samples=batch)
        rate = self._rate(self.step)
        first_of_epoch = self.step % self.steps_per_epoch == 0
        probe = first_of_epoch and self.probes.due(epoch)
        if probe:
            self.probes.before(epoch, self.network, self.learn.optimizer, images, masks, rate)
        row = self.learn(images, masks, rate)
        if probe:
            self.probes.after(self.network)
        self.step += 1
        self.pending.append(row)
        if not self.ahead and not bool(torch.isfinite(row).all()):
            self._read_steps()

    def _rate(self, step: int) -> float:
        return rate_at(
            step,
            lr=self.settings["lr"],
            steps_per_epoch=self.steps_per_epoch,
            epochs=self.settings["epochs"],
            schedule=self.settings["schedule"],
            warmup_epochs=self.settings["warmup_epochs"],
        )

    def _read_steps(self) -> None:
        """Bring the steps of this epoch from the device; waits for it."""
        if self.pending:
            rows = torch.stack(self.pending).cpu().numpy()
            self.pending = []
            self._take_steps(rows, self.step)

    def _take_steps(self, rows: np.ndarray, end: int) -> None:
        """Add the rows of the steps before the position `end` to the curves; raises `Diverged`."""
        begin = end - len(rows)
        bad = np.flatnonzero(~np.isfinite(rows).all(1))
        if len(bad):
            rows = rows[: bad[0] + 1]
            self.curves.add_steps(rows)
            step = begin + int(bad[0]) + 1
            what = "loss" if not np.isfinite(rows[-1, 0]) else "gradient norm"
            epoch = 1 + (step - 1) // self.steps_per_epoch
            raise Diverged(f"{what} not finite in epoch {epoch}, step {step}", epoch, step)
        self.curves.add_steps(rows)

    def _validate(self) -> Evaluation:
        began = time.monotonic()
        evaluation = evaluate(self.network, self.data.splits["val"], self.batch_size)
        self.seconds["validation"] += time.monotonic() - began
        self.images["validation"] += len(self.data.splits["val"])
        return evaluation

    def _end_epoch(self, epoch: int, validation: Evaluation, weights: dict[str, torch.Tensor] | None) -> None:
        end = epoch * self.steps_per_epoch
        rows = self.curves.steps[end - self.steps_per_epoch : end, 0]
        row = self.curves.add_epoch(
            epoch,
            lr=self._rate(end - 1),
            train_loss=float(rows.astype(np.float64).mean()),
            val_loss=validation.loss,
            val_mean_iou=validation.mean_iou,
        )
        if not np.isfinite(validation.loss):
            raise Diverged(f"validation loss not finite after epoch {epoch}", epoch, end)
        if validation.mean_iou > self.best.mean_iou:
            if weights is None:
                weights = checkpoint.snapshot(self.network.model.state_dict())
            self.best = Best(epoch, validation.mean_iou, validation.loss, validation.counts, weights)
        self.options.on_event({"event": "epoch", "trial": self.trial.name, **row})
        failpoint("epoch", epoch)

    # -- the record ---------------------------------------------------------------------------------------

    def finish(self) -> Record:
        """Score the best epoch's weights on the test split, once, and write what the report is made from."""
        began = time.monotonic()
        last: dict[str, Any] | None = self._last_state()
        # Copying and packing the state of a large model takes longer than an epoch on a GPU.
        last = checkpoint.snapshot(last) if checkpoint.tensor_bytes(last) <= LARGEST_LAST_STATE else None
        if self.best.weights is not None:
            self.network.model.load_state_dict(self.best.weights)
            self.best.weights = self._on_host(self.best.weights)
        test = evaluate(self.network, self.data.splits["test"], self.batch_size, keep_preds=True)
        native = None
        if self.options.measure.native:
            masks = self.data.dataset.native_test_masks()
            native = score_native(self.network, self.data.splits["test"], masks, self.batch_size)
        maps = self.probes.finish(self.network, self.data.splits["test"], self.batch_size, self.trial.seed)
        self.seconds["test"] = time.monotonic() - began
        metrics = self._metrics()
        metrics.update(write_outcome(self.folder, self.best, test, last, maps, native))
        return self._record("complete", None, metrics)

    def _last_state(self) -> dict[str, Any]:
        return {
            "key": self.trial.key,
            "step": self.step,
            "model": self.network.model.state_dict(),
            "optimizer": self.learn.optimizer.state_dict(),
        }

    def diverged(self, error: Diverged) -> Record:
        """The record of a trial whose numbers left the finite: a result of the study, not a failure."""
        metrics = self._metrics()
        metrics.update(diverged_epoch=error.epoch, diverged_step=error.step)
        return self._record("diverged", str(error), metrics)

    def _metrics(self) -> dict[str, float | None]:
        epochs = self.curves.epochs
        scored = self.best.epoch > 0
        return {
            "best_epoch": self.best.epoch if scored else None,
            "epochs_run": len(epochs),
            "val_mean_iou": self.best.mean_iou if scored else None,
            "val_loss": finite(self.best.loss),
            "final_val_loss": epochs[-1]["val_loss"] if epochs else None,
            "initial_val_loss": finite(self.initial_val_loss),
            "parameters": sum(parameter.numel() for parameter in self.network.parameters()),
            "steps_per_epoch": self.steps_per_epoch,
        }

    def _record(self, status: str, reason: str | None, metrics: dict[str, float | None]) -> Record:
        wall = self.seconds["earlier"] + time.monotonic() - self.began
        return Record.of(
            self.trial,
            status,
            resolution="native" if self.options.measure.native else "trained",
            reason=reason,
            metrics=metrics,
            missing={name: "the trial diverged" for name, value in metrics.items() if value is None},
            layers=self.probes.layers,
            timing={
                "wall_s": wall,
                **{f"{name}_s": value for name, value in self.seconds.items() if name != "earlier"},
                "shared_train_images_per_s": self.images["train"] / max(self.seconds["train"], 1e-9),
                "shared_validation_images_per_s": self.images["validation"] / max(self.seconds["validation"], 1e-9),
            },
            provenance={**self.options.provenance, "notes": self.notes},
        )
