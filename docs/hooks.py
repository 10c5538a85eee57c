"""Pages of the documentation that are written from the code: study files, commands, frames and their columns."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from ablate.analysis.schema import CLAIMS, FRAMES, TRIAL_FRAMES
from ablate.analysis.schema.columns import Frame
from ablate.registry import AUGMENTATIONS, DATASETS, LOSSES, MODELS, OPTIMIZERS
from ablate.study.jsonschema import catalogue, json_schema


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages (called by mkdocs)."""
    from mkdocs.structure.files import File

    for name, page in PAGES.items():
        files.append(File.generated(config, name, content=page()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Turn links to files beside the documentation into their names: the site holds the documentation alone.

    The long names of tests may be broken at an underscore, so that their table fits a screen.
    """
    names = re.compile(r"\[([^\]]+)\]\(\.\./[^)]+\)")
    return names.sub(lambda link: link[1].replace("_", "_<wbr>") if link[1].startswith("test_") else link[1], markdown)


def frames_page() -> str:
    """Return the page of all frames: a row a column, with its kind, unit and meaning."""
    parts = [
        "# Frames and their columns\n\nThe results as tidy pandas frames ([Python](python.md) shows how to get them): "
        "first those of `ablate.load_results`, then those of `ablate.analyse`. Scores are fractions, not per cent; a "
        "number that could not be had is NaN.\n"
    ]
    frames: dict[str, Frame] = {f"results.{name}": frame for name, frame in TRIAL_FRAMES.items()}
    frames |= {f"analysis.{name}": frame for name, frame in FRAMES.items()} | {"claims": CLAIMS}
    for name, frame in frames.items():
        rows = [
            f"| `{column}` | {item.kind} | {item.unit} | {_cell(item.about)} |"
            for column, item in frame.columns().items()
        ]
        more = "\n\nAnd a column for every other metric of the records." if frame.metrics else ""
        head = f"## `{name}`\n\nA row is {frame.row}.{more}\n\n{_head('column', 'kind', 'unit', 'what it holds')}"
        parts.append(head + "\n".join(rows) + "\n")
    return "\n".join(parts)


def study_page() -> str:
    """Return the reference of study files, by the JSON schema: every key with type, default and meaning."""
    schema = json_schema()
    parts = [
        "# Study files\n\nEvery key of a study file. A type that is a link has a section of its own below; the "
        "settings of models, data sets, losses, optimizers and augmentations are on the page of "
        "[components](components.md). Your editor can complete all of this: see [editors](command-line.md#editors).\n"
    ]
    parts.append(_keys("The top level", schema, schema))
    for name, definition in schema["$defs"].items():
        if name.endswith("Spec") and name != "StudySpec":
            if name == "VariantSpec":  # beside its own keys it has the settings of every model, which stand elsewhere
                own = {key: item for key, item in definition["properties"].items() if "description" in item}
                about = (
                    f"{_about(definition)} Every [setting of its model](components.md) may stand here, too, and as "
                    "in `model` the key `replace`: layers by the pattern of their names ([how](anything.md))."
                )
                definition = {"properties": {"train": definition["properties"]["train"], **own}, "description": about}
            parts.append(_keys(f"`{name.removesuffix('Spec').lower()}`", definition, schema))
    return "\n".join(parts)


def _keys(title: str, part: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    rows = []
    for key, item in part.get("properties", {}).items():
        default = f"`{json.dumps(item['default'])}`" if item.get("default") is not None else ""
        meaning = item.get("description") or _about(_section(item, schema))
        rows.append(f"| `{key}` | {_cell(_type(item, schema))} | {default} | {_cell(meaning)} |")
    about = _about(part)
    return f"## {title}\n\n{about}\n\n{_head('key', 'type', 'default', 'meaning')}" + "\n".join(rows) + "\n"


def _section(item: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a key refers to, where it has a section of its own."""
    for part in (item, *item.get("anyOf", ())):
        if "$ref" in part:
            section: Mapping[str, Any] = schema["$defs"][part["$ref"].rsplit("/", 1)[-1]]
            return section
    return {}


def _about(part: Mapping[str, Any]) -> str:
    return str(part.get("description", "")).split("\n\n")[0].replace("\n", " ")


def _type(item: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    if "$ref" in item:
        name = str(item["$ref"]).rsplit("/", 1)[-1]
        return f"[{name[:-4].lower()}](#{name[:-4].lower()})" if name.endswith("Spec") else name.lower()
    if "enum" in item:
        return " or ".join(f"`{value}`" for value in item["enum"])
    if "const" in item:
        return f"`{item['const']}`"
    if "anyOf" in item:
        return " or ".join(dict.fromkeys(_type(part, schema) for part in item["anyOf"]))
    for kind, word, inner in (("array", "list of", "items"), ("object", "mapping to", "additionalProperties")):
        inside = item.get(inner)
        if item.get("type") == kind and isinstance(inside, Mapping) and _section(inside, schema):
            return f"{word} {_type(inside, schema)}"
    names = {"array": "list", "object": "mapping", "string": "text", "null": "none", "integer": "whole number"}
    return names.get(str(item.get("type")), str(item.get("type", "anything")))


def commands_page() -> str:
    """Return the reference of the commands with their arguments and options."""
    import typer.main

    from ablate.cli import app

    group: Any = typer.main.get_command(app)
    parts = [
        "# Commands\n\nHow a study is named, exit codes, JSON and completion: "
        "[shells, scripts and editors](command-line.md).\n"
    ]
    for name, command in group.commands.items():
        rows = []
        for parameter in command.params:
            words = ", ".join(f"`{word}`" for word in parameter.opts) if parameter.opts else f"`{parameter.name}`"
            if parameter.param_type_name == "argument":
                words = f"`{parameter.name.upper()}`"
            rows.append(f"| {words} | {_cell(getattr(parameter, 'help', '') or '')} |")
        table = f"\n\n{_head('argument or option', 'meaning')}" + "\n".join(rows) if rows else ""
        parts.append(f"## ablate {name}\n\n{command.help}{table}\n")
    return "\n".join(parts)


def components_page() -> str:
    """Return the built-in models, data sets, losses, optimizers and augmentations: settings, and what they mean."""
    registries = {registry.kind: registry for registry in (MODELS, DATASETS, LOSSES, OPTIMIZERS, AUGMENTATIONS)}
    parts = [
        "# Components\n\nWhat a study may name, with its settings. `ablate components` lists the same in a terminal, "
        "with those of your plugins. The networks of Hugging Face transformers are on [another page]"
        "(anything.md#networks-of-other-libraries).\n"
    ]
    for row in catalogue():
        about = inspect.getdoc(registries[row["kind"]].get(row["name"])) or row["summary"]
        rows = []
        for key, item in row["settings"].items():
            default = f"`{json.dumps(item['default'])}`" if "default" in item else "required"
            rows.append(f"| `{key}` | {_cell(item['type'])} | {default} |")
        table = f"\n\n{_head('setting', 'type', 'default')}" + "\n".join(rows) if rows else ""
        parts.append(f"## {row['kind']} `{row['name']}`\n\n{about}{table}\n")
    return "\n".join(parts)


def _head(*names: str) -> str:
    return f"| {' | '.join(names)} |\n{'|---' * len(names)}|\n"


def _cell(text: str) -> str:
    """Return a text for a cell of a table; outside of code a "<" is no tag."""
    parts = text.replace("|", "\\|").replace("\n", " ").split("`")
    return "`".join(part if number % 2 else part.replace("<", "&lt;") for number, part in enumerate(parts))


PAGES: dict[str, Callable[[], str]] = {
    "frames.md": frames_page,
    "study-file.md": study_page,
    "commands.md": commands_page,
    "components.md": components_page,
}
