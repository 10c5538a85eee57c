"""`--only variant=unet --only lr=1e-3`: which trials of a study a command is about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ablate.errors import Problem, StudyError, nearest
from ablate.study.study import Study
from ablate.study.trial import Trial, level_text


def selection(words: Sequence[str], study: Study) -> Callable[[Trial], bool]:
    """What tells the trials that match every key of `words` with any of its values.

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
    """The values that trials may have, as text; None where not all of them are known before the run."""
    if key == "variant":
        return list(study.variants)
    if _later_phases(study):
        return None
    if key == "seed":
        return list(dict.fromkeys(str(seed) for variant in study.variants for seed in study.seeds_of(variant)))
    return [_text(level) for level in study.spec.grid[key]]


def _later_phases(study: Study) -> bool:
    """Whether trials with other settings or seeds are planned from the results of the first ones."""
    spec = study.spec
    return spec.confirm is not None or spec.on_edge == "extend" or spec.search is not None


def _text(level: Any) -> str:
    return level if isinstance(level, str) else level_text(level)


def _canonical(text: str) -> str:
    try:
        return repr(float(text))
    except ValueError:
        return {"null": "none"}.get(text, text)
