"""From what is stored in a mask (values, palette indices, colours) to class indices, as `classes` and `ignore` say."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ablate.data.dataset import IGNORE, MOST_MULTILABEL, Findings

Colour = tuple[int, int, int]

UNKNOWN = 254  # in an applied mask: a stored value that neither `classes` nor `ignore` names
OTHERS = "others"  # in `ignore`: every stored value that `classes` does not name
MOST_CLASSES = 254
HIGHEST_VALUE = 65_535
BACKGROUND: Colour = (64, 64, 64)
BITS = 16
_HEX = re.compile(r"#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})")


@dataclass(frozen=True)
class Labels:
    """The meaning of stored labels: value, or colour as r << 16 | g << 8 | b, to class index or `IGNORE`.

    `unnamed` is what all become that `table` does not name: `UNKNOWN`, which is an error, or `IGNORE`.
    `multilabel`: a pixel may bear several classes, and the index is the sum of 2^class. With `words` each class has a
    file of its own, in whose name its word stands, and `table` says of a file's values: 1 there, 0 not.
    """

    classes: tuple[str, ...]
    palette: tuple[Colour, ...] | None
    coloured: bool
    table: Mapping[int, int]
    multilabel: bool = False
    words: tuple[str, ...] = ()
    unnamed: int = UNKNOWN

    @cached_property
    def _lookup(self) -> np.ndarray:
        lookup = np.full(1 << 24 if self.coloured else HIGHEST_VALUE + 1, self.unnamed, dtype=np.uint8)
        for code, target in self.table.items():
            lookup[code] = target
        return lookup

    def apply(self, codes: np.ndarray) -> np.ndarray:
        """Return class indices uint8 of `codes` (integers): `IGNORE` where ignored, `unnamed` where not named."""
        if codes.dtype in (np.uint8, np.uint16):  # of these no value lies outside the table
            return self._lookup[codes]
        inside = (codes >= 0) & (codes < len(self._lookup))
        return np.where(inside, self._lookup[np.where(inside, codes, 0)], np.uint8(self.unnamed))

    def joined(self, masks: Sequence[np.ndarray]) -> np.ndarray:
        """Return the one mask of a pixel's classes from those of its files; what any file ignores is ignored."""
        if not self.words:
            return masks[0]
        whole = np.zeros_like(masks[0])
        for index, mask in enumerate(masks):
            whole |= (mask == 1).astype(np.uint8) << np.uint8(index)
        whole[np.any([mask == IGNORE for mask in masks], axis=0)] = IGNORE
        return whole

    def shown(self, code: int) -> str:
        """Return a stored label for a message: a number, or a colour."""
        return _shown(code, self.coloured)

    @property
    def allowed(self) -> str:
        """Return all stored labels that have a meaning, for a message."""
        texts = [self.shown(code) for code in sorted(self.table)]
        return ", ".join(texts) if len(texts) <= 12 else f"{', '.join(texts[:10])}, ... ({len(texts)} in all)"


def read_labels(
    classes: Mapping[str, Any] | Sequence[str],
    ignore: Sequence[Any],
    palette: Mapping[str, Any] | None,
    findings: Findings,
    *,
    files: bool = False,
) -> Labels | None:
    """Return the labels that a study names, or None with what is wrong in `findings`.

    `classes` is a list of names (stored as 0, 1, ...) or maps each name to a value, a list of values, a colour
    ("#rrggbb" or three numbers) or a list of colours. Three numbers are a colour where every class has just three.
    `ignore` lists values or colours that are not scored, or "others": all that `classes` does not name (where a pixel
    bears one class).
    A pixel may bear several classes where each is a bit of the value, such as {bit: 0}, and where each has `files` of
    its own, of 0 and 1 or 255: then `classes` are what stands in their names, or names to that.
    """
    several = files or (isinstance(classes, Mapping) and any(isinstance(value, Mapping) for value in classes.values()))
    if not isinstance(classes, Mapping):
        for name in sorted({name for name in classes if list(classes).count(name) > 1}):
            findings.say(f"the class '{name}' is named twice", key="data.classes")
        classes = {name: name if files else index for index, name in enumerate(classes)}
    if several:
        return _read_multilabel(classes, ignore, palette, findings, files=files)
    if len(classes) == 1:
        cure = "name the background as a class, such as background: 0"
        findings.say("one class leaves nothing to tell apart, any network scores 100 %", key="data.classes", cure=cure)
        return None
    if not 2 <= len(classes) < MOST_CLASSES:
        findings.say(f"expected 2 to {MOST_CLASSES - 1} classes, got {len(classes)}", key="data.classes")
        return None
    if all(_is_number(name) for name in classes) and not any(_is_number(value) for value in classes.values()):
        cure = "write each name before what masks store, such as ground: 0"
        findings.say("expected names to values, got values to names", key="data.classes", cure=cure)
        return None
    named = [(f"classes.{name}", index, _parse(entry)) for index, (name, entry) in enumerate(classes.items())]
    stored = [*named, *(("ignore", IGNORE, _parse(entry)) for entry in ignore if entry != OTHERS)]
    coloured = any(isinstance(part, tuple) for _, _, found in stored for part in found)
    coloured = coloured or all(_as_colour(found) for _, _, found in named)
    table: dict[int, int] = {}
    owners: dict[int, str] = {}
    chosen: dict[str, Colour] = {}
    for key, target, found in stored:
        codes, name = _codes(found, coloured), key.removeprefix("classes.")
        if not codes:
            wanted = "a colour such as [128, 0, 0] or '#800000'" if coloured else f"values 0..{HIGHEST_VALUE}"
            findings.say(f"expected {wanted} for every class and ignored label", key=f"data.{key}")
        elif coloured and target != IGNORE:
            chosen[name] = _colour(codes[0])
        for code in codes:
            if owners.setdefault(code, name) != name:
                told = f"the label {_shown(code, coloured)} stands for both '{owners[code]}' and '{name}'"
                findings.say(told, key=f"data.{key}")
            table[code] = target
    colours = _palette(tuple(classes), palette, chosen, findings)
    return Labels(tuple(classes), colours, coloured, table, unnamed=IGNORE if OTHERS in ignore else UNKNOWN)


def _read_multilabel(
    classes: Mapping[str, Any],
    ignore: Sequence[Any],
    palette: Mapping[str, Any] | None,
    findings: Findings,
    *,
    files: bool,
) -> Labels | None:
    """Return the labels of masks whose pixels may bear several classes."""
    if not 2 <= len(classes) <= MOST_MULTILABEL:
        wanted = f"expected 2 to {MOST_MULTILABEL} classes where a pixel may bear several"
        findings.say(f"{wanted}, got {len(classes)}", key="data.classes", cure="leave some out, or make two studies")
        return None
    ignored = [code for entry in ignore for code in _codes(_parse(entry), False)]
    if len(ignored) < len(ignore):
        findings.say(f"expected values 0..{HIGHEST_VALUE}", key="data.ignore")
    found: dict[Any, str] = {}
    for name, value in classes.items():
        stored = value if files else value.get("bit") if isinstance(value, Mapping) and len(value) == 1 else None
        if not (
            isinstance(stored, str) and re.fullmatch(r"[^/\\*?\[\]{}]+", stored)
            if files
            else _is_value(stored, BITS - 1)
        ):
            wanted = "what stands for the class in its files' names" if files else "a bit, such as {bit: 0}"
            findings.say(f"expected {wanted}, got {value!r}", key=f"data.classes.{name}")
        elif found.setdefault(stored, name) != name:
            told = f"'{stored}' stands" if files else f"bit {stored} stands"
            findings.say(f"{told} for both '{found[stored]}' and '{name}'", key=f"data.classes.{name}")
    if findings:
        return None
    if files:
        table = {0: 0, 1: 1, 255: 1}
    else:
        sums = [(0, 0)]
        for index, bit in enumerate(found):
            sums += [(code | 1 << bit, target | 1 << index) for code, target in sums]
        table = dict(sums)
    twice = [code for code in ignored if code in table and not (files and code == 255)]
    if twice:
        findings.say(f"the value {twice[0]} stands for classes, too", key="data.ignore")
        return None
    table |= dict.fromkeys(ignored, IGNORE)
    colours = _palette(tuple(classes), palette, {}, findings)
    return Labels(tuple(classes), colours, False, table, multilabel=True, words=tuple(found) if files else ())


def distinct_colours(count: int) -> tuple[Colour, ...]:
    """Return `count` colours that can be told apart: hues a golden ratio apart, three brightnesses in turn."""
    colours = []
    for index in range(count):
        rgb = colorsys.hsv_to_rgb(index * 0.618034 % 1, (0.8, 0.55)[index % 2], (0.95, 0.7, 0.5)[index % 3])
        colours.append((round(rgb[0] * 255), round(rgb[1] * 255), round(rgb[2] * 255)))
    return tuple(colours)


def drawn_colours(classes: Sequence[str]) -> tuple[Colour, ...]:
    """Return the colours of classes for which none is given: the background dark, so that what lies on it is seen."""
    colours = zip(classes, distinct_colours(len(classes)), strict=True)
    return tuple(BACKGROUND if name.lower() == "background" else colour for name, colour in colours)


def _palette(
    classes: tuple[str, ...], asked: Mapping[str, Any] | None, stored: Mapping[str, Colour], findings: Findings
) -> tuple[Colour, ...] | None:
    """Return the colours to draw classes with: as asked for, else as stored in the masks; None leaves them open."""
    if asked is None and len(stored) < len(classes):
        return None
    chosen = dict(zip(classes, drawn_colours(classes), strict=True)) | dict(stored)
    for name, entry in (asked or {}).items():
        codes = _codes(_parse(entry), True)
        if name not in chosen or len(codes) != 1:
            expected = "one colour, such as [128, 0, 0] or '#800000'" if name in chosen else "the name of a class"
            findings.say(f"expected {expected}", key=f"data.palette.{name}")
            continue
        chosen[name] = _colour(codes[0])
    return tuple(chosen[name] for name in classes)


def _parse(entry: Any) -> list[Any]:
    """Return the labels that an entry of `classes` names, values or colours; none where it names neither."""
    if isinstance(entry, str):
        match = _HEX.fullmatch(entry)
        return [tuple(int(part, 16) for part in match.groups())] if match else []
    if not isinstance(entry, list | tuple):
        return [entry] if _is_value(entry) else []
    if all(_is_value(part) for part in entry):
        return list(entry)
    colours = [_as_colour(_parse(part)) for part in entry]
    return colours if all(colours) else []


def _as_colour(found: list[Any]) -> Colour | None:
    """Return the one colour that labels are, which three numbers may be, too."""
    if len(found) == 1 and isinstance(found[0], tuple):
        return found[0]
    three = len(found) == 3 and all(isinstance(part, int) and part <= 255 for part in found)
    return (found[0], found[1], found[2]) if three else None


def _codes(found: list[Any], coloured: bool) -> list[int]:
    """Return labels as codes, once it is known whether they are colours; none where they do not fit."""
    has_colours = any(isinstance(part, tuple) for part in found)
    if not coloured:
        return [] if has_colours else [int(part) for part in found]
    colours = found if has_colours else [colour] if (colour := _as_colour(found)) else []
    return [int(red) << 16 | int(green) << 8 | int(blue) for red, green, blue in colours]


def _colour(code: int) -> Colour:
    return code >> 16, code >> 8 & 255, code & 255


def _shown(code: int, coloured: bool) -> str:
    if code < 0 and coloured:
        return "above 255"
    return str(_colour(code)) if coloured else str(code)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) or (isinstance(value, str) and value.strip().isdecimal())


def _is_value(value: Any, most: int = HIGHEST_VALUE) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most
