"""Probes of the live model: known answers, and not a bit disturbed."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.models import unet as unet_module
from ablate.models.layers import SkipConnection
from ablate.train.probes.gradients import lr_headroom, skip_share, update_ratios, weights

# Typed freely: a test takes any part of a model by its name.
unet: Any = unet_module.unet

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adam": lambda p: torch.optim.Adam(p, lr=1e-3),
    "adam with a tensor rate": lambda p: torch.optim.Adam(p, lr=torch.tensor(1e-3), capturable=False, foreach=False),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.1),
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, weight_decay=1e-4),
    "sgd without momentum": lambda p: torch.optim.SGD(p, lr=1e-2),
}


def _net() -> Any:
    torch.manual_seed(0)
    return unet(in_channels=3, num_classes=3, width=4, depth=2, skip="attention", dropout=0.3)


def _batch(seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, 12, 10, generator=generator), torch.randint(0, 3, (2, 12, 10), generator=generator)


def _train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for step in range(steps):
        images, target = _batch(step)
        optimizer.zero_grad()
        F.cross_entropy(model(images), target).backward()
        optimizer.step()


def _bits(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Any]:
    """Everything that a probe could have touched; tensors copied."""
    return copy.deepcopy(
        [
            model.state_dict(),
            [None if p.grad is None else p.grad for p in model.parameters()],
            [module.training for module in model.modules()],
            optimizer.state_dict(),
            torch.get_rng_state(),
        ]
    )


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and a == b


# -- nothing is disturbed ----------------------------------------------------------------------------------


def _probe_all(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    images, target = _batch(9)
    assert lr_headroom(model, optimizer, F.cross_entropy, images, target, clip_norm=1.0) > 0
    assert len(skip_share(model, F.cross_entropy, images, target)) == 4
    assert max(update_ratios(weights(model), model).values()) == 0


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("mode", [True, False])
def test_every_bit_is_put_back_in_its_place(name: str, steps: int, mode: bool) -> None:
    model = _net()
    optimizer = OPTIMIZERS[name](model.parameters())
    _train(model, optimizer, steps)
    model.train(mode)
    model.encoder[0].eval()  # a mode of its own
    before = _bits(model, optimizer)
    places = [p.data_ptr() for p in model.parameters()] + [
        value.data_ptr() for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)
    ]
    gradients = [p.grad for p in model.parameters()]
    _probe_all(model, optimizer)
    assert _equal(_bits(model, optimizer), before)
    assert places == [p.data_ptr() for p in model.parameters()] + [
        value.data_ptr() for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)
    ]
    assert all(p.grad is gradient for p, gradient in zip(model.parameters(), gradients, strict=True))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_to_the_same_bits(name: str) -> None:
    results = []
    for probed in (False, True):
        model = _net()
        optimizer = OPTIMIZERS[name](model.parameters())
        torch.manual_seed(5)
        for _ in range(2):
            if probed:
                _probe_all(model, optimizer)
            _train(model, optimizer, 2)
        results.append(_bits(model, optimizer))
    assert _equal(*results)


def test_everything_is_put_back_after_an_error_as_well() -> None:
    model = _net()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    _train(model, optimizer, 1)
    before = _bits(model, optimizer)
    passes = []

    def breaks(logits: Tensor, target: Tensor) -> Tensor:
        passes.append(1)
        if len(passes) > 3:
            raise ZeroDivisionError
        return F.cross_entropy(logits, target)

    with pytest.raises(ZeroDivisionError):
        lr_headroom(model, optimizer, breaks, *_batch())
    assert _equal(_bits(model, optimizer), before)


# -- update ratios -----------------------------------------------------------------------------------------


def test_update_ratio_is_the_relative_length_of_the_change() -> None:
    model: Any = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2, bias=False))
    before = weights(model)
    assert list(before) == ["0", "2"]
    with torch.no_grad():
        model[0].weight.mul_(1.25)
        model[0].bias.add_(1)
        model[2].weight.add_(model[2].weight.norm() * torch.eye(4)[:2] / math.sqrt(2) * 0.5)
    assert update_ratios(before, model) == pytest.approx({"0": 0.25, "2": 0.5})


def test_update_ratio_of_a_layer_that_was_zero_is_nan() -> None:
    model: Any = nn.Sequential(nn.Linear(2, 2))
    nn.init.zeros_(model[0].weight)
    before = weights(model)
    nn.init.ones_(model[0].weight)
    assert math.isnan(update_ratios(before, model)["0"])


# -- the split of the gradient by path ---------------------------------------------------------------------


@pytest.mark.parametrize("block", ["plain", "residual"])
def test_share_is_exactly_zero_without_skips(block: str) -> None:
    torch.manual_seed(0)
    model = unet(in_channels=3, num_classes=3, width=4, depth=2, skip="none", block=block, dropout=0.3)
    shares = skip_share(model, F.cross_entropy, *_batch())
    assert {"encoder.0.conv1", "encoder.1.conv2"} <= shares.keys()
    assert set(shares.values()) == {0.0}


@pytest.mark.parametrize("skip", ["concat", "attention"])
def test_share_is_exactly_one_with_the_bottleneck_path_zeroed(skip: str) -> None:
    torch.manual_seed(0)
    model = unet(in_channels=3, num_classes=3, width=4, depth=2, skip=skip, dropout=0.3)
    nn.init.zeros_(model.decoder[1].up.weight)
    if skip == "attention":
        nn.init.zeros_(model.decoder[1].gate.w_g.weight)  # the gating signal comes from the bottleneck too
    assert set(skip_share(model, F.cross_entropy, *_batch()).values()) == {1.0}


def test_share_is_between_in_a_live_model_and_the_same_whenever_asked() -> None:
    model = _net()
    shares = skip_share(model, F.cross_entropy, *_batch())
    assert all(0 < share < 1 for share in shares.values())
    assert skip_share(model, F.cross_entropy, *_batch()) == shares


class TwoPaths(nn.Module):
    """y = by_skip·z + deep·z, z = dropout(Wx): gradients that are known multiples of one vector, under one mask."""

    def __init__(self, by_skip: float, deep: float) -> None:
        super().__init__()
        self.encoder = nn.Linear(3, 2, bias=False)
        self.dropout = nn.Dropout(0.5)
        self.skip = SkipConnection()
        self.by_skip, self.deep = by_skip, deep

    def forward(self, x: Tensor) -> Tensor:
        features = self.dropout(self.encoder(x))
        return self.by_skip * self.skip(features) + self.deep * features


@pytest.mark.parametrize(("by_skip", "deep", "share"), [(3, 1, 0.75), (3, -1, 0.75), (-1, 4, 0.2), (0, 0, math.nan)])
def test_share_of_two_known_paths(by_skip: float, deep: float, share: float) -> None:
    shares = skip_share(TwoPaths(by_skip, deep), lambda out, _target: out.sum(), torch.randn(5, 3), torch.zeros(5))
    assert shares == pytest.approx({"encoder": share}, nan_ok=True)


def test_a_model_without_an_encoder_has_no_shares() -> None:
    assert skip_share(nn.Conv2d(3, 3, 1), F.cross_entropy, *_batch()) == {}


def test_share_in_bfloat16_is_near_the_one_in_float32() -> None:
    model = _net()
    full = skip_share(model, F.cross_entropy, *_batch())
    half = skip_share(model, F.cross_entropy, *_batch(), precision=torch.bfloat16)
    assert half != full
    assert half == pytest.approx(full, abs=0.05)
