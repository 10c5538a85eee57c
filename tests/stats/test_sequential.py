from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ablate.stats.sequential import bounds, group_sequential_holm, level_at, spent
from benchmarks.population import welch

LOOKS = (4, 8, 12, 16)


# Lan and DeMets' O'Brien-Fleming bounds as published (Jennison and Turnbull 2000; R's ldbounds and gsDesign).
@pytest.mark.parametrize(
    ("looks", "known"),
    [
        ((1,), [1.960]),
        ((1, 2), [2.963, 1.969]),
        ((1, 2, 3), [3.710, 2.511, 1.993]),
        ((1, 2, 3, 4), [4.333, 2.963, 2.359, 2.014]),
        ((1, 2, 3, 4, 5), [4.877, 3.357, 2.680, 2.290, 2.031]),
    ],
)
def test_bounds_are_the_published_ones(looks: tuple[int, ...], known: list[float]) -> None:
    assert bounds(0.05, looks) == pytest.approx(known, abs=6e-4)


def test_all_of_the_level_is_spent_at_the_end_and_hardly_any_early() -> None:
    assert spent(0.05, 1.0) == pytest.approx(0.05)
    assert spent(0.05, 0.25) < 2e-5
    assert level_at(0.05, LOOKS)[-1] == pytest.approx(0.044, abs=1e-4)


def test_bounds_hold_the_level_of_a_motion_at_uneven_looks() -> None:
    looks = (2, 3, 10)
    steps = np.diff([0, *looks])
    motion = (np.random.default_rng(0).normal(size=(400_000, 3)) * np.sqrt(steps)).cumsum(axis=1)
    crossed = (np.abs(motion / np.sqrt(looks)) >= bounds(0.05, looks)).any(axis=1)
    assert crossed.mean() == pytest.approx(0.05, abs=0.0011)


def test_looks_must_increase() -> None:
    for looks in ((), (4, 4), (8, 4), (0, 4)):
        with pytest.raises(ValueError, match="increase"):
            bounds(0.05, looks)
    with pytest.raises(ValueError, match="5 looks were taken and 4 planned"):
        group_sequential_holm(np.zeros((5, 1)), 1, 9, looks=LOOKS)


def errors_for(z: list[list[float]]) -> np.ndarray:
    return 1 / np.array(z)


def test_one_look_of_all_seeds_is_holm() -> None:
    # z = 2.45, 2.3, 1.5: p = 0.014, 0.021, 0.13 against 0.05/3, 0.05/2, 0.05.
    found = group_sequential_holm([[1, -1, 1]], errors_for([[2.45, 2.3, 1.5]]), np.inf, looks=(16,))
    assert found.word.tolist() == ["better", "worse", "undecided"]
    assert found.level[0] == pytest.approx([0.05 / 3, 0.05 / 2, 0.05], rel=1e-4)
    found = group_sequential_holm([[1, -1, 1]], errors_for([[2.3, 2.3, 1.5]]), np.inf, looks=(16,))
    assert found.word.tolist() == ["undecided"] * 3


def test_a_rejection_passes_its_level_to_the_others_at_the_same_look() -> None:
    alone, first = bounds(0.05, LOOKS)[2], bounds(0.05 / 2, LOOKS)[2]
    between = (alone + first) / 2
    calm = [[0.1, 0.1], [0.1, 0.1]]
    together = group_sequential_holm(np.ones((3, 2)), errors_for([*calm, [first + 0.1, between]]), np.inf, looks=LOOKS)
    apart = group_sequential_holm(np.ones((3, 2)), errors_for([*calm, [first - 0.1, between]]), np.inf, looks=LOOKS)
    assert together.word.tolist() == ["better", "better"]
    assert together.look.tolist() == [2, 2]
    assert together.bound[2] == pytest.approx([first, alone])
    assert apart.word.tolist() == ["open", "open"]
    assert apart.bound[2] == pytest.approx([first, first])


def test_what_is_decided_stays_decided() -> None:
    z = [[9.0, 1.0], [0.1, 1.0], [0.1, 1.0], [0.1, 1.0]]
    found = group_sequential_holm(np.ones((4, 2)), errors_for(z), np.inf, looks=LOOKS)
    assert found.word.tolist() == ["better", "undecided"]
    assert found.look.tolist() == [0, 3]
    assert np.isnan(found.level[1:, 0]).all()


def test_the_first_looks_alone_give_the_same_verdicts() -> None:
    rng = np.random.default_rng(0)
    effects, errors = rng.normal(0, 1.5, (4, 3)), np.array([[1.0], [0.7], [0.58], [0.5]]) * np.ones(3)
    whole = group_sequential_holm(effects, errors, 20, looks=LOOKS, futility=0.05)
    for taken in range(1, 5):
        part = group_sequential_holm(effects[:taken], errors[:taken], 20, looks=LOOKS, futility=0.05)
        ended = (whole.look >= 0) & (whole.look < taken)
        assert (part.word == np.where(ended, whole.word, "open")).all()
        np.testing.assert_array_equal(part.level, whole.level[:taken])


def test_a_small_difference_known_well_is_equivalent() -> None:
    found = group_sequential_holm([[0.001, 0.004]], 0.0005, 30, looks=(16,), rope=0.005)
    # The second is surely not zero, but its interval leaves the rope.
    assert found.word.tolist() == ["equivalent", "better"]
    assert found.p_equivalent[0, 0] == pytest.approx(2 * stats.t.sf(8, 30))


def test_hopeless_contrasts_stop_and_hopeful_ones_go_on() -> None:
    found = group_sequential_holm(
        [[0.05, 1.5], [0.05, 1.2]], [[1.0, 1.0], [0.71, 0.71]], 30, looks=LOOKS, futility=0.02
    )
    assert found.word.tolist() == ["futile", "open"]
    assert found.power[found.look[0], 0] < 0.02 < found.power[0, 1]


def test_conditional_power_is_that_of_a_motion() -> None:
    found = group_sequential_holm([[0.0], [1.0]], [[1.0], [0.5]], np.inf, looks=LOOKS, futility=1e-9)
    # z = 2 at half of the information: B(1) about 2√0.5/0.5 = 2√2 with variance 1/2.
    last = bounds(0.05, LOOKS)[-1]
    assert found.power[1, 0] == pytest.approx(stats.norm.sf((last - 2 * np.sqrt(2)) / np.sqrt(0.5)), rel=1e-5)


def test_no_spread_is_no_evidence() -> None:
    found = group_sequential_holm([[0.3, 0.3]], [[0.0, np.nan]], 6, looks=(4,), rope=0.5)
    assert found.word.tolist() == ["undecided", "undecided"]


def simulated(
    rng: np.random.Generator, studies: int, means: list[float], spreads: list[float], futility: float
) -> tuple[np.ndarray, np.ndarray]:
    """Words (studies, contrasts) and ends of studies whose first cell is the baseline."""
    runs = np.array(means)[:, None] + np.array(spreads)[:, None] * rng.normal(size=(studies, len(means), 16))
    tests = [welch(runs[:, 1:, :n], runs[:, :1, :n]) for n in LOOKS]
    found = group_sequential_holm(
        [test.value for test in tests],
        [test.se for test in tests],
        [test.df for test in tests],
        looks=LOOKS,
        futility=futility,
    )
    return found.word, found.look


@pytest.mark.parametrize("spreads", [[1.0, 1.0, 1.0, 1.0], [1.0, 3.0, 1.0, 0.3]])
@pytest.mark.parametrize("means", [[0.0, 0.0, 0.0, 0.0], [0.0, 4.0, 0.0, 0.0]])
def test_a_false_verdict_comes_with_the_stated_chance_at_most(means: list[float], spreads: list[float]) -> None:
    words, _ = simulated(np.random.default_rng(1), 6000, means, spreads, 0.0)
    false = (words[:, np.array(means[1:]) == 0] != "undecided").any(axis=1).mean()
    assert false <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 6000)


def test_large_effects_are_found_early_and_futility_saves_runs() -> None:
    rng = np.random.default_rng(2)
    words, look = simulated(rng, 2000, [0.0, 3.0, 0.0, 0.0], [1.0] * 4, 0.0)
    assert (words[:, 0] == "better").mean() > 0.99
    assert look[:, 0].mean() < 2
    stopped, ends = simulated(rng, 2000, [0.0, 3.0, 0.0, 0.0], [1.0] * 4, 0.02)
    assert (stopped[:, 1:] == "futile").mean() > 0.5
    assert ends[:, 1:].mean() < look[:, 1:].mean() - 0.5
    assert (stopped[:, 0] == "better").mean() > 0.99
