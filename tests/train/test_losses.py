"""Losses against formulas written out in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ablate.train.losses import cross_entropy, cross_entropy_dice, dice


@pytest.fixture
def case() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator)
    target = torch.randint(0, 3, (2, 4, 5), generator=generator, dtype=torch.uint8)
    target[0, 0, :3] = 255
    return logits, target


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_cross_entropy_is_the_mean_over_labelled_pixels(case: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, target = case
    p, t = softmax(logits.numpy()), target.numpy()
    values = [-np.log(p[n, t[n, y, x], y, x]) for n, y, x in np.argwhere(t != 255)]
    got = cross_entropy(logits, target, num_classes=3, ignore_index=255)
    assert float(got) == pytest.approx(np.mean(values), rel=1e-5)


def test_class_weights_weight_the_pixels(case: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, target = case
    w = np.array([0.2, 1.0, 3.0])
    p, t = softmax(logits.numpy()), target.numpy()
    places = np.argwhere(t != 255)
    loss = sum(w[t[n, y, x]] * -np.log(p[n, t[n, y, x], y, x]) for n, y, x in places)
    total = sum(w[t[n, y, x]] for n, y, x in places)
    got = cross_entropy(logits, target, num_classes=3, ignore_index=255, class_weights=torch.tensor(w).float())
    assert float(got) == pytest.approx(loss / total, rel=1e-5)


def test_dice_by_hand(case: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, target = case
    p, t = softmax(logits.numpy()), target.numpy()
    scores = []
    for c in range(3):
        labelled = t != 255
        truth = (t == c) & labelled
        soft = p[:, c] * labelled
        scores.append(2 * soft[truth].sum() / (soft.sum() + truth.sum()))
    assert float(dice(logits, target, num_classes=3, ignore_index=255)) == pytest.approx(1 - np.mean(scores), rel=1e-5)


def test_dice_of_a_perfect_prediction_is_zero() -> None:
    target = torch.tensor([[[0, 1], [1, 255]]])
    logits = 50.0 * torch.nn.functional.one_hot(target.clamp_max(2), 3).permute(0, 3, 1, 2).float()
    assert float(dice(logits, target, num_classes=3, ignore_index=255)) == pytest.approx(0, abs=1e-6)


def test_the_sum_is_the_sum(case: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, target = case
    both = cross_entropy_dice(logits, target, num_classes=3, ignore_index=255)
    parts = [loss(logits, target, num_classes=3, ignore_index=255) for loss in (cross_entropy, dice)]
    assert float(both) == pytest.approx(float(sum(parts)))
