"""Two studies side by side: what differs in their settings, versions and data, and what each says of every variant."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ablate.analysis.analyse import Analysis, analyse
from ablate.analysis.frames import Frames, load_results
from ablate.report.format import percent_change, percent_spread, rate_text
from ablate.report.lookup import Row, by_variant, decided, order, primary_contrasts, progress, setting_label

ABSENT = "–"
MISSING = object()
_DIGEST = re.compile(r"[0-9a-f]{32,}")
# Where trials run and what is tracked changes no result; names are not settings.
_NOT_SETTINGS = frozenset({"study", "run", "track", "claims"})


@dataclass(frozen=True)
class Difference:
    """One thing in which two studies differ: the part it belongs to, its key, and both values as text."""

    part: str
    key: str
    left: str
    right: str


@dataclass(frozen=True)
class Side:
    """One study's result for one variant, as it is printed."""

    setting: str
    miou: str
    delta: str
    decision: str


@dataclass(frozen=True)
class Comparison:
    """Two studies: names, differences, shared trials, and both sides of every variant (None where one lacks it)."""

    names: tuple[str, str]
    trials: tuple[str, str]
    differences: tuple[Difference, ...]
    same_trials: int
    variants: Mapping[str, tuple[Side | None, Side | None]]

    @property
    def same_data(self) -> bool:
        """Return whether nothing of the data differs: only then are the levels comparable."""
        return not any(difference.part == "data" for difference in self.differences)


def compare_studies(left: Path, right: Path) -> Comparison:
    """Compare the results folders at `left` and `right`; raises `ResultsError` where one is none."""
    both = [analyse(load_results(path)) for path in (left, right)]
    first, second = (analysis.frames for analysis in both)
    sides = [_sides(analysis) for analysis in both]
    ran = [frames.trials[frames.trials["status"].ne("missing")] for frames in (first, second)]
    keys = [set(trials["key"]) for trials in ran]
    return Comparison(
        names=(first.study.study, second.study.study),
        trials=tuple("{} of {} trials".format(*progress(analysis)) for analysis in both),  # type: ignore[arg-type]
        differences=tuple(differences(first, second)),
        same_trials=len(keys[0] & keys[1]),
        variants={
            variant: (sides[0].get(variant), sides[1].get(variant)) for variant in dict.fromkeys([*sides[0], *sides[1]])
        },
    )


def differences(left: Frames, right: Frames) -> list[Difference]:
    """Return everything in which the two differ: settings, data, versions, device, code, plugins, decisions."""
    found = []
    for part, one, other in (
        ("settings", _settings(left), _settings(right)),
        ("data", _data(left), _data(right)),
        *((part, left.run.get(part) or {}, right.run.get(part) or {}) for part in ("versions", "device", "git")),
        ("plugins", _plugins(left), _plugins(right)),
        ("decisions", _decisions(left), _decisions(right)),
    ):
        flat = flatten(one), flatten(other)
        for key in dict.fromkeys([*flat[0], *flat[1]]):
            values = [one.get(key, MISSING) for one in flat]
            exact = [_exact(value) for value in values]
            if exact[0] != exact[1]:
                shown = [ABSENT if value is MISSING else as_text(value) for value in values]
                # What differs beyond the digits that people read is shown to the last one.
                found.append(Difference(part, key, *(shown if shown[0] != shown[1] else exact)))
    return found


def flatten(value: Any, path: str = "") -> dict[str, Any]:
    """Return nested mappings as dotted key -> value; lists are one value, and a mapping without keys is none."""
    if isinstance(value, Mapping):
        return {key: leaf for name in value for key, leaf in flatten(value[name], f"{path}.{name}".lstrip(".")).items()}
    return {path: value}


def as_text(value: Any) -> str:
    """Return a value as people write it: small rates as 3e-4, yes and no, a digest by its beginning."""
    match value:
        case bool():
            return "yes" if value else "no"
        case None:
            return "none"
        case str():
            return f"{value[:12]}…" if _DIGEST.fullmatch(value) else value
        case float() if 0 < value < 0.01:
            return rate_text(value)
        case list():
            return f"[{', '.join(map(as_text, value))}]"
    return _exact(value)


def _exact(value: Any) -> str:
    return ABSENT if value is MISSING else json.dumps(value, ensure_ascii=False, default=str, sort_keys=True)


def _settings(frames: Frames) -> dict[str, Any]:
    spec = frames.study.model_dump(mode="json")
    for variant in spec["variants"].values():
        if variant.get("match") is None:
            variant.pop("match", None)
    # Three seeds are the seeds 0, 1, 2; where the data lie is no setting.
    seeds = spec["seeds"]
    spec["seeds"] = list(range(seeds)) if isinstance(seeds, int) else seeds
    spec["data"] = {key: value for key, value in spec["data"].items() if key != "root"}
    return {key: value for key, value in spec.items() if key not in _NOT_SETTINGS}


def _data(frames: Frames) -> dict[str, Any]:
    data = frames.run.get("data") or {}
    # Name and size are settings too.
    return {key: value for key, value in data.items() if key not in ("files", "name", "size")}


def _plugins(frames: Frames) -> dict[str, Any]:
    plugins: Sequence[Mapping[str, Any]] = frames.run.get("plugins") or []
    return {Path(str(plugin.get("file", ""))).name: plugin.get("sha256") for plugin in plugins}


def _decisions(frames: Frames) -> dict[str, Any]:
    decided: Mapping[str, Any] = frames.run.get("decisions") or {}
    # The device has a part of its own.
    decided = {name: entry for name, entry in decided.items() if name != "device"}
    return {name: entry.get("value") if isinstance(entry, Mapping) else entry for name, entry in decided.items()}


def _sides(analysis: Analysis) -> dict[str, Side]:
    contrasts, rows = by_variant(primary_contrasts(analysis)), by_variant(analysis.variants)
    return {variant: _side(analysis, rows[variant], contrasts.get(variant)) for variant in order(analysis)}


def _side(analysis: Analysis, row: Row, contrast: Row | None) -> Side:
    miou = percent_spread(row["test_mean"], row["test_low"], row["test_high"])
    setting = setting_label(analysis, analysis.own_best.get(str(row["variant"])))
    if contrast is None:
        return Side(setting, miou, "", "baseline" if row["baseline"] else "")
    delta = percent_change(contrast["delta"], contrast["low"], contrast["high"])
    return Side(setting, miou, delta, decided(contrast))


def print_comparison(left: Path, right: Path, console: Console | None = None) -> None:
    """Print the comparison of two results folders."""
    found = compare_studies(left, right)
    console = console or Console()
    names = _told_apart(found.names, (left, right))
    console.print(Text(f"{names[0]} ({found.trials[0]}) and {names[1]} ({found.trials[1]})"), highlight=False)
    if found.names[0] == found.names[1]:
        console.print(Text(f"Both are of the study {found.names[0]}."), highlight=False)
    console.print(
        _differences_table(found, names)
        if found.differences
        else Text("Nothing differs in settings, data, versions or device.")
    )
    console.print(_variants_table(found, names))
    if not found.same_data:
        console.print(Text("The data differ: compare the differences to each baseline, not the levels."))
    console.print(Text(f"Trials that are the same in both: {found.same_trials}."), highlight=False)
    rule = (
        "mIoU in %, each variant at its own best setting; ± half the interval over seeds and images; Δ to its "
        "baseline in points with the interval of the primary decision. No test is made between the two studies."
    )
    console.print(Text(rule, style="dim"))


def _told_apart(names: tuple[str, str], paths: tuple[Path, Path]) -> tuple[str, str]:
    """Return the studies' names; where they are one, the folders', as far as needed to tell them apart."""
    if names[0] != names[1]:
        return names
    parts = [path.resolve().parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        left, right = ("/".join(one[-depth:]) for one in parts)
        if left != right:
            return left, right
    return names


def _differences_table(found: Comparison, names: tuple[str, str]) -> Table:
    table = Table(title="What differs", title_justify="left", header_style="bold")
    for head in ("Part", "Key", *names):
        table.add_column(Text(head), overflow="fold")
    for one in found.differences:
        # As `Text`: a value in brackets is no markup.
        table.add_row(*(Text(cell) for cell in (one.part, one.key, one.left, one.right)))
    return table


def _variants_table(found: Comparison, names: tuple[str, str]) -> Table:
    table = Table(title="What each says", title_justify="left", header_style="bold")
    for head in ("Variant", "Study", "At", "mIoU", "Δ", "Decision"):
        table.add_column(head, overflow="fold", no_wrap=head == "Decision")
    for variant, sides in found.variants.items():
        for place, (name, side) in enumerate(zip(names, sides, strict=True)):
            cells = (side.setting, side.miou, side.delta, side.decision) if side else (ABSENT,) * 4
            head = "" if place else variant
            table.add_row(*(Text(cell) for cell in (head, name, *cells)), end_section=bool(place))
    return table
