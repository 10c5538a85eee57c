"""Losses against formulas written out in numpy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ablate.errors import StudyError
from ablate.registry import LOSSES
from ablate.study.components import bound
from ablate.train.losses import (
    Loss,
    LossFunction,
    cross_entropy,
    cross_entropy_boundary,
    cross_entropy_dice,
    dice,
    focal,
    generalized_dice,
    multilabel_loss,
    pixel_sums,
    tversky,
)
from tests.conftest import missing


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
        lambda flat: torch.div(*(part[0] for part in pixel_sums(flat, labels, w, 255, 1))),
    ):
        flat = torch.randn(50, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64).requires_grad_()
        value = loss(flat)
        (gradient,) = torch.autograd.grad(value, flat)
        found.append((value.detach(), gradient))
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)


KINDS = [cross_entropy, dice, cross_entropy_dice]
MONAI = [focal, tversky, generalized_dice, cross_entropy_boundary]


@pytest.fixture(scope="session")
def monai() -> None:
    try:
        import monai.losses  # noqa: F401
    except ModuleNotFoundError:
        missing("MONAI is not installed")


@pytest.mark.usefixtures("monai")
@pytest.mark.parametrize("weights", [None, [0.2, 1.0, 3.0]])
def test_losses_meet_in_their_special_cases(
    weights: list[float] | None, case: tuple[torch.Tensor, torch.Tensor]
) -> None:
    w = None if weights is None else torch.tensor(weights)
    told: dict[str, Any] = {"num_classes": 3, "ignore_index": 255, "class_weights": w}
    pixels, overlap = cross_entropy(*case, **told), dice(*case, **told)
    torch.testing.assert_close(focal(*case, gamma=0.0, **told), pixels)
    torch.testing.assert_close(tversky(*case, alpha=0.5, beta=0.5, **told), overlap, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(cross_entropy_boundary(*case, weight=0.0, **told), pixels)
    kind = bound(LOSSES, {"name": "tversky", "alpha": 0.5, "beta": 0.5})
    torch.testing.assert_close(kind(*case, **told), overlap, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("monai")
@pytest.mark.parametrize("kind", MONAI)
@pytest.mark.parametrize("weights", [None, [0.5, 0.0, 3.0]])
def test_ignored_pixels_have_no_part_in_a_loss_of_monai(
    kind: LossFunction, weights: list[float] | None, case: tuple[torch.Tensor, torch.Tensor]
) -> None:
    if kind is generalized_dice and weights:
        with pytest.raises(StudyError, match=r"train.class_weights: the generalized Dice loss weighs .*take"):
            kind(*case, num_classes=3, ignore_index=255, class_weights=torch.tensor(weights))
        return
    logits, target = case
    loss = Loss(kind, 3, 255, None if weights is None else torch.tensor(weights))
    value, gradient = computed(loss, logits, target)
    assert np.isfinite(value) and gradient.any() and not gradient.permute(0, 2, 3, 1)[target == 255].any()
    other = logits.clone()
    other.permute(0, 2, 3, 1)[target == 255] = 7.0
    assert computed(loss, other, target)[0] == pytest.approx(value, rel=1e-6)
    value, gradient = computed(loss, logits, torch.full_like(target, 255))
    assert value == 0 and not gradient.any()


@pytest.mark.usefixtures("monai")
def test_focal_and_boundary_by_hand(case: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, target = case
    p, t = softmax(logits.double().numpy()), target.numpy()
    places = [(n, t[n, y, x], y, x) for n, y, x in np.argwhere(t != 255)]
    wanted = np.mean([-((1 - p[place]) ** 2) * np.log(p[place]) for place in places])
    assert float(focal(logits, target, num_classes=3, ignore_index=255)) == pytest.approx(wanted, rel=1e-5)
    # Two classes side by side: the signed distance is that to the edge, less one within the class.
    sides = torch.tensor([[[0, 0, 1, 1]]], dtype=torch.uint8)
    flat = torch.zeros(1, 2, 1, 4)
    distances = np.array([-1, 0, 1, 2, 2, 1, 0, -1])
    both = cross_entropy_boundary(flat, sides, num_classes=2, ignore_index=255, weight=1.0)
    assert float(both) == pytest.approx(np.log(2) + np.mean(0.5 * distances), rel=1e-5)


def test_a_loss_of_monai_without_monai_is_one_line(
    monkeypatch: pytest.MonkeyPatch, case: tuple[torch.Tensor, torch.Tensor]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "monai.losses", None)
    with pytest.raises(StudyError, match=r"train.loss: this loss is of the library monai, .*; pip install 'monai>="):
        focal(*case, num_classes=3, ignore_index=255)


def computed(loss: Loss, logits: torch.Tensor, target: torch.Tensor) -> tuple[float, torch.Tensor]:
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, target)
    (gradient,) = torch.autograd.grad(value, leaf)
    return float(value), gradient


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("label", "weights"), [(255, None), (255, [1.0, 2.0, 3.0]), (1, [1.0, 0.0, 3.0]), (2, [0.0] * 3)]
)
def test_the_loss_of_nothing_is_zero_without_a_gradient(
    kind: LossFunction, label: int, weights: list[float] | None
) -> None:
    loss = Loss(kind, 3, 255, None if weights is None else torch.tensor(weights))
    logits, target = torch.randn(2, 3, 4, 5), torch.full((2, 4, 5), label, dtype=torch.uint8)
    value, gradient = computed(loss, logits, target)
    assert value == 0 and not gradient.any()
    assert not loss.counts(target).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weights", [None, [0.5, 0.0, 3.0]])
def test_the_guard_changes_no_bit_where_something_counts(
    kind: LossFunction, weights: list[float] | None, case: tuple[torch.Tensor, torch.Tensor]
) -> None:
    logits, target = case
    w = None if weights is None else torch.tensor(weights)
    value, gradient = computed(Loss(kind, 3, 255, w), logits, target)
    leaf = logits.clone().requires_grad_()
    plain = kind(leaf, target, num_classes=3, ignore_index=255, class_weights=w)
    (slope,) = torch.autograd.grad(plain, leaf)
    assert value == float(plain) and torch.equal(gradient, slope)


def test_a_prediction_that_is_not_finite_is_no_nothing() -> None:
    logits = torch.full((1, 3, 2, 2), float("nan"))
    assert torch.isnan(Loss(cross_entropy, 3, 255)(logits, torch.zeros(1, 2, 2, dtype=torch.uint8)))


@pytest.mark.parametrize("weights", [None, [0.5, 0.0, 3.0]])
def test_each_image_has_the_loss_that_it_has_alone(
    weights: list[float] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(4, 3, 4, 5, generator=generator)
    target = torch.randint(0, 3, (4, 4, 5), generator=generator, dtype=torch.uint8)
    target[1] = 255  # nothing is labelled
    target[2] = 1  # with weights nothing counts
    loss = Loss(cross_entropy, 3, 255, None if weights is None else torch.tensor(weights))
    alone = [float(loss(logits[i : i + 1], target[i : i + 1])) for i in (0, 2, 3)]
    here = loss.of_each_image(logits, target)
    assert here[[0, 2, 3]].tolist() == alone and here[1].isnan()
    assert (here[2] == 0) == (weights is not None)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True, raising=False)
    torch.testing.assert_close(loss.of_each_image(logits, target), here, rtol=1e-5, atol=1e-6, equal_nan=True)


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


@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 2.0]])
def test_a_multilabel_loss_judges_each_class_by_its_sigmoid(weights: list[float] | None) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 3, 4, 5, generator=generator)
    target = torch.randint(0, 8, (2, 4, 5), generator=generator, dtype=torch.uint8)
    target[0, 0, :3] = 255
    counts = target.numpy() != 255
    p = 1 / (1 + np.exp(-logits.numpy().astype(float)))
    bits = np.stack([target.numpy() >> label & 1 for label in range(3)], axis=1)
    w = np.ones(3) if weights is None else np.array(weights)
    entropy = [-np.log(np.where(bits[:, c], p[:, c], 1 - p[:, c]))[counts].mean() for c in range(3)]
    overlap = [2 * (p * bits)[:, c][counts].sum() / (p + bits)[:, c][counts].sum() for c in range(3)]
    expected = {cross_entropy: w @ entropy / w.sum(), dice: 1 - w @ overlap / w.sum()}
    expected[cross_entropy_dice] = expected[cross_entropy] + expected[dice]
    given = None if weights is None else torch.tensor(weights)
    for function, value in expected.items():
        loss = Loss(multilabel_loss(function), 3, 255, given, multilabel=True)
        assert float(loss(logits, target)) == pytest.approx(value, rel=1e-5)
        ignored = torch.full_like(target, 255)
        for nothing, masks in ((loss, ignored), (replace(loss, class_weights=torch.zeros(3)), target)):
            zero, gradient = computed(nothing, logits, masks)
            assert zero == 0 and not gradient.any() and not nothing.counts(masks).any()
    with pytest.raises(StudyError, match="this loss knows one class a pixel"):
        multilabel_loss(focal)
