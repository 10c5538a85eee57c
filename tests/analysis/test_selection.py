"""The rules that choose a setting: what they choose, what they never see, and what they say of an edge."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ablate.analysis.selection import (
    alike_but_rate,
    best_of_all,
    best_of_each,
    bracket,
    each_setting,
    eligible,
    rank_agreement,
    v_table,
)

SETTINGS = ["lr=1e-3", "lr=3e-4", "lr=1e-4"]
LEVELS = pd.DataFrame({"lr": [1e-3, 3e-4, 1e-4]}, index=SETTINGS)


def table(**rows: list[float]) -> pd.DataFrame:
    return pd.DataFrame(rows, index=SETTINGS).T


V = table(a=[0.50, 0.60, 0.55], b=[0.70, 0.56, 0.40])


def test_own_best_is_each_variants_own() -> None:
    assert best_of_each(V) == {"a": "lr=3e-4", "b": "lr=1e-3"}


def test_shared_is_the_best_mean() -> None:
    # Means: .60, .58, .475.
    assert best_of_all(V) == {"a": "lr=1e-3", "b": "lr=1e-3"}


def test_a_control_has_no_vote_for_the_shared_setting() -> None:
    doubled = table(a=[0.50, 0.60, 0.55], b=[0.70, 0.58, 0.40], again=[0.50, 0.60, 0.55])
    # With the copy's vote lr=3e-4 would win, .593 to .567; without it lr=1e-3 does, .60 to .59.
    assert best_of_all(doubled) == dict.fromkeys(doubled.index, "lr=3e-4")
    assert best_of_all(doubled, controls={"again"}) == dict.fromkeys(doubled.index, "lr=1e-3")


def test_matched_compares_at_every_setting() -> None:
    assert each_setting(V) == [dict.fromkeys("ab", setting) for setting in SETTINGS]


def test_of_equals_the_first_of_the_plan_is_chosen() -> None:
    assert best_of_each(table(a=[0.5, 0.6, 0.6])) == {"a": "lr=3e-4"}


def test_a_setting_without_a_result_everywhere_is_not_shared() -> None:
    partial = table(a=[np.nan, 0.60, 0.55], b=[0.90, 0.56, 0.40], c=[np.nan] * 3)
    assert best_of_all(partial) == {"a": "lr=3e-4", "b": "lr=3e-4", "c": None}
    assert best_of_each(partial) == {"a": "lr=3e-4", "b": "lr=1e-3", "c": None}
    assert each_setting(partial)[0] == {"a": None, "b": "lr=1e-3", "c": None}


def trials(*rows: tuple[str, str, int, str, float, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["variant", "setting", "seed", "status", "val_score", "role"])


def test_v_counts_a_diverged_seed_as_zero_and_leaves_the_unfinished_out() -> None:
    frame = trials(
        ("b", "s1", 0, "complete", 0.6, "main"),
        ("b", "s1", 1, "diverged", 0.0, "main"),
        ("b", "s2", 0, "complete", 0.5, "main"),
        ("b", "s2", 1, "missing", np.nan, "main"),
        ("a", "s1", 0, "failed", np.nan, "main"),
        ("a", "s2", 0, "complete", 0.4, "main"),
    )
    expected = pd.DataFrame({"s1": [0.3, np.nan], "s2": [0.5, 0.4]}, index=["b", "a"])
    v = v_table(frame)
    pd.testing.assert_frame_equal(v, expected, check_names=False)  # in the order of the plan


def test_a_pruned_cell_is_never_chosen() -> None:
    frame = trials(
        ("a", "s1", 0, "complete", 0.9, "main"),
        ("a", "s1", 1, "pruned", np.nan, "main"),
        ("a", "s2", 0, "complete", 0.5, "main"),
        ("a", "s2", 1, "complete", 0.5, "main"),
    )
    assert best_of_each(v_table(frame)) == {"a": "s2"}


def test_a_single_run_does_not_win_against_settings_of_more_seeds() -> None:
    frame = trials(
        ("a", "s1", 0, "complete", 0.9, "main"),
        ("a", "s2", 0, "complete", 0.6, "main"),
        ("a", "s3", 0, "complete", 0.5, "main"),
        ("a", "s2", 1, "complete", 0.4, "main"),
        ("a", "s3", 1, "failed", np.nan, "main"),
        ("a", "s1", 7, "complete", 0.9, "confirm"),
        ("b", "s1", 0, "complete", 0.7, "main"),
        ("b", "s2", 0, "complete", 0.6, "main"),
    )
    v = v_table(frame)
    assert v.T["a"].tolist() == [0.9, 0.5, 0.5], "V itself is of all cells"
    may = eligible(v, frame)
    # s3 has two seeds planned, of which the machine failed one; b has one seed everywhere.
    assert may.T["a"].isna().tolist() == [True, False, False]
    assert best_of_each(may) == {"a": "s2", "b": "s1"}


def test_where_all_settings_have_as_many_seeds_all_may_be_chosen() -> None:
    frame = trials(("a", "s1", 0, "complete", 0.4, "main"), ("a", "s2", 0, "missing", np.nan, "main"))
    v = v_table(frame)
    pd.testing.assert_frame_equal(eligible(v, frame), v)


def test_confirming_trials_take_no_part_in_choosing() -> None:
    frame = trials(
        ("a", "s1", 0, "complete", 0.4, "main"),
        ("a", "s2", 0, "complete", 0.5, "main"),
        ("a", "s1", 9, "complete", 0.9, "confirm"),
    )
    assert best_of_each(v_table(frame)) == {"a": "s2"}


def test_test_scores_do_not_move_a_choice() -> None:
    frame = trials(("a", "s1", 0, "complete", 0.4, "main"), ("a", "s2", 0, "complete", 0.5, "main"))
    best_on_test = frame.assign(test_score=[0.9, 0.1])
    assert best_of_each(v_table(best_on_test)) == best_of_each(v_table(frame)) == {"a": "s2"}


def test_an_edge_of_the_grid_is_unbracketed() -> None:
    row: pd.Series = V.T["a"]
    assert bracket("lr=3e-4", row, LEVELS) == ""
    assert bracket("lr=1e-3", row, LEVELS) == "1e-3 is the highest rate tried"
    assert bracket("lr=1e-4", row, LEVELS) == "1e-4 is the lowest rate tried"
    unfinished = row.where(row.index != "lr=1e-3")
    assert bracket("lr=3e-4", unfinished, LEVELS) == "3e-4 is the highest rate tried"
    assert bracket("lr=3e-4", row[["lr=3e-4"]], LEVELS) == "3e-4 is the only rate tried"
    assert bracket("lr=1e-3", row * 0, LEVELS) == "every seed diverged at every setting"


def test_rates_bracket_only_at_the_same_level_of_the_other_axes() -> None:
    names = ["p", "q", "r", "s"]
    levels = pd.DataFrame({"lr": [1e-3, 3e-4, 1e-4, 3e-4], "decay": [0.0, 0.0, 0.0, 0.1]}, index=names)
    row = pd.Series([0.5, 0.6, 0.5, 0.7], index=names)
    assert bracket("q", row, levels) == ""
    assert bracket("s", row, levels) == "3e-4 is the only rate tried"


def test_only_rates_at_the_same_other_levels_make_a_line() -> None:
    levels = pd.DataFrame({"lr": [1e-3, 3e-4, 3e-4], "decay": [0.0, 0.0, 0.1]}, index=["p", "q", "r"])
    assert alike_but_rate("q", ["p", "q", "r"], levels) == ["p", "q"]
    levels["decay"] = [np.nan, np.nan, 0.1]
    assert alike_but_rate("q", ["p", "q", "r"], levels) == ["p", "q"]


@pytest.mark.parametrize("variants", [2, 3, 4, 5, 6, 7, 9])
def test_equal_orders_agree_to_the_last_digit(variants: int) -> None:
    scores = np.linspace(0.5, 0.6, variants)
    assert rank_agreement(pd.DataFrame({"a": scores, "b": scores**2}))["tau"].tolist() == [1.0]
    assert rank_agreement(pd.DataFrame({"a": scores, "b": -scores}))["tau"].tolist() == [-1.0]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_agreement_is_that_of_scipy_with_ties_too() -> None:
    draw = np.random.default_rng(0)
    for _ in range(30):
        v = pd.DataFrame(draw.integers(0, 4, (5, 2)).astype(float), columns=["a", "b"])
        expected = stats.kendalltau(v["a"], v["b"]).statistic
        assert rank_agreement(v)["tau"].tolist() == pytest.approx([expected], nan_ok=True)


def test_agreement_of_rankings() -> None:
    v = table(a=[0.1, 0.1, 0.3], b=[0.2, 0.2, 0.2], c=[0.3, 0.3, 0.1])
    tau = rank_agreement(v).set_index(["setting", "other"])["tau"]
    assert tau["lr=1e-3", "lr=3e-4"] == pytest.approx(1.0)
    assert tau["lr=1e-3", "lr=1e-4"] == pytest.approx(-1.0)
    partial = table(a=[0.1, 0.2, np.nan], b=[0.2, 0.1, 0.2], c=[0.3, 0.3, np.nan])
    agreement = rank_agreement(partial)
    assert agreement["tau"].tolist() == pytest.approx([1 / 3, np.nan, np.nan], nan_ok=True)  # 2 pairs agree, 1 not
    assert agreement["n_variants"].tolist() == [3, 1, 1]
