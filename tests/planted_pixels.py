"""The pixels of planted studies: small scenes with thin structures, and predictions of a wanted mIoU."""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import gaussian_filter

IGNORE = 255


def scenes(images: int, size: tuple[int, int], classes: int, rng: np.random.Generator) -> np.ndarray:
    """uint8 (N, H, W): sky, buildings, road; fences and poles one pixel wide; blobs of further classes."""
    height, width = size
    target = np.zeros((images, height, width), np.uint8)
    # Edges of buildings lie on every fourth column, thin things between them: nothing else is thin by chance.
    for scene in target:
        horizon = int(height * rng.uniform(0.45, 0.6))
        left = 0
        while left < width:
            span = 4 * int(rng.integers(1, max(2, width // 10)))
            if rng.random() < 0.75:
                scene[int(horizon * rng.uniform(0.2, 0.8)) : horizon, left : left + span] = 1
            left += span
        scene[horizon:] = 2
        for extra in range(5, classes):
            y, x = int(rng.integers(0, height - 5)), int(rng.integers(0, width - 7))
            scene[y : y + rng.integers(3, 6), x : x + rng.integers(3, 8)] = extra
        if classes > 3 and rng.random() < 0.85:
            left, tall = 2 + 4 * int(rng.integers(0, width // 8)), max(3, height // 5)
            for x in range(left, min(width, left + width // 3), 4):
                scene[horizon - tall // 2 : horizon + tall // 2 + 1, x] = 3
            scene[horizon, left : left + width // 3] = 3
        if classes > 4 and rng.random() < 0.85:
            for x in 2 + 4 * rng.choice(width // 4, 2, replace=False):
                scene[int(height * 0.15) : horizon + 2, x] = 4
        scene[:, -1] = IGNORE
    return target


class Corruptor:
    """Predictions of a wanted mIoU for one split: pixels are wrong above a threshold, found by bisection."""

    def __init__(self, target: np.ndarray, classes: int, rng: np.random.Generator) -> None:
        self.target, self.classes = target, classes
        n, height, _ = target.shape
        # What is hard is partly the image's own, the same for every model.
        self.hardness = 0.5 * rng.standard_normal((n, 1, 1)) + _field(target.shape, rng)
        near = np.zeros(target.shape, bool)
        for axis, shift in ((1, 1), (1, -1), (2, 1), (2, -1)):
            near |= np.roll(target, shift, axis) != target
        self.near = near
        wrong = np.roll(target, 2, axis=2)
        for other in (np.roll(target, -2, axis=2), np.roll(target, height // 3, axis=1)):
            unusable = (wrong == target) | (wrong == IGNORE)
            wrong = np.where(unusable, other, wrong)
        unusable = (wrong == target) | (wrong == IGNORE)
        self.wrong = np.where(unusable, (target + 1) % classes, wrong).astype(np.uint8)

    def corrupt(self, wanted: float, detail: float, rng: np.random.Generator) -> np.ndarray:
        """uint8 (N, H, W) whose mIoU over the split is `wanted` but for the last pixel."""
        chance = self.hardness + 0.8 * _field(self.target.shape, rng)
        # An odds ratio of `detail` at boundaries: errors are where chance + log(detail)·near exceeds the threshold.
        chance = chance + 0.5 * math.log(detail) * self.near
        low, high = float(chance.min()), float(chance.max()) + 1e-6
        for _ in range(14):
            middle = (low + high) / 2
            preds = np.where(chance > middle, self.wrong, self.target)
            if mean_iou(count(preds, self.target, self.classes).sum(0)) < wanted:
                low = middle
            else:
                high = middle
        return np.where(chance > high, self.wrong, np.where(self.target == IGNORE, 0, self.target)).astype(np.uint8)


def _field(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    smooth = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), (0, 1.2, 1.2))
    return 0.8 * smooth / smooth.std() + 0.6 * rng.standard_normal(shape, dtype=np.float32)


def count(preds: np.ndarray, target: np.ndarray, classes: int) -> np.ndarray:
    """int64 (N, C, 3): tp, fp, fn per image and class; written apart from the package, to check it."""
    images = target.shape[0]
    offset = np.arange(images)[:, None, None] * classes
    keep = target != IGNORE
    hit = keep & (preds == target)
    miss = keep & ~hit
    length = images * classes
    columns = [
        np.bincount((offset + labels)[where], minlength=length).reshape(images, classes)
        for labels, where in ((target, hit), (preds, miss), (target, miss))
    ]
    return np.stack(columns, axis=-1).astype(np.int64)


def mean_iou(counts: np.ndarray) -> float:
    """MIoU of (C, 3) counts over the classes that the target has."""
    there = counts[:, 0] + counts[:, 2] > 0
    return float(np.mean(counts[there, 0] / counts[there].sum(-1)))
