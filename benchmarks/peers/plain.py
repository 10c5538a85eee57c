"""The script a student writes: float32, NCHW, `DataLoader` workers, `.item()` every step, one trial at a time."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ablate.data.dataset import IGNORE
from ablate.study.trial import Trial
from benchmarks import common
from benchmarks.common import TrialResult, Work


class Script:
    """One trial of the script."""

    def __init__(self, work: Work, trial: Trial, *, workers: int) -> None:
        common.seeded(trial.seed)
        self.num_classes, self.device = work.num_classes, common.default_device()
        self.model = common.build_model(trial, work).to(self.device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=trial.train["lr"])
        self.criterion = nn.CrossEntropyLoss(ignore_index=IGNORE)
        self.loaders = common.loaders(work, trial, workers=workers)

    def step(self, images: Tensor, masks: Tensor) -> Tensor:
        """One training step; the loss."""
        images, masks = images.to(self.device, non_blocking=True), masks.to(self.device, non_blocking=True)
        self.optimizer.zero_grad()
        loss: Tensor = self.criterion(self.model(images), masks)
        loss.backward()
        self.optimizer.step()
        return loss

    def train_epoch(self) -> float:
        """One pass over the training split; the mean loss."""
        self.model.train()
        running = 0.0
        for images, masks in self.loaders["train"]:
            running += self.step(images, masks).item()
        return running / len(self.loaders["train"])

    @torch.no_grad()
    def evaluate(self, loader: DataLoader[tuple[Tensor, Tensor]]) -> float:
        """Mean IoU over a split."""
        self.model.eval()
        confusion = torch.zeros(self.num_classes, self.num_classes, dtype=torch.int64, device=self.device)
        for images, masks in loader:
            images, masks = images.to(self.device, non_blocking=True), masks.to(self.device, non_blocking=True)
            confusion += common.confusion_matrix(self.model(images).argmax(1), masks, self.num_classes)
        return common.mean_iou(confusion)

    def bare_steps(self) -> Callable[[], None]:
        """Return an epoch's number of steps on one batch that is ready."""
        images, masks = next(iter(self.loaders["train"]))

        def steps() -> None:
            self.model.train()
            for _ in range(len(self.loaders["train"])):
                self.step(images, masks)

        return steps


def run_trial(work: Work, trial: Trial, weights: Path, *, workers: int) -> TrialResult:
    """Train, validate every epoch, keep the best weights, test once."""
    script, result = Script(work, trial, workers=workers), TrialResult.of(trial)
    for epoch in range(1, trial.train["epochs"] + 1):
        began = time.perf_counter()
        result.train_loss.append(script.train_epoch())
        middle = time.perf_counter()
        if result.improves(epoch, script.evaluate(script.loaders["val"])):
            torch.save(script.model.state_dict(), weights)
        result.train_s += middle - began
        result.validation_s += time.perf_counter() - middle
    began = time.perf_counter()
    script.model.load_state_dict(torch.load(weights))
    result.test_mean_iou = script.evaluate(script.loaders["test"])
    result.test_s = time.perf_counter() - began
    return result


def main() -> None:
    """Train the study."""
    parser = common.peer_parser(__doc__ or "")
    parser.add_argument("--workers", type=int, help="DataLoader workers")
    arguments = parser.parse_args()
    arguments.workers = common.default_workers() if arguments.workers is None else arguments.workers
    common.prepare()
    work = common.load_work(arguments.study, arguments.override)
    if arguments.check:
        checks = []
        for trial in common.check_trials(work):
            script = Script(work, trial, workers=arguments.workers)
            checks.append(common.alternate(trial.variant, arguments.check, script.train_epoch, script.bare_steps()))
        common.write_checks(arguments.out, "plain", checks)
        return
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "best.pt"
        results = [run_trial(work, trial, weights, workers=arguments.workers) for trial in work.trials]
    common.write_results(arguments.out, "plain", results)


if __name__ == "__main__":
    main()
