"""YAML text to plain values: 1.2 scalars, unique text keys, no anchors, merges or tags, bounded in size and depth.

PyYAML supplies only the events. Its constructors follow YAML 1.1 (`no` is false, `1e-3` is text, `017` is 15), and its
composer recurses and drops the first of two equal keys, so values are built here from the events, iteratively.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.reader import Reader

from ablate.errors import Problem, StudyError
from ablate.study.problems import Finding, KeyPath, excerpt

MAX_BYTES = 1 << 20
MAX_DEPTH = 30
MAX_NODES = 20_000  # PyYAML reads about as many in a second; longer lists of files belong into .txt files
MAX_DIGITS = 40

NULL = frozenset({"", "~", "null", "Null", "NULL"})
BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
INT = re.compile(r"[-+]?[0-9]+")
BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
# Written without quotes these mean one thing in YAML 1.1, another in 1.2, and a third to the eye.
LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+")
SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")
UNDERSCORES = re.compile(r"[-+]?[0-9][0-9_]*_[0-9_]*(\.[0-9_]*)?")
COLOUR_AS_COMMENT = re.compile(r"[:,\[] +(#[0-9a-fA-F]{6})\b")


@dataclass
class Document:
    """The plain values of a text, the line (from 1) of every key path, and what is wrong without being fatal."""

    value: Any
    lines: dict[KeyPath, int]
    findings: list[Finding] = field(default_factory=list)


class Refused(Exception):
    """A scalar that could be read in more than one way, or in none."""

    def __init__(self, message: str, cure: str = "") -> None:
        super().__init__(message)
        self.message, self.cure = message, cure


def scalar(text: str) -> Any:
    """Return the value of an unquoted scalar by the core schema of YAML 1.2; raises `Refused` where it is ambiguous."""
    if text in NULL:
        return None
    if text in BOOL:
        return BOOL[text]
    if len(text) > MAX_DIGITS and (INT.fullmatch(text) or FLOAT.fullmatch(text) or BASED.fullmatch(text)):
        # int() of thousands of digits is slow and from 4,301 on an error.
        raise Refused(f"expected a number of at most {MAX_DIGITS} characters, got one of {len(text)}")
    if LEADING_ZERO.fullmatch(text):
        plain = text.replace("_", "").lstrip("+-0") or "0"
        raise Refused(f"expected a number without leading zeros, got {text}", f"write {plain}, or quote it as text")
    if SEXAGESIMAL.fullmatch(text) or UNDERSCORES.fullmatch(text):
        raise Refused(f"expected a plain number, got {excerpt(text)}", "write its digits only, or quote it as text")
    if INT.fullmatch(text):
        return int(text)
    if BASED.fullmatch(text):
        return int(text, 0)
    if NOT_FINITE.fullmatch(text):
        raise Refused(f"expected a finite number, got {text}")
    if FLOAT.fullmatch(text):
        value = float(text)
        if not math.isfinite(value):
            raise Refused(f"expected a finite number, got {text}, which is too large")
        return value
    return text


def parse_bytes(data: bytes, file: str) -> Document:
    """Return the document in `data`; raises `StudyError` where it is no UTF-8, no YAML, or absurdly large."""
    if len(data) > MAX_BYTES:
        raise StudyError(f"expected a file of at most {MAX_BYTES:,} bytes, got {len(data):,}", file=file)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"expected UTF-8 text, got the byte 0x{data[error.start]:02x} at offset {error.start}"
        raise StudyError(message, file=file, line=line, cure="save the file as UTF-8") from None
    strange = Reader.NON_PRINTABLE.search(text)
    if strange:
        offset = len(text[: strange.start()].encode()) + (len(data) - len(text.encode()))
        line = text.count("\n", 0, strange.start()) + 1
        message = f"expected printable text, got the character U+{ord(strange.group()):04X} at offset {offset}"
        raise StudyError(message, file=file, line=line)
    try:
        return parse(text)
    except _Fatal as error:
        raise StudyError(Problem(error.message, file=file, line=error.line, cure=error.cure)) from None


def parse_value(text: str) -> Document:
    """Return a value given on the command line, read as in a file; raises `Refused` where it is no YAML."""
    strange = Reader.NON_PRINTABLE.search(text)
    if strange:
        raise Refused(f"expected printable text, got the character U+{ord(strange.group()):04X}")
    try:
        return parse(text)
    except _Fatal as error:
        raise Refused(error.message, error.cure) from None


class _Fatal(Exception):
    """A fault that makes further reading pointless."""

    def __init__(self, message: str, line: int, cure: str = "") -> None:
        super().__init__(message)
        self.message, self.line, self.cure = message, line, cure


def parse(text: str) -> Document:
    """Build the values of `text` from PyYAML's events."""
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        written = text.splitlines()[line - 1] if line <= len(text.splitlines()) else ""
        if "\t" in written[: len(written) - len(written.lstrip())]:
            raise _Fatal("expected spaces for indentation, got a tab", line, "replace it by spaces") from None
        coloured = COLOUR_AS_COMMENT.search(text)
        if coloured:
            line, cure = text.count("\n", 0, coloured.start()) + 1, f'quote a colour: "{coloured[1]}"'
            raise _Fatal("expected a value, got a comment, which a # begins", line, cure) from None
        raise _Fatal(f"expected valid YAML, got: {error.problem or error.context}", line) from None
    except (yaml.YAMLError, ValueError, OverflowError):
        # PyYAML lets escapes such as "\\UFFFFFFFF" and directives of a thousand digits end in bare ValueErrors.
        raise _Fatal("expected valid YAML, got an escape or a directive out of range", builder.line) from None
    return Document(builder.root, builder.lines, builder.findings)


_NO_KEY = object()
_DISCARD = object()


@dataclass
class _Level:
    """An open mapping or list."""

    path: KeyPath
    value: dict[str, Any] | list[Any]
    key: Any = _NO_KEY


class _Builder:
    """Takes events and grows the value; everything it refuses becomes a finding at its place."""

    def __init__(self) -> None:
        self.root: Any = None
        self.lines: dict[KeyPath, int] = {(): 1}
        self.findings: list[Finding] = []
        self.line = 1
        self._open: list[_Level] = []
        self._documents = 0
        self._nodes = 0

    def take(self, event: yaml.Event) -> None:
        if event.start_mark is not None:
            self.line = event.start_mark.line + 1
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise _Fatal("expected one document, got a second", self.line, "remove the line '---'")
        elif isinstance(event, yaml.NodeEvent):
            self._nodes += 1
            if self._nodes > MAX_NODES:
                raise _Fatal(f"expected at most {MAX_NODES:,} values, got more", self.line)
            self._node(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._open.pop()

    def _node(self, event: yaml.NodeEvent) -> None:
        level = self._open[-1] if self._open else None
        as_key = level is not None and isinstance(level.value, dict) and level.key is _NO_KEY
        path = self._place(level, as_key)
        self._refuse_features(event, path)
        if as_key:
            assert level is not None
            self._key(event, level)
            return
        self.lines.setdefault(path, self.line)
        value = self._value(event, path)
        if level is None:
            self.root = value
        elif isinstance(level.value, list):
            level.value.append(value)
        else:
            if level.key is not _DISCARD:
                level.value[level.key] = value
            level.key = _NO_KEY
        if isinstance(value, dict | list):
            self._push(path, value)

    def _place(self, level: _Level | None, as_key: bool) -> KeyPath:
        if level is None:
            return ()
        if isinstance(level.value, list):
            return (*level.path, len(level.value))
        return level.path if as_key else (*level.path, level.key)

    def _push(self, path: KeyPath, value: dict[str, Any] | list[Any]) -> None:
        if len(self._open) >= MAX_DEPTH:
            raise _Fatal(f"expected at most {MAX_DEPTH} levels of nesting, got more", self.line)
        self._open.append(_Level(path, value))

    def _refuse_features(self, event: yaml.NodeEvent, path: KeyPath) -> None:
        if isinstance(event, yaml.AliasEvent):
            message = f"expected a plain value, got the alias *{excerpt(str(event.anchor))}"
            self._find(path, message, "write the value out", covers=True)
        elif event.anchor is not None:
            self._find(
                path, f"expected a plain value, got the anchor &{excerpt(str(event.anchor))}", "write the value out"
            )
        tag = getattr(event, "tag", None)
        if tag is not None:
            short = tag.replace("tag:yaml.org,2002:", "!!")
            message = f"expected a plain value, got the tag {excerpt(short)}"
            self._find(path, message, "remove the tag", covers=bool(path))

    def _key(self, event: yaml.NodeEvent, level: _Level) -> None:
        level.key = _DISCARD
        if isinstance(event, yaml.CollectionStartEvent):
            self._find(level.path, "expected text as a key, got a list or a mapping")
            self._push((*level.path, _DISCARD), [] if isinstance(event, yaml.SequenceStartEvent) else {})
            return
        if not isinstance(event, yaml.ScalarEvent):
            return
        if event.style is None:
            if event.value == "<<":
                self._find(level.path, "expected a plain key, got the merge key <<", "write the keys out")
                return
            try:
                read = scalar(event.value)
            except Refused:
                read = None
            if not isinstance(read, str):
                self._find(level.path, f"expected text as a key, got {excerpt(event.value)}", "quote it")
                return
        path = (*level.path, event.value)
        if self._strange(event.value, path):
            return
        if event.value in level.value:
            first = self.lines[path]
            self._find(path, f"expected every key once, got it again (first on line {first})", "remove one of the two")
            return
        level.key = event.value
        self.lines[path] = self.line
        # The slot is taken at once, so that a repeated key is seen even if this one's value is refused.
        assert isinstance(level.value, dict)
        level.value[event.value] = None

    def _value(self, event: yaml.NodeEvent, path: KeyPath) -> Any:
        if isinstance(event, yaml.MappingStartEvent):
            return {}
        if isinstance(event, yaml.SequenceStartEvent):
            return []
        if not isinstance(event, yaml.ScalarEvent):
            return None
        if event.style is not None:
            return None if self._strange(event.value, path) else event.value
        try:
            return scalar(event.value)
        except Refused as refused:
            self._find(path, refused.message, refused.cure, covers=True)
            return None

    def _strange(self, text: str, path: KeyPath) -> bool:
        # A quoted text can spell by escapes what may not stand in the file.
        found = Reader.NON_PRINTABLE.search(text)
        if found:
            self._find(path, f"expected printable text, got the character U+{ord(found.group()):04X}", covers=True)
        return found is not None

    def _find(self, path: KeyPath, message: str, cure: str = "", covers: bool = False) -> None:
        shown = tuple(part for part in path if part is not _DISCARD)
        self.findings.append(Finding(shown, message, cure, self.line, covers and shown == path))
