"""The detail measures of a split whose label maps differ in size: each map with the widths of its own diagonal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ablate.measure.detail import DetailTarget
from ablate.measure.detail_all import detail_counts
from ablate.measure.segmentation import IGNORE_INDEX


class DetailTargets:
    """The target's side of every detail measure for maps of any sizes, computed once for all trials.

    `target` is a stack (N, H, W) or a sequence of N maps (h, w) of classes 0 … num_classes - 1 and `ignore_index`.
    Maps of one size are counted together (`DetailTarget`).
    """

    def __init__(
        self, target: np.ndarray | Sequence[np.ndarray], num_classes: int, ignore_index: int = IGNORE_INDEX
    ) -> None:
        self.num_classes, self.count = num_classes, len(target)
        self._places: dict[tuple[int, ...], list[int]] = {}
        for place, labels in enumerate(target):
            self._places.setdefault(labels.shape, []).append(place)
        self._parts = {
            shape: DetailTarget(_stacked(target, places), num_classes, ignore_index)
            for shape, places in self._places.items()
        }

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """The sizes (height, width) of the maps, each once, the smallest diagonal first."""
        return sorted((part.shape for part in self._parts.values()), key=lambda shape: float(np.hypot(*shape)))

    def counts(self, preds: np.ndarray | Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Counts of every detail measure per image and class, as `detail_counts`, in the order of the images.

        Raises ValueError where the predictions are of another number or size than the targets.
        """
        if len(preds) != self.count:
            raise ValueError(f"{len(preds)} predictions for {self.count} targets")
        found: dict[str, np.ndarray] = {}
        for shape, places in self._places.items():
            for name, table in detail_counts(_stacked(preds, places), self._parts[shape]).items():
                whole = found.setdefault(name, np.zeros((self.count, *table.shape[1:]), table.dtype))
                whole[places] = table
        return found


def _stacked(maps: np.ndarray | Sequence[np.ndarray], places: list[int]) -> np.ndarray:
    if isinstance(maps, np.ndarray) and len(places) == len(maps):
        return maps
    chosen = [maps[place] for place in places]
    if len({labels.shape for labels in chosen}) > 1:
        raise ValueError("preds and target differ in shape")
    return np.stack(chosen)
