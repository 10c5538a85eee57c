"""What is planned once the grid is done: rates beyond an edge, at most twice and for all; fresh seeds at the chosen."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablate.records.store import Results
from ablate.run.followups import beyond_edges, confirmation
from ablate.study.study import Study
from tests.planted import Truth, plant
from tests.study.study_files import GOOD, read

RATES = (1e-3, 3e-4, 1e-4)


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
