"""Fine detail from the stored predictions: lost where that was planted, and only there."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ablate.analysis.analyse import Analysis, analyse
from ablate.analysis.fine_detail import BY_CLASS, DETAIL, detail_vector, detail_verdicts_frame, stacked
from ablate.analysis.frames import Frames, load_results
from ablate.measure.detail import LEAST_PIXELS, DetailTarget, detail_counts, mean_recall, with_enough_pixels
from ablate.measure.segmentation import divide, iou, mean_iou
from tests.planted import plant


def detail_scores(counts: dict[str, np.ndarray]) -> dict[str, float]:
    """The score of each entry of `detail_counts` over all images."""
    means = {name: mean_iou(table, 0) for name, table in counts.items() if not name.startswith("thin")}
    recalls = {name: mean_recall(table.sum(0)) for name, table in counts.items() if name.startswith("thin")}
    return {name: float(value) for name, value in (means | recalls).items()}


def test_the_vector_is_the_measures_themselves() -> None:
    rng = np.random.default_rng(0)
    target = rng.integers(0, 3, (4, 12, 16)).astype(np.uint8).repeat(3, axis=1).repeat(3, axis=2)
    target[:, :, 0] = 255
    target[:, 7, 1:] = np.arange(4)[:, None] % 3  # lines one pixel wide, of every class
    preds = np.where(rng.random(target.shape) < 0.2, (target + 1) % 3, target % 3).astype(np.uint8)
    counts = detail_counts(preds, DetailTarget(target, 3))
    vector = detail_vector(stacked(counts).sum(0).astype(float))
    expected = detail_scores(counts)
    assert vector[: len(DETAIL)].tolist() == pytest.approx([float(expected[name]) for name in DETAIL], nan_ok=True)
    excess = [math.log(expected[name] / expected["interior"]) for name in ("boundary_3", "thin_3")]
    assert vector[len(DETAIL) : len(DETAIL) + 2].tolist() == pytest.approx(excess, nan_ok=True)
    classes = vector[len(DETAIL) + 2 :].reshape(len(BY_CLASS), 3)
    assert classes[2].tolist() == pytest.approx(divide(*counts["thin_3"].sum(0).T).tolist(), nan_ok=True)
    assert classes[0].tolist() == pytest.approx(iou(counts["boundary_3"].sum(0)).tolist(), nan_ok=True)
    assert np.nanmean(classes, axis=1).tolist() == pytest.approx([float(expected[name]) for name in BY_CLASS])


def test_a_loss_that_is_the_same_everywhere_is_no_loss_of_detail() -> None:
    def sums(level: float) -> np.ndarray:
        # Every measure a multiple of its own: boundary 0.5, interior 0.8, thin 0.4, at all levels alike.
        of = {"boundary_3": 0.5, "thin_3": 0.4, "interior": 0.8}
        right = np.array([1e6 * level * of.get(name, 0.6) for name in DETAIL])
        return np.stack([right, np.zeros_like(right), 1e6 - right], axis=-1)[:, None]

    place = len(DETAIL)
    weak, strong = detail_vector(sums(0.4)), detail_vector(sums(0.9))
    assert (weak[:place] < strong[:place]).all()
    assert weak[place : place + 2].tolist() == pytest.approx(strong[place : place + 2].tolist())
    assert weak[place] == pytest.approx(math.log(0.5 / 0.8))


def test_a_class_of_few_pixels_has_no_weight() -> None:
    counts = np.zeros((2, 3, 3), dtype=np.int64)
    counts[:, 0], counts[:, 1] = [400, 10, 90], [0, 0, 31]
    kept = with_enough_pixels(counts)
    assert kept[:, 0].tolist() == counts[:, 0].tolist() and not kept[:, 1:].any()
    assert mean_iou(kept, 0) == pytest.approx(0.8)
    counts[0, 1] = [0, 0, LEAST_PIXELS - 31]
    assert with_enough_pixels(counts)[:, 1].tolist() == counts[:, 1].tolist()
    hits = np.array([[[5, 99], [5, 100]]])
    assert with_enough_pixels(hits).tolist() == [[[0, 0], [5, 100]]]


def test_planted_loss_of_detail_is_found_and_only_there(planted_analysis: Analysis) -> None:
    verdicts = planted_analysis.detail_verdicts.set_index("variant")["verdict"].to_dict()
    assert verdicts == {
        "noskip": "lost",
        "residual": "undecided",
        "attention": "undecided",
        "unet-again": "undecided",
    }
    detail = planted_analysis.detail.set_index(["variant", "measure"])
    assert detail["high"]["noskip", "excess_boundary"] < 0
    assert detail["high"]["noskip", "thin_3"] < 0
    row = detail.loc[[("noskip", "boundary_3")]].iloc[0]
    assert row["left"] - row["right"] == pytest.approx(row["delta"])


def test_each_class_stands_with_its_pixels(planted_analysis: Analysis) -> None:
    frames, rows = planted_analysis.frames, planted_analysis.class_detail
    thin = rows.query("variant == 'noskip' and measure == 'thin_3'").set_index("class")
    target = np.asarray(frames.target)
    pole = target == frames.class_names.index("pole")
    # Poles are one pixel wide: all of them are thin. Nothing of the road is.
    assert thin["pixels"]["pole"] == pole.sum() > 0
    assert thin["pixels"]["road"] == 0 and math.isnan(thin["left"]["road"]) and thin["reason"]["road"]
    found = [
        (np.asarray(frames.preds(key))[pole] == 4).mean()
        for key in frames.trials.query("variant == 'noskip' and lr == 3e-4")["key"]
    ]
    assert thin["left"]["pole"] == pytest.approx(np.mean(found))
    assert thin["high"]["pole"] < 0
    whole = planted_analysis.detail.query("variant == 'noskip' and measure == 'thin_3'").iloc[0]
    assert thin["delta"].mean() == pytest.approx(whole["delta"])


def test_scores_are_means_over_the_seeds(planted_analysis: Analysis) -> None:
    frames = planted_analysis.frames
    target = DetailTarget(np.asarray(frames.target), 5)
    keys = frames.trials.query("variant == 'noskip' and lr == 3e-4")["key"]
    counts = [detail_counts(np.asarray(frames.preds(key)), target) for key in keys]
    seeds = [detail_scores({"thin_3": with_enough_pixels(of_seed["thin_3"])})["thin_3"] for of_seed in counts]
    row = planted_analysis.detail.query("variant == 'noskip' and measure == 'thin_3'").iloc[0]
    assert row["left"] == pytest.approx(np.mean(seeds))


def test_the_target_knows_its_sizes(planted_frames: Frames) -> None:
    assert planted_frames.detail_target.shapes == [(24, 32)]
    assert planted_frames.detail_target.pixels == 16 * 24 * 32


def test_lost_needs_all_four_intervals_below_zero() -> None:
    def verdict(**highs: float) -> str:
        rows = [
            {"variant": "a", "against": "b", "measure": name, "delta": high - 0.1, "low": high - 0.2, "high": high}
            for name, high in highs.items()
        ]
        return str(detail_verdicts_frame(pd.DataFrame(rows).assign(reason=""))["verdict"].iloc[0])

    below = dict.fromkeys(("boundary_3", "thin_3", "excess_boundary", "excess_thin"), -0.01)
    assert verdict(**below) == "lost"
    assert verdict(**dict.fromkeys(below, 0.5)) == "gained"
    for name in below:
        assert verdict(**below | {name: 0.01}) == "undecided"
        assert verdict(**below | {name: math.nan}) == "undecided"


def test_a_variant_without_predictions_is_left_out_and_named(tmp_path: Path) -> None:
    path = plant(tmp_path / "p", variants=("unet", "noskip", "residual"), lrs=(3e-4,), seeds=2, images=4, epochs=6)
    next(path.glob("trials/noskip-*seed1*/predictions.zip")).unlink()
    analysis = analyse(load_results(path))
    assert set(analysis.detail["variant"]) == {"residual"}
    assert analysis.no_detail.startswith("no measures of fine detail for noskip: ")


def test_a_study_without_test_pictures_has_no_detail(tmp_path: Path) -> None:
    path = plant(tmp_path / "p", variants=("unet", "noskip"), lrs=(3e-4,), seeds=2, images=4, epochs=6)
    (path / "test" / "targets.zip").unlink()
    analysis = analyse(load_results(path))
    assert not len(analysis.detail) and not len(analysis.class_detail) and not len(analysis.detail_verdicts)
    assert analysis.no_detail == "no measures of fine detail: the results folder holds no test masks"
