"""Scoring at the masks' own size: enlarged logits, against a computation by hand and against the size trained at."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import tests.tiny_plugin  # noqa: F401  (registers the tiny components)
from ablate.data.dataset import IGNORE
from ablate.measure import segmentation
from ablate.records.images import unpack_maps
from ablate.train.native import score_native
from tests.train.test_trial import STUDY, bench, make_study, run

NATIVE = STUDY.replace("measure: {lr_headroom: 2}", "measure: {native: true}")


def large(masks: np.ndarray, factors: tuple[int, ...]) -> list[np.ndarray]:
    """Each mask enlarged by one of the factors in turn, with a void frame."""
    made = []
    for place, mask in enumerate(masks):
        factor = factors[place % len(factors)]
        made.append(mask.repeat(factor, 0).repeat(factor, 1))
        made[-1][0] = IGNORE
    return made


def test_counts_are_those_of_the_argmax_of_enlarged_logits(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    workbench = bench(tmp_path)
    trial = study.trials()[0]
    network, split = workbench.network(trial), workbench.data(trial.data).splits["test"]
    masks = large(split.masks.numpy(), (1, 2, 3))
    scores = score_native(network, split, masks, batch_size=3)
    network.model.eval()
    for place, mask in enumerate(masks):
        with torch.no_grad():
            logits = network.logits(split.images[place : place + 1]).float()
        enlarged = torch.nn.functional.interpolate(logits, size=mask.shape, mode="bilinear", align_corners=False)
        guess = enlarged.argmax(1)[0].numpy()
        assert scores.preds[place].shape == mask.shape
        assert (scores.preds[place] != guess).mean() < 1e-3  # another batch rounds otherwise
        own = segmentation.image_counts(scores.preds[place], mask, network.num_classes)[0]
        assert (scores.counts[place] == own).all()
    assert network.model.training is False


def test_at_equal_size_the_scores_are_those_of_the_size_trained_at(tmp_path: Path) -> None:
    study, native = make_study(tmp_path), make_study(tmp_path, NATIVE)
    workbench = bench(tmp_path)
    trial = study.trials()[0]
    assert native.trials()[0].key == trial.key  # what is measured is no part of what is trained
    usual, folder = run(trial, study, workbench, tmp_path / "a")
    own, other = run(trial, native, workbench, tmp_path / "b")
    assert (usual.resolution, own.resolution) == ("trained", "native")
    assert own.metrics == usual.metrics
    assert folder.images.read_bytes() == other.images.read_bytes()
    assert folder.predictions.read_bytes() == other.predictions.read_bytes()


def test_a_record_of_larger_masks_has_their_counts_and_the_loss_of_the_size_trained_at(tmp_path: Path) -> None:
    study, native = make_study(tmp_path), make_study(tmp_path, NATIVE)
    workbench = bench(tmp_path)
    trial = study.trials()[0]
    usual, _ = run(trial, study, workbench, tmp_path / "a")
    data = workbench.data(trial.data)
    masks = large(data.dataset.splits["test"].masks, (3, 2))
    data.dataset = replace(data.dataset, native=lambda: masks)
    record, folder = run(trial, native, workbench, tmp_path / "b")
    preds = unpack_maps(folder.predictions)
    assert isinstance(preds, list) and [p.shape for p in preds] == [m.shape for m in masks]
    classes = data.dataset.num_classes
    counts = np.concatenate([segmentation.image_counts(p, m, classes) for p, m in zip(preds, masks, strict=True)])
    assert (np.load(folder.images)["test"] == counts).all()
    assert record.metrics["test_mean_iou"] == float(segmentation.mean_iou(counts, axis=0))
    assert record.metrics["test_loss"] == usual.metrics["test_loss"]
    assert record.metrics["val_mean_iou"] == usual.metrics["val_mean_iou"]
    assert json.loads(folder.record.read_bytes())["resolution"] == "native"
    assert np.asarray(unpack_maps(tmp_path / "a" / "trials" / trial.name / "predictions.zip")).shape[1:] == data.dataset.size
