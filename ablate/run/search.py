"""A search instead of a grid: for each variant an Optuna sampler proposes settings, round by round.

In a round every variant tries one setting with all its seeds; what the sampler is told is V, the mean over the seeds
of val mIoU at the best epoch, a diverged seed counting 0. A proposal depends on the study and on the variant's own
earlier rounds and on nothing else, not on which trial ended first: a search that was stopped, or run on another
number of workers, proposes the same. The settings of a round are written into the plan (`run.json`) before its trials
start; where a later version of Optuna would have proposed others, those of the plan stand.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, QMCSampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from ablate.records.store import Results, read_record
from ablate.run.status import TrialFolders
from ablate.study.spec import SearchSpec, SpaceSpec
from ablate.study.study import Study
from ablate.study.trial import Trial, canonical, derived_seed

Settings = dict[str, Any]

# How often a sampler may propose what it has proposed before, until its space counts as exhausted.
MOST_REPEATS = 50
DIGITS = 3
RANDOM_FIRST = 5


def opening(study: Study, results: Results) -> list[Trial]:
    """Return the trials to begin with: of all rounds of the folder's plan that still hold, or of the first.

    A round holds where the search is the same but for its budget, and its trials would have the same keys today.
    """
    known = _known(study, results)
    return [
        trial
        for variant in study.variants
        for settings in known[variant] or [next(_rounds(study, results, variant, []))]
        for trial in study.cell(variant, settings, study.seeds_of(variant))
    ]


def further_rounds(study: Study, results: Results) -> Iterator[list[Trial]]:
    """Yield the trials of each next round, until every variant has tried as many settings as the study says.

    The caller runs what is yielded, and enters it in the plan before the next is asked for. A variant whose round has
    a trial without a record goes no further.
    """
    known = _known(study, results)
    rounds = {variant: _rounds(study, results, variant, known[variant]) for variant in study.variants}
    for variant, past in known.items():
        for _ in past:  # the rounds of the plan, which have run
            next(rounds[variant], None)
    while True:
        proposed = {variant: settings for variant in rounds if (settings := next(rounds[variant], None)) is not None}
        if not proposed:
            return
        yield [
            trial
            for variant, settings in proposed.items()
            for trial in study.cell(variant, settings, study.seeds_of(variant))
        ]


def _known(study: Study, results: Results) -> dict[str, list[Settings]]:
    """Return the settings of the rounds that the folder's plan knows and that still hold, by variant."""
    assert study.spec.search is not None
    run = results.read_run()
    rounds: dict[str, list[Settings]] = {variant: [] for variant in study.variants}
    if run.get("search") != study.spec.search.identity():
        return rounds
    broken = set()
    for entry in run.get("plan", []):
        variant, settings = entry["variant"], entry["settings"]
        if variant not in rounds or variant in broken or entry["role"] != "main":
            continue
        if study.trial(variant, settings, entry["seed"]).key != entry["key"]:
            broken.add(variant)  # another model or training since: what follows was proposed for what was before
            rounds[variant] = [tried for tried in rounds[variant] if tried != settings]
        elif settings not in rounds[variant] and len(rounds[variant]) < study.spec.search.trials:
            rounds[variant].append(settings)
    return rounds


def _rounds(study: Study, results: Results, variant: str, known: Sequence[Settings]) -> Iterator[Settings]:
    """Yield the setting of each round of a variant: those that the plan knows, then those that its sampler proposes.

    Goes on when all trials of the round have records, and ends where one has none or nothing new is proposed.
    """
    assert study.spec.search is not None
    space, axes = study.spec.search.space, search_axes(study)
    sampler = _sampler(study.spec.search, derived_seed("search", variant, study.spec.search.seed))
    told = optuna.create_study(direction="maximize", sampler=sampler)
    tried: list[tuple[Settings, float | None]] = []
    while len(tried) < study.spec.search.trials:
        asked, settings = _propose(told, space, axes, tried)
        if len(tried) < len(known) and settings != known[len(tried)]:
            # Another version of the sampler: it is told of what was tried, not of what it would have tried.
            _tell(told, asked, None)
            asked, settings = None, known[len(tried)]
        if not settings:
            return
        yield settings
        value, done = _score(study, results, variant, settings)
        if not done:
            return
        if asked is None and value is not None:
            params = {name: _as_asked(space[name], level) for name, level in settings.items()}
            told.add_trial(optuna.trial.create_trial(params=params, distributions=axes, value=value))
        _tell(told, asked, value)
        tried.append((settings, value))


def _propose(
    told: optuna.Study,
    space: Mapping[str, SpaceSpec],
    axes: dict[str, BaseDistribution],
    tried: Sequence[tuple[Settings, float | None]],
) -> tuple[optuna.Trial | None, Settings]:
    """Return the next setting, unlike all that were tried, with Optuna's trial of it; (None, {}) for none."""
    for _ in range(MOST_REPEATS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna calls some of its samplers experimental
            asked = told.ask(axes)
        settings = {name: _level(space[name], value) for name, value in asked.params.items()}
        before = [value for earlier, value in tried if earlier == settings]
        if not before:
            return asked, settings
        _tell(told, asked, before[0])
    return None, {}


def _tell(told: optuna.Study, asked: optuna.Trial | None, value: float | None) -> None:
    if asked is not None:
        told.tell(asked, value, state=TrialState.FAIL if value is None else TrialState.COMPLETE)


def _score(study: Study, results: Results, variant: str, settings: Settings) -> tuple[float | None, bool]:
    """Return V of a round (None where the machine failed all its trials), and whether every trial has a record."""
    scores, folders = [], TrialFolders(results)
    for trial in study.cell(variant, settings, study.seeds_of(variant)):
        record = read_record(folders.of(trial.key, trial.name).record)
        if record is None:
            return None, False
        if record.status != "failed":
            value = record.metrics.get("val_mean_iou") if record.status == "complete" else 0.0
            scores.append(float(value or 0.0))
    return (sum(scores) / len(scores) if scores else None), True


def _level(space: SpaceSpec, value: Any) -> Any:
    """Return a proposed value as the study has it: a choice by its place, a number of few digits within its bounds."""
    if space.choices is not None:
        return space.choices[value]
    if isinstance(value, int):
        return value
    assert space.low is not None and space.high is not None
    return min(max(float(f"{value:.{DIGITS}g}"), float(space.low)), float(space.high))


def _as_asked(space: SpaceSpec, level: Any) -> Any:
    """Return a level as Optuna would have proposed it: a choice goes by its place."""
    if space.choices is None:
        return level
    return next(place for place, choice in enumerate(space.choices) if canonical(choice) == canonical(level))


def search_axes(study: Study) -> dict[str, BaseDistribution]:
    """Return Optuna's description of the space: choices go by their place, numbers by their bounds."""
    assert study.spec.search is not None
    train = study.spec.train.model_dump(mode="json")
    return {name: _axis(space, _default(train, name)) for name, space in study.spec.search.space.items()}


def mirror_axes(study: Study) -> dict[str, BaseDistribution]:
    """Return `search_axes` with the choices themselves, for the mirror's trials, which hold levels."""
    assert study.spec.search is not None
    named = {
        name: CategoricalDistribution([plain(choice) for choice in space.choices])
        for name, space in study.spec.search.space.items()
        if space.choices is not None
    }
    return search_axes(study) | named


def plain(value: Any) -> Any:
    """Return a level as Optuna may hold it: a scalar, or the text of a list (a crop, say)."""
    return value if isinstance(value, (bool, int, float, str)) or value is None else str(value)


def _axis(space: SpaceSpec, default: Any) -> BaseDistribution:
    if space.choices is not None:
        return CategoricalDistribution(range(len(space.choices)))
    assert space.low is not None and space.high is not None
    if isinstance(default, int) and not isinstance(default, bool):
        return IntDistribution(int(space.low), int(space.high), log=space.log)
    return FloatDistribution(float(space.low), float(space.high), log=space.log)


def _default(train: Mapping[str, Any], name: str) -> Any:
    head, _, rest = name.partition(".")
    return _default(train[head], rest) if rest else train[head]


def _sampler(search: SearchSpec, seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if search.sampler == "random":
            return RandomSampler(seed=seed)
        if search.sampler == "qmc":
            return QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)
        # Optuna's own ten at random would be most of a small search.
        return TPESampler(seed=seed, n_startup_trials=RANDOM_FIRST)
