"""The faults of a study, said plainly: pydantic's errors become "expected …, got …" at a key path."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from ablate.errors import Problem, nearest

# Keys and list positions from the top of the file.
KeyPath = tuple[Any, ...]

EXCERPT = 60


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong at a key path; `line` is given where it is not that of the path.

    `covers` says that the value itself could not be read, so that nothing more is to be said about it.
    """

    path: KeyPath
    message: str
    cure: str = ""
    line: int | None = None
    covers: bool = False


@dataclass(frozen=True)
class Places:
    """The place where every key path was written: a line of the file, or the override that set it."""

    file: str
    lines: Mapping[KeyPath, int]
    overrides: Mapping[KeyPath, str] = field(default_factory=dict)

    def problem(self, finding: Finding) -> Problem:
        """Return the finding with its place, that of the nearest enclosing key where the key itself is not written."""
        key = dotted(finding.path)
        paths = [finding.path[:end] for end in range(len(finding.path), -1, -1)]
        # An override replaces all that the file says at its key and below.
        file = next((self.overrides[path] for path in paths if path in self.overrides), None)
        if file is not None:
            return Problem(finding.message, key=key, file=file, cure=finding.cure)
        line = finding.line or next((self.lines[path] for path in paths if path in self.lines), None)
        return Problem(finding.message, key=key, file=self.file, line=line, cure=finding.cure)

    def locate(self, problem: Problem) -> Problem:
        """Give a problem about a key of the study, found by who does not know the file, its place."""
        if problem.file or not problem.key:
            return problem
        parts = re.findall(r"[^.\[\]]+", problem.key)
        path = tuple(int(part) if part.isdecimal() else part for part in parts)
        found = self.problem(Finding(path, problem.message, problem.cure))
        return Problem(problem.message, problem.key, found.file, found.line, problem.cure)


def dotted(path: KeyPath) -> str:
    """Return a key path as text: `("grid", "lr", 0)` is "grid.lr[0]"."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{excerpt(str(part))}" if text else excerpt(str(part))
    return text


def excerpt(text: str) -> str:
    """Return a user's text on one line, without control characters, and not too long."""
    safe = "".join(sign if sign.isprintable() else "�" for sign in " ".join(text.split()))
    return safe if len(safe) <= EXCERPT else f"{safe[: EXCERPT - 1]}…"


def shown(value: Any) -> str:
    """Return a value as a message names it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text '{excerpt(value)}'" if value else "an empty text"
    if isinstance(value, Mapping):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}" if value else "an empty list"
    return excerpt(str(value))


EXPECTED: dict[str, str] = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "int_parsing": "an integer",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "path_type": "a path",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dataclass_type": "a mapping",
    "none_required": "null",
    "greater_than": "a number > {gt}",
    "greater_than_equal": "a number >= {ge}",
    "less_than": "a number < {lt}",
    "less_than_equal": "a number <= {le}",
    "too_short": "at least {min_length} values",
    "too_long": "at most {max_length} values",
    "string_too_short": "at least {min_length} characters",
    "string_too_long": "at most {max_length} characters",
    "string_pattern_mismatch": "text matching {pattern}",
}
# Words that people write for a choice whose name is far from them.
MEANT = {"off": "disabled", "no": "disabled", "none": "disabled", "on": "online"}
NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
NUMBERS = frozenset({"int_type", "float_type", "int_parsing", "float_parsing", "int_from_float"})


def translate(
    error: ValidationError,
    raw: Any,
    prefix: KeyPath = (),
    known: Callable[[KeyPath], Iterable[str]] = lambda _path: (),
) -> list[Finding]:
    """Return the findings of a pydantic error about `raw`, which was written at `prefix`.

    `known` gives the keys that may stand at a path, for the cure of an unknown one. Alternatives of a union that
    went wrong at one place become one finding, "expected a or b".
    """
    grouped: dict[KeyPath, list[Any]] = {}
    for item in error.errors(include_url=False):
        path, inner = _path(item["loc"], raw, item["type"])
        grouped.setdefault(path, []).append((item, inner))
    findings = []
    for path, items in grouped.items():
        # A union complains about every alternative; the one that got further inside the value was meant.
        if any(other[: len(path)] == path and len(other) > len(path) for other in grouped) and _only_types(items):
            continue
        findings.append(_finding(path, items, prefix, known))
    return findings


def _only_types(items: list[Any]) -> bool:
    return all(item["type"].endswith("_type") or item["type"] == "literal_error" for item, _ in items)


def _path(loc: tuple[int | str, ...], raw: Any, kind: str) -> tuple[KeyPath, Any]:
    """Return the part of pydantic's `loc` that is keys of `raw` (others name a union's alternatives), and the value."""
    path: list[Any] = []
    node = raw
    for index, part in enumerate(loc):
        last = index == len(loc) - 1
        in_mapping = isinstance(node, Mapping) and part in node
        if in_mapping or (isinstance(node, list) and isinstance(part, int) and part < len(node)):
            node = node[part]
            path.append(part)
        elif last and kind == "missing" and isinstance(part, str):
            path.append(part)
    return tuple(path), node


# Keys of earlier versions, and what they are called now.
RENAMED: Mapping[KeyPath, str] = {("run", "lanes"): "workers"}


def _finding(path: KeyPath, items: list[Any], prefix: KeyPath, known: Callable[[KeyPath], Iterable[str]]) -> Finding:
    first, inner = items[0]
    kind = first["type"]
    full = (*prefix, *path)
    if kind == "extra_forbidden":
        word = str(path[-1])
        if full in RENAMED:
            return Finding(full, "expected a known key, got one of an earlier version", f"write '{RENAMED[full]}'")
        choices = list(known(path[:-1]))
        # `epochs` at the top is one of train's.
        inside = [f"did you mean '{name}'?" for name in choices if name.endswith(f".{word}")]
        cure = next(iter(inside), "") or nearest(word, (name for name in choices if "." not in name))
        return Finding(full, "expected a known key, got an unknown one", cure)
    if kind == "missing":
        if isinstance(first["loc"][-1], int):
            return Finding(full, f"expected at least {first['loc'][-1] + 1} values, got {shown(inner)}")
        return Finding(full, "expected a value, got none", "add the key")
    if kind in ("value_error", "assertion_error"):
        message, _, cure = str(first["ctx"]["error"]).partition("; ")
        return Finding(full, message, cure)
    if kind == "literal_error" and len(items) == 1 and isinstance(inner, str):
        choices = re.findall(r"'([^']*)'", first["ctx"]["expected"])
        cure = f"write '{MEANT[inner]}'" if MEANT.get(inner) in choices else nearest(inner, choices)
        return Finding(full, f"expected {first['ctx']['expected']}, got {shown(inner)}", cure)
    # An alternative of the right type that is out of its bounds was meant, whatever the others would have liked.
    items = [pair for pair in items if not _only_types([pair])] or items
    expected = " or ".join(dict.fromkeys(_expectation(item) for item, _ in items))
    return Finding(full, f"expected {expected}, got {shown(inner)}", _cure(items, inner))


def _expectation(item: Mapping[str, Any]) -> str:
    kind = item["type"]
    if kind == "literal_error":
        return str(item["ctx"]["expected"])
    template = EXPECTED.get(kind)
    if template is None:
        return f"something else ({excerpt(str(item['msg']))})"
    context = item.get("ctx", {})
    if kind == "too_short" and context.get("min_length") == 1:
        return "at least one value"
    return template.format(
        **{key: f"{value:g}" if isinstance(value, float) else value for key, value in context.items()}
    )


def _cure(items: list[Any], inner: Any) -> str:
    kinds = {item["type"] for item, _ in items}
    if isinstance(inner, str) and kinds & NUMBERS:
        return "remove the quotes" if NUMBER.fullmatch(inner) else ""
    if kinds == {"string_type"} and isinstance(inner, int | float):
        return f'quote it: "{excerpt(json.dumps(inner))}"'
    if kinds == {"tuple_type"} and isinstance(inner, int | float):
        return f"write {json.dumps([inner, inner])}"
    if kinds == {"list_type"} and inner is not None and not isinstance(inner, Mapping):
        return f"write {json.dumps([inner])}"
    return ""
