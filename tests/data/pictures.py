"""Made-up images for the tests: written by Pillow, read by the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def save(path: Path, pixels: np.ndarray, **options: Any) -> None:
    """Write an image, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def cells(seed: int, size: tuple[int, int] = (24, 32)) -> tuple[np.ndarray, np.ndarray]:
    """A grey image of cells between membranes and its mask: 0 on membranes, 255 in cells."""
    draw = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    membrane = np.sin(rows / 3 + seed) + np.sin(columns / 4 + 2 * seed) > 0.9
    grey = np.where(membrane, 60, 180) + draw.integers(-20, 21, size)
    return grey.astype(np.uint8), np.where(membrane, 0, 255).astype(np.uint8)
