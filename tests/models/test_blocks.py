"""Normalisation by name, and blocks against their formula written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ablate.models.blocks import ConvBlock, ResidualBlock, normalisation


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
