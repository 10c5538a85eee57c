"""A study file to a `Study`, all that is wrong with it at once and in its place; and a `Study` back to a file."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ablate.errors import Problem, StudyError, nearest
from ablate.study.axes import models_in
from ablate.study.names import secret_findings
from ablate.study.overrides import apply_overrides
from ablate.study.problems import Finding, KeyPath, Places, shown, translate
from ablate.study.resolve import resolve
from ablate.study.spec import StudySpec
from ablate.study.study import Study
from ablate.study.yamlfile import MAX_BYTES, is_text, parse_bytes

# Parts of a study whose keys are often written without them.
PARTS = ("train", "measure", "run", "track")
MAX_PROBLEMS = 100
# What stands in for a required part that is broken, so that the rest can still be checked.
STAND_INS: dict[str, Any] = {"study": "study", "data": {"name": ""}}
LIST_STAND_INS: dict[str, Any] = {"claims": {"metric": "", "variant": "any", "expect": ""}, "exclude": {}}


def read_study(
    path: Path | str, overrides: Sequence[str] = (), *, check_components: bool = True, base: Path | None = None
) -> Study:
    """Return the study that the file at `path` says, with `overrides` such as "train.epochs=3" put in.

    With `check_components` the models, data sets, losses and optimizers that it names are imported, their settings
    checked and defaults filled in. Without, nothing is imported (a report needs no torch): the settings stand as
    written, and only those of a file made by `dump_study` are complete. Relative paths start at the folder `base`, by
    default the file's own. Raises `StudyError` with all problems.
    """
    path = Path(path)
    document = parse_bytes(_read(path), str(path))
    if not isinstance(document.value, dict):
        got = "an empty file" if document.value is None else shown(document.value)
        message = f"expected a mapping of keys to values, got {got}"
        raise StudyError(message, file=str(path), line=1, cure="begin with 'study: <name>'")
    values, origins, problems = apply_overrides(document.value, overrides)
    places = Places(str(path), document.lines, origins)
    findings = [*map(_turned, document.findings), *secret_findings(values)]
    spec, broken = _typed(values, findings)
    touched = {str(item.path[0]) if item.path else "" for item in findings}
    base = base or path.resolve().parent
    study, found = resolve(spec, path, base, registered=check_components, broken=touched)
    findings += [item for item in found if not _covered(item.path, broken)]
    problems += [places.problem(item) for item in findings]
    if problems:
        raise StudyError(_presented(problems))
    assert study is not None
    return dataclasses.replace(study, places=places)


def _turned(finding: Finding) -> Finding:
    """Give classes that are written as value: name, a number as key, the cure that leads to name: value."""
    if finding.path != ("data", "classes") or not finding.message.startswith("expected text as a key"):
        return finding
    return dataclasses.replace(finding, cure="write every name before its value: {ground: 0, thing: 1}")


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as handle:
            return handle.read(MAX_BYTES + 1)
    except FileNotFoundError:
        try:
            beside = [item.name for item in path.parent.iterdir() if item.suffix in (".yaml", ".yml")]
        except OSError:
            beside = []
        raise StudyError("no such study file", file=str(path), cure=nearest(path.name, beside)) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StudyError(f"the study file cannot be read ({reason})", file=str(path)) from None


def _typed(values: dict[str, Any], findings: list[Finding]) -> tuple[StudySpec, set[KeyPath]]:
    """Return the spec of all that is well-formed; the rest is added to `findings`, and its paths are given back.

    What is malformed is cut out and the remainder validated again, so that one slip hides no other.
    """
    remaining = copy.deepcopy(values)
    broken: set[KeyPath] = {item.path for item in findings if item.covers}
    while True:
        try:
            # JSON mode: numbers are never made of text, and lists serve for tuples.
            return StudySpec.model_validate_json(json.dumps(remaining), strict=True), broken
        except ValidationError as error:
            before, cut = copy.deepcopy(remaining), set[KeyPath]()
            for item in translate(error, before, known=known_keys):
                # Of a part that holds something broken is not said what follows from that being cut out.
                if not _covered(item.path, broken) and not (item.path and _covered_by(item.path, broken)):
                    findings.append(item)
                if not _covered(item.path, cut):
                    cut.add(_cut(remaining, item.path))
                broken |= {item.path, *cut}
            if remaining == before:
                remaining = copy.deepcopy(STAND_INS)


def _covered(path: KeyPath, broken: Iterable[KeyPath]) -> bool:
    """Return whether something at or above `path` is already known to be broken, so that this follows from that."""
    return any(path[: len(known)] == known for known in broken)


def _covered_by(path: KeyPath, broken: Iterable[KeyPath]) -> bool:
    """Return whether something below `path` is already known to be broken."""
    return any(known[: len(path)] == path for known in broken)


def _cut(values: dict[str, Any], path: KeyPath) -> KeyPath:
    """Take what is malformed at `path` out of `values`; the path of what was taken."""
    if not path or path[0] not in values:
        for key, stand_in in STAND_INS.items():
            values.setdefault(key, copy.deepcopy(stand_in))
        return path
    holder: Any = values
    for part in path[:-1]:
        holder = holder[part]
    if path[0] in LIST_STAND_INS and len(path) > 1:
        values[path[0]][path[1]] = copy.deepcopy(LIST_STAND_INS[path[0]])
        return path[:2]
    if isinstance(holder, dict) and path[-1] in holder:
        del holder[path[-1]]
        return path
    # A list item, or a key that is missing: what holds it goes as a whole.
    return _cut(values, path[:-1])


def known_keys(path: KeyPath) -> list[str]:
    """Return the keys that may stand at a path of a study file, as far as the schema decides it.

    At the top also those inside of its parts, such as "train.epochs".
    """
    models: list[type[BaseModel]] = [StudySpec]
    for part in path:
        inner: list[type[BaseModel]] = []
        for model in models:
            info = model.model_fields.get(part) if isinstance(part, str) else None
            # A name inside a mapping, or a position in a list, leads to no other model.
            inner += models_in(info.annotation) if info else [model]
        models = inner
    names = [name for model in models for name in model.model_fields]
    return names if path else [*names, *(f"{part}.{name}" for part in PARTS for name in known_keys((part,)))]


def _presented(problems: list[Problem]) -> list[Problem]:
    """Sort problems by their lines, those of overrides last, each once, and no more than one can read."""
    ordered = sorted(dict.fromkeys(problems), key=lambda item: item.line if item.line is not None else float("inf"))
    if len(ordered) <= MAX_PROBLEMS:
        return ordered
    more = Problem(f"and {len(ordered) - MAX_PROBLEMS} more problems", file=ordered[0].file)
    return [*ordered[:MAX_PROBLEMS], more]


class _Dumper(yaml.SafeDumper):
    """Writes text so that the reader, which follows YAML 1.2, reads the same text."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if is_text(value) else '"')


_Dumper.add_representer(str, _text)


def dump_study(study: Study) -> str:
    """Return the resolved study as YAML; reading it gives the same trials, whatever the defaults become."""
    document = study.spec.model_dump(mode="json")
    document["variants"] = {
        name: {**item.difference, **item.model_dump(mode="json", by_alias=True, exclude_defaults=True)}
        for name, item in study.spec.variants.items()
    }
    document["claims"] = [claim.model_dump(mode="json", exclude_defaults=True) for claim in study.spec.claims]
    if study.spec.search is not None:
        document["search"] = study.spec.search.model_dump(mode="json", exclude_none=True)
    if study.spec.confirm is not None:
        document["confirm"] = study.spec.confirm.model_dump(mode="json", exclude_none=True)
    if study.spec.screen is not None:
        del document["seeds"]  # they are those of `screen`
    document = {key: value for key, value in document.items() if value not in (None, [], {})}
    header = f"# The study {study.name} as it was resolved; relative paths start at the original study file.\n"
    return header + yaml.dump(
        document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None
    )
