"""The U-Net's switches: shapes at any size, what each switch puts in, that every variant can learn."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from ablate.errors import StudyError
from ablate.models import unet as unet_module
from ablate.models.layers import AttentionGate, ResidualBlock, SkipConnection

# Typed freely: a test takes any part of a model by its name.
unet: Any = unet_module.unet

VARIANTS = {
    "unet": {},
    "noskip": {"skip": "none"},
    "residual": {"block": "residual"},
    "attention": {"skip": "attention"},
    "both": {"skip": "attention", "block": "residual"},
}


@pytest.mark.parametrize(
    ("skip", "block", "norm"),
    list(
        itertools.product(
            ["concat", "none", "attention"], ["plain", "residual"], ["batch", "group", "instance", "none"]
        )
    ),
)
def test_any_combination_keeps_any_size(skip: str, block: str, norm: str) -> None:
    model = unet(in_channels=2, num_classes=5, width=4, depth=3, skip=skip, block=block, norm=norm).eval()
    for size in [(16, 24), (17, 31), (9, 8), (40, 3)]:
        assert model(torch.randn(2, 2, *size)).shape == (2, 5, *size)


def test_one_pixel_is_a_size_too() -> None:
    assert unet(in_channels=1, num_classes=2, width=2).eval()(torch.randn(1, 1, 1, 1)).shape == (1, 2, 1, 1)


def test_coarser_levels_round_up_so_that_no_row_is_lost() -> None:
    model = unet(in_channels=1, num_classes=2, width=2, depth=3)
    sizes = []
    for module in (*model.encoder, model.bottleneck):
        module.register_forward_hook(lambda _module, _inputs, out: sizes.append(tuple(out.shape[-2:])))
    model(torch.randn(2, 1, 37, 53))
    assert sizes == [(37, 53), (19, 27), (10, 14), (5, 7)]


@pytest.mark.parametrize(("skip", "skips", "gates"), [("concat", 4, 0), ("none", 0, 0), ("attention", 4, 3)])
def test_skip_switch(skip: str, skips: int, gates: int) -> None:
    modules = list(unet(in_channels=3, num_classes=2, width=2, skip=skip).modules())
    assert sum(isinstance(module, SkipConnection) for module in modules) == skips
    assert sum(isinstance(module, AttentionGate) for module in modules) == gates


def test_the_finest_skip_is_gated_only_where_asked() -> None:
    assert unet(in_channels=3, num_classes=2, width=2, skip="attention").decoder[0].gate is None
    model = unet(in_channels=3, num_classes=2, width=2, depth=1, skip="attention", gate_finest=True)
    assert isinstance(model.decoder[0].gate, AttentionGate)
    with pytest.raises(StudyError, match=r"model\.depth: .*; take depth 2 or more"):
        unet(in_channels=3, num_classes=2, depth=1, skip="attention")


def test_residual_projects_only_where_channels_change() -> None:
    model = unet(in_channels=3, num_classes=2, width=4, depth=2, skip="none", block="residual")
    assert isinstance(model.encoder[0], ResidualBlock)
    assert isinstance(model.encoder[0].projection, nn.Sequential)
    assert isinstance(model.decoder[0].block.projection, nn.Identity)


def test_without_skips_the_output_depends_on_the_image_through_the_bottleneck_only() -> None:
    image = torch.randn(1, 3, 16, 16)
    for skip, same in [("none", True), ("concat", False)]:
        model = unet(in_channels=3, num_classes=2, width=4, depth=2, skip=skip).eval()
        model.bottleneck.register_forward_hook(lambda _module, _inputs, out: torch.zeros_like(out))
        assert torch.equal(model(image), model(image + 1)) is same


def test_dropout_acts_in_training_only() -> None:
    model = unet(in_channels=3, num_classes=2, width=4, depth=2, norm="group", dropout=0.5)
    image = torch.randn(1, 3, 16, 16)
    assert not torch.equal(model(image), model(image))
    model.eval()
    assert torch.equal(model(image), model(image))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_learns_an_image(variant: str) -> None:
    torch.manual_seed(0)
    model = unet(in_channels=3, num_classes=3, width=8, depth=2, **VARIANTS[variant])
    target = torch.zeros(1, 12, 18, dtype=torch.long)
    target[:, 2:7, 3:9], target[:, 6:, 12] = 1, 2
    image = nn.functional.one_hot(target, 3).permute(0, 3, 1, 2) + 0.3 * torch.randn(1, 3, 12, 18)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(image), target).backward()
        optimizer.step()
    assert (model(image).argmax(1) == target).float().mean() == 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_channels_last_gives_the_same_numbers(variant: str) -> None:
    torch.manual_seed(0)
    model = unet(in_channels=3, num_classes=3, width=8, depth=2, **VARIANTS[variant]).eval()
    image = torch.randn(2, 3, 21, 34)
    plain = model(image)
    last = model.to(memory_format=torch.channels_last)(image.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", ["noskip", "both"])
def test_is_one_graph_for_the_compiler(variant: str) -> None:
    torch.manual_seed(0)
    model = unet(in_channels=3, num_classes=3, width=2, depth=2, **VARIANTS[variant])
    image = torch.randn(2, 3, 13, 18)
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=False)
    assert torch.equal(compiled(image), model(image))
