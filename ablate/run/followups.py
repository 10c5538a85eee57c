"""What can only be planned once the grid is done: rates beyond an edge, and fresh seeds for the chosen settings."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from ablate.analysis.frames import Frames, load_results
from ablate.analysis.selection import OWN_BEST, bracket, v_table
from ablate.records.store import Results
from ablate.study.study import Study
from ablate.study.trial import Trial

# A best rate still on the edge after this many extensions is reported as unbracketed.
MOST_EXTENSIONS = 2


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
        levels = setting_levels(frames)
        notes = {
            bracket(setting, row, levels)
            for (_, row), setting in zip(v.iterrows(), OWN_BEST.choose(v).values(), strict=True)
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


def confirmation(study: Study, results: Results) -> Iterator[list[Trial]]:
    """Yield, with `confirm`, each variant's chosen setting again, with seeds that took no part in choosing it."""
    if study.spec.confirm is None:
        return
    frames = load_results(results.path)
    v = v_table(frames.trials)
    trials = []
    for variant, setting in OWN_BEST.choose(v).items():
        if setting is None:
            continue
        row = frames.trials[(frames.trials["variant"] == variant) & (frames.trials["setting"] == setting)].iloc[0]
        settings = next(entry["settings"] for entry in frames.run["plan"] if entry["key"] == row["key"])
        trials += study.cell(variant, settings, study.confirm_seeds(variant), "confirm")
    yield trials


def setting_levels(frames: Frames) -> pd.DataFrame:
    """Return the levels of the grid: a row a setting, a column an axis."""
    return frames.trials.drop_duplicates("setting").set_index("setting")[list(frames.axes)]
