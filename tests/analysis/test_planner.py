"""The planner on a pilot: its variances are those of the records, and its plan keeps what it promises."""

from __future__ import annotations

import json
from dataclasses import replace
from math import sqrt
from pathlib import Path

import numpy as np
import pytest

from ablate.analysis.analyse import Analysis
from ablate.analysis.frames import Frames, load_results
from ablate.analysis.selection import best_of_each, v_table
from ablate.run.plan.planner import Pilot, PowerPlan, pilot_of, plan_power
from ablate.stats.blocks import draw_images, image_scheme
from tests.planted import Truth, plant

PILOT = Path(__file__).resolve().parents[2] / "results" / "published" / "camvid-small"


@pytest.fixture(scope="module")
def pilot() -> tuple[Frames, PowerPlan]:
    """The published CamVid study as the pilot of another: 4 variants, 4 rates, 3 seeds, its images in sequences."""
    frames = load_results(PILOT)
    return frames, plan_power(frames)


def test_the_spread_between_seeds_is_that_of_the_records(pilot: tuple[Frames, PowerPlan]) -> None:
    frames, plan = pilot
    chosen = best_of_each(v_table(frames.trials))
    scores: dict[str, list[float]] = {}
    for path in PILOT.glob("trials/*/record.json"):
        record = json.loads(path.read_bytes())
        rate = float(frames.levels["lr"][str(chosen[record["variant"]])])
        if record["settings"]["lr"] == rate:
            scores.setdefault(record["variant"], []).append(record["metrics"]["test_mean_iou"])
    for row in plan.detectable.drop_duplicates("variant").to_dict("records"):
        expected = sqrt((np.var(scores[row["variant"]], ddof=1) + np.var(scores["unet"], ddof=1)) / 2)
        assert row["seed_sd"] == pytest.approx(expected, rel=1e-6)
        assert (row["pilot_seeds"], row["reason"]) == (3, "")


def test_the_images_of_the_pilot_are_drawn_as_its_sequences(pilot: tuple[Frames, PowerPlan]) -> None:
    frames, _ = pilot
    # A published folder keeps no pictures, but what its images belong to: without it the floor would be too low.
    assert set(frames.groups["test"] or ()) == {"0001TP", "Seq05VD"}


def test_more_seeds_see_less_and_the_levels_are_holms(pilot: tuple[Frames, PowerPlan]) -> None:
    _, plan = pilot
    for _, part in plan.detectable.groupby("variant"):
        assert part["detectable"].is_monotonic_decreasing
        assert part["level"].iloc[0] == pytest.approx(0.05 / 3)
    for _, part in plan.needed.groupby("variant"):
        assert part["seeds"].is_monotonic_decreasing
        assert (part["cautious_seeds"] >= part["seeds"]).all()
    assert len(plan.detectable) == 3 * 5 and len(plan.needed) == 3 * 5


def test_a_planted_spread_gives_the_detectable_difference_of_the_t_test(tmp_path: Path) -> None:
    truth = Truth(delta={}, unstable_from={}, diverged=(), detail={}, seed_std=0.01)
    path = plant(
        tmp_path / "p", variants=("unet", "noskip"), lrs=(3e-4,), seeds=12, images=10, epochs=5, size=(16, 24),
        truth=truth, predictions=False, profile=False, measure={"resamples": 300},
    )  # fmt: skip
    rows = plan_power(load_results(path), seeds=(5,)).detectable
    # 12 seeds know an SD within a third; the seeds' own noise and that of their generalisation are what was planted.
    assert rows["seed_sd"].iloc[0] == pytest.approx(0.01 * sqrt(1 + 0.3**2), rel=0.35)
    # t with 8 degrees of freedom at 5 %: 80 % power at 2.02 standard deviations of one run, more where images vary.
    least = 2.02 * rows["seed_sd"].iloc[0]
    assert least * 0.98 < rows["detectable"].iloc[0] < least + 2 * 2.9 * rows["image_sd"].iloc[0] + 1e-9


def test_controls_are_not_planned_for(tmp_path: Path) -> None:
    path = plant(
        tmp_path / "p", variants=("unet", "noskip"), lrs=(3e-4,), seeds=2, images=4, epochs=5,
        truth=Truth(control={"again": "unet"}), predictions=False,
    )  # fmt: skip
    plan = plan_power(load_results(path))
    assert set(plan.detectable["variant"]) == {"noskip"}
    assert plan.detectable["level"].iloc[0] == pytest.approx(0.05)


def test_the_pilots_variances_are_those_of_its_chosen_cells(planted_analysis: Analysis) -> None:
    analysis = planted_analysis
    frames = analysis.frames
    plan = plan_power(frames, seeds=(4, 8), deltas=(0.02,))
    assert list(plan.needed["variant"]) == ["noskip", "residual", "attention"]  # the A/A control is not planned for
    row = plan.detectable.query("variant == 'noskip' and seeds == 4").iloc[0]
    cells = analysis.cells[analysis.cells["own_best"]].set_index("variant")
    expected = float((cells["test_sd"][["noskip", "unet"]] ** 2).mean())
    assert row["seed_sd"] ** 2 == pytest.approx(expected)
    assert row["level"] == pytest.approx(0.05 / 3)
    assert row["detectable"] > plan.detectable.query("variant == 'noskip' and seeds == 8")["detectable"].iloc[0]
    assert (plan.contrasts, plan.level) == (3, row["level"])


def test_a_pilot_of_one_seed_plans_nothing(planted_frames: Frames) -> None:
    trials = planted_frames.trials[planted_frames.trials["seed"].eq(planted_frames.trials["seed"].min())]
    plan = plan_power(replace(planted_frames, trials=trials), seeds=(4,), deltas=(0.02,))
    assert plan.detectable["detectable"].isna().all()
    assert plan.needed["reason"].str.contains("a variance needs two").all()


def test_a_pilot_that_confirmed_gives_the_spread_of_its_fresh_seeds(tmp_path: Path) -> None:
    path = plant(
        tmp_path / "p", variants=("unet", "noskip"), lrs=(1e-3, 3e-4), seeds=1, images=6, epochs=5, confirm=5,
        truth=Truth(diverged=()), predictions=False, profile=False,
    )  # fmt: skip
    frames = load_results(path)
    row = plan_power(frames, seeds=(6,)).detectable.iloc[0]
    fresh = frames.trials[frames.trials["role"] == "confirm"].groupby("variant")["test_score"]
    assert (row["pilot_seeds"], row["reason"]) == (5, "")
    assert row["seed_sd"] ** 2 == pytest.approx(fresh.var(ddof=1).mean())


def test_the_careful_answer_is_at_the_upper_bound_of_the_pilots_variance() -> None:
    # chi²_{4, .2} = 1.6488: the variance may be 2.43 times the pilot's.
    assert Pilot((1e-4, 3e-4), 0.0, 4).cautious().between == pytest.approx((2.426e-4, 7.278e-4), rel=1e-3)


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
