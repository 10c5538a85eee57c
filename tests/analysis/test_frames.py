"""Frames: what stands in the records stands in the frames, and a damaged trial is a row, not an error."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ablate
from ablate.analysis.frames import Frames, load_results
from ablate.errors import ResultsError
from tests.planted import Truth, plant
from tests.planted_pixels import count, mean_iou


def test_a_row_a_planned_trial_with_its_status(planted_frames: Frames) -> None:
    trials = planted_frames.trials
    assert len(trials) == 5 * 4 * 3
    assert trials["status"].value_counts().to_dict() == {"complete": 57, "diverged": 1, "missing": 1, "failed": 1}
    gone = trials.set_index(["variant", "lr", "seed"])["status"]
    assert gone["residual", 1e-3, 2] == "missing"
    assert gone["attention", 1e-4, 0] == "failed"
    assert gone["noskip", 1e-3, 1] == "diverged"
    assert set(trials["setting"]) == {"lr=1e-3", "lr=5e-4", "lr=3e-4", "lr=1e-4"}
    assert planted_frames.axes == ("lr",)
    assert planted_frames.variants == ("unet", "noskip", "residual", "attention", "unet-again")


def test_scores_are_those_of_the_stored_predictions(planted_frames: Frames) -> None:
    row = planted_frames.trials.query("variant == 'noskip' and lr == 3e-4 and seed == 1").iloc[0]
    counts = count(np.asarray(planted_frames.preds(row["key"])), np.asarray(planted_frames.target), 5)
    assert np.array_equal(counts, planted_frames.counts(row["key"])["test"])
    assert row["test_score"] == row["test_mean_iou"] == pytest.approx(mean_iou(counts.sum(0)), abs=1e-15)
    classes = planted_frames.classes.query("key == @row['key'] and split == 'test'")
    assert list(classes["class"]) == ["sky", "building", "road", "fence", "pole"]
    assert classes["iou"].mean() == pytest.approx(row["test_mean_iou"], abs=1e-15)
    assert classes["tp"].tolist() == counts[..., 0].sum(0).tolist()
    tp, fp, fn = counts.sum(0).T
    assert classes["dice"].tolist() == pytest.approx((2 * tp / (2 * tp + fp + fn)).tolist())
    images = planted_frames.images.query("key == @row['key'] and split == 'test'")
    assert len(images) == 16
    assert images["mean_iou"].mean() == pytest.approx(row["test_mean_iou_images"])
    assert images["loss"].mean() == pytest.approx(row["test_loss"])
    assert planted_frames.images.query("key == @row['key'] and split == 'val'")["loss"].isna().all()


def test_a_diverged_trial_scores_zero_and_rises_without_bound(planted_frames: Frames) -> None:
    row = planted_frames.trials.query("status == 'diverged'").iloc[0]
    assert (row["val_score"], row["test_score"], row["rise"]) == (0.0, 0.0, math.inf)
    assert "nan at step" in row["reason"]
    epochs = planted_frames.epochs.query("key == @row['key']")
    assert math.isnan(epochs["train_loss"].iloc[-1])
    assert math.isnan(planted_frames.steps(row["key"])[-1, 0])
    assert row["key"] not in set(planted_frames.images["key"])


def test_trials_without_a_result_score_nothing(planted_frames: Frames) -> None:
    unfinished = planted_frames.trials.query("status in ['missing', 'failed']")
    assert unfinished[["val_score", "test_score", "rise"]].isna().all(axis=None)
    assert planted_frames.trials.query("status == 'failed'")["reason"].iloc[0].startswith("killed by signal 9")


def test_stability_is_that_of_the_steps(planted_frames: Frames) -> None:
    row = planted_frames.trials.query("variant == 'noskip' and lr == 5e-4 and seed == 0").iloc[0]
    medians = np.median(planted_frames.steps(row["key"])[:, 0].reshape(12, 8), axis=1).astype(float)
    rise = max(medians[e] / medians[:e].min() for e in range(1, 12))
    assert row["rise"] == pytest.approx(rise)
    assert row["missing"] == {"spike_score": "96 steps; the OLMo form needs 128"}
    assert math.isnan(row["spike_score"])
    headroom = planted_frames.layers.query("key == @row['key'] and measure == 'lr_headroom'")["value"]
    assert len(headroom) == 4
    assert row["lr_headroom"] == headroom.min()


def test_throughput_has_a_row_a_round_in_the_order_of_the_plan(planted_frames: Frames) -> None:
    throughput = planted_frames.throughput
    assert tuple(throughput["variant"].unique()) == planted_frames.variants
    assert throughput.groupby("variant")["round"].max().eq(6).all()


def test_the_package_loads_results(planted_path: Path) -> None:
    frames = ablate.load_results(planted_path)
    complete = 57
    lengths = [len(frame) for frame in (frames.trials, frames.classes, frames.images)]
    assert lengths == [60, complete * 2 * 5, complete * 2 * 16]
    assert len(frames.epochs) == complete * 12 + 4  # the diverged trial ended in its fourth epoch


def test_frames_need_neither_torch_nor_optuna(planted_path: Path) -> None:
    code = (
        "import sys; from ablate.analysis.frames import load_results; from ablate.analysis.analyse import analyse;"
        "f = load_results(sys.argv[1]); f.images; analyse(f); print('torch' in sys.modules or 'optuna' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(planted_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_two_axes_make_one_setting(tmp_path: Path) -> None:
    path = plant(tmp_path / "p", variants=("unet",), lrs=(3e-4,), seeds=1, images=2, epochs=6, predictions=False)
    run = json.loads((path / "run.json").read_text())
    run["plan"][0]["settings"] = {"lr": 3e-4, "weight_decay": 0.01, "crop": [16, 16]}
    (path / "run.json").write_text(json.dumps(run))
    frames = load_results(path)
    row = frames.trials.iloc[0]
    assert frames.axes == ("lr", "weight_decay", "crop")
    assert row["setting"] == "lr=3e-4, weight_decay=0.01, crop=16-16"
    assert row["crop"] == (16, 16)
    for frame in (frames.classes, frames.images):
        assert set(frame.loc[frame["key"] == row["key"], "crop"]) == {(16, 16)}


def test_damaged_trials_are_missing_with_the_reason(tmp_path: Path) -> None:
    path = plant(tmp_path / "p", variants=("unet",), lrs=(3e-4,), seeds=4, images=2, epochs=6, predictions=False)
    folders = [path / "trials" / name for name in load_results(path).trials["name"]]
    (folders[0] / "record.json").write_text("{")
    (folders[1] / "images.npz").write_bytes(b"PK not a zip")
    (folders[2] / "images.npz").unlink()
    with (folders[3] / "epochs.jsonl").open("a", encoding="utf-8") as handle:
        handle.write('{"epoch": 7, "train_lo')  # a line that is being written
    frames = load_results(path)
    assert frames.trials["status"].tolist() == ["missing", "missing", "missing", "complete"]
    reasons = frames.trials["reason"].tolist()
    assert "not valid JSON" in reasons[0]
    assert "not a readable zip" in reasons[1]
    assert "there is no such file" in reasons[2]
    assert list(frames.unreadable) == [folders[0] / "record.json"]
    assert frames.epochs.query("seed == 3")["epoch"].tolist() == [1, 2, 3, 4, 5, 6]
    assert len(frames.images) == 2 * 2


def test_a_record_of_another_trial_does_not_count(tmp_path: Path) -> None:
    path = plant(tmp_path / "p", variants=("unet",), lrs=(3e-4,), seeds=2, images=2, epochs=6, predictions=False)
    first, second = (path / "trials" / name / "record.json" for name in load_results(path).trials["name"])
    first.write_bytes(second.read_bytes())
    frames = load_results(path)
    assert frames.trials["status"].tolist() == ["missing", "complete"]
    assert "the record of another trial" in frames.trials["reason"].iloc[0]


def test_a_folder_without_a_plan_is_read_from_its_records(tmp_path: Path) -> None:
    path = plant(tmp_path / "p", variants=("unet",), lrs=(3e-4,), seeds=2, images=2, epochs=6, predictions=False)
    (path / "run.json").unlink()
    (path / "test" / "index.json").unlink()
    frames = load_results(path)
    assert frames.trials["status"].tolist() == ["complete", "complete"]
    assert frames.class_names == ("0", "1", "2", "3", "4")
    assert frames.names["test"] == ("0", "1")


def test_no_study_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="there is no study in this folder"):
        load_results(tmp_path)
    (tmp_path / "trials.tar.xz").touch()
    for given in ("nowhere", "trials.tar.xz"):
        with pytest.raises(ResultsError, match=f"{given}: there is no such folder"):
            load_results(tmp_path / given)
    (tmp_path / "study.yaml").write_text("study: x\ndata: {name: street}\nepochz: 3\n")
    with pytest.raises(ResultsError, match="not a study: epochz"):
        load_results(tmp_path)


def test_nothing_on_disk_changes(tmp_path: Path) -> None:
    path = plant(tmp_path / "p", variants=("unet",), lrs=(3e-4,), seeds=2, images=2, epochs=6, truth=Truth())
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    frames = load_results(path)
    assert len(frames.epochs) + len(frames.images) + len(frames.classes) + len(frames.layers) > 0
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before
