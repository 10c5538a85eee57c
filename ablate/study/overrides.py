"""Words of the command line about a study: `-o train.epochs=3` changes it, `--only seed=0` picks of its trials."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from ablate.errors import Problem, StudyError, nearest
from ablate.study.names import has_password, is_secret
from ablate.study.problems import KeyPath, dotted, excerpt
from ablate.study.study import Study
from ablate.study.trial import Trial, level_text
from ablate.study.yamlfile import Refused, parse_value

# Under these a key is a name that may itself contain dots, such as grid: {model.width: [8, 16]}.
DOTTED_KEYS = {("grid",): 1, ("factors",): 1, ("search", "space"): 2}


def apply_overrides(
    values: dict[str, Any], overrides: Sequence[str]
) -> tuple[dict[str, Any], dict[KeyPath, str], list[Problem]]:
    """Return `values` with every override put in, where each came from, and those that could not be.

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
    """Return how a message names an override; a secret that was typed into one is not repeated."""
    key, _, value = text.partition("=")
    hidden = is_secret(key.rsplit(".", 1)[-1]) or has_password(value)
    return f"-o {excerpt(key)}=…" if hidden else f"-o {excerpt(text)}"


def parse_override(text: str) -> tuple[KeyPath, Any]:
    """Return the key path and the value of `key=value`; raises `StudyError` where it is not of that form."""
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


def selection(words: Sequence[str], study: Study) -> Callable[[Trial], bool]:
    """Return a function that tells the trials which match every key of `words` with any of its values.

    Raises `StudyError` with every word that names no trial of the study, since a command about nothing is a slip.
    """
    axes = ["variant", "seed", *study.spec.grid]
    wanted: dict[str, set[str]] = {}
    problems = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not value:
            problems.append(Problem(f"--only {word}: expected key=value", cure="such as --only variant=unet"))
        elif key not in axes:
            message = f"--only {word}: expected a variant, a seed or an axis of the grid, got '{key}'"
            problems.append(Problem(message, cure=nearest(key, axes)))
        elif (known := _known(key, study)) is not None and _canonical(value) not in map(_canonical, known):
            problems.append(Problem(f"--only {word}: no such {key}", cure=nearest(value, known)))
        else:
            wanted.setdefault(key, set()).add(_canonical(value))
    if problems:
        raise StudyError(problems)

    def matches(trial: Trial) -> bool:
        own = {"variant": trial.variant, "seed": trial.seed, **trial.settings}
        return all(_canonical(_text(own.get(key))) in values for key, values in wanted.items())

    planned = study.trials()
    if wanted and planned and not _later_phases(study) and not any(map(matches, planned)):
        raise StudyError(f"--only {' --only '.join(words)}: no trial of the study is all of that")
    return matches


def _known(key: str, study: Study) -> list[str] | None:
    """Return the values that trials may have, as text; None where not all of them are known before the run."""
    if key == "variant":
        return list(study.variants)
    if _later_phases(study):
        return None
    if key == "seed":
        return list(dict.fromkeys(str(seed) for variant in study.variants for seed in study.seeds_of(variant)))
    return [_text(level) for level in study.spec.grid[key]]


def _later_phases(study: Study) -> bool:
    """Return whether trials with other settings or seeds are planned from the results of the first ones."""
    spec = study.spec
    return any((spec.screen, spec.confirm, spec.search)) or spec.on_edge == "extend"


def _text(level: Any) -> str:
    return level if isinstance(level, str) else level_text(level)


def _canonical(text: str) -> str:
    try:
        return repr(float(text))
    except ValueError:
        return {"null": "none"}.get(text, text)
