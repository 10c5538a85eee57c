"""A network changed after it was built: layers replaced or removed by the pattern of their names, weights set anew."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from ablate.errors import StudyError, nearest


class PassThrough(nn.Module):
    """Return one of its inputs, in the order of the call: the last (the features of a gate), or that of a number."""

    def __init__(self, place: int = -1) -> None:
        super().__init__()
        self.place = place

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Return the chosen input."""
        return [*inputs, *named.values()][self.place]

    def extra_repr(self) -> str:
        """Return which input is passed on."""
        return "the last input" if self.place < 0 else f"input {self.place}"


def replace_layers(model: nn.Module, rules: Mapping[str, str | int]) -> dict[str, list[str]]:
    """Replace the layers of `model` whose names match, in place, and return the names by pattern.

    A pattern such as "model.*.attention" is matched against `named_modules()`, `*` standing for any text. A layer is
    replaced by "identity", its last input; by the input of a number; or "removed" from its `nn.Sequential`. What lies
    inside a replaced layer is gone with it. Raises `StudyError` for a pattern without a match, and for a layer that
    cannot be removed.
    """
    found: dict[str, list[str]] = {}
    names = [name for name, _ in model.named_modules() if name]
    for pattern, rule in rules.items():
        matched = [name for name in names if fnmatchcase(name, pattern)]
        # Of layers inside one another the outer one is replaced.
        matched = [name for name in matched if not any(name.startswith(f"{other}.") for other in matched)]
        if not matched:
            cure = nearest(pattern, names)
            if not cure.startswith("did you mean"):  # the first eight names of the fewest parts
                cure = f"the layers are {', '.join(sorted(names, key=lambda name: name.count('.'))[:8])}"
            raise StudyError(f"'{pattern}' matches no layer of the network", key=f"replace.{pattern}", cure=cure)
        for name in reversed(matched):  # the last first: removal moves the numbers of those that follow
            above, _, own = name.rpartition(".")
            holder = model.get_submodule(above)
            if rule != "removed":
                setattr(holder, own, PassThrough() if rule == "identity" else PassThrough(int(rule)))
            elif isinstance(holder, nn.Sequential):
                del holder[int(own) if own.isdecimal() else [name for name, _ in holder.named_children()].index(own)]
            else:
                message = f"'{name}' stands in no nn.Sequential, so that it cannot be removed"
                raise StudyError(message, key=f"replace.{pattern}", cure="write identity")
        found[pattern] = matched
    return found


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
