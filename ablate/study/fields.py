"""Settings by dotted field, such as "augment.flip", and components that carry settings of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def assign(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set a field, or by a dotted key a field inside one.

    A mapping is merged into the mapping that stands there; a component, which has a name, replaces it.
    """
    head, _, rest = key.partition(".")
    if rest:
        assign(tree.setdefault(head, {}), rest, value)
    elif isinstance(value, dict) and isinstance(tree.get(head), dict) and not {"name"} & {*value, *tree[head]}:
        for inner, item in value.items():
            assign(tree[head], inner, item)
    else:
        tree[head] = value


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted field; a component's name stands at its own field, its settings below."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            rest = {inner: item for inner, item in value.items() if inner != "name"}
            found |= {prefix + key: value["name"]} if "name" in value else {}
            found |= flat(rest, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def has_field(values: Mapping[str, Any], key: str) -> bool:
    """Return whether nested `values` have an entry at a dotted key."""
    head, _, rest = key.partition(".")
    if head not in values or not rest:
        return head in values
    return isinstance(values[head], Mapping) and has_field(values[head], rest)


def name_of(component: str | Mapping[str, Any]) -> str:
    """Return the registered name of a component, which is written by its name alone or with settings."""
    return component if isinstance(component, str) else str(component["name"])


def settings_of(component: str | Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a component is given, without its name."""
    return {} if isinstance(component, str) else {key: value for key, value in component.items() if key != "name"}
