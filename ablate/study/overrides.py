"""Overrides from the command line: `-o train.epochs=3` puts a value into a study as if the file said so."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from ablate.errors import Problem, StudyError, nearest
from ablate.study.names import has_password, is_secret
from ablate.study.problems import KeyPath, dotted, excerpt
from ablate.study.yamlfile import Refused, parse_value

# Under these a key is a name that may itself contain dots, such as grid: {model.width: [8, 16]}.
DOTTED_KEYS = {("grid",): 1, ("factors",): 1, ("search", "space"): 2}


def apply_overrides(
    values: dict[str, Any], overrides: Sequence[str]
) -> tuple[dict[str, Any], dict[KeyPath, str], list[Problem]]:
    """`values` with every override put in, where each came from, and those that could not be.

    An override replaces what stands at its key, or adds it; of two for one key the last holds.
    """
    changed = copy.deepcopy(values)
    origins: dict[KeyPath, str] = {}
    problems: list[Problem] = []
    for text in overrides:
        try:
            path, value = parse_override(text)
            _put(changed, path, value)
        except StudyError as error:
            problems += error.problems
            continue
        for inner in [known for known in origins if known[: len(path)] == path]:
            del origins[inner]
        origins[path] = origin(text)
    return changed, origins, problems


def origin(text: str) -> str:
    """How a message names an override; a secret that was typed into one is not repeated."""
    key, _, value = text.partition("=")
    hidden = is_secret(key.rsplit(".", 1)[-1]) or has_password(value)
    return f"-o {excerpt(key)}=…" if hidden else f"-o {excerpt(text)}"


def parse_override(text: str) -> tuple[KeyPath, Any]:
    """The key path and the value of `key=value`; raises `StudyError` where it is not of that form."""
    key, equals, written = text.partition("=")
    path = _split(key.strip())
    if not equals or not written.strip() or not all(path):
        message = "expected key=value, got something else"
        raise StudyError(message, file=origin(text), cure="write, for example, -o train.epochs=3")
    try:
        document = parse_value(written)
    except Refused as refused:
        raise StudyError(refused.message, key=dotted(path), file=origin(text), cure=refused.cure) from None
    if document.findings:
        raise StudyError(
            Problem(item.message, key=dotted((*path, *item.path)), file=origin(text), cure=item.cure)
            for item in document.findings
        )
    return path, document.value


def _split(key: str) -> KeyPath:
    parts = key.split(".")
    for head, length in DOTTED_KEYS.items():
        if tuple(parts[:length]) == head and len(parts) > length:
            rest = parts[length:]
            # Inside the definition of one searched field there are keys again: search.space.lr.low
            if head == ("search", "space") and rest[-1] in ("low", "high", "log", "choices"):
                return (*head, ".".join(rest[:-1]), rest[-1])
            return (*head, ".".join(rest))
    return tuple(parts)


def _put(values: dict[str, Any], path: KeyPath, value: Any) -> None:
    node = values
    for depth, part in enumerate(path[:-1]):
        here = path[: depth + 1]
        if here[:-1] == ("variants",) and part not in node:
            # In a file a new name makes a variant; inside an override it is far more often a slip.
            message = f"expected a variant of the study, got '{excerpt(part)}'"
            raise StudyError(message, key=dotted(here), file=f"-o {dotted(path)}=…", cure=nearest(part, node))
        if node.get(part) is None:
            node[part] = {}
        if not isinstance(node[part], dict):
            message = f"expected a mapping at {dotted(here)}, got something else"
            raise StudyError(message, key=dotted(path), file=f"-o {dotted(path)}=…", cure="replace it as a whole")
        node = node[part]
    node[path[-1]] = value
