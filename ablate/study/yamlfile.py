"""YAML text to plain values: 1.2 scalars, unique text keys, no anchors, merges or tags, bounded in size and depth.

PyYAML supplies only the events. Its constructors follow YAML 1.1 (`no` is false, `1e-3` is text, `017` is 15), and its
composer recurses and drops the first of two equal keys, so values are built here from the events, iteratively.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.reader import Reader

from ablate.errors import StudyError
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
        raise StudyError(error.message, file=file, line=error.line, cure=error.cure) from None


def parse_value(text: str) -> Document:
    """Return a value given on the command line, read as in a file; raises `Refused` where it is no YAML."""
    strange = Reader.NON_PRINTABLE.search(text)
    if strange:
        raise Refused(f"expected printable text, got the character U+{ord(strange.group()):04X}")
    return parse(text)


class _Fatal(Refused):
    """A fault that makes further reading pointless."""

    def __init__(self, message: str, line: int, cure: str = "") -> None:
        super().__init__(message, cure)
        self.line = line


def parse(text: str) -> Document:
    """Build the values of `text` from PyYAML's events."""
    builder = _Builder(yaml.parse(text, Loader=yaml.SafeLoader))
    try:
        root = builder.document()
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
    return Document(root, builder.lines, builder.findings)


# Stands in a path for a key that was refused, whose value is read all the same.
_REFUSED_KEY = object()


class _Builder:
    """Makes values of events, as deep as `MAX_DEPTH`; everything it refuses becomes a finding at its place."""

    def __init__(self, events: Iterable[Any]) -> None:
        self.lines: dict[KeyPath, int] = {(): 1}
        self.findings: list[Finding] = []
        self.line = 1
        self._events = self._counted(events)

    def _counted(self, events: Iterable[Any]) -> Iterator[Any]:
        nodes = 0
        for event in events:
            if event.start_mark is not None:
                self.line = event.start_mark.line + 1
            nodes += isinstance(event, yaml.NodeEvent)
            if nodes > MAX_NODES:
                raise _Fatal(f"expected at most {MAX_NODES:,} values, got more", self.line)
            yield event

    def document(self) -> Any:
        """Return the value of the one document; raises `_Fatal` where there are two."""
        value, documents = None, 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _Fatal("expected one document, got a second", self.line, "remove the line '---'")
            elif isinstance(event, yaml.NodeEvent):
                value = self._value(event, (), 0)
        return value

    def _value(self, event: Any, path: KeyPath, depth: int) -> Any:
        self._refuse_features(event, path)
        self.lines.setdefault(path, self.line)
        if isinstance(event, yaml.CollectionStartEvent):
            return self._collection(event, path, depth)
        if not isinstance(event, yaml.ScalarEvent):
            return None
        if event.style is not None:
            return None if self._strange(event.value, path) else event.value
        try:
            return scalar(event.value)
        except Refused as refused:
            self._find(path, refused.message, refused.cure, covers=True)
            return None

    def _collection(self, event: Any, path: KeyPath, depth: int) -> Any:
        if depth >= MAX_DEPTH:
            raise _Fatal(f"expected at most {MAX_DEPTH} levels of nesting, got more", self.line)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Any] = []
            while not isinstance(inner := next(self._events), yaml.CollectionEndEvent):
                items.append(self._value(inner, (*path, len(items)), depth + 1))
            return items
        mapping: dict[str, Any] = {}
        while not isinstance(inner := next(self._events), yaml.CollectionEndEvent):
            key = self._key(inner, path, mapping, depth)
            value = self._value(next(self._events), (*path, key), depth + 1)
            if key is not _REFUSED_KEY:
                mapping[key] = value
        return mapping

    def _key(self, event: Any, path: KeyPath, taken: Mapping[str, Any], depth: int) -> Any:
        """Return a key of the mapping at `path`, or `_REFUSED_KEY`."""
        self._refuse_features(event, path)
        if isinstance(event, yaml.CollectionStartEvent):
            self._find(path, "expected text as a key, got a list or a mapping")
            self._collection(event, (*path, _REFUSED_KEY), depth + 1)
        elif isinstance(event, yaml.ScalarEvent):
            place = (*path, event.value)
            if event.style is None and event.value == "<<":
                self._find(path, "expected a plain key, got the merge key <<", "write the keys out")
            elif event.style is None and not is_text(event.value):
                self._find(path, f"expected text as a key, got {excerpt(event.value)}", "quote it")
            elif event.value in taken:
                first = self.lines[place]
                message = f"expected every key once, got it again (first on line {first})"
                self._find(place, message, "remove one of the two")
            elif not self._strange(event.value, place):
                self.lines[place] = self.line
                return event.value
        return _REFUSED_KEY

    def _refuse_features(self, event: Any, path: KeyPath) -> None:
        if isinstance(event, yaml.AliasEvent):
            message = f"expected a plain value, got the alias *{excerpt(str(event.anchor))}"
            self._find(path, message, "write the value out", covers=True)
        elif event.anchor is not None:
            message = f"expected a plain value, got the anchor &{excerpt(str(event.anchor))}"
            self._find(path, message, "write the value out")
        tag = getattr(event, "tag", None)
        if tag is not None:
            short = tag.replace("tag:yaml.org,2002:", "!!")
            message = f"expected a plain value, got the tag {excerpt(short)}"
            self._find(path, message, "remove the tag", covers=bool(path))

    def _strange(self, text: str, path: KeyPath) -> bool:
        # A quoted text can spell by escapes what may not stand in the file.
        found = Reader.NON_PRINTABLE.search(text)
        if found:
            self._find(path, f"expected printable text, got the character U+{ord(found.group()):04X}", covers=True)
        return found is not None

    def _find(self, path: KeyPath, message: str, cure: str = "", covers: bool = False) -> None:
        shown = tuple(part for part in path if part is not _REFUSED_KEY)
        self.findings.append(Finding(shown, message, cure, self.line, covers and shown == path))


def is_text(written: str) -> bool:
    """Return whether a text without quotes is read as that text."""
    try:
        return scalar(written) == written
    except Refused:
        return False
