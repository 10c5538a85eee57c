"""The script an expert writes for one machine.

bf16 where the hardware has it, channels_last, fused optimizer, data in memory as tensors, `torch.compile` where it
pays, nothing read from the device in an epoch; trials one after another.
"""

from __future__ import annotations

import contextlib
import copy
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ablate.data.dataset import IGNORE
from ablate.study.trial import Trial
from benchmarks import common
from benchmarks.common import TrialResult, Work, batch_size, steps_per_epoch

# How a step may be executed; on a GPU also compiled and replayed as CUDA graphs, by the compiler's own means.
MODES = ("eager", "compiled")
GPU_MODES = (*MODES, "reduce-overhead")
CALIBRATION_STEPS = 8


class Resident:
    """A split as uint8 tensors on the device."""

    def __init__(self, work: Work, split: str) -> None:
        data = work.split(split)
        self.images = torch.from_numpy(np.array(data.images)).to(common.default_device())
        self.masks = torch.from_numpy(np.array(data.masks)).to(common.default_device())

    def __len__(self) -> int:
        return len(self.images)

    def shuffled(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches in random order, mirrored at random, without the incomplete last one."""
        order = torch.randperm(len(self))[: len(self) // size * size].view(-1, size).to(self.images.device)
        for index in order:
            images, masks = self.images[index], self.masks[index]
            flip = torch.rand(size, device=images.device) < 0.5
            yield (
                torch.where(flip.view(-1, 1, 1, 1), images.flip(2), images),
                torch.where(flip.view(-1, 1, 1), masks.flip(2), masks),
            )

    def in_order(self, size: int) -> Iterator[tuple[Tensor, Tensor, int]]:
        """All images in batches of one shape (a compiled step knows no other), and how many of each are real."""
        for start in range(0, len(self), size):
            index = torch.arange(start, start + size, device=self.images.device).clamp_max(len(self) - 1)
            yield self.images[index], self.masks[index], min(size, len(self) - start)


class Network:
    """A variant's network with its steps, kept over the trials of the variant, so that it is compiled once."""

    def __init__(self, work: Work, trial: Trial, mode: str) -> None:
        common.prepare()
        self.mode = mode
        self.work, self.device = work, common.default_device()
        self.model = common.build_model(trial, work).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        std = torch.tensor(work.dataset.std, device=self.device).view(-1, 1, 1)
        self.scale = 1 / (255 * std)
        self.shift = -torch.tensor(work.dataset.mean, device=self.device).view(-1, 1, 1) / std
        self.autocast = common.has_bfloat16()
        self.loss: Callable[[Tensor, Tensor], Tensor] = self._loss
        self.predict: Callable[[Tensor], Tensor] = self._predict
        if mode != "eager":
            how: Any = {} if mode == "compiled" else {"mode": mode}
            self.loss, self.predict = torch.compile(self._loss, **how), torch.compile(self._predict, **how)

    def start(self, trial: Trial) -> None:
        """Set the weights and the optimizer of a new trial."""
        common.seeded(trial.seed)
        self.model.load_state_dict(common.build_model(trial, self.work).state_dict())
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=trial.train["lr"], fused=True)

    def _logits(self, images: Tensor) -> Tensor:
        inputs = images.permute(0, 3, 1, 2).float() * self.scale + self.shift
        precision = (
            torch.autocast(self.device.type, dtype=torch.bfloat16) if self.autocast else contextlib.nullcontext()
        )
        with precision:
            logits: Tensor = self.model(inputs)
        return logits.float()

    def _loss(self, images: Tensor, masks: Tensor) -> Tensor:
        return F.cross_entropy(self._logits(images), masks.long(), ignore_index=IGNORE)

    def _predict(self, images: Tensor) -> Tensor:
        return self._logits(images).argmax(1)

    def step(self, images: Tensor, masks: Tensor) -> Tensor:
        """One training step; the loss, still on the device."""
        if self.mode == "reduce-overhead":
            torch.compiler.cudagraph_mark_step_begin()
        loss = self.loss(images, masks)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        # What a replayed graph returns is overwritten by the next replay.
        return loss.detach().clone() if self.mode == "reduce-overhead" else loss.detach()

    def train_epoch(self, split: Resident, size: int) -> float:
        """One pass over the training split; the mean loss."""
        self.model.train()
        losses = [self.step(images, masks) for images, masks in split.shuffled(size)]
        return float(torch.stack(losses).mean())

    @torch.no_grad()
    def evaluate(self, split: Resident, size: int) -> float:
        """Mean IoU over a split."""
        self.model.eval()
        # Counting waits for a GPU: so it is done once, when all predictions are under way.
        preds = [self.predict(images)[:real].to(torch.uint8) for images, _, real in split.in_order(size)]
        return common.mean_iou(common.confusion_matrix(torch.cat(preds), split.masks, self.work.num_classes))


def run_trial(network: Network, trial: Trial, data: dict[str, Resident]) -> TrialResult:
    """Train, validate every epoch, keep the best weights in memory, test once."""
    network.start(trial)
    size, result = batch_size(network.work, trial), TrialResult.of(trial)
    weights: dict[str, Any] = {}
    for epoch in range(1, trial.train["epochs"] + 1):
        began = time.perf_counter()
        result.train_loss.append(network.train_epoch(data["train"], size))
        middle = time.perf_counter()
        if result.improves(epoch, network.evaluate(data["val"], size)):
            weights = copy.deepcopy(network.model.state_dict())
        result.train_s += middle - began
        result.validation_s += time.perf_counter() - middle
    began = time.perf_counter()
    network.model.load_state_dict(weights)
    result.test_mean_iou = network.evaluate(data["test"], size)
    result.test_s = time.perf_counter() - began
    return result


def run_study(work: Work, modes: dict[str, str]) -> list[TrialResult]:
    """Return the trials variant by variant."""
    data = {name: Resident(work, name) for name in ("train", "val", "test")}
    results = []
    network, variant = None, None
    for trial in work.trials:
        if network is None or trial.variant != variant:
            mode, variant = modes.get(trial.variant, "eager"), trial.variant
            if mode != "eager":
                torch.compiler.reset()
            network = Network(work, trial, mode)
        results.append(run_trial(network, trial, data))
    return results


# -- does compiling pay? ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """What a way of executing costs: seconds before the first result, for a training step, for a prediction."""

    variant: str
    mode: str
    first_s: float
    step_s: float
    predict_s: float


def calibrate(work: Work) -> list[Cost]:
    """Time every variant in every mode, on real batches; a mode that does not run is left out."""
    train = Resident(work, "train")
    costs = []
    for trial in common.check_trials(work):
        for mode in GPU_MODES if common.default_device().type == "cuda" else MODES:
            with contextlib.suppress(RuntimeError):
                costs.append(calibrated(work, trial, mode, train))
    return costs


def calibrated(work: Work, trial: Trial, mode: str, train: Resident) -> Cost:
    """Return what one variant costs in one mode."""
    torch.compiler.reset()
    network = Network(work, trial, mode)
    network.start(trial)
    size = batch_size(work, trial)
    images, masks = train.images[:size], train.masks[:size]

    def step() -> None:
        network.step(images, masks)

    @torch.no_grad()
    def predict() -> None:
        network.predict(images)

    network.model.train()
    first = _seconds(step)
    step_s = min(_seconds(step) for _ in range(CALIBRATION_STEPS))
    network.model.eval()
    first += _seconds(predict)
    predict_s = min(_seconds(predict) for _ in range(CALIBRATION_STEPS))
    return Cost(trial.variant, mode, first - step_s - predict_s, step_s, predict_s)


def _seconds(work: Callable[[], None]) -> float:
    common.synchronise()
    began = time.perf_counter()
    work()
    common.synchronise()
    return time.perf_counter() - began


def choose(costs: list[Cost], work: Work) -> dict[str, str]:
    """Return the cheaper way for each variant, over all its trials of this study."""
    total: dict[tuple[str, str], float] = {}
    for cost in costs:
        total[cost.variant, cost.mode] = cost.first_s
        for trial in work.trials:
            if trial.variant == cost.variant:
                size, epochs = batch_size(work, trial), trial.train["epochs"]
                predictions = epochs * -(-len(work.split("val")) // size) + -(-len(work.split("test")) // size)
                total[cost.variant, cost.mode] += cost.step_s * steps_per_epoch(work, trial) * epochs
                total[cost.variant, cost.mode] += cost.predict_s * predictions
    variants = dict.fromkeys(variant for variant, _ in total)
    return {
        variant: min((mode for name, mode in total if name == variant), key=lambda mode: total[variant, mode])
        for variant in variants
    }


def check(work: Work, trial: Trial, rounds: int, mode: str) -> common.Check:
    """Return the loop against the same steps on one batch that is ready."""
    network = Network(work, trial, mode)
    network.start(trial)
    data = Resident(work, "train")
    size = batch_size(work, trial)
    images, masks = next(data.shuffled(size))

    def bare() -> None:
        network.model.train()
        for _ in range(steps_per_epoch(work, trial)):
            network.step(images, masks)

    return common.alternate(trial.variant, rounds, lambda: network.train_epoch(data, size), bare)


def main() -> None:
    """Train the study, or measure whether compiling pays."""
    parser = common.peer_parser(__doc__ or "")
    parser.add_argument("--calibrate", action="store_true", help="time the variants eagerly and compiled, and end")
    parser.add_argument("--calibration", type=Path, help="what --calibrate wrote, with the same compile cache")
    parser.add_argument("--mode", choices=GPU_MODES, default="eager", help="for all variants, without a calibration")
    arguments = parser.parse_args()
    work = common.load_work(arguments.study, arguments.override)
    if arguments.calibrate:
        arguments.out.write_text(json.dumps([asdict(cost) for cost in calibrate(work)], indent=1) + "\n")
        return
    modes: dict[str, Any] = dict.fromkeys(work.study.variants, arguments.mode)
    if arguments.calibration:
        modes = choose([Cost(**cost) for cost in json.loads(arguments.calibration.read_text())], work)
    if arguments.check:
        checks = [check(work, trial, arguments.check, modes[trial.variant]) for trial in common.check_trials(work)]
        common.write_checks(arguments.out, "expert", checks)
        return
    common.write_results(arguments.out, "expert", run_study(work, modes), modes=modes, bfloat16=common.has_bfloat16())


if __name__ == "__main__":
    main()
