"""Weights drawn again or copied equal those of a newly constructed model, or are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from ablate.models import copy_weights, drawn_again, weights
from ablate.models import unet as unet_module

# Typed freely: a test takes any part of a model by its name.
unet: Any = unet_module.unet


def _unet(**settings: object) -> Callable[[], Any]:
    return lambda: unet(in_channels=3, num_classes=4, width=8, depth=2, **settings)


class Mixed(nn.Module):
    """Layers of many kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 5)
        self.recurrent = nn.LSTM(5, 6)
        self.inner = nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.PReLU())
        self.convolution = nn.ConvTranspose1d(6, 40, 3)


FACTORIES = {
    "attention and residual": _unet(skip="attention", block="residual"),
    "group": _unet(norm="group"),
    "instance": _unet(norm="instance"),
    "none": _unet(norm="none", skip="none"),
    "mixed": Mixed,
}


def _built(factory: Callable[[], nn.Module], seed: int) -> Any:
    torch.manual_seed(seed)
    return factory()


def _disturb(model: nn.Module) -> None:
    with torch.no_grad():
        for tensor in weights(model).values():
            tensor.add_(1)


def _assert_equal(model: nn.Module, other: nn.Module) -> None:
    ours, theirs = weights(model), weights(other)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name].cpu(), theirs[name])] == []


@pytest.mark.parametrize("name", FACTORIES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_what_is_drawn_again_equals_a_new_model(name: str, layout: torch.memory_format) -> None:
    factory = FACTORIES[name]
    model = _built(factory, 1).to(memory_format=layout)
    _disturb(model)
    before = {name: tensor.clone() for name, tensor in weights(model).items()}
    torch.manual_seed(2)
    fresh = drawn_again(model)
    after = torch.get_rng_state()
    assert fresh is not None
    _assert_equal(fresh, _built(factory, 2))
    assert torch.equal(after, torch.get_rng_state())
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(model).items())


@pytest.mark.cuda
def test_a_model_on_cuda_gets_the_same_weights() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    factory = FACTORIES["attention and residual"]
    model = _built(factory, 1).to("cuda", memory_format=torch.channels_last)
    torch.manual_seed(2)
    fresh = drawn_again(model)
    assert fresh is not None
    _assert_equal(fresh, _built(factory, 2))


class OwnParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.scale = nn.Parameter(torch.randn(3))


UNKNOWN = {
    "a parameter of its own": OwnParameter,
    "parametrised": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)),
    "a method of another name": lambda: nn.MultiheadAttention(4, 2),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_no_module_can_set_is_not_drawn_again(name: str) -> None:
    assert drawn_again(_built(UNKNOWN[name], 1)) is None


class OwnScheme(nn.Module):
    """Changes its weights in the constructor: no `reset_parameters` knows of it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.position = nn.Parameter(torch.randn(2))
        self.register_buffer("grid", torch.arange(3.0), persistent=False)
        nn.init.orthogonal_(self.layer.weight)


def test_copying_a_new_model_initialises_any_model() -> None:
    model = _built(OwnScheme, 1)
    _disturb(model)
    place = model.position.data_ptr()
    copy_weights(_built(OwnScheme, 2), model)
    _assert_equal(model, _built(OwnScheme, 2))
    assert model.position.data_ptr() == place


def test_copying_refuses_a_model_of_another_make_before_it_writes() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 4))
    before = {name: tensor.clone() for name, tensor in weights(model).items()}
    with pytest.raises(ValueError, match=r"1\.bias, 1\.weight"):
        copy_weights(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 5)), model)
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(model).items())
