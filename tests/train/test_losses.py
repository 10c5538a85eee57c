"""Losses against formulas written out in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ablate.train.losses import cross_entropy, cross_entropy_dice, dice, mean_of_pixels


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


@pytest.mark.parametrize("weights", [None, [0.2, 1.0, 3.0]])
def test_the_mean_as_a_step_of_its_own_has_the_same_value_and_gradient(weights: list[float] | None) -> None:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 3, (50,), generator=generator)
    labels[7:19] = 255
    w = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    found = []
    for loss in (
        lambda flat: torch.nn.functional.cross_entropy(flat, labels, w, ignore_index=255),
        lambda flat: mean_of_pixels(flat, labels, w, 255),
    ):
        flat = torch.randn(50, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64).requires_grad_()
        value = loss(flat)
        (gradient,) = torch.autograd.grad(value, flat)
        found.append((value.detach(), gradient))
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)


def test_no_labelled_pixel_has_no_mean() -> None:
    assert torch.isnan(mean_of_pixels(torch.zeros(4, 3), torch.full((4,), 255), None, 255))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_planes_and_pixels_give_one_cross_entropy(layout: torch.memory_format) -> None:
    """The quick form on a CPU against the definition, pixel by pixel, value and gradient."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 6, 7, generator=generator).to(memory_format=layout).requires_grad_()
    target = torch.randint(0, 5, (2, 6, 7), generator=generator).to(torch.uint8)
    target[:, 0] = 255
    weights = torch.rand(5, generator=generator)
    loss = cross_entropy(logits, target, num_classes=5, ignore_index=255, class_weights=weights)
    loss.backward()
    shares = logits.detach().double().softmax(1)
    seen = target != 255
    label = torch.where(seen, target, 0).long()
    weight = weights.double()[label] * seen
    wanted = -(weight * shares.gather(1, label[:, None])[:, 0].log()).sum() / weight.sum()
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-6, atol=0)
    one = torch.nn.functional.one_hot(label, 5).permute(0, 3, 1, 2)
    gradient = (shares - one) * weight[:, None] / weight.sum()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad.double(), gradient, rtol=1e-5, atol=1e-8)
