"""Levels of the variants: their scores at own best, and where the spread of a score comes from."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ablate.analysis.analyse import Analysis, analyse
from ablate.analysis.frames import Frames, load_results
from ablate.analysis.scores import StudyScores
from tests.planted import Truth, plant
from tests.planted_counts import draw_study


def test_the_planted_levels_lie_in_their_intervals(planted_analysis: Analysis) -> None:
    variants = planted_analysis.variants.set_index("variant")
    for variant, level in {"unet": 0.62, "noskip": 0.56, "residual": 0.65, "attention": 0.62}.items():
        assert variants["test_mean"][variant] == pytest.approx(level, abs=0.015)
        assert variants["test_low"][variant] < level < variants["test_high"][variant]
    assert variants["lr"].eq(3e-4).all()
    assert variants["against"].eq("unet").all()
    assert variants["n"].eq(3).all()


def test_quality_is_the_mean_over_seeds(planted_analysis: Analysis) -> None:
    row = planted_analysis.variants.set_index("variant").loc["residual"]
    seeds = planted_analysis.frames.trials.query("variant == 'residual' and lr == 3e-4")
    assert row["worst_images"] == pytest.approx(seeds["test_worst_images"].mean())
    assert row["mean_iou_classes"] == pytest.approx(seeds["test_mean_iou_classes"].mean())
    assert row["pixel_accuracy"] == pytest.approx(seeds["test_pixel_accuracy"].mean())
    assert row["worst_images"] < row["mean_iou_images"]


def test_what_a_variant_differs_in_and_its_size(planted_analysis: Analysis) -> None:
    variants = planted_analysis.variants.set_index("variant")
    assert variants["differs"]["noskip"] == "skip: concat → none"
    assert variants["differs"]["unet"] == ""
    assert variants["parameters_ratio"]["noskip"] == pytest.approx(437 / 486)
    assert variants["control"].to_dict()["unet-again"]
    assert variants["baseline"].sum() == 1


def test_a_diverged_seed_counts_zero_in_every_score_but_not_in_the_loss(tmp_path: Path) -> None:
    truth = Truth(diverged=(("unet", 3e-4, 1),))
    path = plant(tmp_path / "p", variants=("unet",), lrs=(3e-4,), images=4, epochs=6, truth=truth, predictions=False)
    frames = load_results(path)
    row = analyse(frames).variants.iloc[0]
    complete = frames.trials.query("status == 'complete'")
    assert len(complete) == 2
    for name, column in {"dice": "test_dice", "worst_images": "test_worst_images", "test_mean": "test_score"}.items():
        assert row[name] == pytest.approx(complete[column].sum() / 3)
    assert row["test_loss"] == pytest.approx(complete["test_loss"].mean())


def test_the_spread_goes_to_what_was_planted() -> None:
    quiet: dict[str, Any] = {"seed_sd": 0.0, "image_sd": 0.0, "interaction_sd": 0.0}
    parts = {}
    for name, sd in {"seed": 0.3, "image": 0.5, "interaction": 0.5}.items():
        frames = draw_study(
            np.random.default_rng(3),
            effects={"a": [0.0]},
            lrs=(3e-4,),
            seeds=12,
            images=100,
            **(quiet | {f"{name}_sd": sd}),
        )
        parts[name] = StudyScores(frames).variance("a", "lr=3e-4")
    assert parts["seed"].seed > 20 * max(parts["seed"].image, parts["seed"].interaction)
    assert parts["image"].image > max(parts["image"].seed, parts["image"].interaction)
    assert parts["interaction"].interaction > max(parts["interaction"].seed, parts["interaction"].image)


def test_a_variant_without_results_says_so(tmp_path: Path) -> None:
    missing = tuple(("noskip", 3e-4, seed) for seed in range(2))
    path = plant(
        tmp_path / "p",
        variants=("unet", "noskip"),
        lrs=(3e-4,),
        seeds=2,
        images=4,
        epochs=6,
        truth=Truth(missing=missing),
        predictions=False,
    )
    row = analyse(load_results(path)).variants.set_index("variant").loc["noskip"]
    assert (row["setting"], row["reason"], row["bracket"]) == ("", "no result yet", "no setting has a result")
    assert pd.isna(row["test_mean"])
    assert row["provisional"]


def test_scores_of_every_class_are_means_over_the_seeds(planted_analysis: Analysis) -> None:
    frames = planted_analysis.frames
    rows: Any = planted_analysis.classes.set_index(["variant", "class"])
    assert len(rows) == len(frames.variants) * len(frames.class_names)
    chosen = frames.classes.query("variant == 'noskip' and split == 'test'")
    chosen = chosen[chosen["setting"] == planted_analysis.own_best["noskip"]]
    for label, part in chosen.groupby("class"):
        row = rows.loc[("noskip", label)]
        assert (row["iou"], row["dice"]) == pytest.approx((part["iou"].mean(), part["dice"].mean()))
        assert row["pixels"] == (np.asarray(frames.target) == frames.class_names.index(label)).sum()
        assert row["iou_low"] < row["iou"] < row["iou_high"]
    classes = planted_analysis.class_contrasts.query("variant == 'noskip'").set_index("class")
    assert classes["left"].to_dict() == pytest.approx(rows.loc["noskip", "iou"].to_dict())


def test_a_diverged_seed_scores_zero_in_every_class(tmp_path: Path) -> None:
    truth = Truth(diverged=(("unet", 3e-4, 0),), unstable_from={})
    path = plant(
        tmp_path / "p", variants=("unet",), lrs=(3e-4,), seeds=2, images=4, epochs=6, truth=truth, predictions=False
    )
    analysis = analyse(load_results(path))
    alone = analysis.frames.classes.query("split == 'test'").set_index("class")
    rows = analysis.classes.set_index("class")
    assert rows["dice"].to_dict() == pytest.approx((alone["dice"] / 2).to_dict())
    assert rows["iou"].to_dict() == pytest.approx((alone["iou"] / 2).to_dict())


def test_modules_of_a_variant_are_counted_and_named(planted_frames: Frames) -> None:
    run = {**planted_frames.run}
    trees = {"added": ["decoder.0.gate: Gate"], "removed": ["a: Conv2d", "b: Conv2d"]}
    run["variants"] = {**run["variants"], "attention": {**run["variants"]["attention"], "modules": trees}}
    rows: Any = analyse(dataclasses.replace(planted_frames, run=run)).variants.set_index("variant")
    assert rows.loc["attention", ["modules_added", "modules_removed"]].tolist() == [1, 2]
    assert rows.loc["attention", "modules"] == "+decoder.0.gate: Gate; −a: Conv2d; −b: Conv2d"
