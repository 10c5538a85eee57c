"""The confirming trials looked at as they come in, until every contrast is decided: group-sequential Holm, by look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ablate.analysis.frames import Frames
from ablate.analysis.load import ENDED
from ablate.analysis.schema import FRAMES
from ablate.analysis.scores import StudyScores
from ablate.analysis.selection import best_of_each
from ablate.stats.sequential import OPEN, group_sequential_holm, level_at


@dataclass(frozen=True, eq=False)
class Looks:
    """The looks that were taken, a row a contrast and look it was still open at, and where each contrast stands now.

    `words` says of each contrast, by its variant: better, worse, equivalent, undecided (at the last look), futile (at
    an earlier look: it would hardly be decided any more), or open (goes on). It is empty for a study that does not
    train until it is decided.
    """

    frame: pd.DataFrame
    words: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Basis:
    """The runs that a comparison of variants, or one variant's level, rests on.

    `sides` are variant, setting and role of each. Where all have the role "confirm" these are fresh seeds, which took
    no part in choosing the setting; the `first` so many of them are compared (None: all), those of the look at which
    the contrast was decided. The error of an interval is `stretch` times what is asked for: smaller than one where the
    interval has to hold over all looks together.
    """

    sides: tuple[tuple[str, str, str], ...]
    first: int | None = None
    stretch: float = 1.0

    @property
    def fresh(self) -> bool:
        """Tell whether no run that is compared took part in choosing."""
        return all(role == "confirm" for _, _, role in self.sides)

    def confidence(self, asked: float) -> float:
        """Return the level of an interval that holds at level `asked` over all looks."""
        return 1 - self.stretch * (1 - asked)


def basis(scores: StudyScores, looks: pd.DataFrame, *variants: str, setting: str | None = None) -> Basis:
    """Return what a comparison of these variants rests on, each at its own best or all at `setting`.

    At own best the fresh seeds decide where the study declares them and every side has some, at the look where the
    primary contrast of the two ended. At a setting each side stands by its fresh seeds, if it has any there.
    """
    if setting is not None:
        sides = tuple((name, setting, "confirm" if scores.is_fresh(name, setting) else "main") for name in variants)
    elif all(scores.is_fresh(name, scores.confirmed[name]) for name in variants):
        sides = tuple((name, str(scores.confirmed[name]), "confirm") for name in variants)
    else:
        chosen = best_of_each(scores.eligible)
        sides = tuple((name, chosen.get(name) or "", "main") for name in variants)
    made = Basis(sides)
    pair = [{row.variant, row.against} == set(variants) for row in looks.itertuples()]
    if not made.fresh or not any(pair):
        return made
    last = looks[pair].iloc[-1]
    return Basis(sides, int(last["n"]), (1 - float(last["confidence"])) / (1 - scores.confidence))


def confirm_looks(frames: Frames, scores: StudyScores | None = None) -> Looks:
    """Return the looks at the confirming trials so far, and where each contrast stands: decided, futile or open.

    The one rule by which a run that trains until it is decided goes on, and by which the analysis decides. Pass the
    `scores` of the same frames where they are there already. `Looks.words` is empty where the study declares no looks.
    """
    confirm = frames.study.confirm
    if confirm is None or confirm.until is None:
        return Looks(FRAMES["looks"].filled([]))
    scores = StudyScores(frames) if scores is None else scores
    return taken_looks(scores, confirm.planned_looks, confirm.futility or 0.0)


def taken_looks(scores: StudyScores, planned: tuple[int, ...], futility: float) -> Looks:
    """Return the looks that the fresh seeds of a study allow so far, and what was decided at each.

    `planned` are the numbers of fresh seeds a cell at which is looked, the last one the most. A look at n seeds is
    taken once the first n planned fresh seeds of every cell of an open contrast have ended, so that it does not depend
    on the order in which trials end: a run that was killed goes on to the same looks. A contrast that the machine
    failed, in screening or in one of these seeds, is not waited for: it stays in the family, not rejected, and is
    judged once it was retried. Seeds beyond the last look that a contrast was open at are not looked at.
    """
    rows: list[dict[str, object]] = []
    words: dict[str, str] = {}
    for names in filter(None, scores.frames.families):
        words |= _family(scores, names, planned, futility, rows)
    return Looks(FRAMES["looks"].filled(rows), words)


def ended_in_order(frames: Frames, variant: str, setting: str | None) -> tuple[int, bool]:
    """Return how many fresh seeds of a cell have a result before the first in the plan's order that has none.

    Second, whether the machine failed that one, or all that the setting was to be chosen by.
    """
    trials = frames.trials
    cell = trials[(trials["role"] == "confirm") & (trials["variant"] == variant) & (trials["setting"] == setting)]
    ended = int(cell["status"].isin(ENDED).cumprod().sum())
    if setting is None:
        main = trials[(trials["role"] == "main") & (trials["variant"] == variant)]
        return 0, bool(main["status"].eq("failed").any())
    return ended, ended < len(cell) and cell["status"].iloc[ended] == "failed"


def _family(
    scores: StudyScores, names: list[str], planned: tuple[int, ...], futility: float, rows: list[dict[str, object]]
) -> dict[str, str]:
    """Return where the contrasts of one family stand, and add a row for each look at an open one."""
    measure, choice = scores.frames.study.measure, scores.confirmed
    alpha = 1 - measure.confidence
    sides = {name: scores.frames.against[name] for name in names}
    ended = {side: ended_in_order(scores.frames, side, choice.get(side)) for pair in sides.items() for side in pair}
    # The first side to run short of seeds says whether a contrast is to be waited for.
    reached = {
        name: min(ended[name], ended[other], key=lambda one: (one[0], not one[1])) for name, other in sides.items()
    }
    words = dict.fromkeys(names, OPEN)
    taken: list[np.ndarray] = []
    for place, n in enumerate(planned):
        going = [name for name in names if words[name] == OPEN]
        going = [name for name in going if reached[name][0] >= n or not reached[name][1]]
        if not going or min(reached[name][0] for name in going) < n:
            break
        # Repeated confidence intervals: those of all looks together hold the truth at the study's level.
        confidence = 1 - float(level_at(alpha, planned)[place])
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
            effects, errors, dfs, looks=planned, alpha=alpha, rope=measure.rope, futility=futility
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
