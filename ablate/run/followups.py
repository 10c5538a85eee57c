"""Plan what rests on trials that have run: rates beyond an edge, more seeds at the best, fresh seeds at the chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pandas as pd

from ablate.analysis.frames import Frames, load_results
from ablate.analysis.looks import Looks, confirm_looks
from ablate.analysis.selection import best_of_each, bracket, eligible, v_table
from ablate.records.store import Results
from ablate.run.search import further_rounds
from ablate.stats.sequential import OPEN
from ablate.study.study import Study
from ablate.study.trial import Trial

# A best rate still on the edge after this many extensions is reported as unbracketed.
MOST_EXTENSIONS = 2


def later_trials(study: Study, results: Results, is_complete: Callable[[], bool]) -> Iterator[list[Trial]]:
    """Yield the trials that only those that have run can plan: a search's rounds, then edges, screening and looks.

    The caller runs each batch before it asks for the next. Nothing is chosen from a plan that is not complete.
    """
    if study.spec.search is not None:
        yield from further_rounds(study, results)
    for further in (beyond_edges, screened_again, confirmation):
        if not is_complete():
            return
        yield from further(study, results)


def beyond_edges(study: Study, results: Results) -> Iterator[list[Trial]]:
    """Yield the trials at the next rate beyond an edge of the grid, while a variant's best rate is there.

    For all variants, with `on_edge: extend`. The next rate is edge²/neighbour: the grid's own spacing once more. The
    caller runs each extension's trials and enters them in the plan before the next is asked for.
    """
    if study.spec.on_edge != "extend" or "lr" not in study.spec.grid:
        return
    rates = sorted(float(rate) for rate in study.spec.grid["lr"])
    for _ in range(MOST_EXTENSIONS):
        if len(rates) < 2:
            return
        frames = load_results(results.path)
        v = v_table(frames.trials)
        notes = {
            bracket(setting, row, frames.levels)
            for (_, row), setting in zip(v.iterrows(), best_of_each(v).values(), strict=True)
            if setting is not None
        }
        further = []
        if any("lowest" in note for note in notes):
            further.append(rates[0] ** 2 / rates[1])
        if any("highest" in note for note in notes):
            further.append(rates[-1] ** 2 / rates[-2])
        if not further:
            return
        # Twelve digits: the floating-point dust of a quotient has no place in a name.
        further = [float(f"{rate:.12g}") for rate in further]
        rates = sorted([*rates, *further])
        yield _at_rates(study, further)


def _at_rates(study: Study, rates: list[float]) -> list[Trial]:
    others = {tuple(sorted((k, str(v)) for k, v in s.items() if k != "lr")): s for s in study.settings()}
    return [
        trial
        for variant in study.variants
        for rate in rates
        for settings in others.values()
        if not study.excludes(variant, settings | {"lr": rate})
        for trial in study.cell(variant, settings | {"lr": rate}, study.seeds_of(variant))
    ]


def screened_again(study: Study, results: Results) -> Iterator[list[Trial]]:
    """Yield, with `screen`, more seeds at each variant's best settings by val, where several were tried."""
    if study.spec.screen is None or study.spec.screen.again == 0:
        return
    frames = load_results(results.path)
    yield [
        trial
        for variant, chosen in best_settings(study, frames.trials).items()
        for setting in chosen
        for trial in study.cell(variant, _levels(frames, setting), study.again_seeds(variant))
    ]


def best_settings(study: Study, trials: pd.DataFrame) -> dict[str, list[str]]:
    """Return the settings that each variant is screened at again, the best first; none where only one was tried.

    By V over the first seeds alone, so that the settings stay the same however many of the later ones have run.
    """
    screen = study.spec.screen
    own = {variant: set(study.seeds_of(variant)) for variant in study.variants}
    first = [seed in own.get(name, ()) for name, seed in zip(trials["variant"], trials["seed"], strict=True)]
    v = v_table(trials[first])
    best: dict[str, list[str]] = {}
    for variant, row in v.iterrows():
        order = row.dropna().sort_values(ascending=False, kind="stable").index  # of equals the first of the plan
        best[str(variant)] = [str(name) for name in order[: screen.again]] if screen and len(order) > 1 else []
    return best


def confirmation(study: Study, results: Results) -> Iterator[list[Trial]]:
    """Yield, with `confirm`, each variant's chosen setting again, with seeds that took no part in choosing it.

    Look by look: after the first, only the variants whose contrast is open go on, and what they are compared with. All
    follows from the records, so that a run that was stopped goes on to the same looks. A look that cannot be taken,
    because a trial of it failed or was not asked for, is the last.
    """
    if study.spec.confirm is None:
        return
    frames = load_results(results.path)
    choice = best_of_each(eligible(v_table(frames.trials), frames.trials))
    chosen = {variant: _levels(frames, setting) for variant, setting in choice.items() if setting is not None}
    sides, going, done = frames.against, list(chosen), 0
    for seeds in study.spec.confirm.planned_looks:
        yield [
            trial
            for variant in going
            for trial in study.cell(variant, chosen[variant], study.confirm_seeds(variant)[done:seeds], "confirm")
        ]
        done = seeds
        looks = confirm_looks(load_results(results.path))
        going = [name for name in still_open(looks, sides, seeds) if name in chosen]
        if not going:
            return


def still_open(looks: Looks, sides: Mapping[str, str], seeds: int) -> list[str]:
    """Return the variants that go on after the look at so many fresh seeds; none where the look was not taken.

    `sides` names for every variant what it is compared with. A contrast goes on where that look left it open, whatever
    later looks said; with it goes the other side, which comes first.
    """
    taken = looks.frame[looks.frame["n"] == seeds]
    contrasts = [name for name, word in zip(taken["variant"], taken["decision"], strict=True) if word == OPEN]
    return list(dict.fromkeys([*(sides[name] for name in contrasts), *contrasts]))


def _levels(frames: Frames, setting: str) -> dict[str, Any]:
    return dict(frames.settings[setting].levels)
