"""Folders of images as people keep them, and results with a network that predicts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ablate.records.store import Results, TrialFolder, read_record, to_json
from ablate.registry import MODELS
from ablate.study.components import create
from ablate.train.outcome import ModelCard
from tests.data.pictures import cells, save
from tests.planted import CLASSES, PALETTE, plant

SIZE = (24, 32)


@pytest.fixture
def membrane(tmp_path: Path) -> Path:
    """Twelve grey images of cells with masks of 0 and 255, in two folders."""
    root = tmp_path / "membrane"
    for number in range(12):
        image, mask = cells(number)
        save(root / "image" / f"{number}.png", image)
        save(root / "label" / f"{number}.png", mask)
    return root


def keep_network(folder: TrialFolder, *, seed: int = 0) -> ModelCard:
    """Lay an untrained network beside a record, as a trial keeps its best one."""
    record = read_record(folder.record)
    assert record is not None
    settings = {"name": "unet", "width": 4, "depth": 2}
    card = ModelCard(
        key=record.key,
        variant=record.variant,
        model=settings,
        in_channels=3,
        classes=list(CLASSES),
        palette=[list(colour) for colour in PALETTE],
        mean=[0.4, 0.5, 0.6],
        std=[0.2, 0.2, 0.3],
        white=255,
        size=SIZE,
    )
    torch.manual_seed(seed)
    torch.save(create(MODELS, settings, in_channels=3, num_classes=len(CLASSES)).state_dict(), folder.best)
    folder.card.write_bytes(to_json(card.model_dump(mode="json")))
    return card


@pytest.fixture
def trained(tmp_path: Path) -> Results:
    """Results of two variants whose trials have kept their networks."""
    path = plant(tmp_path / "results" / "p", variants=("unet", "noskip"), lrs=(1e-3,), seeds=2, epochs=2, images=2)
    for number, folder in enumerate(Results(path).folders()):
        keep_network(folder, seed=number)
    return Results(path)


Pictures = Callable[[tuple[int, int]], np.ndarray]


@pytest.fixture
def picture() -> Pictures:
    """A function that draws an image (H, W, 3) of a size."""
    return lambda size: np.random.default_rng(size[0]).integers(0, 256, (*size, 3), dtype=np.uint8)
