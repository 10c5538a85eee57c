"""Fused kernels against the plain operations that they stand for, values and gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ablate.models.layers import norm_relu, skip_and_pool, upsample_concat
from ablate.train import losses
from ablate.train.engine import fused as functions

pytestmark = pytest.mark.usefixtures("kernels")

# Channels below, at and above a tile of the kernels, powers of two and not; odd sizes; more pixels than a run of sums.
SHAPES = [(2, 3, 5, 7), (4, 8, 64, 96), (2, 11, 9, 12), (3, 16, 33, 50), (2, 64, 6, 8), (1, 100, 3, 5), (2, 256, 4, 4)]
TYPES = [torch.float32, torch.bfloat16]


def features(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0, mean: float = 0.0) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + mean
    return values.to(dtype).contiguous(memory_format=torch.channels_last)


def batch_norm(channels: int, seed: int = 9) -> Any:
    norm: Any = nn.BatchNorm2d(channels)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            tensor.copy_(torch.randn(channels, generator=generator))
        norm.running_var.copy_(torch.rand(channels, generator=generator) + 0.5)
    return norm


def gradients(
    function: Callable[..., Tensor], norm: nn.BatchNorm2d, inputs: list[Tensor], outer: Tensor
) -> list[Tensor]:
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    y = function(norm, *leaves)
    y.backward(outer)
    return [y.detach(), *(leaf.grad for leaf in leaves), norm.weight.grad, norm.bias.grad]  # type: ignore[list-item]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("with_shortcut", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_norm_and_relu_in_float32(shape: tuple[int, ...], with_shortcut: bool, training: bool) -> None:
    inputs = [features(shape, torch.float32, 1, mean=3.0)]
    inputs += [features(shape, torch.float32, 2)] * with_shortcut
    plain = batch_norm(shape[1]).train(training)
    fused = copy.deepcopy(plain)
    outer = features(shape, torch.float32, 3)
    # Computed once more in float64, so that the tolerance is that of float32 and not of two of them.
    exact = copy.deepcopy(plain).double()
    wanted = gradients(norm_relu, exact, [tensor.double() for tensor in inputs], outer.double())
    got = gradients(functions.fused_norm_relu, fused, inputs, outer)
    for ours, theirs in zip(got, wanted, strict=True):
        scale = float(theirs.abs().max()) + 1e-3
        torch.testing.assert_close(ours.double() / scale, theirs / scale, rtol=0, atol=3e-6)
    torch.testing.assert_close(fused.running_mean.double(), exact.running_mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(fused.running_var.double(), exact.running_var, rtol=1e-6, atol=1e-6)
    assert int(fused.num_batches_tracked) == int(training)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_norm_alone(shape: tuple[int, ...], dtype: torch.dtype, training: bool) -> None:
    x, outer = features(shape, dtype, 1, mean=1.0), features(shape, dtype, 3)
    norm = batch_norm(shape[1]).train(training)
    exact = copy.deepcopy(norm).double()
    wanted = gradients(nn.BatchNorm2d.forward, exact, [x.double()], outer.double())
    got = gradients(functions.fused_norm, norm, [x], outer)
    assert float(got[0].min()) < 0
    for ours, theirs in zip(got, wanted, strict=True):
        assert float((ours.double() - theirs).norm() / theirs.norm()) < (1e-5 if dtype == torch.float32 else 5e-3)
    torch.testing.assert_close(norm.running_var.double(), exact.running_var, rtol=1e-6, atol=1e-6)
    assert int(norm.num_batches_tracked) == int(training)


@pytest.mark.parametrize("with_shortcut", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_norm_and_relu_in_bfloat16_round_once(shape: tuple[int, ...], with_shortcut: bool) -> None:
    inputs = [features(shape, torch.bfloat16, 1)] + [features(shape, torch.bfloat16, 2)] * with_shortcut
    outer = features(shape, torch.bfloat16, 3)
    norm = batch_norm(shape[1])
    y = functions.fused_norm_relu(norm, *inputs)
    exact = norm_relu(batch_norm(shape[1]).double(), *(tensor.double() for tensor in inputs))
    # Half a unit in the last of 8 bits, and float32's own rounding beside it.
    torch.testing.assert_close(y.double(), exact, rtol=2**-8 + 1e-5, atol=1e-5)
    got = gradients(functions.fused_norm_relu, batch_norm(shape[1]), inputs, outer)
    wanted = gradients(norm_relu, batch_norm(shape[1]).double(), [t.double() for t in inputs], outer.double())
    for ours, theirs in zip(got, wanted, strict=True):
        assert float((ours.double() - theirs).norm() / theirs.norm()) < 0.005


def test_a_mean_far_from_zero_does_not_cancel_the_variance_away() -> None:
    x = features((4, 8, 32, 32), torch.float32, mean=1000.0)
    norm = nn.BatchNorm2d(8)
    y = functions.fused_norm_relu(norm, x)
    exact = norm_relu(nn.BatchNorm2d(8).double(), x.double())
    assert float((y.double() - exact).detach().abs().max()) < 5e-4


def test_what_is_not_finite_stays_so() -> None:
    x = features((2, 4, 8, 8), torch.float32)
    x[0, 1, 2, 3] = torch.nan
    y = functions.fused_norm_relu(batch_norm(4), x)
    assert torch.equal(y.isnan().any(dim=(0, 2, 3)), torch.tensor([False, True, False, False]))
    assert functions.fused_skip_and_pool(x)[1].isnan().sum() == 1


def test_norms_of_other_kinds_are_computed_as_they_are() -> None:
    x = features((2, 8, 6, 6), torch.float32)
    for norm in (nn.GroupNorm(2, 8), nn.Identity(), nn.BatchNorm2d(8, affine=False), nn.BatchNorm2d(8, momentum=None)):
        assert torch.equal(functions.fused_norm_relu(copy.deepcopy(norm), x), norm_relu(norm, x))
    for function in (functions.fused_norm_relu, functions.fused_norm):
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            function(nn.BatchNorm2d(8), features((1, 8, 1, 1), torch.float32))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [*SHAPES, (2, 32, 1, 1), (1, 4, 1, 6), (2, 8, 7, 1)])
def test_pooling_equals_the_plain_one_bit_for_bit(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    # Few levels, so that there are equal values in a window: the first of them gets the gradient.
    x = (features(shape, torch.float32) * 2).round().to(dtype)
    results = []
    for function in (skip_and_pool, functions.fused_skip_and_pool):
        leaf: Any = x.clone().requires_grad_()
        skip, maxima = function(leaf)
        # Whole numbers, whose sum has no rounding.
        outer, other = (features(tuple(m.shape), dtype, seed).round() for m, seed in ((maxima, 5), (skip, 6)))
        torch.autograd.backward([maxima, skip], [outer, other])
        alone: Any = x.clone().requires_grad_()
        function(alone)[1].backward(outer)
        results.append([skip.detach(), maxima.detach(), leaf.grad, alone.grad])
    for ours, theirs in zip(results[1], results[0], strict=True):
        assert torch.equal(ours, theirs)


def test_a_skip_without_its_pooled_maxima_has_its_own_gradient() -> None:
    x: Any = features((1, 8, 4, 4), torch.float32).requires_grad_()
    functions.fused_skip_and_pool(x)[0].sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))


# Coarse channels, channels, size, channels of the skip: alike and not, whole vectors and not, odd sizes.
UPSAMPLED = [
    (32, 16, (12, 20), 16),
    (6, 3, (7, 9), 3),
    (40, 20, (5, 6), 7),
    (16, 8, (2, 3), None),
    (64, 32, (9, 8), 32),
]


def upsample_gradients(
    function: Callable[..., Tensor], up: nn.Module, coarse: Tensor, size: tuple[int, int], skip: Tensor | None
) -> list[Tensor]:
    leaves = [coarse.clone().requires_grad_(), *([] if skip is None else [skip.clone().requires_grad_()])]
    y = function(up, leaves[0], size, *leaves[1:])
    y.backward(features(tuple(y.shape), torch.float32, 3).to(y.dtype))
    found = [y.detach(), *(leaf.grad for leaf in leaves), *(weight.grad for weight in up.parameters())]
    return [tensor for tensor in found if tensor is not None]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("inner", "channels", "size", "beside"), UPSAMPLED)
def test_what_is_upsampled_beside_a_skip(
    inner: int, channels: int, size: tuple[int, int], beside: int | None, dtype: torch.dtype
) -> None:
    torch.manual_seed(4)
    up: Any = nn.ConvTranspose2d(inner, channels, 2, stride=2)
    up = up.to(memory_format=torch.channels_last)
    exact = copy.deepcopy(up).double()
    coarse = features((2, inner, -(-size[0] // 2), -(-size[1] // 2)), dtype, 1)
    skip = None if beside is None else features((2, beside, *size), dtype, 2)
    wanted = upsample_gradients(upsample_concat, exact, coarse.double(), size, None if skip is None else skip.double())
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        got = upsample_gradients(functions.fused_upsample_concat, up, coarse, size, skip)
    assert len(got) == len(wanted) and got[0].grad_fn is None and got[0].dtype == dtype
    assert got[-2].stride() == up.weight.stride() and got[-2].dtype == torch.float32
    for ours, theirs in zip(got, wanted, strict=True):
        error = float((ours.double() - theirs).norm() / theirs.norm())
        assert error < (2e-6 if dtype == torch.float32 else 6e-3)


def test_what_is_upsampled_otherwise_is_computed_as_it_is() -> None:
    coarse, skip = features((1, 8, 3, 3), torch.float32), features((1, 4, 6, 6), torch.float32, 1)
    for up, size in (
        (nn.ConvTranspose2d(8, 4, 4, stride=2, padding=1), (6, 6)),
        (nn.ConvTranspose2d(8, 4, 2, stride=2, bias=False), (6, 6)),
        (nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(8, 4, 1)), (6, 6)),
        (nn.ConvTranspose2d(8, 4, 2, stride=2), (4, 4)),  # cut further than a window
    ):
        fine = skip[:, :, : size[0], : size[1]]
        assert torch.equal(
            functions.fused_upsample_concat(up, coarse, size, fine), upsample_concat(up, coarse, size, fine)
        )


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(2, 11, 13, 17), (1, 2, 4, 5), (3, 19, 32, 32), (1, 200, 5, 5)])
def test_cross_entropy(shape: tuple[int, ...], dtype: torch.dtype, weighted: bool) -> None:
    logits = features(shape, dtype) * 4
    target = torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=torch.Generator().manual_seed(1))
    target = target.to(torch.uint8)
    target[:, 0] = 255
    weights = torch.rand(shape[1], generator=torch.Generator().manual_seed(2)) if weighted else None
    settings: dict[str, Any] = {"num_classes": shape[1], "ignore_index": 255, "class_weights": weights}
    found = []
    for function, given in ((losses.cross_entropy, logits.double()), (functions.fused_cross_entropy, logits)):
        leaf: Any = given.clone().requires_grad_()
        loss = function(leaf, target, **settings)
        (3 * loss).backward()
        found.append((loss.detach().double(), leaf.grad.double()))
    (wanted, slope), (got, ours) = found
    torch.testing.assert_close(got, wanted, rtol=2e-6, atol=0)
    tolerance = 1e-6 if dtype == torch.float32 else 2**-7
    torch.testing.assert_close(ours, slope, rtol=tolerance, atol=float(slope.abs().max()) * 1e-6)
    assert bool((ours[:, :, 0] == 0).all())


def test_cross_entropy_of_extreme_logits_and_of_none() -> None:
    target = torch.zeros(1, 2, 2, dtype=torch.uint8)
    settings: dict[str, Any] = {"num_classes": 2, "ignore_index": 255}
    for value in (1e4, torch.inf, torch.nan):
        logits = torch.zeros(1, 2, 2, 2)
        logits[0, 1, 0, 0] = value
        wanted = losses.cross_entropy(logits, target, **settings)
        got = functions.fused_cross_entropy(logits.requires_grad_(), target, **settings)
        torch.testing.assert_close(got.detach(), wanted, equal_nan=True)
    ignored = torch.full_like(target, 255)
    assert functions.fused_cross_entropy(torch.zeros(1, 2, 2, 2, requires_grad=True), ignored, **settings).isnan()
    with pytest.raises(ValueError, match="neither a class nor ignored"):
        functions.fused_cross_entropy(torch.zeros(1, 2, 2, 2, requires_grad=True), target + 2, **settings)
