"""The confirming trials looked at as they come in, until every contrast is decided: group-sequential Holm, by look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ablate.analysis.frames import Frames
from ablate.analysis.load import ENDED
from ablate.analysis.scores import StudyScores
from ablate.analysis.selection import Choice
from ablate.stats.sequential import OPEN, group_sequential_holm, level_at

LOOK_COLUMNS = [
    "variant", "against", "look", "n", "estimate", "se", "df", "low", "high", "confidence", "p", "p_equivalent",
    "level", "bound", "power", "decision",
]  # fmt: skip


@dataclass(frozen=True)
class LookPlan:
    """The numbers of fresh seeds a cell at which is looked, the last one the most, and when to stop for futility."""

    looks: tuple[int, ...]
    futility: float = 0.0


@dataclass(frozen=True, eq=False)
class Looks:
    """The looks that were taken, a row a contrast and look it was still open at, and where each contrast stands now.

    `words` says of each contrast, by its variant: better, worse, equivalent, undecided (at the last look), futile (at
    an earlier look: it would hardly be decided any more), or open (goes on). It is empty for a study that does not
    train until it is decided.
    """

    frame: pd.DataFrame
    words: Mapping[str, str] = field(default_factory=dict)


def look_plan(frames: Frames) -> LookPlan | None:
    """Return the looks that the study declares; None where it confirms by a fixed number of seeds, or not at all."""
    confirm = frames.study.confirm
    if confirm is None or confirm.until is None or confirm.looks is None:
        return None
    most = confirm.at_most or confirm.looks[-1]
    return LookPlan(tuple(n for n in confirm.looks if n <= most), confirm.futility or 0.0)


def confirmed_settings(frames: Frames) -> Choice:
    """Return the setting that each variant was trained at again with fresh seeds; None before it was."""
    choice: Choice = dict.fromkeys(frames.variants)
    confirming = frames.trials[frames.trials["role"] == "confirm"]
    return choice | {str(name): str(part["setting"].iloc[-1]) for name, part in confirming.groupby("variant")}


def taken_looks(scores: StudyScores, plan: LookPlan | None, sides: Mapping[str, str], copies: set[str]) -> Looks:
    """Return the looks that the fresh seeds of a study allow so far, and what was decided at each.

    `sides` names for each variant what it is compared with, `copies` those that are A/A controls: each of them is a
    family of its own. A look at n seeds is taken once the first n planned fresh seeds of every cell of an open contrast
    have ended, so that it does not depend on the order in which trials end: a run that was killed goes on to the same
    looks. Seeds beyond the last look that a contrast was open at are not looked at.
    """
    found = Looks(pd.DataFrame(columns=LOOK_COLUMNS))
    if plan is None:
        return found
    choice = confirmed_settings(scores.frames)
    families = [[name for name in sides if name not in copies], *([name] for name in sides if name in copies)]
    rows: list[dict[str, object]] = []
    words: dict[str, str] = {}
    for family in filter(None, families):
        words |= _family(scores, plan, {name: sides[name] for name in family}, choice, rows)
    return Looks(pd.DataFrame(rows, columns=LOOK_COLUMNS), words)


def ended_in_order(frames: Frames, variant: str, setting: str | None) -> int:
    """Return how many fresh seeds of a cell have a result before the first in the plan's order that has none."""
    trials = frames.trials
    cell = trials[(trials["role"] == "confirm") & (trials["variant"] == variant) & (trials["setting"] == setting)]
    return int(cell["status"].isin(ENDED).cumprod().sum())


def _family(
    scores: StudyScores, plan: LookPlan, sides: Mapping[str, str], choice: Choice, rows: list[dict[str, object]]
) -> dict[str, str]:
    measure = scores.frames.study.measure
    alpha = 1 - measure.confidence
    reached = {
        name: min(ended_in_order(scores.frames, side, choice.get(side)) for side in (name, other))
        for name, other in sides.items()
    }
    names = list(sides)
    words = dict.fromkeys(names, OPEN)
    taken: list[np.ndarray] = []
    for place, n in enumerate(plan.looks):
        going = [name for name in names if words[name] == OPEN]
        if not going or min(reached[name] for name in going) < n:
            break
        # Repeated confidence intervals: those of all looks together hold the truth at the study's level.
        confidence = 1 - float(level_at(alpha, plan.looks)[place])
        estimates = {}
        for name in going:
            at = (name, str(choice[name])), (sides[name], str(choice[sides[name]]))
            estimates[name] = scores.fixed(*at, role="confirm", first=n, confidence=confidence)[0].estimate
        unknown = (np.nan, np.nan, np.nan)
        taken.append(
            np.array([
                (estimates[name].value, estimates[name].se, estimates[name].df) if name in estimates else unknown
                for name in names
            ])
        )  # fmt: skip
        effects, errors, dfs = np.moveaxis(np.stack(taken), -1, 0)
        verdicts = group_sequential_holm(
            effects, errors, dfs, looks=plan.looks, alpha=alpha, rope=measure.rope, futility=plan.futility
        )
        words = {name: str(word) for name, word in zip(names, verdicts.word, strict=True)}
        for column, name in enumerate(names):
            if name not in estimates:
                continue
            estimate = estimates[name]
            row: dict[str, object] = {"variant": name, "against": sides[name], "look": place + 1, "n": n}
            row |= {"estimate": estimate.value, "se": estimate.se, "df": estimate.df}
            row |= {"low": estimate.low, "high": estimate.high, "confidence": confidence}
            for part in ("p", "p_equivalent", "level", "bound", "power"):
                row[part] = float(getattr(verdicts, part)[place, column])
            rows.append(row | {"decision": words[name]})
    return words
