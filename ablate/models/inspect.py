"""The make, the outputs and the cost of a model before it runs: parameters, FLOPs, module tree, outputs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

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
