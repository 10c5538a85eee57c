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
from ablate.run.manifest import search_identity
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
    rounds = _known(study, results)
    return [
        trial
        for variant in study.variants
        for settings in rounds[variant] or [_Chain(study, variant).propose()]
        for trial in study.cell(variant, settings, study.seeds_of(variant))
    ]


def further_rounds(study: Study, results: Results) -> Iterator[list[Trial]]:
    """Yield the trials of each next round, until every variant has tried as many settings as the study says.

    The caller runs what is yielded, and enters it in the plan before the next is asked for. A variant whose round has
    a trial without a record goes no further.
    """
    assert study.spec.search is not None
    known = _known(study, results)
    chains = {variant: _Chain(study, variant) for variant in study.variants}
    for variant, chain in chains.items():
        chain.adopt(known[variant])
    while True:
        batch: list[Trial] = []
        for variant, chain in chains.items():
            if chain.learn(results) and len(chain.rounds) < study.spec.search.trials and chain.advance():
                batch += study.cell(variant, chain.rounds[-1], study.seeds_of(variant))
        if not batch:
            return
        yield batch


def _known(study: Study, results: Results) -> dict[str, list[Settings]]:
    """Return the settings of the rounds that the folder's plan knows and that still hold, by variant."""
    assert study.spec.search is not None
    run = results.read_run()
    rounds: dict[str, list[Settings]] = {variant: [] for variant in study.variants}
    if run.get("search") != search_identity(study.spec.search):
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


class _Chain:
    """The rounds of one variant and the sampler that has been told of them."""

    def __init__(self, study: Study, variant: str) -> None:
        assert study.spec.search is not None
        self._plan, self._variant = study, variant
        self._space = study.spec.search.space
        self._axes = search_axes(study)
        sampler = _sampler(study.spec.search, derived_seed("search", variant, study.spec.search.seed))
        self._optuna = optuna.create_study(direction="maximize", sampler=sampler)
        self.rounds: list[Settings] = []
        self._told: list[float | None] = []
        self._asked: optuna.Trial | None = None
        self._adopted: list[Settings] = []

    def adopt(self, rounds: Sequence[Settings]) -> None:
        """Take settings that the plan knows already, round by round, instead of what is proposed."""
        self._adopted = list(rounds)
        if self._adopted:
            self.advance()

    def advance(self) -> bool:
        """Begin the next round; False where the sampler has nothing new to propose."""
        proposed = self.propose()
        wanted = self._adopted[len(self.rounds)] if len(self.rounds) < len(self._adopted) else None
        if wanted is None and (not proposed or proposed in self.rounds):
            return False
        if wanted is not None and wanted != proposed:
            # Another version of the sampler: it is told of what was tried, not of what it would have tried.
            self._drop()
        self.rounds.append(wanted if wanted is not None else proposed)
        return True

    def propose(self) -> Settings:
        """Return the next setting, unlike all before; {} where there is none."""
        for _ in range(MOST_REPEATS):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Optuna calls some of its samplers experimental
                self._asked = self._optuna.ask(self._axes)
            settings = {name: self._value(name, level) for name, level in self._asked.params.items()}
            if settings not in self.rounds:
                return settings
            value = self._told[self.rounds.index(settings)]
            self._tell(value)
        return {}

    def learn(self, results: Results) -> bool:
        """Tell the sampler of every round that has its records, adopted ones too; whether all of them have."""
        while len(self._told) < len(self.rounds):
            value, done = self._score(results, self.rounds[len(self._told)])
            if not done:
                return False
            self._tell(value)
            self._told.append(value)
            if len(self.rounds) < len(self._adopted):
                self.advance()
        return True

    def _score(self, results: Results, settings: Settings) -> tuple[float | None, bool]:
        """Return V of a round (None where the machine failed all its trials), and whether every trial has a record."""
        scores, folders = [], TrialFolders(results)
        for trial in self._plan.cell(self._variant, settings, self._plan.seeds_of(self._variant)):
            record = read_record(folders.of(trial.key, trial.name).record)
            if record is None:
                return None, False
            if record.status != "failed":
                value = record.metrics.get("val_mean_iou") if record.status == "complete" else 0.0
                scores.append(float(value or 0.0))
        return (sum(scores) / len(scores) if scores else None), True

    def _tell(self, value: float | None) -> None:
        if self._asked is not None:
            state = TrialState.FAIL if value is None else TrialState.COMPLETE
            self._optuna.tell(self._asked, value, state=state)
            self._asked = None
        elif value is not None:
            params = {name: self._level(name, level) for name, level in self.rounds[len(self._told)].items()}
            self._optuna.add_trial(optuna.trial.create_trial(params=params, distributions=self._axes, value=value))

    def _drop(self) -> None:
        if self._asked is not None:
            self._optuna.tell(self._asked, state=TrialState.FAIL)
            self._asked = None

    def _value(self, name: str, level: Any) -> Any:
        """Return a level as the study has it: a choice by its place, a number of few digits within its bounds."""
        space = self._space[name]
        if space.choices is not None:
            return space.choices[level]
        if isinstance(level, int):
            return level
        assert space.low is not None and space.high is not None
        return min(max(float(f"{level:.{DIGITS}g}"), float(space.low)), float(space.high))

    def _level(self, name: str, value: Any) -> Any:
        choices = self._space[name].choices
        if choices is None:
            return value
        return next(place for place, choice in enumerate(choices) if canonical(choice) == canonical(value))


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
