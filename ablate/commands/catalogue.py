"""`ablate components`: every registered model, data set, loss, optimizer and augmentation with its settings."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ablate.registry import AUGMENTATIONS, DATASETS, LOSSES, MODELS, OPTIMIZERS
from ablate.study.components import Parameter, signature


def components() -> list[dict[str, Any]]:
    """Return a row a component: kind, name, where it is from, what it is, and its settings with types and defaults."""
    rows = []
    for registry in (MODELS, DATASETS, LOSSES, OPTIMIZERS, AUGMENTATIONS):
        for name in registry:
            takes = signature(registry, name)
            settings = {key: _described(item) for key, item in takes.parameters.items()}
            of = {"kind": registry.kind, "name": name, "from": registry.source(name)}
            rows.append({**of, "summary": takes.summary, "settings": settings})
    return rows


def _described(item: Parameter) -> dict[str, Any]:
    shape = item.adapter.json_schema()
    return {"type": _kind(shape), **({} if item.required else {"default": item.default})}


def _kind(shape: dict[str, Any]) -> str:
    if "enum" in shape:
        return " | ".join(map(str, shape["enum"]))
    if "anyOf" in shape:
        return " | ".join(_kind(part) for part in shape["anyOf"])
    if "const" in shape:
        return str(shape["const"])
    names = {"array": "list", "object": "mapping", "string": "text", "integer": "whole number", "null": "none"}
    return names.get(str(shape.get("type")), str(shape.get("type", "any")))


def print_components(console: Console | None = None) -> None:
    """Print the components as a table."""
    console = console or Console()
    table = Table(show_lines=False)
    for head in ("kind", "name", "settings", "what it is"):
        table.add_column(head, overflow="fold")
    for row in components():
        settings = [
            f"{key}: {item['type']} = {json.dumps(item['default'])}" if "default" in item else f"{key}: {item['type']}"
            for key, item in row["settings"].items()
        ]
        table.add_row(*(Text(text) for text in (row["kind"], row["name"], "\n".join(settings), row["summary"])))
    console.print(table)
