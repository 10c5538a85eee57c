"""Layers of any network replaced or removed by the pattern of their names, to ablate a model as it is."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

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
            near = nearest(pattern, names)
            cure = near if near.startswith("did you mean") else f"the layers are {', '.join(_outermost(names))}"
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


def _outermost(names: list[str]) -> list[str]:
    """Return the first eight names of the fewest parts."""
    return sorted(names, key=lambda name: name.count("."))[:8]
