"""What is planned from trials that have run: rates beyond an edge, seeds at the best, fresh seeds look by look."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from ablate.analysis.looks import Looks
from ablate.records.store import Results
from ablate.run.followups import best_settings, beyond_edges, confirmation, screened_again, still_open
from ablate.study.study import Study
from tests.planted import Truth, plant
from tests.study.study_files import GOOD, read

RATES = (1e-3, 3e-4, 1e-4)
SCREENED = GOOD.replace("lr: [1e-3, 3e-4]", "lr: [1e-3, 3e-4, 1e-4]").replace("seeds: 2", "screen: {}")


def study(folder: Path, more: str) -> Study:
    return read(folder, GOOD.replace("lr: [1e-3, 3e-4]", "lr: [1e-3, 3e-4, 1e-4]") + more)


def results(folder: Path, **optimum: float) -> Results:
    truth = Truth(optimum=optimum, delta={}, unstable_from={}, diverged=(), seed_std=0.0, curvature=0.4)
    path = plant(
        folder / "p", variants=("unet", "noskip"), lrs=RATES, seeds=2, images=3, epochs=5, truth=truth,
        predictions=False, profile=False,
    )  # fmt: skip
    return Results(path)


@pytest.mark.parametrize(
    ("optimum", "first", "second"),
    [
        ({"noskip": 1e-2}, [1e-3**2 / 3e-4], [(1e-3**2 / 3e-4) ** 2 / 1e-3]),
        ({"unet": 1e-5}, [1e-4**2 / 3e-4], [(1e-4**2 / 3e-4) ** 2 / 1e-4]),
        ({"unet": 1e-5, "noskip": 1e-2}, [1e-4**2 / 3e-4, 1e-3**2 / 3e-4], None),
    ],
)
def test_a_best_rate_on_an_edge_grows_the_grid_for_all_variants_at_most_twice(
    tmp_path: Path, optimum: dict[str, float], first: list[float], second: list[float] | None
) -> None:
    made = list(beyond_edges(study(tmp_path, "on_edge: extend\n"), results(tmp_path, **optimum)))
    # The trials of the first extension have not run here: the best of what has is still on its edge.
    assert len(made) == 2
    for trials, rates in zip(made, (first, second), strict=True):
        if rates is not None:
            assert sorted({trial.train["lr"] for trial in trials}) == pytest.approx(sorted(rates), rel=1e-11)
            cells = {(trial.variant, trial.train["lr"], trial.seed) for trial in trials}
            assert len(cells) == len(trials) == 2 * 2 * len(rates)


def test_a_bracketed_optimum_asks_for_nothing(tmp_path: Path) -> None:
    found = results(tmp_path)
    assert list(beyond_edges(study(tmp_path, "on_edge: extend\n"), found)) == []


def test_by_default_an_edge_is_only_reported(tmp_path: Path) -> None:
    assert list(beyond_edges(study(tmp_path, ""), results(tmp_path, noskip=1e-2))) == []


def test_each_variant_is_confirmed_at_its_own_best_by_fresh_seeds(tmp_path: Path) -> None:
    planned = study(tmp_path, "confirm: {seeds: 3}\n")
    (trials,) = confirmation(planned, results(tmp_path, noskip=1e-3))
    assert {(trial.variant, trial.settings["lr"]) for trial in trials} == {("unet", 3e-4), ("noskip", 1e-3)}
    assert len(trials) == 6 and {trial.role for trial in trials} == {"confirm"}
    assert not {trial.seed for trial in trials} & set(planned.seeds)
    assert list(confirmation(study(tmp_path, ""), Results(tmp_path / "p"))) == []


def test_each_variants_two_best_are_screened_again_by_the_next_seed(tmp_path: Path) -> None:
    truth = Truth(optimum={"noskip": 1e-3}, delta={}, unstable_from={}, diverged=(), seed_std=0.0, curvature=0.4)
    path = plant(
        tmp_path / "p", variants=("unet", "noskip"), lrs=RATES, seeds=1, images=3, epochs=5, truth=truth,
        predictions=False, profile=False,
    )  # fmt: skip
    assert list(screened_again(study(tmp_path, ""), Results(path))) == [], "without screen nothing is"
    (trials,) = screened_again(read(tmp_path, SCREENED), Results(path))
    assert {(trial.variant, trial.settings["lr"], trial.seed, trial.role) for trial in trials} == {
        ("unet", 3e-4, 1, "main"), ("unet", 1e-4, 1, "main"), ("noskip", 1e-3, 1, "main"), ("noskip", 3e-4, 1, "main"),
    }  # fmt: skip


def test_the_settings_screened_again_rest_on_the_first_seeds_alone(tmp_path: Path) -> None:
    screened = read(tmp_path, SCREENED)
    rows = [
        ("unet", "lr=1e-3", 0, 0.50), ("unet", "lr=3e-4", 0, 0.60), ("unet", "lr=1e-4", 0, 0.40),
        ("unet", "lr=1e-3", 1, 0.10), ("unet", "lr=3e-4", 1, np.nan),
        ("noskip", "lr=1e-3", 0, 0.70), ("noskip", "lr=3e-4", 0, np.nan), ("noskip", "lr=1e-4", 0, np.nan),
    ]  # fmt: skip
    trials = pd.DataFrame(rows, columns=["variant", "setting", "seed", "val_score"])
    trials = trials.assign(role="main", status="complete")
    # With one result a variant has nothing to choose between.
    assert best_settings(screened, trials) == {"unet": ["lr=3e-4", "lr=1e-3"], "noskip": []}


def test_what_a_look_left_open_goes_on_with_what_it_is_compared_with() -> None:
    frame = pd.DataFrame(
        [("a", 2, "open"), ("b", 2, "better"), ("copy", 2, "open"), ("a", 4, "futile"), ("copy", 4, "undecided")],
        columns=["variant", "n", "decision"],
    )
    looks, sides = Looks(frame), {"a": "base", "b": "base", "copy": "b"}
    # b is decided, but its A/A copy is not: it goes on for that.
    assert still_open(looks, sides, 2) == ["base", "b", "a", "copy"]
    assert still_open(looks, sides, 4) == []
    assert still_open(looks, sides, 6) == [], "a look that could not be taken is the last"


def test_only_open_contrasts_get_more_seeds_and_a_second_pass_plans_the_same(tmp_path: Path) -> None:
    """What a run that was killed does: it goes through the same looks again, from the records alone."""
    text = SCREENED.replace("screen: {}", "seeds: 2").replace("  noskip", "  residual: {block: residual}\n  noskip")
    planned = read(tmp_path, text + "confirm: {until: decided, looks: [3, 6]}\n")
    truth = Truth(delta={"noskip": -0.3}, unstable_from={}, diverged=(), seed_std=0.02)
    path = plant(
        tmp_path / "p", variants=("unet", "residual", "noskip"), lrs=RATES, seeds=2, images=4, epochs=5, truth=truth,
        predictions=False, profile=False, confirm=6,
    )  # fmt: skip
    spec = yaml.safe_load((path / "study.yaml").read_text())
    spec["confirm"] = {"until": "decided", "looks": [3, 6]}
    (path / "study.yaml").write_text(yaml.safe_dump(spec))
    passes = [list(confirmation(planned, Results(path))) for _ in range(2)]
    seen = [[sorted({(t.variant, t.seed) for t in trials}) for trials in made] for made in passes]
    assert seen[0] == seen[1]
    first, second = passes[0]
    assert {trial.variant for trial in first} == {"unet", "residual", "noskip"} and len(first) == 9
    assert {trial.variant for trial in second} == {"unet", "residual"} and len(second) == 6
    assert not {trial.key for trial in first} & {trial.key for trial in second}
