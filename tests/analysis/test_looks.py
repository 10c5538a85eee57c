"""Fresh seeds decide: the primary decision of the confirming trials, and the looks of a study until it is decided."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ablate.analysis.contrasts import contrasts_frame, ways
from ablate.analysis.frames import Frames
from ablate.analysis.looks import Looks, confirm_looks, taken_looks
from ablate.analysis.schema import FRAMES
from ablate.analysis.scores import StudyScores
from ablate.stats.sequential import level_at
from tests.planted_counts import draw_study

PLANNED = (4, 8)


def looked(frames: Frames, futility: float = 0.02) -> tuple[pd.DataFrame, Looks]:
    """The primary contrasts by variant, and the looks that they rest on."""
    scores = StudyScores(frames)
    looks = taken_looks(scores, PLANNED, futility)
    frame = contrasts_frame(scores, ways(scores), looks)
    return frame[frame["primary"]].set_index("variant"), looks


def study(**changes: object) -> Frames:
    """A baseline, a clearly better variant, and one that is alike."""
    settings = {"effects": {"a": [0.0], "b": [0.5], "c": [0.0]}, "lrs": (3e-4,), "seeds": 2, "confirm": 8} | changes
    return draw_study(np.random.default_rng(3), **settings)  # type: ignore[arg-type]


def without(frames: Frames, variant: str, keep: int) -> Frames:
    """The study before all but the first fresh seeds of a variant had ended."""
    trials = frames.trials.copy()
    fresh = trials.index[(trials["variant"] == variant) & (trials["role"] == "confirm")]
    trials.loc[fresh[keep:], "status"] = "missing"
    return replace(frames, trials=trials)


def test_a_clear_contrast_ends_at_the_first_look_and_the_others_go_on() -> None:
    rows, looks = looked(study())
    assert looks.words["b"] == "better" == rows["decision"]["b"]
    assert set(looks.frame.columns) == set(FRAMES["looks"].columns())
    frame: Any = looks.frame.set_index(["variant", "look"])
    assert frame.loc["b"]["n"].tolist() == [4]
    assert rows["n"]["b"] == 4 and rows["fresh"].all()
    first = frame.loc[("b", 1)]
    assert first["p"] <= first["level"] <= level_at(0.05, PLANNED)[0]
    assert rows["p_holm"]["b"] == pytest.approx(first["p"] * 0.05 / first["level"])
    assert rows["delta"]["b"] == first["estimate"]
    assert (rows["low"]["b"], rows["high"]["b"]) == (first["low"], first["high"])


def test_a_killed_run_goes_on_to_the_same_looks() -> None:
    whole = study()
    _, after = looked(whole)
    # The variant that was decided at the first look gets no more seeds; that changes nothing.
    _, stopped = looked(without(whole, "b", 4))
    pd.testing.assert_frame_equal(stopped.frame, after.frame)
    # Between the looks the first one stands, whatever has ended since.
    _, between = looked(without(without(whole, "c", 6), "b", 4))
    pd.testing.assert_frame_equal(
        between.frame[between.frame["variant"] == "b"], after.frame[after.frame["variant"] == "b"]
    )
    assert set(between.frame["look"]) == {1}


def test_before_the_first_look_every_contrast_is_open() -> None:
    rows, looks = looked(without(study(), "a", 3))
    assert looks.words == {"b": "open", "c": "open"} and not len(looks.frame)
    assert rows["decision"].eq("undecided").all()
    assert rows["reason"].eq("the first look has not been reached").all()


@pytest.mark.parametrize("status", ["failed", "missing"])
def test_a_gap_in_the_baselines_seeds_is_waited_for(status: str) -> None:
    frames = study()
    trials = frames.trials.copy()
    fresh = trials.index[(trials["variant"] == "a") & (trials["role"] == "confirm")]
    trials.loc[fresh[1], "status"] = status
    assert looked(replace(frames, trials=trials))[1].words == {"b": "open", "c": "open"}


def failing(frames: Frames, role: str) -> Frames:
    """The study in which the machine failed the first trial of a role of c; in screening, before c was confirmed."""
    trials = frames.trials.copy()
    of_c = trials["variant"] == "c"
    rows = trials.index[of_c & (trials["role"] == role)]
    trials.loc[rows[:1] if role == "confirm" else rows, "status"] = "failed"
    return replace(frames, trials=trials if role == "confirm" else trials[~of_c | (trials["role"] == "main")])


@pytest.mark.parametrize("role", ["main", "confirm"])
def test_a_variant_that_the_machine_failed_does_not_hold_up_the_others(role: str) -> None:
    whole = study()
    rows, looks = looked(failing(whole, role))
    assert looks.words["b"] == rows["decision"]["b"] == "better"
    assert rows["decision"]["c"] == "undecided"
    # It stays in the family: the other is judged at half the level, as if it were there and not rejected.
    first: Any = looks.frame.set_index(["variant", "look"]).loc[("b", 1)]
    assert first["level"] == pytest.approx(level_at(0.025, PLANNED)[0])
    assert set(looks.frame["variant"]) == {"b"}
    pd.testing.assert_frame_equal(looked(failing(whole, role))[1].frame, looks.frame)
    # Once it was retried it is judged like any other.
    _, after = looked(whole)
    assert after.words["c"] != "open" and after.words["b"] == "better"


def test_a_fixed_number_of_fresh_seeds_has_no_looks() -> None:
    frames = study()
    assert not confirm_looks(frames).words
    scores = StudyScores(frames)
    rows = contrasts_frame(scores, ways(scores)).query("primary").set_index("variant")
    assert rows["kind"].eq("confirmed").all() and rows["n"].eq(8).all()
    assert rows["decision"]["b"] == "better"


def test_a_declared_confirmation_is_the_decision_before_its_trials_exist() -> None:
    frames = study()
    frames = replace(frames, trials=frames.trials[frames.trials["role"] == "main"])
    scores = StudyScores(frames)
    rows = contrasts_frame(scores, ways(scores)).query("primary")
    assert rows["kind"].eq("confirmed").all() and rows["decision"].eq("undecided").all()
    assert rows["reason"].tolist() == ["no result of b with fresh seeds", "no result of c with fresh seeds"]


def test_fresh_seeds_take_the_optimism_of_a_choice_away() -> None:
    # Five rates that are all alike, against a baseline of one: the best of five is lucky, its fresh seeds are not.
    rates = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
    chosen, fresh = [], []
    for draw in range(25):
        frames = draw_study(
            np.random.default_rng(draw), effects={"a": [-1.0, -1.0, 0.0, -1.0, -1.0], "b": [0.0] * 5}, lrs=rates,
            seeds=2, confirm=4, seed_sd=0.2, image_sd=0.1, interaction_sd=0.02, images=20, resamples=100,
        )  # fmt: skip
        scores = StudyScores(frames)
        rows = contrasts_frame(scores, [way for way in ways(scores) if way.kind in ("own_best", "confirmed")])
        by_kind = rows.set_index("kind")["delta"]
        chosen.append(by_kind["own_best"])
        fresh.append(by_kind["confirmed"])
    assert stats.ttest_1samp(chosen, 0).pvalue < 0.01 and np.mean(chosen) > 0
    assert stats.ttest_1samp(fresh, 0).pvalue > 0.05


def test_equal_variants_are_told_apart_at_no_more_than_the_promised_rate() -> None:
    wrong = 0
    draws = 60
    for draw in range(draws):
        frames = draw_study(
            np.random.default_rng(draw), effects={"a": [0.0], "b": [0.0], "c": [0.0]}, lrs=(3e-4,), seeds=1, confirm=8,
            images=15, resamples=100,
        )  # fmt: skip
        wrong += bool(looked(frames, futility=0.0)[0]["decision"].isin(["better", "worse"]).any())
    assert stats.binomtest(wrong, draws, 0.05, alternative="greater").pvalue > 0.05, wrong
