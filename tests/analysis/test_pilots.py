"""The planner on a pilot study: the variances of its chosen cells, and what it cannot plan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ablate.analysis.analyse import Analysis, analyse
from ablate.analysis.frames import Frames, load_results
from ablate.analysis.planner import pilot_of, plan_power
from ablate.stats.blocks import draw_images, image_scheme
from tests.planted import Truth, plant


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Frames, Analysis]:
    path = plant(
        tmp_path_factory.mktemp("pilot") / "planted",
        variants=("unet", "noskip", "attention"),
        seeds=4,
        epochs=12,
        images=14,
        truth=Truth(control={"again": "unet"}, missing=(("attention", 1e-3, 3),)),
        measure={"resamples": 400},
    )
    frames = load_results(path)
    return frames, analyse(frames)


def test_the_pilots_variances_are_those_of_its_chosen_cells(study: tuple[Frames, Analysis]) -> None:
    frames, analysis = study
    plan = plan_power(frames, seeds=(4, 8), deltas=(0.02,))
    assert list(plan.needed["variant"]) == ["noskip", "attention"]  # the A/A control is not planned for
    row = plan.detectable.query("variant == 'noskip' and seeds == 4").iloc[0]
    cells = analysis.cells[analysis.cells["own_best"]].set_index("variant")
    expected = (cells["test_sd"].loc[["noskip", "unet"]].astype(float) ** 2).mean()
    assert row["seed_sd"] ** 2 == pytest.approx(expected)
    assert row["level"] == pytest.approx(0.05 / 2)
    assert row["detectable"] > plan.detectable.query("variant == 'noskip' and seeds == 8")["detectable"].iloc[0]


def test_a_pilot_of_one_seed_plans_nothing(study: tuple[Frames, Analysis]) -> None:
    frames, _ = study
    trials = frames.trials[frames.trials["seed"].eq(frames.trials["seed"].min())]
    plan = plan_power(replace(frames, trials=trials), seeds=(4,), deltas=(0.02,))
    assert plan.detectable["detectable"].isna().all()
    assert plan.needed["reason"].str.contains("a variance needs two").all()


def test_a_pilot_finds_planted_variances() -> None:
    """The seed part holds each run's own luck with the images, the image part does not."""
    rng = np.random.default_rng(0)
    images, n, seed, image, rest = 50, 300, 0.02, 0.05, 0.05
    weights = draw_images(rng, image_scheme(images, None), 300)

    def ratio(sums: np.ndarray) -> np.ndarray:
        return sums[..., 0] / sums[..., 1]

    def side() -> list[np.ndarray]:
        values = rng.normal(0, seed, (n, 1)) + rng.normal(0, image, images) + rng.normal(0, rest, (n, images))
        return list(np.stack([values, np.ones_like(values)], axis=-1))

    pilot = pilot_of(side(), side(), weights, ratio)
    assert pilot.seed == pytest.approx(seed**2 + rest**2 / images, rel=0.15)
    assert pilot.image == pytest.approx(2 * image**2 / images, rel=0.45)
    assert pilot.df == 2 * n - 2
