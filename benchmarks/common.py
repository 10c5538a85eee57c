"""What all contestants share: study, data, model code, metric, the arithmetic that it takes, the result file."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib.metadata
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ablate.data.dataset import IGNORE, Dataset, Split, load_dataset
from ablate.models import forward_flops
from ablate.registry import MODELS
from ablate.study.reader import read_study
from ablate.study.study import Study
from ablate.study.trial import Trial
from ablate.train import device as devices

# What the peers implement. Another setting would be trained by `ablate` and silently not by them.
SUPPORTED: dict[str, Any] = {
    "optimizer": "adam",
    "weight_decay": 0.0,
    "schedule": "constant",
    "warmup_epochs": 0.0,
    "loss": "cross_entropy",
    "class_weights": None,
    "clip_norm": None,
    "crop": None,
    "augment": {"flip": True, "scale": [1.0, 1.0], "brightness": 0.0, "contrast": 0.0},
}

# Of Linux's prctl(2).
PR_SET_CHILD_SUBREAPER = 36

# The ways of executing a step on a GPU, the plainest first.
GPU_ENGINES = ("eager", "graph", "compiled", "compiled_graph")
# Environment variable by which contestants agree on the device.
DEVICE = "ABLATE_BENCH_DEVICE"


@dataclass(frozen=True)
class Work:
    """The study that everybody trains: its trials, in the order of the plan, and its decoded data."""

    study: Study
    dataset: Dataset
    trials: list[Trial]

    @property
    def num_classes(self) -> int:
        """Number of classes, without the ignored label."""
        return self.dataset.num_classes

    def split(self, name: str) -> Split:
        """One split of the data."""
        return self.dataset.splits[name]


def load_work(path: Path, overrides: Sequence[str] = ()) -> Work:
    """Return the study at `path` with its data. Raises `ValueError` for what the peers do not implement."""
    study = read_study(path, list(overrides))
    trials = study.trials()
    for trial in trials:
        for name, value in SUPPORTED.items():
            if trial.train[name] != value:
                raise ValueError(f"the peers train with {name} = {value}, the study says {trial.train[name]}")
    settings = {name: value for name, value in study.data.items() if name != "name"}
    return Work(study, load_dataset(study.data["name"], settings, base=study.base), trials)


def build_model(trial: Trial, work: Work) -> nn.Module:
    """Return a fresh model of the trial's variant: the same code for all contestants; the global generator draws it."""
    settings = {name: value for name, value in trial.model.items() if name != "name"}
    model: nn.Module = MODELS.get(trial.model["name"])(
        in_channels=work.dataset.in_channels, num_classes=work.num_classes, **settings
    )
    return model


class Images(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """A split sample by sample, as a tutorial writes it: (image float32 (C, H, W), mask int64 (H, W)).

    The images are in memory, decoded: more than a script that reads files every epoch would have.
    """

    def __init__(self, work: Work, split: str, *, flip: bool = False) -> None:
        data = work.split(split)
        self.images, self.masks = data.images, data.masks
        self.flip = flip
        self.mean = torch.tensor(work.dataset.mean).view(-1, 1, 1)
        self.std = torch.tensor(work.dataset.std).view(-1, 1, 1)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = torch.tensor(self.images[index]).permute(2, 0, 1).float() / 255
        mask = torch.tensor(self.masks[index], dtype=torch.int64)
        if self.flip and torch.rand(()) < 0.5:
            image, mask = image.flip(-1), mask.flip(-1)
        return (image - self.mean) / self.std, mask


def loaders(work: Work, trial: Trial, *, workers: int) -> dict[str, torch.utils.data.DataLoader[tuple[Tensor, Tensor]]]:
    """Return a `DataLoader` a split, as tutorials do: training is shuffled and leaves out its incomplete batch."""
    return {
        name: torch.utils.data.DataLoader(
            Images(work, name, flip=name == "train"),
            batch_size=trial.train["batch_size"],
            shuffle=name == "train",
            drop_last=name == "train",
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=default_device().type == "cuda",
        )
        for name in ("train", "val", "test")
    }


def confusion_matrix(preds: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Return counts int64 (C, C), rows the truth, of class indices of any equal shape; ignored targets are left out."""
    keep = target != IGNORE
    cells = target[keep].long() * num_classes + preds[keep]
    return torch.bincount(cells, minlength=num_classes**2).view(num_classes, num_classes)


def mean_iou(confusion: Tensor) -> float:
    """Dataset mean IoU: the mean over the classes that occur in truth or prediction."""
    tp = confusion.diagonal().double()
    union = confusion.sum(0) + confusion.sum(1) - tp
    return float((tp[union > 0] / union[union > 0]).mean())


def has_bfloat16() -> bool:
    """Whether the device computes quicker in bfloat16 than in float32; emulated, or in vectors alone, it may not."""
    return devices.has_bfloat16(str(default_device()))[0]


def study_flops(work: Work) -> float:
    """Floating-point operations that the whole study cannot be trained without.

    A training step takes three times the forward pass less the gradient of the first layer's input; validation is a
    forward pass an epoch, the test one at the end. Convolutions and matrix products only, two for a multiply-add.
    """
    total = 0.0
    size, channels = work.dataset.size, work.dataset.in_channels
    for trial in work.trials:
        model = build_model(trial, work)
        forward = forward_flops(model, size, channels)
        first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
        kernel = first.kernel_size[0] * first.kernel_size[1]
        first_layer = 2 * size[0] * size[1] * kernel * first.in_channels * first.out_channels
        epochs = trial.train["epochs"]
        total += (3 * forward - first_layer) * steps_per_epoch(work, trial) * batch_size(work, trial) * epochs
        total += forward * (len(work.split("val")) * epochs + len(work.split("test")))
    return total


def batch_size(work: Work, trial: Trial) -> int:
    """Images a step."""
    return min(int(trial.train["batch_size"]), len(work.split("train")))


def steps_per_epoch(work: Work, trial: Trial) -> int:
    """Return steps an epoch; nobody trains on the incomplete last batch."""
    return len(work.split("train")) // batch_size(work, trial)


# -- result files -------------------------------------------------------------------------------------------------


@dataclass
class TrialResult:
    """What a peer says about one trial: fractions, seconds, the mean training loss of every epoch."""

    variant: str
    lr: float
    seed: int
    best_epoch: int = 0
    val_mean_iou: float = -1.0
    test_mean_iou: float = 0.0
    train_s: float = 0.0
    validation_s: float = 0.0
    test_s: float = 0.0
    train_loss: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, trial: Trial) -> TrialResult:
        """Return the result of a trial that has not begun."""
        return cls(trial.variant, float(trial.train["lr"]), trial.seed)

    def improves(self, epoch: int, score: float) -> bool:
        """Take in the validation after `epoch`; whether it is the best so far."""
        better = score > self.val_mean_iou
        if better:
            self.best_epoch, self.val_mean_iou = epoch, score
        return better


@dataclass
class Check:
    """A peer's training loop against its bare steps: seconds of an epoch by each, one entry a round."""

    variant: str
    loop_s: list[float] = field(default_factory=list)
    bare_s: list[float] = field(default_factory=list)


def write_results(path: Path, peer: str, results: Sequence[TrialResult], **more: Any) -> None:
    """Write a peer's results as JSON."""
    document = {"peer": peer, "trials": [asdict(result) for result in results], **more}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def write_checks(path: Path, peer: str, checks: Sequence[Check]) -> None:
    """Write what a peer's `--check` measured."""
    document = {"peer": peer, "checks": [asdict(check) for check in checks]}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def busy_seconds() -> float:
    """CPU seconds that the machine has been busy since it started; 0 where the system does not say."""
    try:
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    except OSError:
        return 0.0
    user, nice, system, _, _, interrupts, soft = (int(field) for field in fields[:7])
    return (user + nice + system + interrupts + soft) / os.sysconf("SC_CLK_TCK")


def adopt_orphans() -> None:
    """Become, on Linux, the parent of descendants whose own parent ends: a fork server's workers, Ray's daemons.

    Else their processor seconds are nobody's, and look like another process at work.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children_seconds(patience: float = 5.0) -> float:
    """CPU seconds of all descendants that have ended; waits for those that are about to, `patience` seconds at most."""
    until = time.monotonic() + patience
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < until:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.05)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of `packages`."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


# -- the command line of a peer -----------------------------------------------------------------------------------


def peer_parser(description: str) -> argparse.ArgumentParser:
    """Add the options that all peers have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--study", type=Path, required=True, help="study file")
    parser.add_argument("-o", "--override", action="append", default=[], help="override a field, as `ablate run -o`")
    parser.add_argument("--out", type=Path, required=True, help="result file (JSON)")
    add_device_option(parser)
    parser.add_argument("--check", type=int, default=0, metavar="ROUNDS", help="time the loop against its bare steps")
    return parser


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """`--device`, which also holds for every process that is started."""
    parser.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default=os.environ.get(DEVICE, "auto"), type=_remembered,
        help="where to train; auto takes the GPU where there is one",
    )  # fmt: skip


def _remembered(name: str) -> str:
    os.environ[DEVICE] = name
    return name


def device_name(asked: str) -> str:
    """Return "cuda" or "cpu" for what `--device` says."""
    return asked if asked != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def default_workers() -> int:
    """`DataLoader` workers: two on a small machine, more where a GPU has to be fed."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8 if default_device().type == "cuda" else 2, cores)


def prepare() -> None:
    """Set what tutorials set at the top of a script for a GPU: the fastest convolutions for fixed shapes, and TF32."""
    if default_device().type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")


def check_trials(work: Work) -> list[Trial]:
    """Return the trials whose loop is checked: the first of each variant."""
    return list({trial.variant: trial for trial in reversed(work.trials)}.values())[::-1]


def alternate(variant: str, rounds: int, loop: Callable[[], object], bare: Callable[[], object]) -> Check:
    """Time an epoch of the loop and one of bare steps in turn, after one of each that is not counted."""
    check = Check(variant)
    for number in range(rounds + 1):
        for work, seconds in ((loop, check.loop_s), (bare, check.bare_s)):
            began = time.perf_counter()
            work()
            synchronise()
            if number:
                seconds.append(time.perf_counter() - began)
    return check


def synchronise() -> None:
    """Wait for the GPU, where there is one."""
    if default_device().type == "cuda":
        torch.cuda.synchronize()


def default_device() -> torch.device:
    """Return the device that `--device` named, here or in the process that started this one; else the GPU, if any."""
    return torch.device(device_name(os.environ.get(DEVICE, "auto")))


def seeded(seed: int) -> None:
    """Seed the generators that a script draws from."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - what scripts do
