"""The plain loop: its own metric is the same as ours, its seeds draw, and its table compares means."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ablate.measure.segmentation import image_counts, mean_iou
from benchmarks.common import build_model, load_work
from benchmarks.plain_loop import plain_trial, render, row

STUDY = """\
study: s
data: {name: street, size: [32, 32], train: 8, val: 4, test: 4}
model: {name: unet, width: 2, depth: 1}
grid: {lr: [1e-2]}
seeds: 1
train: {epochs: 2, batch_size: 4}
"""


@pytest.mark.parametrize("weights", [None, "balanced"])
def test_the_loop_scores_the_weights_that_it_keeps_as_we_do(tmp_path: Path, weights: str | None) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY)
    work = load_work(path)
    (trial,) = work.trials
    train = trial.train | {"class_weights": weights}
    scores = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        model = build_model(trial, work)
        scores.append(plain_trial(model, work.dataset, train, seed))
    assert scores[0] == scores[1] != scores[2]
    test, pixels = work.split("test"), torch.tensor(work.split("train").images).permute(0, 3, 1, 2) / 255
    mean, std = pixels.mean((0, 2, 3), keepdim=True), pixels.std((0, 2, 3), keepdim=True)
    with torch.no_grad():
        preds = model.eval()((torch.tensor(test.images).permute(0, 3, 1, 2) / 255 - mean) / std).argmax(1)
    ours = float(mean_iou(image_counts(preds.byte().numpy(), test.masks, work.num_classes), axis=0))
    assert scores[2] == pytest.approx(ours, abs=1e-9)


def test_the_table_has_both_means_and_the_interval_of_their_difference() -> None:
    one = row("unet", [0.4, 0.5, 0.6], [0.3, 0.4, 0.5])
    assert one["difference"][0] == pytest.approx(0.1)
    assert one["difference"][1] < 0 < one["difference"][2]
    names = ("study", "command", "machine", "precision", "engine", "trial", "seeds")
    text = render({name: name for name in names} | {"versions": {}, "rows": [one]})
    assert "| unet | 50.0 ± 10.0 | 40.0 ± 10.0 | +10.0 [-12.7, +32.7] |" in text
