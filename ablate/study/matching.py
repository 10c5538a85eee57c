"""Variants made as large as another one: the setting of a model at which parameters or FLOPs match."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ablate.errors import nearest
from ablate.registry import MODELS
from ablate.study.components import create, signature
from ablate.study.problems import Finding
from ablate.study.spec import MatchSpec
from ablate.study.study import Variant
from ablate.study.trial import with_folder

# Doublings from the setting as it is written, and halvings of a step between two whole numbers.
MOST_DOUBLINGS, HALVINGS = 16, 12


def match_sizes(
    variants: Mapping[str, Variant], wanted: Mapping[str, MatchSpec], data: Mapping[str, Any], base: Path
) -> tuple[dict[str, Variant], list[Finding]]:
    """Return the variants with the settings that `wanted` asks for, and why one cannot be matched.

    The data are loaded, since channels, classes and size decide how large a network is. Whole numbers are tried first;
    where none is within the tolerance and the setting may be a fraction, fractions of the last step.
    """
    from ablate.data.dataset import load_dataset
    from ablate.models import forward_flops, on_meta, parameters

    made, findings = dict(variants), list[Finding]()
    dataset = load_dataset(data["name"], {key: value for key, value in data.items() if key != "name"}, base=base)

    def size_of(model: Mapping[str, Any], by: str) -> int:
        placed = with_folder(model, base)

        def factory() -> Any:
            return create(MODELS, placed, in_channels=dataset.in_channels, num_classes=dataset.num_classes)

        if by == "flops":
            return forward_flops(factory, dataset.size, dataset.in_channels)

        def built(device: Any) -> Any:
            with device:
                return factory()

        return parameters(on_meta(built))

    for name, match in wanted.items():
        path, model = ("variants", name, "match"), variants[name].model
        others = [other for other in variants if other not in wanted]
        takes = signature(MODELS, model["name"]).parameters.get(match.setting)
        if match.to not in others:
            message = f"expected a variant that is matched to no other, got the text '{match.to}'"
            findings.append(Finding((*path, "to"), message, nearest(match.to, others)))
            continue
        if takes is None or not isinstance(model[match.setting], int | float) or isinstance(model[match.setting], bool):
            numbers = [key for key, value in model.items() if type(value) in (int, float)]
            message = f"expected a number among the settings of '{model['name']}', got '{match.setting}'"
            findings.append(Finding((*path, "with"), message, nearest(match.setting, numbers)))
            continue

        def allowed(value: float, takes: Any = takes) -> bool:
            return not takes.check(value, ())[1]

        def size_at(value: float, model: Mapping[str, Any] = model, match: MatchSpec = match) -> int:
            return size_of({**model, match.setting: value}, match.by)

        target = size_of(variants[match.to].model, match.by)
        value, size = nearest_size(target, size_at, allowed, round(model[match.setting]), match.tolerance)
        off = abs(size / target - 1)
        if off > match.tolerance:
            message = f"no {match.setting} has the {target:,} {match.by} of '{match.to}' within {match.tolerance:.1%}: "
            message += f"the nearest, {value:g}, has {size:,} ({size / target - 1:+.1%})"
            findings.append(Finding(path, message, f"write tolerance: {off + 5e-4:.3f}, or match another setting"))
        made[name] = dataclasses.replace(variants[name], model={**model, match.setting: value})
    return made, findings


def nearest_size(
    target: int, size_at: Callable[[float], int], allowed: Callable[[float], bool], start: int, tolerance: float
) -> tuple[float, int]:
    """Return the value whose size is nearest to `target`, and that size; sizes grow with the value."""
    known: dict[float, int] = {}

    def size(value: float) -> int:
        if value not in known:
            known[value] = size_at(value)
        return known[value]

    def best() -> tuple[float, int]:
        return min(known.items(), key=lambda item: abs(item[1] - target))

    low = high = max(1, start)
    for _ in range(MOST_DOUBLINGS):
        if size(low) <= target or low == 1:
            break
        low = max(1, low // 2)
    for _ in range(MOST_DOUBLINGS):
        if size(high) >= target or not allowed(high * 2):
            break
        high *= 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(middle) <= target else (low, middle)
    size(low), size(high)
    fractional = allowed(low + 0.5)
    left, right = float(low), float(high)
    for _ in range(HALVINGS if fractional and high > low else 0):
        if abs(best()[1] / target - 1) <= tolerance:
            break
        half = round((left + right) / 2, 4)
        left, right = (half, right) if size(half) <= target else (left, half)
    return best()
