"""A plugin whose trials train next to nothing: what is left of their time is the harness's own."""

from __future__ import annotations

import numpy as np
from torch import nn

import ablate
from ablate.data.dataset import Dataset, Split

CLASSES = ("dark", "bright")


def _split(name: str, count: int, size: int) -> Split:
    shades = np.random.default_rng(len(name)).integers(0, 256, (count, size, size), dtype=np.uint8)
    return Split(shades[..., None], (shades > 127).astype(np.uint8), tuple(f"{name}{n}" for n in range(count)))


@ablate.register_dataset("shades")
def shades(*, size: int = 8, count: int = 4) -> Dataset:
    """Grey noise; the class of a pixel is whether it is brighter than the middle."""
    return Dataset(
        name="shades",
        classes=CLASSES,
        palette=((0, 0, 0), (255, 255, 255)),
        splits={name: _split(name, count, size) for name in ("train", "val", "test")},
        fingerprint=f"shades-{size}-{count}",
    )


@ablate.register_model("threshold")
def threshold(*, in_channels: int, num_classes: int, marker: int = 0) -> nn.Module:  # noqa: ARG001
    """One 1×1 convolution; `marker` only tells variants apart."""
    return nn.Conv2d(in_channels, num_classes, 1)
