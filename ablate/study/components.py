"""Settings by signature: a registered factory's parameters are what a study may say about it.

A factory is keyword-only and fully annotated. Its context parameters (`CONTEXT`) are supplied by the engine and are not
settings; a factory that does not need one leaves it out. Losses, optimizers and augmentations are functions that are
called with their context; their other annotated keywords are the settings.
"""

from __future__ import annotations

import functools
import inspect
import json
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import PydanticSerializationError

from ablate.errors import PluginError, Problem, StudyError, nearest
from ablate.registry import Registry
from ablate.study.problems import Finding, KeyPath, dotted, shown, translate
from ablate.study.spec import SubsetSpec

# Keys of a variant that are no settings of its model.
VARIANT_KEYS = ("train", "control", "data", "match")
# Keys that stand beside a component's settings in a study file, so that no setting can be called so.
RESERVED: dict[str, tuple[str, ...]] = {
    "model": ("name", "replace", *VARIANT_KEYS),
    "data set": ("name", *SubsetSpec.model_fields),
}
CONTEXT: dict[str, tuple[str, ...]] = {
    "model": ("in_channels", "num_classes"),
    "data set": ("base",),
    "loss": ("logits", "target", "num_classes", "ignore_index", "class_weights", "multilabel"),
    "optimizer": ("parameters", "lr", "weight_decay", "momentum"),
    "augmentation": ("image", "mask", "rng"),
}
# Called with its context rather than once for an object: what is no annotated keyword is no setting.
CALLED = ("loss", "optimizer", "augmentation")


@dataclass(frozen=True)
class Parameter:
    """One setting of a factory: its type as a validator, its default as JSON values, where a relative path starts."""

    adapter: TypeAdapter[Any]
    required: bool
    default: Any
    location: bool
    base: Path | None = None

    def check(self, value: Any, path: KeyPath) -> tuple[Any, list[Finding]]:
        """Return the value as JSON (defaults filled in), or what is wrong with it."""
        try:
            typed = self.adapter.validate_json(json.dumps(value), strict=True, context={"base": self.base})
        except ValidationError as error:
            return None, translate(error, value, path)
        return self.adapter.dump_python(typed, mode="json"), []


@dataclass(frozen=True)
class Signature:
    """The settings that a registered factory takes, and the version of what it generates (None for files)."""

    kind: str
    name: str
    parameters: Mapping[str, Parameter]
    version: int | str | None = None
    summary: str = ""

    def at(self, base: Path) -> Signature:
        """Return the signature whose relative paths start at the folder `base`, that of a study file."""
        return replace(self, parameters={name: replace(item, base=base) for name, item in self.parameters.items()})

    def defaults(self) -> dict[str, Any]:
        """Return the settings that have a default, as JSON values."""
        return {name: item.default for name, item in self.parameters.items() if not item.required}

    def check(
        self, settings: Mapping[str, Any], path: KeyPath, extra_keys: tuple[str, ...] = ("name",)
    ) -> tuple[dict[str, Any], list[Finding]]:
        """Return `settings` (without the name) as JSON values, unchanged in what they leave out, and what is wrong."""
        values: dict[str, Any] = {}
        findings: list[Finding] = []
        for key, value in settings.items():
            parameter = self.parameters.get(key)
            if parameter is None:
                choices = [*self.parameters, *extra_keys]
                message = f"expected a setting of the {self.kind} '{self.name}', got an unknown key"
                findings.append(Finding((*path, key), message, nearest(key, choices)))
                continue
            values[key], found = parameter.check(value, (*path, key))
            findings += found
        return values, findings

    def missing(self, settings: Mapping[str, Any]) -> list[str]:
        """Return the required settings that are not given."""
        return [name for name, item in self.parameters.items() if item.required and name not in settings]

    def without_locations(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that say what the component is, not where its files lie."""
        return {key: value for key, value in settings.items() if not self.is_location(key)}

    def is_location(self, key: str) -> bool:
        """Return whether a setting says where files lie."""
        return key == "root" or (key in self.parameters and self.parameters[key].location)


def signature(registry: Registry, name: str) -> Signature:
    """Return the signature of the factory registered as `name`.

    Raises `StudyError` where there is none, `PluginError` where its parameters are positional or not annotated.
    """
    return _signature(registry.get(name), registry.kind, name, registry.source(name))


@functools.lru_cache(maxsize=256)
def _signature(factory: Callable[..., Any], kind: str, name: str, source: str) -> Signature:
    items = [item for item in inspect.signature(factory).parameters.values() if item.name not in CONTEXT.get(kind, ())]
    if kind in CALLED:
        items = [item for item in items if item.kind is item.KEYWORD_ONLY and item.annotation is not item.empty]
    try:
        hints = typing.get_type_hints(factory, include_extras=True) if items else {}
    except (NameError, TypeError) as error:
        raise PluginError(f"the {kind} '{name}': its annotations cannot be read ({error})", file=source) from None
    parameters = {item.name: _parameter(item, hints, kind, f"the {kind} '{name}'", source) for item in items}
    summary = (inspect.getdoc(factory) or "").split("\n", 1)[0]
    version = getattr(factory, "version", None)
    return Signature(kind, name, types.MappingProxyType(parameters), version, summary)


def _parameter(item: inspect.Parameter, hints: Mapping[str, Any], kind: str, who: str, source: str) -> Parameter:
    if item.kind is not inspect.Parameter.KEYWORD_ONLY:
        cure = "write *, before the first parameter and name every setting"
        raise PluginError(f"{who}: expected keyword-only parameters, got '{item.name}'", file=source, cure=cure)
    if item.name in RESERVED.get(kind, ()):
        message = f"{who}: expected another name than '{item.name}', a key of study files"
        raise PluginError(message, file=source, cure="rename the parameter")
    if item.name not in hints:
        message = f"{who}: expected an annotation on '{item.name}', got none"
        raise PluginError(message, file=source, cure=f"write, for example, {item.name}: int = 4")
    hint = hints[item.name]
    try:
        # pydantic refuses a second configuration for types that carry their own.
        own = any(hasattr(hint, name) for name in ("__pydantic_config__", "model_config", "__dataclass_fields__"))
        adapter = TypeAdapter(hint, config=None if own else ConfigDict(extra="forbid"))
        required = item.default is inspect.Parameter.empty
        default = None if required else adapter.dump_python(item.default, mode="json")
        json.dumps(default, allow_nan=False)
    except (PydanticUserError, PydanticSerializationError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        message = f"{who}: the setting '{item.name}' is not of a type that a study file can say ({reason})"
        raise PluginError(message, file=source, cure="use numbers, text, bool, Literal, lists, tuples") from None
    return Parameter(adapter, required, default, _names_a_path(hint))


def _names_a_path(hint: Any) -> bool:
    return hint is Path or any(map(_names_a_path, typing.get_args(hint)))


def create(registry: Registry, component: Mapping[str, Any], **context: Any) -> Any:
    """Call the factory that `component` names (its key "name") with its settings, and with the `context` it takes.

    JSON values become what the signature says (lists to tuples, text to paths). The layers of a model that its key
    "replace" names are replaced; the model has their names by pattern as `replaced`. Raises `StudyError` for settings
    that the factory does not take, and for patterns that match no layer.
    """
    rules = component.get("replace") if registry.kind == "model" else None
    factory = registry.get(component["name"])
    typed = _typed(registry, {key: value for key, value in component.items() if rules is None or key != "replace"})
    names = inspect.signature(factory).parameters
    made = factory(**typed, **{key: value for key, value in context.items() if key in names})
    if rules:
        from ablate.models import replace_layers

        made.replaced = replace_layers(made, rules)
    return made


def bound(registry: Registry, component: str | Mapping[str, Any]) -> Callable[..., Any]:
    """Return the function that `component` names, with its settings filled in; the function itself where it has none.

    Raises `StudyError` as `create` does.
    """
    factory, typed = registry.get(name_of(component)), _typed(registry, component)
    return functools.partial(factory, **typed) if typed else factory


def _typed(registry: Registry, component: str | Mapping[str, Any]) -> dict[str, Any]:
    settings = settings_of(component)
    takes = signature(registry, name_of(component))
    _, findings = takes.check(settings, (registry.kind,))
    findings += [Finding((registry.kind, key), "expected a value, got none") for key in takes.missing(settings)]
    if findings:
        raise StudyError(Problem(item.message, key=dotted(item.path), cure=item.cure) for item in findings)
    return {
        key: takes.parameters[key].adapter.validate_json(json.dumps(value), strict=True)
        for key, value in settings.items()
    }


def name_of(component: str | Mapping[str, Any]) -> str:
    """Return the registered name of a component, which is written by its name alone or with settings."""
    return component if isinstance(component, str) else str(component["name"])


def settings_of(component: str | Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a component is given, without its name."""
    return {} if isinstance(component, str) else {key: value for key, value in component.items() if key != "name"}


def check_named(
    registry: Registry, component: str | Mapping[str, Any], path: KeyPath
) -> tuple[str | dict[str, Any], list[Finding]]:
    """Return a component in its shortest form, by its name alone where no setting is changed, and what is wrong.

    So a default that is written out changes no trial's key.
    """
    name, settings = name_of(component), settings_of(component)
    takes, findings = find(registry, name, path if isinstance(component, str) else (*path, "name"))
    if takes is None:
        return name, findings
    values, findings = takes.check(settings, path)
    findings += [
        Finding(path, f"expected a value for the setting '{key}' of the {takes.kind} '{name}', got none", "add it")
        for key in takes.missing(settings)
    ]
    own = {
        key: value for key, value in values.items() if takes.parameters[key].required or value != takes.defaults()[key]
    }
    return ({"name": name, **own} if own else name), findings


def find(registry: Registry, name: Any, path: KeyPath) -> tuple[Signature | None, list[Finding]]:
    """Return the signature of `name`, or the finding that there is none, at `path`."""
    try:
        known = name in registry
    except StudyError as error:  # the library that it is of is not installed
        return None, [Finding(path, problem.message, problem.cure) for problem in error.problems]
    if not known:
        message = f"expected a registered {registry.kind}, got {shown(name)}"
        return None, [Finding(path, message, registry.cure_for(str(name)))]
    return signature(registry, name), []
