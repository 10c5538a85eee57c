"""The settings of every registered component: as a list, and in the JSON schema of study files, for editors."""

from __future__ import annotations

from typing import Any

from ablate.registry import AUGMENTATIONS, DATASETS, LOSSES, MODELS, OPTIMIZERS, Registry
from ablate.study.axes import NAMED, train_fields
from ablate.study.components import signature
from ablate.study.spec import StudySpec, SubsetSpec
from ablate.study.variants import REPLACE

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """Return the schema of study files, as JSON values.

    Components of plugins are in it where they are registered; whatever else names a component may have any setting,
    so that an editor without the plugins complains about nothing.
    """
    schema = StudySpec.model_json_schema()
    definitions = schema["$defs"]
    properties = schema["properties"]
    properties["data"] = _component(DATASETS, properties["data"], definitions)
    properties["model"] = _component(MODELS, properties["model"], definitions)
    settings = _settings(MODELS, definitions)
    definitions["VariantSpec"]["properties"] |= {
        "name": {"type": "string", "description": "Another registered model than the shared one."},
        "train": {"$ref": "#/$defs/TrainSpec"},
        **settings,
    }
    properties["variants"]["additionalProperties"] = {"anyOf": [{"$ref": "#/$defs/VariantSpec"}, {"type": "null"}]}
    levels = {"type": "array", "minItems": 1, "items": {}}
    properties["grid"] |= {
        "propertyNames": {"anyOf": [{"enum": train_fields()}, {"pattern": r"^(train|model)\."}]},
        "additionalProperties": levels,
    }
    train = definitions["TrainSpec"]["properties"]
    for field, registry in NAMED.items():
        plain = [{"enum": list(registry)}, {"type": "string"}] if field != "augment" else [train[field]["oneOf"][0]]
        described = {key: value for key, value in train[field].items() if key != "oneOf"}
        train[field] = {**described, "anyOf": [*plain, *_component(registry, {}, definitions)["anyOf"]]}
    properties["factors"]["anyOf"] = [
        {"type": "object", "additionalProperties": {"anyOf": [levels | {"minItems": 2}, {"type": "null"}]}},
        {"type": "array", "items": {"type": "string"}},
    ]
    for key in ("type", "additionalProperties"):
        del properties["factors"][key]
    for known in properties["data"]["anyOf"]:
        known["properties"] |= SubsetSpec.model_json_schema()["properties"]
    for known in properties["model"]["anyOf"]:
        known["properties"]["replace"] = REPLACE.json_schema()
    return {"$schema": DIALECT, **schema, "title": "A study of ablate"}


def _component(registry: Registry, described: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return one alternative for every registered name, and an open one for the others."""
    known = []
    for name in registry:
        takes = signature(registry, name)
        properties, required = _properties(registry, name, definitions)
        known.append(
            {
                "title": name,
                "type": "object",
                "properties": {"name": {"const": name}, **properties},
                "required": ["name", *required],
                "additionalProperties": False,
                **({"description": takes.summary} if takes.summary else {}),
            }
        )
    other = {
        "title": "from a plugin",
        "type": "object",
        "properties": {"name": {"type": "string", "not": {"enum": list(registry)}}},
        "required": ["name"],
    }
    kept: dict[str, Any] = {key: described[key] for key in ("description", "title") if key in described}
    # An editor completes a name by these: of the alternatives it takes the first.
    names = {"properties": {"name": {"anyOf": [{"enum": list(registry)}, {"type": "string"}]}}}
    return {**kept, **names, "anyOf": [*known, other]}


def _settings(registry: Registry, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of all registered components of a kind; of two of one name any is right."""
    merged: dict[str, list[Any]] = {}
    for name in registry:
        for key, item in _properties(registry, name, definitions)[0].items():
            if item not in merged.setdefault(key, []):
                merged[key].append(item)
    return {key: items[0] if len(items) == 1 else {"anyOf": items} for key, items in merged.items()}


def _properties(registry: Registry, name: str, definitions: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    properties, required = {}, []
    for key, parameter in signature(registry, name).parameters.items():
        item = parameter.adapter.json_schema()
        definitions |= item.pop("$defs", {})
        if parameter.required:
            required.append(key)
        else:
            item["default"] = parameter.default
        properties[key] = item
    return properties, required


def catalogue() -> list[dict[str, Any]]:
    """Return a row a component: kind, name, where it is from, what it is, and its settings with types and defaults."""
    rows = []
    for registry in (MODELS, DATASETS, LOSSES, OPTIMIZERS, AUGMENTATIONS):
        for name in registry:
            takes = signature(registry, name)
            settings: dict[str, dict[str, Any]] = {}
            for key, item in takes.parameters.items():
                settings[key] = {"type": _type_name(item.adapter.json_schema())}
                if not item.required:
                    settings[key]["default"] = item.default
            of = {"kind": registry.kind, "name": name, "from": registry.source(name)}
            rows.append({**of, "summary": takes.summary, "settings": settings})
    return rows


def _type_name(shape: dict[str, Any]) -> str:
    if "enum" in shape:
        return " | ".join(map(str, shape["enum"]))
    if "anyOf" in shape:
        return " | ".join(_type_name(part) for part in shape["anyOf"])
    if "const" in shape:
        return str(shape["const"])
    names = {"array": "list", "object": "mapping", "string": "text", "integer": "whole number", "null": "none"}
    return names.get(str(shape.get("type")), str(shape.get("type", "any")))
