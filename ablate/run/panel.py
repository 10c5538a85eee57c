"""A trial's panel as one small picture for W&B and the dashboard: image, truth, prediction, error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ablate.records.images import panel_indices, unpack_image, unpack_maps
from ablate.records.store import Results, read_json

RIGHT, WRONG, UNSCORED = np.array([[235, 235, 235], [200, 30, 30], [120, 120, 120]], dtype=np.uint8)


def write_panel(results: Results, name: str, path: Path) -> Path | None:
    """Write the panel of the trial `name` to `path`, at the size trained at; None where it has no predictions."""
    index = read_json(results.test / "index.json")
    predictions = results.trial(name).predictions
    if index is None or not predictions.exists():
        return None
    chosen = panel_indices(len(index["names"]))
    targets = unpack_maps(results.test / "targets.zip", chosen)
    preds = unpack_maps(predictions, chosen)
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[: len(index["palette"])] = index["palette"]
    rows = []
    for number, target, pred in zip(chosen, targets, preds, strict=True):
        image = unpack_image(results.test / "images.zip", number)
        error = np.where((target == pred)[..., None], RIGHT, WRONG)
        error = np.where((target == index["ignore_index"])[..., None], UNSCORED, error)
        # Scored at the masks' own size, the tiles are as large as those.
        tiles = [_resized(tile, image.shape[:2]) for tile in (palette[target], palette[pred], error)]
        rows.append(np.concatenate([image, *tiles], axis=1))
    Image.fromarray(np.concatenate(rows).astype(np.uint8)).save(path)
    return path


def _resized(tile: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    if tile.shape[:2] == size:
        return tile
    return np.asarray(Image.fromarray(tile.astype(np.uint8)).resize((size[1], size[0]), Image.Resampling.NEAREST))
