"""Any network: its outputs, cost and module tree before it runs; its layers replaced by name, its weights set anew."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ablate.errors import StudyError, nearest

T = TypeVar("T")


def outputs(given: Any) -> list[Tensor]:
    """Return what a model gave as a list, the logits that are scored first and auxiliary ones behind them.

    A tensor, a list or tuple that begins with the main one, or a mapping with "main". Raises `ValueError` for another.
    """
    if isinstance(given, Tensor):
        return [given]
    if isinstance(given, Mapping) and "main" in given:
        given = [given["main"], *(value for name, value in given.items() if name != "main")]
    if isinstance(given, list | tuple) and given:
        main, *others = given
        flat = [main]
        for other in others:
            flat += other if isinstance(other, list | tuple) else [other]
        if all(isinstance(part, Tensor) for part in flat):
            return flat
    wanted = "expected logits, a list that begins with them, or a dict with 'main'"
    raise ValueError(f"{wanted}, got a {type(given).__name__}")


def parameters(model: nn.Module) -> int:
    """Return the number of parameters, shared ones counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


def forward_flops(model: nn.Module | Callable[[], nn.Module], size: tuple[int, int], in_channels: int) -> int:
    """Return the FLOPs of one image's forward pass at `size` (H, W), two for a multiply-add.

    Counted as `torch.utils.flop_counter` does: convolutions and matrix products; normalisation, activations, pooling
    and interpolation are left out.

    `model` is a module, which is left as it is, or a factory without arguments. The pass runs on the meta device,
    without memory or arithmetic; a model that needs real numbers to run is given them on the CPU.
    """

    @torch.no_grad()
    def counted(device: torch.device) -> int:
        if isinstance(model, nn.Module):
            probe = copy.deepcopy(model).to(device)
        else:
            with device:
                probe = model()
        probe.eval()
        with FlopCounterMode(display=False) as counter:
            probe(torch.zeros(1, in_channels, *size, device=device))
        return counter.get_total_flops()

    return on_meta(counted)


def on_meta(attempt: Callable[[torch.device], T]) -> T:
    """Return what `attempt` gives on the meta device, or on the CPU where it needs numbers; random states are kept."""
    with torch.random.fork_rng(devices=[]):
        try:
            return attempt(torch.device("meta"))
        except (NotImplementedError, RuntimeError):
            return attempt(torch.device("cpu"))


def module_tree(model: nn.Module) -> list[str]:
    """Return every module as "path: Type(settings)", and every parameter that a module outside `torch.nn` holds itself.

    The settings are those that the module's `repr` shows. Dropped here is only what registers no module.
    """
    lines = []
    for path, module in model.named_modules(remove_duplicate=False):
        lines.append(f"{path or '.'}: {type(module).__name__}({module.extra_repr()})")
        if not type(module).__module__.startswith("torch.nn."):
            lines.extend(
                f"{path}.{name}: Parameter{tuple(parameter.shape)}".lstrip(".")
                for name, parameter in module.named_parameters(recurse=False)
            )
    return lines


def compare_trees(baseline: list[str], other: list[str]) -> tuple[list[str], list[str]]:
    """Return what `other` has beyond `baseline` and what it lacks: (added, removed), each in the order of its tree.

    A module with other settings is in both lists.
    """
    ours, theirs = set(baseline), set(other)
    return [line for line in other if line not in ours], [line for line in baseline if line not in theirs]


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
    layers = {name: layer for name, layer in model.named_modules(remove_duplicate=False) if name}
    for pattern, rule in rules.items():
        matched = [name for name in layers if fnmatchcase(name, pattern)]
        # Of layers inside one another the outer one is replaced.
        matched = [name for name in matched if not any(name.startswith(f"{other}.") for other in matched)]
        if not matched:
            cure = _meant(pattern, layers)
            raise StudyError(f"'{pattern}' matches no layer of the network", key=f"replace.{pattern}", cure=cure)
        places: dict[tuple[int, str], tuple[str, nn.Module]] = {}  # a layer of several names lies in one place, once
        for name in reversed(matched):  # the last first: removal moves the numbers of those that follow
            holder = model.get_submodule(name.rpartition(".")[0])
            places.setdefault((id(holder), name.rpartition(".")[2]), (name, holder))
        for (_, own), (name, holder) in places.items():
            if rule != "removed":
                setattr(holder, own, PassThrough() if rule == "identity" else PassThrough(int(rule)))
            elif isinstance(holder, nn.Sequential):
                del holder[int(own) if own.isdecimal() else [name for name, _ in holder.named_children()].index(own)]
            else:
                message = f"'{name}' stands in no nn.Sequential, so that it cannot be removed"
                raise StudyError(message, key=f"replace.{pattern}", cure="write identity")
        found[pattern] = matched
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise StudyError("of this network nothing is left to train", key="replace", cure="replace fewer layers")
    return found


def _meant(pattern: str, layers: Mapping[str, nn.Module]) -> str:
    """Return the cure for a pattern that matches none of `layers`, which are by name.

    The layers of the type that it names; else what ends in a name that comes near its own; else the layers of a type
    of which its own is a part; else the names of the fewest parts.
    """
    above, _, last = pattern.rpartition(".")
    word = last.strip("*").lower()
    kinds = {name: type(layer).__name__ for name, layer in layers.items()}
    of_type = [name for name, kind in kinds.items() if kind.lower() == word]
    near = nearest(pattern, layers)
    is_near = near.startswith("did you mean")
    if not of_type:
        ends = {name.rpartition(".")[2] for name in layers}
        for close in difflib.get_close_matches(word, sorted(ends), n=1, cutoff=0.6):
            if is_near and above and "*" not in pattern:
                return near
            tried = [f"{above}.{close}" if above else close, f"*.{close}", close]
            return f"did you mean '{next(one for one in tried if any(fnmatchcase(name, one) for name in layers))}'?"
        of_type = [name for name, kind in kinds.items() if len(word) > 3 and word in kind.lower()]
    if of_type:
        named = f"{', '.join(of_type[:4])}{', ...' * (len(of_type) > 4)}"
        return f"layers go by their names, not by their type; those of {kinds[of_type[0]]} are {named}"
    return near if is_near else f"the layers are {', '.join(sorted(layers, key=lambda name: name.count('.'))[:8])}"


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
