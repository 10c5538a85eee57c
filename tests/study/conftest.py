"""What a test of this folder registers is forgotten after it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ablate.registry import AUGMENTATIONS, DATASETS, LOSSES, MODELS, OPTIMIZERS


@pytest.fixture(autouse=True)
def registries() -> Iterator[None]:
    """The registries as they were."""
    kept = [(registry, dict(registry._entries)) for registry in (MODELS, DATASETS, LOSSES, OPTIMIZERS, AUGMENTATIONS)]
    yield
    for registry, entries in kept:
        registry._entries.clear()
        registry._entries.update(entries)
