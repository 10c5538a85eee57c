"""Scores of a split against the reference implementation; at the masks' own size, against a computation by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import tests.tiny_plugin  # noqa: F401  (registers the tiny components)
from ablate.data.dataset import IGNORE
from ablate.measure import segmentation
from ablate.records.images import unpack_maps
from ablate.train.evaluate import counts_by_comparison, evaluate_native, image_counts
from tests.train.test_loop import STUDY, bench, make_study, run

NATIVE = STUDY.replace("measure: {lr_headroom: 2}", "measure: {native: true}")


def large(masks: np.ndarray, factors: tuple[int, ...]) -> list[np.ndarray]:
    """Each mask upsampled by one of the factors in turn, with a void frame."""
    made = []
    for place, mask in enumerate(masks):
        factor = factors[place % len(factors)]
        made.append(mask.repeat(factor, 0).repeat(factor, 1))
        made[-1][0] = IGNORE
    return made


def test_counts_are_those_of_the_argmax_of_upsampled_logits(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    workbench = bench(tmp_path)
    trial = study.trials()[0]
    network, split = workbench.network(trial), workbench.data(trial.data).splits["test"]
    masks = large(split.masks.numpy(), (1, 2, 3))
    counts, preds = evaluate_native(network, split, masks, batch_size=3)
    network.model.eval()
    for place, mask in enumerate(masks):
        with torch.no_grad():
            logits = network.logits(split.images[place : place + 1]).float()
        upsampled = torch.nn.functional.interpolate(logits, size=mask.shape, mode="bilinear", align_corners=False)
        guess = upsampled.argmax(1)[0].numpy()
        assert preds[place].shape == mask.shape
        assert (preds[place] != guess).mean() < 1e-3  # another batch rounds otherwise
        own = segmentation.image_counts(preds[place], mask, network.num_classes)[0]
        assert (counts[place] == own).all()
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
    preds = unpack_maps(tmp_path / "a" / "trials" / trial.name / "predictions.zip")
    assert np.asarray(preds).shape[1:] == data.dataset.size


@pytest.mark.parametrize("classes", [2, 11])
def test_counts_equal_the_reference(classes: int) -> None:
    rng = np.random.default_rng(1)
    preds = rng.integers(0, classes, (4, 9, 7)).astype(np.uint8)
    target = rng.integers(0, classes, (4, 9, 7)).astype(np.uint8)
    target[1] = 255
    target[2, :3] = 255
    expected = segmentation.image_counts(preds, target, classes)
    for way in (image_counts, counts_by_comparison):
        got = way(torch.from_numpy(preds), torch.from_numpy(target), classes)
        assert got.dtype == torch.int64
        np.testing.assert_array_equal(got.numpy(), expected)
