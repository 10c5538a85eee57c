"""The axes of a study: every level of the grid and of a search, checked as the field that it sets."""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from ablate.errors import nearest
from ablate.registry import AUGMENTATIONS, LOSSES, OPTIMIZERS
from ablate.study.components import Signature, check_named
from ablate.study.problems import Finding, KeyPath, shown, translate
from ablate.study.spec import Component, SearchSpec, TrainSpec
from ablate.study.trial import canonical

MAX_TRIALS = 100_000
# Fields of train that a registered component stands in.
NAMED = {"optimizer": OPTIMIZERS, "loss": LOSSES, "augment": AUGMENTATIONS}


def axis_name(key: str) -> str:
    """Return the one name of an axis: a field of train goes without the "train." that may be written before it."""
    return key.removeprefix("train.")


def train_fields(model: type[BaseModel] = TrainSpec, prefix: str = "") -> list[str]:
    """Return the fields of train by dotted name, those inside `augment` too."""
    names: list[str] = []
    for name, info in model.model_fields.items():
        names.append(prefix + name)
        for inner in models_in(info.annotation):
            names += train_fields(inner, f"{prefix}{name}.") if inner is not Component else []
    return names


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the models that a field of this annotation may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in models_in(part)]


def check_train(values: Mapping[str, Any], path: KeyPath, *, registered: bool) -> tuple[dict[str, Any], list[Finding]]:
    """Return some fields of train as JSON values, no defaults filled in, and what is wrong with them.

    With `registered` the names of optimizer and loss must be known.
    """
    try:
        typed = TrainSpec.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        return {}, translate(error, values, path, _known)
    findings = []
    checked = typed.model_dump(mode="json", exclude_unset=True)
    for key, registry in NAMED.items():
        component = checked.get(key)
        if registered and (isinstance(component, str) or (isinstance(component, dict) and "name" in component)):
            short, found = check_named(registry, component, (*path, key))
            findings += found
            # An augmentation stays a mapping: the name alone could not be told from a text that is none.
            checked[key] = {"name": short} if key == "augment" and isinstance(short, str) else short
    return checked, findings


def _known(path: KeyPath) -> list[str]:
    prefix = "".join(f"{part}." for part in path)
    return list(
        dict.fromkeys(name.removeprefix(prefix).split(".")[0] for name in train_fields() if name.startswith(prefix))
    )


def check_level(
    axis: str, value: Any, path: KeyPath, models: Sequence[Signature], *, registered: bool
) -> tuple[Any, list[Finding]]:
    """Return a level of `axis` as JSON value, and what is wrong with it as that field."""
    if axis.startswith("model."):
        setting = axis.removeprefix("model.")
        found: list[Finding] = []
        for takes in models:
            if setting in takes.parameters:
                value, wrong = takes.parameters[setting].check(value, path)
                found += wrong
                if wrong:
                    break
        return value, found
    head, _, rest = axis.partition(".")
    values, findings = check_train({head: {rest: value} if rest else value}, (), registered=registered)
    if findings:
        depth = 2 if rest else 1
        return None, [Finding((*path, *item.path[depth:]), item.message, item.cure) for item in findings]
    return (values[head][rest] if rest else values[head]), []


def check_axis(axis: str, path: KeyPath, models: Sequence[Signature], *, structural: bool) -> list[Finding]:
    """Return what is wrong with the name of an axis."""
    if axis.startswith("model."):
        setting = axis.removeprefix("model.")
        lacking = next((takes for takes in models if setting not in takes.parameters), None)
        if structural or lacking is None:
            return []
        message = f"expected a setting of the model '{lacking.name}', got an unknown one"
        return [Finding(path, message, nearest(axis, [f"model.{name}" for name in lacking.parameters]))]
    fields = train_fields()
    if axis in fields:
        return []
    if axis.startswith("data."):
        message = "expected a field of train or of model, got one of data, which the variants may differ in"
        return [Finding(path, message, f"write factors: {{{axis}: [...]}}")]
    settings = {name for takes in models for name in takes.parameters}
    if axis in settings:
        return [Finding(path, "expected a field of train, got a setting of the model", f"write model.{axis}")]
    return [Finding(path, "expected a field of train, got an unknown one", nearest(axis, fields))]


def check_grid(
    grid: Mapping[str, Sequence[Any]], models: Sequence[Signature], *, structural: bool
) -> tuple[dict[str, list[Any]], list[Finding]]:
    """Return the grid's sound axes by their one name, with checked levels, and what is wrong with the others."""
    axes: dict[str, list[Any]] = {}
    findings: list[Finding] = []
    for key, levels in grid.items():
        axis, path = axis_name(key), ("grid", key)
        wrong = check_axis(axis, path, models, structural=structural)
        if axis in axes:
            wrong.append(Finding(path, f"expected every axis once, got '{axis}' twice"))
        if not levels:
            wrong.append(Finding(path, "expected at least one level, got an empty list"))
        findings += wrong
        if wrong:
            continue
        checked, found = _check_levels(axis, levels, path, models, structural=structural)
        findings += found
        if not found:
            axes[axis] = checked
    return axes, findings


def _check_levels(
    axis: str, levels: Sequence[Any], path: KeyPath, models: Sequence[Signature], *, structural: bool
) -> tuple[list[Any], list[Finding]]:
    checked: list[Any] = []
    findings: list[Finding] = []
    seen: dict[str, int] = {}
    for index, level in enumerate(levels):
        value, found = check_level(axis, level, (*path, index), models, registered=not structural)
        findings += found
        first = index if found else seen.setdefault(canonical(value), index)
        if first != index:
            message = f"expected every level once, got {shown(level)} again (first at [{first}])"
            findings.append(Finding((*path, index), message))
        checked.append(value)
    return checked, findings


def check_search(search: SearchSpec, grid: Mapping[str, Any], *, structural: bool) -> list[Finding]:
    """Return what is wrong with a search: its fields, its bounds as values of them, and a grid beside it."""
    findings: list[Finding] = []
    if grid:
        findings.append(Finding(("search",), "expected either grid or search, got both", "remove one of the two"))
    if not search.space:
        findings.append(Finding(("search", "space"), "expected at least one field of train, got none"))
    for key, space in search.space.items():
        path = ("search", "space", key)
        if key not in train_fields():
            message = "expected a field of train, got an unknown one"
            findings.append(Finding(path, message, nearest(axis_name(key), train_fields())))
            continue
        bounds: list[tuple[KeyPath, Any]]
        if space.choices is not None:
            bounds = [((*path, "choices", index), value) for index, value in enumerate(space.choices)]
        else:
            bounds = [((*path, "low"), space.low), ((*path, "high"), space.high)]
        for place, value in bounds:
            findings += check_level(key, value, place, (), registered=not structural)[1]
    return findings


def search_levels(search: SearchSpec) -> dict[str, list[Any]]:
    """Return what a condition on a searched axis can be held against: its choices, or the ends of its range."""
    return {
        name: list(space.choices) if space.choices is not None else [space.low, space.high]
        for name, space in search.space.items()
    }
