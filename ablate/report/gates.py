"""Attention gates over the image: the maps that a trial stored of its gates, on the fixed test images."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from PIL import Image


def read_maps(path: Path) -> dict[str, np.ndarray]:
    """`gates.npz` of a trial: gate -> attention in [0, 1], float32 (n, h, w), of the fixed test images in order.

    Empty where the trial has no gates or stored none; a damaged file counts as none, for it holds no result.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            maps = {name: np.asarray(archive[name], dtype=np.float32) for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError):
        return {}
    return {name: values for name, values in maps.items() if values.ndim == 3 and name != "indices"}


def overlay(image: np.ndarray, attention: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """The image in grey under its attention in colour: uint8 (H, W, 3) from (H, W, 3), (h, w) in [0, 1], (256, 3).

    The map is enlarged to the image by bilinear interpolation.
    """
    height, width = image.shape[:2]
    level = np.clip(np.nan_to_num(attention), 0, 1)
    large = Image.fromarray((255 * level).astype(np.uint8)).resize((width, height), Image.Resampling.BILINEAR)
    index = np.asarray(large)
    grey = image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    share = 0.55
    mixed = (1 - share) * grey[..., None] + share * colours[index].astype(np.float32)
    return np.clip(mixed, 0, 255).astype(np.uint8)
