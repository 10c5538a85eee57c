"""Normalisation by name, blocks and the gate against their formulas written out, the hooks on gates and skips."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.models import parameters
from ablate.models import unet as unet_module
from ablate.models.layers import (
    AttentionGate,
    ConvBlock,
    ResidualBlock,
    detached_skips,
    double,
    gates,
    hooked_gates,
    normalisation,
)


@pytest.mark.parametrize(("channels", "groups"), [(4, 1), (8, 2), (24, 2), (64, 16), (128, 32), (512, 32)])
def test_group_norm_has_four_channels_a_group_and_32_groups_at_most(channels: int, groups: int) -> None:
    assert normalisation("group", channels).num_groups == groups


@pytest.mark.parametrize("kind", ["batch", "group", "instance"])
def test_normalisations_have_scale_and_shift_and_make_biases_idle(kind: Any) -> None:
    assert [p.shape for p in normalisation(kind, 8).parameters()] == [(8,), (8,)]
    assert ConvBlock(3, 8, kind).conv1.bias is None


def test_without_normalisation_convolutions_have_biases() -> None:
    assert ConvBlock(3, 8, "none").conv2.bias is not None
    assert isinstance(ConvBlock(3, 8, "none").norm1, nn.Identity)


def test_residual_block_adds_its_projection_before_the_last_relu() -> None:
    torch.manual_seed(0)
    block: Any = ResidualBlock(3, 4, "none")
    x = torch.randn(2, 3, 5, 6)
    inner = F.conv2d(x, block.conv1.weight, block.conv1.bias, padding=1).clamp(min=0)
    body = F.conv2d(inner, block.conv2.weight, block.conv2.bias, padding=1)
    projection = block.projection[0]
    shortcut = torch.einsum("oc,nchw->nohw", projection.weight[:, :, 0, 0], x) + projection.bias.view(1, -1, 1, 1)
    torch.testing.assert_close(block(x), (body + shortcut).clamp(min=0))


def test_residual_block_without_change_of_channels_passes_its_input() -> None:
    block: Any = ResidualBlock(4, 4, "none")
    nn.init.zeros_(block.conv2.weight)
    nn.init.zeros_(block.conv2.bias)
    x = torch.rand(1, 4, 5, 5)
    assert torch.equal(block(x), x)


# Typed freely: a test takes any part of a model by its name.
unet: Any = unet_module.unet


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("shape", [(4, 6), (5, 7), (1, 1), (1, 8)])
def test_double_is_bilinear_interpolation(shape: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *shape)
    expected = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(double(double(x, 2), 3), expected)


@pytest.mark.parametrize("size", [(8, 12), (9, 11)])
def test_gate_is_the_formula_of_the_paper(size: tuple[int, int]) -> None:
    gate: Any = AttentionGate(6, 10)
    x = torch.randn(2, 6, *size)
    g = torch.randn(2, 10, (size[0] + 1) // 2, (size[1] + 1) // 2)
    at_x = torch.einsum("fc,nchw->nfhw", gate.w_x.weight[:, :, 0, 0], x[:, :, ::2, ::2])
    at_g = torch.einsum("fc,nchw->nfhw", gate.w_g.weight[:, :, 0, 0], g) + gate.w_g.bias.view(1, -1, 1, 1)
    logit = torch.einsum("f,nfhw->nhw", gate.psi.weight[0, :, 0, 0], (at_x + at_g).clamp(min=0)) + gate.psi.bias
    alpha = F.interpolate(1 / (1 + torch.exp(-logit))[:, None], scale_factor=2, mode="bilinear")
    torch.testing.assert_close(gate(x, g), x * alpha[:, :, : size[0], : size[1]])


def test_gate_starts_open_and_has_as_many_parameters_as_it_says() -> None:
    gate = AttentionGate(64, 128)
    assert parameters(gate) == 64 * 32 + 128 * 32 + 32 + 32 + 1
    alphas: list[Tensor] = []
    with hooked_gates(gate, lambda _gate, alpha: alphas.append(alpha)):
        gate(torch.randn(2, 64, 16, 16), torch.randn(2, 128, 8, 8))
    assert alphas[0].shape == (2, 1, 16, 16)
    assert alphas[0].min() > 0.8


def test_gates_are_found_by_path_and_replaced() -> None:
    model = unet(in_channels=3, num_classes=2, width=4, depth=3, skip="attention").eval()
    assert list(gates(model)) == ["decoder.1.gate", "decoder.2.gate"]
    image = torch.randn(1, 3, 16, 16)
    plain = model(image)
    with hooked_gates(model, lambda gate, alpha: torch.ones_like(alpha) if gate == "decoder.1.gate" else None):
        opened = model(image)
    model.decoder[1].gate.psi.bias.data.fill_(100.0)  # σ = 1
    assert torch.equal(opened, model(image))
    assert not torch.equal(opened, plain)


def test_detached_skips_keep_the_values_and_cut_the_gradient() -> None:
    model = unet(in_channels=3, num_classes=2, width=4, depth=1)
    image = torch.randn(2, 3, 8, 8)
    torch.nn.init.zeros_(model.decoder[0].up.weight)  # nothing comes through the bottleneck
    plain = model(image)
    with detached_skips(model):
        detached = model(image)
    assert torch.equal(plain, detached)
    weight = model.encoder[0].conv1.weight
    assert torch.autograd.grad(plain.square().sum(), weight)[0].abs().max() > 0
    assert torch.autograd.grad(detached.square().sum(), weight)[0].abs().max() == 0


def test_hooks_are_gone_afterwards_even_after_an_error() -> None:
    model = unet(in_channels=3, num_classes=2, width=2, depth=2, skip="attention")
    with pytest.raises(ZeroDivisionError), detached_skips(model), hooked_gates(model, lambda _gate, _alpha: None):
        raise ZeroDivisionError
    assert not any(module._forward_hooks for module in model.modules())
