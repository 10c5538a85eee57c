"""A trial's panel as one small picture for W&B and the dashboard: image, truth, prediction, error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ablate.records.pictures import panel_indices, unpack_image, unpack_some
from ablate.records.store import Results, read_json

RIGHT, WRONG, UNSCORED = np.array([[235, 235, 235], [200, 30, 30], [120, 120, 120]], dtype=np.uint8)


def write_panel(results: Results, name: str, path: Path) -> Path | None:
    """Write the panel of the trial `name` to `path`; None where it has no predictions."""
    index = read_json(results.test / "index.json")
    predictions = results.trial(name).predictions
    if index is None or not predictions.exists():
        return None
    chosen = panel_indices(len(index["names"]))
    targets = unpack_some(results.test / "targets.zip", chosen)
    preds = unpack_some(predictions, chosen)
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[: len(index["palette"])] = index["palette"]
    rows = []
    for number, target, pred in zip(chosen, targets, preds, strict=True):
        image = unpack_image(results.test / "images.zip", number)
        error = np.where((target == pred)[..., None], RIGHT, WRONG)
        error = np.where((target == index["ignore_index"])[..., None], UNSCORED, error)
        rows.append(np.concatenate([image, palette[target], palette[pred], error], axis=1))
    Image.fromarray(np.concatenate(rows).astype(np.uint8)).save(path)
    return path
