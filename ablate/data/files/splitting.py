"""Splits of a data set: by fractions, by folds, by folders or by lists of names, with groups that stay whole."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

from ablate.data.dataset import SPLITS, Findings
from ablate.data.rng import derive
from ablate.errors import nearest
from ablate.wording import short_path

DEFAULT = {"train": 0.7, "val": 0.15, "test": 0.15, "seed": 0}
KEY = "data.split"
MOST_BYTES = 64 << 20  # of a list of names


@dataclass(frozen=True)
class Dealt:
    """Images dealt out by `seed` to parts, each of a share of all images; `splits` says which split a part is of."""

    parts: Mapping[str, float]
    splits: Mapping[str, str]
    seed: int


@dataclass(frozen=True)
class Folders:
    """A folder for each split."""

    names: Mapping[str, str]


@dataclass(frozen=True)
class Lists:
    """The names of each split's images."""

    names: Mapping[str, tuple[str, ...]]


Rule = Dealt | Folders | Lists


def read_split(
    split: Mapping[str, Any] | None,
    group: str | None,
    root: Path,
    base: Path,
    findings: Findings,
    *,
    placed: bool = False,
) -> tuple[Rule | None, re.Pattern[str] | None]:
    """Return the rule that `split` says and the expression `group`, or None with what is wrong in `findings`.

    - ``{train: 0.7, val: 0.15, test: 0.15, seed: 0}``: fractions that add up to 1;
    - ``{folds: 5, fold: 0, seed: 0}``;
    - ``{train: a, val: b, test: c}``: folders below the root, or where `placed` what stands for ``{split}`` in the
      patterns of images and masks, which may lie deeper; or files ending in .txt with a name on each line
      (below the root, else beside the study file);
    - ``{train: [...], val: [...], test: [...]}``: lists of names.
    """
    rule, pattern = _rule(dict(DEFAULT if split is None else split), root, base, findings, placed), None
    if group is not None:
        try:
            pattern = re.compile(group)
        except (re.error, RecursionError, OverflowError) as error:
            findings.say(f"not a regular expression ({error})", key="data.group")
    return rule, pattern


def group_of(image: str, pattern: re.Pattern[str] | None, findings: Findings) -> str | None:
    """Return the group of an image: the first bracket of the match, or all of it; None without a pattern.

    The pattern is searched in the file's name without ending or, where it contains a "/", in the path.
    """
    if pattern is None:
        return None
    match = pattern.search(image if "/" in pattern.pattern else PurePosixPath(image).stem)
    if match is None:
        findings.add(image, "in which 'group' finds nothing", key="data.group")
        return ""
    return next((part for part in match.groups() if part is not None), match.group())


def deal(
    names: Sequence[str], groups: Sequence[str | None], rule: Dealt, findings: Findings, copies: Mapping[str, str]
) -> list[str]:
    """Return the split of each image, by name and group: groups stay whole, and the order of the images is nothing.

    Groups are taken in the order of their size (the largest first, equal ones in an order that the seed and their
    names decide) and each goes to the split that lacks the most images of its share. Images that have one value in
    `copies`, and the groups that share such images, are one group.
    """
    units = _units(names, groups, copies)
    order = sorted(units, key=lambda unit: (-len(units[unit]), derive(rule.seed, "split", *unit), unit))
    labels = list(rule.parts)
    if len(order) < len(labels):
        kind = "splits" if labels == list(SPLITS) else "folds"
        what = "groups" if any(group is not None for group in groups) else "different images" if copies else "images"
        findings.say(f"{len(labels)} {kind} need as many {what}, got {len(order)}", key=KEY)
        return ["train"] * len(names)

    lacking = {label: part * len(names) for label, part in rule.parts.items()}
    empty = set(labels)
    chosen = [""] * len(names)
    for place, unit in enumerate(order):
        # The last groups are kept for splits that would be empty otherwise.
        open_to = [label for label in labels if label in empty] if len(order) - place <= len(empty) else labels
        label = max(open_to, key=lambda name: (lacking[name], -labels.index(name)))
        lacking[label] -= len(units[unit])
        empty.discard(label)
        for index in units[unit]:
            chosen[index] = rule.splits[label]
    return chosen


def _units(
    names: Sequence[str], groups: Sequence[str | None], copies: Mapping[str, str]
) -> dict[tuple[str, str], list[int]]:
    """Return what is dealt out whole, with the indices of its images."""
    own = [("image", name) if group is None else ("group", group) for name, group in zip(names, groups, strict=True)]
    parent = {unit: unit for unit in own}

    def root(unit: tuple[str, str]) -> tuple[str, str]:
        while parent[unit] != unit:
            unit = parent[unit]
        return unit

    first: dict[str, tuple[str, str]] = {}
    for name, unit in zip(names, own, strict=True):
        if name in copies:
            one, other = sorted((root(first.setdefault(copies[name], unit)), root(unit)))
            parent[other] = one
    units: dict[tuple[str, str], list[int]] = {}
    for index, unit in enumerate(own):
        units.setdefault(root(unit), []).append(index)
    return units


def pick(images: Sequence[str], rule: Lists, findings: Findings) -> dict[str, list[int]]:
    """Return the indices of the images that each list names: by path, by file name or by either without its ending."""
    places: dict[str, list[int]] = {}
    for index, image in enumerate(images):
        path = PurePosixPath(image)
        for name in dict.fromkeys((image, path.name, path.stem, str(path.with_suffix("")))):
            places.setdefault(name, []).append(index)
    chosen: dict[str, list[int]] = {}
    owner: dict[int, str] = {}
    for split, names in rule.names.items():
        chosen[split] = []
        for name in names:
            found = places.get(name, [])
            if len(found) != 1:
                fault = "matching several images" if found else "matching no image"
                findings.add(name, fault, noun="name", key=f"{KEY}.{split}")
            elif found[0] in owner:
                findings.add(f"{name} ({owner[found[0]]}, {split})", "listed twice", key=KEY)
            else:
                owner[found[0]] = split
                chosen[split].append(found[0])
        chosen[split].sort()
    return chosen


def _rule(split: dict[str, Any], root: Path, base: Path, findings: Findings, placed: bool) -> Rule | None:
    by_folds = "folds" in split or "fold" in split
    allowed = ("folds", "fold", "seed") if by_folds else (*SPLITS, "seed")
    for name in split:
        if name not in allowed:
            message = "expected a part of a split, got an unknown key"
            findings.say(message, key=f"{KEY}.{name}", cure=nearest(name, allowed))
    if by_folds:
        return _folds(split, findings)
    absent = [name for name in SPLITS if name not in split]
    if absent:
        findings.say(f"expected train, val and test, got no {' and no '.join(absent)}", key=KEY)
        return None
    values = [split[name] for name in SPLITS]
    if all(_is_number(value) for value in values):
        return _fractions(split, findings)
    if "seed" in split:
        findings.say("expected no seed where a split names its images", key=f"{KEY}.seed")
    if all(isinstance(value, str) for value in values) and not any(value.endswith(".txt") for value in values):
        return _folders(split, root, findings, placed)
    return _lists(split, root, base, findings)


def _fractions(split: Mapping[str, Any], findings: Findings) -> Dealt | None:
    parts = {name: float(split[name]) for name in SPLITS}
    total = sum(parts.values())
    fine = all(0 < part < 1 for part in parts.values()) and math.isclose(total, 1.0, abs_tol=1e-6)
    if not fine:
        shown = ", ".join(f"{name} {part:g}" for name, part in parts.items())
        findings.say(f"expected fractions above 0 that add up to 1, got {shown}", key=KEY)
    seed = _seed(split, findings)
    return Dealt(parts, dict(zip(SPLITS, SPLITS, strict=True)), seed) if fine and seed is not None else None


def _folds(split: Mapping[str, Any], findings: Findings) -> Dealt | None:
    folds, fold, seed = split.get("folds"), split.get("fold", 0), _seed(split, findings)
    if not _is_int(folds) or not 3 <= folds <= 1000:
        findings.say(f"expected 3 to 1000 folds (one each for test and val), got {folds!r}", key=f"{KEY}.folds")
        return None
    if not _is_int(fold) or not 0 <= fold < folds:
        findings.say(f"expected a fold in 0..{folds - 1}, got {fold!r}", key=f"{KEY}.fold")
        return None
    return None if seed is None else folded(folds, fold, seed)


def folded(folds: int, fold: int, seed: int) -> Dealt:
    """Return the rule by which fold `fold` (from 0) of `folds` is test, the next one val, the others train."""
    splits = dict.fromkeys(map(str, range(folds)), "train")
    splits |= {str(fold): "test", str((fold + 1) % folds): "val"}
    return Dealt(dict.fromkeys(splits, 1 / folds), splits, seed)


def _folders(split: Mapping[str, Any], root: Path, findings: Findings, placed: bool) -> Folders | None:
    fine = True
    for name in SPLITS:
        folder = PurePosixPath(split[name])
        there = placed or _is(root / folder, Path.is_dir)
        if folder.is_absolute() or ".." in folder.parts or not there:
            findings.say(f"there is no folder '{folder}' in {root}", key=f"{KEY}.{name}")
            fine = False
    return Folders({name: str(PurePosixPath(split[name])) for name in SPLITS}) if fine else None


def _lists(split: Mapping[str, Any], root: Path, base: Path, findings: Findings) -> Lists | None:
    names: dict[str, tuple[str, ...]] = {}
    for name in SPLITS:
        value = split[name]
        if isinstance(value, str) and value.endswith(".txt"):
            path = next((path for path in (root / value, base / value) if _is(path, Path.is_file)), None)
            if path is None:
                findings.say(f"there is no file '{value}' in {root} or {base}", key=f"{KEY}.{name}")
                continue
            try:
                if path.stat().st_size > MOST_BYTES:
                    raise OSError(f"it has more than {MOST_BYTES >> 20} MiB")
                lines = path.read_text(encoding="utf-8-sig").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                findings.say(f"{short_path(path)} cannot be read ({error})", key=f"{KEY}.{name}")
                continue
            names[name] = tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
        elif isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
            names[name] = tuple(value)
        else:
            expected = "a fraction, a folder, a list of names or a .txt file of names, alike for all three splits"
            findings.say(f"expected {expected}, got {value!r}", key=f"{KEY}.{name}")
    return Lists(names) if len(names) == len(SPLITS) else None


def _seed(split: Mapping[str, Any], findings: Findings) -> int | None:
    seed = split.get("seed", 0)
    if _is_int(seed) and 0 <= seed < 2**32:
        return int(seed)
    findings.say(f"expected a whole number from 0 to 4294967295, got {seed!r}", key=f"{KEY}.seed")
    return None


def _is(path: Path, kind: Callable[[Path], bool]) -> bool:
    try:
        return kind(path)
    except (OSError, ValueError):  # such as a name that is too long
        return False


def _is_int(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
