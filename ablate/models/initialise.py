"""New weights for a model: those of a freshly built one, or drawn again by its own modules."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


@torch.no_grad()
def drawn_again(model: nn.Module) -> nn.Module | None:
    """Return a copy of `model` on the CPU with every parameter drawn again by the `reset_parameters` of its modules.

    With torch's global generator, as constructing the layers in float32 on the CPU draws them. None where a parameter
    is set by none of its modules, such as one that a module without the method holds itself.
    """
    # A generator fills memory in order: another layout would get other values.
    fresh = copy.deepcopy(model).to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    for parameter in fresh.parameters():
        parameter.fill_(torch.nan)  # which nothing draws: what keeps it was not set
    fresh.apply(lambda module: getattr(module, "reset_parameters", lambda: None)())
    return None if any(parameter.isnan().any() for parameter in fresh.parameters()) else fresh


@torch.no_grad()
def copy_weights(source: nn.Module, into: nn.Module) -> None:
    """Copy every parameter and buffer of `source` in place into `into`, a model of the same make on any device.

    With a freshly built `source` this initialises any model whatsoever exactly as its constructor does.
    Raises `ValueError`, before anything is written, where names or shapes differ.
    """
    state, target = weights(source), weights(into)
    differing = sorted(
        name for name in state.keys() | target.keys()
        if name not in state or name not in target or state[name].shape != target[name].shape
    )  # fmt: skip
    if differing:
        raise ValueError(f"the two models differ in {', '.join(differing)}")
    for name, tensor in target.items():
        tensor.copy_(state[name])


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Return all parameters and buffers by name, also the buffers that a state dict leaves out."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
