"""Giving a living model new weights in place, so that compiled steps and captured graphs survive between trials."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn


class UnknownInitialisation(Exception):
    """A model holds parameters or buffers that none of its modules can set again; the message names them."""


@torch.no_grad()
def initialise(model: nn.Module) -> None:
    """Draw every parameter again and reset every buffer, in place, with torch's global CPU generator.

    After `torch.manual_seed(s)` the result equals, bit for bit and on every device, what constructing the model in
    float32 on the CPU after `torch.manual_seed(s)` gives, wherever the weights are what the modules'
    `reset_parameters` draws, submodules are constructed in the order in which they are registered, and children
    before their parent's own weights. All layers of `torch.nn` with that method keep to it.

    It cannot know what a constructor does to its weights afterwards; for a model that is not known to do nothing,
    build a fresh one and use `copy_weights`.

    Raises `UnknownInitialisation`, and leaves `model` as it was, where a parameter or a buffer is set by no
    `reset_parameters`: own parameters of a module without the method, parametrised weights, constant buffers.
    """
    fresh = copy.deepcopy(model).to("cpu")
    for tensor in (*fresh.parameters(), *fresh.buffers()):
        tensor.data = (
            tensor.data.contiguous()
        )  # a generator fills memory in order: channels_last would get other values
    state = weights(fresh)
    marks = {name: _mark(tensor) for name, tensor in state.items()}
    _reset(fresh, set())
    # What still bears a mark was not written; what was replaced is not known to be reset either.
    now = weights(fresh)
    missed = [name for name, tensor in state.items() if now.get(name) is not tensor or bool(marks[name](tensor))]
    if missed:
        raise UnknownInitialisation(
            f"no reset_parameters() in {type(model).__name__} sets {', '.join(missed)}: build the model afresh"
        )
    copy_weights(fresh, model)


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


def _mark(tensor: Tensor) -> Callable[[Tensor], Tensor]:
    """Fill `tensor` with a value that no initialisation draws; return the test for what is left of it."""
    if tensor.is_floating_point() or tensor.is_complex():
        tensor.fill_(float("nan"))
        return lambda values: values.isnan().any()
    if tensor.dtype == torch.bool:  # has no spare value: nothing that a model draws again is of this type
        return lambda _values: torch.ones((), dtype=torch.bool)
    spare = torch.iinfo(tensor.dtype).max
    tensor.fill_(spare)
    return lambda values: (values == spare).any()


def _reset(module: nn.Module, seen: set[nn.Module]) -> None:
    if module in seen:
        return  # a shared module was constructed once
    seen.add(module)
    for child in module.children():
        _reset(child, seen)
    method = getattr(module, "reset_parameters", None)
    if callable(method):
        method()
