"""Lightning under Optuna as their documentation shows it: a `LightningModule`, a `Trainer`, a study over the grid."""

# ruff: noqa: ARG002, D102 - Lightning names these methods and their arguments, and its documentation says what they do.
from __future__ import annotations

import logging
import tempfile
import time
import warnings
from typing import Any

import lightning
import optuna
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor, nn
from torchmetrics.classification import MulticlassJaccardIndex

from ablate.data.dataset import IGNORE
from ablate.study.trial import Trial
from benchmarks import common
from benchmarks.common import Check, TrialResult, Work


class Segmentation(lightning.LightningModule):
    """The network with its steps."""

    def __init__(self, model: nn.Module, lr: float, num_classes: int) -> None:
        super().__init__()
        self.model, self.lr = model, lr
        self.criterion = nn.CrossEntropyLoss(ignore_index=IGNORE)
        self.val_iou = MulticlassJaccardIndex(num_classes, ignore_index=IGNORE, validate_args=False)
        self.test_iou = MulticlassJaccardIndex(num_classes, ignore_index=IGNORE, validate_args=False)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        images, masks = batch
        loss: Tensor = self.criterion(self.model(images), masks)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        images, masks = batch
        self.val_iou.update(self.model(images), masks)
        self.log("val_mean_iou", self.val_iou, on_step=False, on_epoch=True)

    def test_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        images, masks = batch
        self.test_iou.update(self.model(images), masks)
        self.log("test_mean_iou", self.test_iou, on_step=False, on_epoch=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class Clock(Callback):
    """Seconds of every training epoch (validation left out) and its loss."""

    def __init__(self) -> None:
        self.train_s: list[float] = []
        self.losses: list[float] = []
        self._began = 0.0

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self._began = time.perf_counter()

    def on_validation_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        # Validation runs inside the training epoch: what comes before it is the training.
        self.train_s.append(time.perf_counter() - self._began)

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self.losses.append(float(trainer.callback_metrics["train_loss"]))


class BareSteps(Callback):
    """Behind every training epoch as many bare steps of the same network, on a copy and on one batch that is ready."""

    def __init__(self, check: Check, model: nn.Module, lr: float, batch: tuple[Tensor, Tensor], steps: int) -> None:
        self.check, self.steps = check, steps
        self.model = model.to(common.default_device())
        self.batch = tuple(part.to(common.default_device()) for part in batch)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=lr)
        self.criterion = nn.CrossEntropyLoss(ignore_index=IGNORE)

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        common.synchronise()
        self._began = time.perf_counter()

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        common.synchronise()
        middle = time.perf_counter()
        images, masks = self.batch
        for _ in range(self.steps):
            self.optimizer.zero_grad()
            with trainer.precision_plugin.forward_context():
                loss = self.criterion(self.model(images), masks)
            loss.backward()
            self.optimizer.step()
        common.synchronise()
        if trainer.current_epoch:  # the first epoch warms both up
            self.check.loop_s.append(middle - self._began)
            self.check.bare_s.append(time.perf_counter() - middle)


def trainer(epochs: int, callbacks: list[Callback], precision: Any, **more: Any) -> lightning.Trainer:
    """Make a trainer without what costs time and is not asked for: bars, summaries, loggers, a sanity check."""
    device = common.default_device().type
    return lightning.Trainer(
        max_epochs=epochs, accelerator=device, devices=1, precision=precision, callbacks=callbacks, logger=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        benchmark=True if device == "cuda" else None, **more,
    )  # fmt: skip


def run_trial(work: Work, trial: Trial, folder: str, *, workers: int, precision: str) -> TrialResult:
    """Fit with validation every epoch and the best checkpoint kept, then test that."""
    lightning.seed_everything(trial.seed, workers=True, verbose=False)
    module = Segmentation(common.build_model(trial, work), trial.train["lr"], work.num_classes)
    data = common.loaders(work, trial, workers=workers)
    clock = Clock()
    keep = ModelCheckpoint(dirpath=folder, monitor="val_mean_iou", mode="max", save_weights_only=True)
    fit = trainer(trial.train["epochs"], [clock, keep], precision)
    began = time.perf_counter()
    fit.fit(module, data["train"], data["val"])
    middle = time.perf_counter()
    # The weights are this process's own; torch's restricted loader refuses some of what Lightning stores with them.
    scores = fit.test(module, data["test"], ckpt_path=keep.best_model_path, verbose=False, weights_only=False)
    test_s = time.perf_counter() - middle
    result = TrialResult.of(trial)
    result.best_epoch = int(keep.best_model_path.partition("epoch=")[2].partition("-")[0]) + 1
    assert keep.best_model_score is not None
    result.val_mean_iou, result.test_mean_iou = float(keep.best_model_score), scores[0]["test_mean_iou"]
    result.train_loss, result.train_s = clock.losses, sum(clock.train_s)
    result.validation_s, result.test_s = middle - began - result.train_s, test_s
    return result


def run_study(work: Work, *, workers: int, precision: str) -> list[TrialResult]:
    """Optuna over the grid."""
    planned = {(trial.variant, trial.train["lr"], trial.seed): trial for trial in work.trials}
    grid: dict[str, list[Any]] = {
        name: list(dict.fromkeys(key[place] for key in planned)) for place, name in enumerate(("variant", "lr", "seed"))
    }
    results = []

    def objective(trial: optuna.Trial) -> float:
        chosen = tuple(trial.suggest_categorical(name, choices) for name, choices in grid.items())
        with tempfile.TemporaryDirectory() as folder:
            results.append(run_trial(work, planned[chosen], folder, workers=workers, precision=precision))
        return results[-1].val_mean_iou

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.GridSampler(grid, seed=0))
    study.optimize(objective, n_trials=len(planned))
    return results


def check(work: Work, trial: Trial, rounds: int, *, workers: int, precision: str) -> Check:
    """Time the trainer's epochs against bare steps."""
    result = Check(trial.variant)
    data = common.loaders(work, trial, workers=workers)
    batch = next(iter(data["train"]))
    bare = BareSteps(
        result, common.build_model(trial, work), trial.train["lr"], batch, common.steps_per_epoch(work, trial)
    )
    module = Segmentation(common.build_model(trial, work), trial.train["lr"], work.num_classes)
    trainer(rounds + 1, [bare], precision, enable_checkpointing=False).fit(module, data["train"])
    return result


def main() -> None:
    """Train the study."""
    parser = common.peer_parser(__doc__ or "")
    parser.add_argument("--workers", type=int, help="DataLoader workers")
    parser.add_argument(
        "--precision",
        help="the trainer's precision; default bf16-mixed on a GPU that has it, as Lightning's guide to speed "
        "recommends, else the documented default, 32-true",
    )
    arguments = parser.parse_args()
    on_gpu = common.default_device().type == "cuda"
    arguments.precision = arguments.precision or ("bf16-mixed" if on_gpu and common.has_bfloat16() else "32-true")
    arguments.workers = common.default_workers() if arguments.workers is None else arguments.workers
    common.prepare()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    work = common.load_work(arguments.study, arguments.override)
    how = {"workers": arguments.workers, "precision": arguments.precision}
    if arguments.check:
        checks = [check(work, trial, arguments.check, **how) for trial in common.check_trials(work)]
        common.write_checks(arguments.out, "lightning", checks)
        return
    common.write_results(arguments.out, "lightning", run_study(work, **how), **how)


if __name__ == "__main__":
    main()
