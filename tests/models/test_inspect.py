"""Parameters and FLOPs against published and hand-computed counts; module trees of variants."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ablate.models import compare_trees, forward_flops, module_tree, parameters
from ablate.models import unet as unet_module
from tests.conftest import missing

# Typed freely: a test takes any part of a model by its name.
unet: Any = unet_module.unet

# Settings, parameters, GFLOP of an image of 360×480 as known from elsewhere (rounded there; None: ours to state).
# The first is the size of a well-known public implementation. Elsewhere sizes are rounded down at each pooling,
# here up, which at 360 rows adds less than half a per cent.
REFERENCES = {
    "unet": ({}, 31_038_348, 253.8),
    "noskip": ({"skip": "none"}, 27_904_908, 202.9),
    "residual": ({"block": "residual"}, 32_437_068, 268.0),
    "attention": ({"skip": "attention"}, 31_555_343, None),
}


def _factory(**settings: object) -> nn.Module:
    return unet(in_channels=3, num_classes=12, **settings)


@pytest.mark.parametrize("name", REFERENCES)
def test_parameters_and_flops_of_the_four_variants(name: str) -> None:
    settings, count, gflop = REFERENCES[name]
    with torch.device("meta"):
        model = _factory(**settings)
    assert parameters(model) == count
    flops = forward_flops(lambda: _factory(**settings), (360, 480), 3)
    assert flops == forward_flops(model, (360, 480), 3)
    if gflop is not None:
        assert flops / 1e9 == pytest.approx(gflop, rel=5e-3)
    else:
        assert flops / 1e9 == pytest.approx(256.35, abs=0.01)


def _by_hand(height: int, width: int, *, round_up: bool) -> int:
    """Two FLOPs a multiply-add of every convolution of the plain U-Net."""
    sizes = [(height, width)]
    for _ in range(4):
        sizes.append(((sizes[-1][0] + round_up) // 2, (sizes[-1][1] + round_up) // 2))
    pixels = [h * w for h, w in sizes]
    channels = [64, 128, 256, 512, 1024]
    multiplies = 9 * 3 * 64 * pixels[0] + 9 * 64 * 64 * pixels[0]
    for level in range(1, 5):
        c = channels[level]
        multiplies += 9 * (c // 2 * c + c * c) * pixels[level]  # encoder or bottleneck
        multiplies += c * (c // 2) * pixels[level] * 4  # transposed convolution, 2×2 from each pixel
        multiplies += 9 * (c * (c // 2) + (c // 2) ** 2) * pixels[level - 1]  # decoder
    return 2 * (multiplies + 64 * 12 * pixels[0])


def test_convention_is_two_flops_a_multiply_add() -> None:
    assert round(_by_hand(360, 480, round_up=False) / 1e9, 1) == 253.8
    assert forward_flops(_factory, (360, 480), 3) == _by_hand(360, 480, round_up=True)
    assert forward_flops(_factory, (64, 96), 3) == _by_hand(64, 96, round_up=False)


def test_counting_touches_neither_the_model_nor_the_generator() -> None:
    model = unet(in_channels=1, num_classes=2, width=2, depth=2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    forward_flops(model, (8, 8), 1)
    forward_flops(lambda: unet(in_channels=1, num_classes=2, width=2), (8, 8), 1)
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


class NeedsNumbers(nn.Module):
    """Branches on a value, which the meta device does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x if x.sum() == 0 else -x)


def test_a_model_that_needs_numbers_is_counted_on_the_cpu() -> None:
    assert forward_flops(NeedsNumbers(), (3, 5), 1) == forward_flops(NeedsNumbers, (3, 5), 1) == 2 * 2 * 15


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3, 1, 1))
        self.layers = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Dropout(0.1))


def test_tree_shows_types_settings_and_own_parameters() -> None:
    assert module_tree(Scaled()) == [
        ".: Scaled()",
        "scale: Parameter(3, 1, 1)",
        "layers: Sequential()",
        "layers.0: Conv2d(3, 2, kernel_size=(1, 1), stride=(1, 1))",
        "layers.1: Dropout(p=0.1, inplace=False)",
    ]


def test_trees_of_variants_differ_only_in_their_component() -> None:
    def tree(**settings: object) -> list[str]:
        return module_tree(unet(in_channels=3, num_classes=2, width=4, depth=2, **settings))

    assert compare_trees(tree(), tree()) == ([], [])
    added, removed = compare_trees(tree(), tree(skip="attention"))
    assert removed == []
    assert all(line.startswith("decoder.1.gate") for line in added)
    added, removed = compare_trees(tree(), tree(skip="none"))
    assert removed == [
        "decoder.0.skip: SkipConnection()",
        "decoder.0.block.conv1: Conv2d(8, 4, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)",
        "decoder.1.skip: SkipConnection()",
        "decoder.1.block.conv1: Conv2d(16, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)",
    ]
    assert added == [
        "decoder.0.block.conv1: Conv2d(4, 4, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)",
        "decoder.1.block.conv1: Conv2d(8, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)",
    ]
    added, removed = compare_trees(tree(), tree(block="residual"))
    assert all("Block(" in line for line in removed)
    assert all("ResidualBlock(" in line or "projection" in line for line in added)


def test_monai_networks_are_counted_as_a_plugin_would_bring_them() -> None:
    try:
        from monai.networks.nets import BasicUNet
    except ImportError:
        missing("monai is not installed")
    model = BasicUNet(spatial_dims=2, in_channels=3, out_channels=4, features=(4, 4, 8, 16, 32, 4))
    assert model(torch.randn(1, 3, 32, 48)).shape == (1, 4, 32, 48)
    assert parameters(model) == sum(p.numel() for p in model.parameters())
    first = 2 * 9 * 3 * 4 * 32 * 48
    assert forward_flops(model, (32, 48), 3) > first
    assert any("Conv2d(3, 4" in line for line in module_tree(model))
