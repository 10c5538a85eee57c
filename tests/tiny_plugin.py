"""A plugin for tests: a data set of small random shapes, a network of two convolutions, and networks that misbehave."""

from __future__ import annotations

import ctypes
import os
import subprocess
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import ablate
from ablate.data.dataset import Dataset, Split

CLASSES = ("ground", "block", "line")


def _split(rng: np.random.Generator, count: int, size: tuple[int, int]) -> Split:
    height, width = size
    masks = np.zeros((count, height, width), dtype=np.uint8)
    for mask in masks:
        top, left = rng.integers(0, height - 4), rng.integers(0, width - 6)
        mask[top : top + 4, left : left + 6] = 1
        mask[:, rng.integers(0, width)] = 2
        mask[0, 0] = 255
    colours = np.array([[60, 90, 60], [150, 60, 60], [200, 200, 220]])
    images = colours[np.minimum(masks, 2)] + rng.normal(0, 30, (count, height, width, 3))
    names = tuple(f"image{index}" for index in range(count))
    return Split(np.clip(images, 0, 255).astype(np.uint8), masks, names)


@ablate.register_dataset("tiny")
def tiny(*, size: tuple[int, int] = (12, 16), train: int = 12, val: int = 5, test: int = 5, seed: int = 0) -> Dataset:
    """Blocks and lines on noisy ground."""
    rng = np.random.default_rng(seed)
    splits = {name: _split(rng, count, size) for name, count in (("train", train), ("val", val), ("test", test))}
    return Dataset(
        name="tiny",
        classes=CLASSES,
        palette=((60, 90, 60), (150, 60, 60), (200, 200, 220)),
        splits=splits,
        fingerprint=f"tiny-{size}-{train}-{val}-{test}-{seed}",
    )


class TwoConvolutions(nn.Module):
    """Two 3×3 convolutions with batch norm and dropout: has buffers and draws random numbers."""

    def __init__(self, in_channels: int, num_classes: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Dropout2d(0.1),
            nn.Conv2d(width, num_classes, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, num_classes, H, W)."""
        logits: Tensor = self.layers(x)
        return logits


@ablate.register_model("two_convolutions")
def two_convolutions(*, in_channels: int, num_classes: int, width: int = 4) -> nn.Module:
    """A network that trains in milliseconds."""
    return TwoConvolutions(in_channels, num_classes, width)


class Misbehaving(TwoConvolutions):
    """Does `act` at its `at`-th training step, the first time or (with a `once` file) in one process only."""

    def __init__(self, in_channels: int, num_classes: int, act: str, at: int, once: str) -> None:
        super().__init__(in_channels, num_classes, 4)
        self.act, self.at, self.once, self.calls = act, at, once, 0

    def forward(self, x: Tensor) -> Tensor:
        """As `TwoConvolutions`, until it misbehaves."""
        logits = super().forward(x)
        if not self.training:
            return logits
        self.calls += 1
        if self.calls != self.at or (self.once and Path(self.once).exists()):
            return logits
        if self.once:
            Path(self.once).touch()
        if self.act == "raise":
            raise RuntimeError("this model always raises")
        if self.act == "sleep":
            time.sleep(600)
        if self.act == "hold":
            ctypes.PyDLL(None).sleep(60)  # and nothing else of this interpreter runs meanwhile
        if self.act == "spawn":
            Path("child").write_text(str(subprocess.Popen(["sleep", "300"]).pid))
            return logits
        if self.act == "kill":
            os.kill(os.getpid(), 9)
        if self.act == "memory":
            raise torch.OutOfMemoryError("tried to allocate 1000 GiB")
        return logits * float("inf")


@ablate.register_model("misbehaving")
def misbehaving(*, in_channels: int, num_classes: int, act: str = "raise", at: int = 3, once: str = "") -> nn.Module:
    """A network that raises, sleeps, holds the interpreter, starts or kills a process, lacks memory or explodes."""
    return Misbehaving(in_channels, num_classes, act, at, once)


class WithAuxiliary(TwoConvolutions):
    """Gives coarse auxiliary logits beside its own while it trains, in a dict or a list."""

    def __init__(self, in_channels: int, num_classes: int, form: str) -> None:
        super().__init__(in_channels, num_classes, 4)
        self.form = form
        self.head = nn.Conv2d(4, num_classes, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor] | list[Tensor]:  # type: ignore[override]
        """(N, in_channels, H, W) -> logits (N, num_classes, H, W) and (N, num_classes, H/2, W/2)."""
        features = self.layers[:3](x)
        main, aux = self.layers[3:](features), self.head(nn.functional.avg_pool2d(features, 2))
        return {"main": main, "aux": aux} if self.form == "dict" else [main, aux]


@ablate.register_model("with_auxiliary")
def with_auxiliary(*, in_channels: int, num_classes: int, form: str = "dict") -> nn.Module:
    """A network with one auxiliary output."""
    return WithAuxiliary(in_channels, num_classes, form)
