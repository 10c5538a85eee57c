"""Overlap scores: hand-made maps, an independent implementation, absent classes, exact counting."""

from __future__ import annotations

import numpy as np
import pytest

from ablate.measure.segmentation import (
    dice,
    image_counts,
    iou,
    mean_dice,
    mean_iou,
    mean_iou_over_classes,
    mean_iou_over_images,
    per_image_mean_iou,
    pixel_accuracy,
    worst_images_mean_iou,
)
from tests.conftest import missing

TARGET = np.array([[[0, 0, 1], [0, 255, 1]], [[2, 2, 2], [2, 255, 255]]], dtype=np.uint8)
PREDS = np.array([[[0, 1, 1], [0, 9, 1]], [[2, 2, 0], [1, 0, 2]]], dtype=np.uint8)
COUNTS = [[[2, 0, 1], [2, 1, 0], [0, 0, 0]], [[0, 1, 0], [0, 1, 0], [2, 0, 2]]]


def random_maps(seed: int, classes: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = rng.integers(0, classes, shape).astype(np.uint8)
    preds = np.where(rng.random(shape) < 0.6, target, rng.integers(0, classes, shape)).astype(np.uint8)
    target[rng.random(shape) < 0.1] = 255
    return preds, target


def test_counts_of_a_map_counted_by_hand() -> None:
    counts = image_counts(PREDS, TARGET, 3)
    assert counts.dtype == np.int64
    assert counts.tolist() == COUNTS


def test_scores_of_a_map_counted_by_hand() -> None:
    counts = image_counts(PREDS, TARGET, 3)
    assert iou(counts.sum(axis=0)) == pytest.approx([2 / 4, 2 / 4, 2 / 4])
    assert dice(counts.sum(axis=0)) == pytest.approx([4 / 6, 4 / 6, 4 / 6])
    assert mean_iou(counts, axis=0) == pytest.approx(0.5)
    assert mean_dice(counts, axis=0) == pytest.approx(2 / 3)
    assert pixel_accuracy(counts, axis=0) == pytest.approx(6 / 9)
    # Without an axis each image is a set of its own; the third class is absent from the first.
    assert mean_iou(counts) == pytest.approx([(2 / 3 + 2 / 3) / 2, 2 / 4])
    assert np.isnan(iou(counts)[0, 2])


def test_one_image_is_a_stack_of_one() -> None:
    assert image_counts(PREDS[0], TARGET[0], 3).tolist() == COUNTS[:1]


@pytest.mark.parametrize("lacking", [None, 4])
def test_mean_iou_agrees_with_torchmetrics(lacking: int | None) -> None:
    try:
        import torch
        from torchmetrics.classification import MulticlassJaccardIndex
    except ImportError:
        missing("torchmetrics is not installed")
    preds, target = random_maps(3, 6, (9, 20, 30))
    if lacking is not None:
        preds[preds == lacking] = 0
        target[target == lacking] = 1
    theirs = MulticlassJaccardIndex(6, average="macro", ignore_index=255)
    theirs.update(torch.tensor(preds.astype(np.int64)), torch.tensor(target.astype(np.int64)))
    ours = mean_iou(image_counts(preds, target, 6), axis=0)
    assert ours == pytest.approx(theirs.compute().item(), abs=1e-6)
    assert np.isnan(iou(image_counts(preds, target, 6).sum(axis=0))).sum() == (lacking is not None)


def test_a_class_that_is_only_predicted_is_left_out() -> None:
    target = np.zeros((1, 2, 2), dtype=np.uint8)
    preds = np.array([[[0, 0], [0, 1]]], dtype=np.uint8)
    counts = image_counts(preds, target, 3)
    for score in (iou, dice):
        assert np.isnan(score(counts[0])[1:]).all()
    assert iou(counts[0])[0] == mean_iou(counts, axis=0) == 0.75
    assert dice(counts[0])[0] == mean_dice(counts, axis=0) == pytest.approx(6 / 7)


def test_false_pixels_of_an_absent_class_hardly_move_the_mean() -> None:
    preds, target = random_maps(3, 6, (4, 20, 30))
    target[target == 5] = 255
    preds[preds == 5] = 0
    before = mean_iou(image_counts(preds, target, 6), axis=0)
    preds[0, 0, :3] = 5
    after = mean_iou(image_counts(preds, target, 6), axis=0)
    assert after == pytest.approx(before, abs=2e-3)


def test_counts_are_exact_above_two_to_the_24() -> None:
    pixels = 2**24 + 3
    target = np.zeros((1, pixels), dtype=np.uint8)
    target[0, 0] = 1
    preds = np.zeros_like(target)
    assert image_counts(preds, target, 2)[0].tolist() == [[pixels - 1, 1, 0], [0, 0, 1]]
    # What the exact type is for: counting on in float32 stands still here.
    assert np.float32(2**24) + np.float32(1) == np.float32(2**24)
    # And sums over many images stay exact too.
    many = np.broadcast_to(image_counts(preds, target, 2), (3, 2, 3))
    assert many.sum(axis=0)[0].tolist() == [3 * (pixels - 1), 3, 0]


def test_images_scores_follow_their_definition() -> None:
    preds, target = random_maps(5, 4, (25, 6, 7))
    target[0][target[0] == 2] = 255
    preds[7] = (target[7] + 1) % 4
    target[8] = 255
    counts = image_counts(preds, target, 4)
    per_image: list[float] = []
    per_class: dict[int, list[float]] = {c: [] for c in range(4)}
    for p, t in zip(preds, target, strict=True):
        scores = []
        for c in sorted(set(t.ravel().tolist()) - {255}):
            p_is, t_is = (p == c) & (t != 255), t == c
            scores.append((p_is & t_is).sum() / (p_is | t_is).sum())
            per_class[c].append(scores[-1])
        per_image.append(np.mean(scores) if scores else np.nan)
    assert per_image_mean_iou(counts) == pytest.approx(per_image, nan_ok=True)
    assert np.isnan(per_image_mean_iou(counts)[8])
    assert mean_iou_over_images(counts) == pytest.approx(np.nanmean(per_image))
    assert mean_iou_over_classes(counts) == pytest.approx(np.mean([np.mean(v) for v in per_class.values()]))
    worst = sorted(x for x in per_image if x == x)[:2]  # 24 images have a score; a tenth of them is 2
    assert worst_images_mean_iou(counts) == pytest.approx(np.mean(worst))
    assert worst_images_mean_iou(counts, share=0.001) == pytest.approx(min(worst))
    assert worst_images_mean_iou(counts, share=1.0) == pytest.approx(mean_iou_over_images(counts))


@pytest.mark.parametrize("shape", [(1, 2), (4, 3), (9, 1), (30, 11), (150, 2)])
def test_scores_of_many_sets_are_bit_equal_to_those_of_each(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(sum(shape))
    counts = rng.integers(0, 50, (7, *shape, 3)) * (rng.random((7, *shape, 1)) < 0.8)
    counts[5] = 0
    for score in (mean_iou, mean_dice, iou, dice):
        together = score(counts)
        for one, found in zip(counts, together, strict=True):
            assert np.array_equal(found, score(one), equal_nan=True)
        assert np.isnan(together[5]).all()


def test_nothing_to_score_is_nan_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    counts = image_counts(PREDS, np.full_like(TARGET, 255), 3)
    assert counts.sum() == 0
    assert np.isnan(mean_iou(counts, axis=0))
    assert np.isnan(pixel_accuracy(counts, axis=0))
    assert np.isnan(mean_iou_over_images(counts))
    assert np.isnan(mean_iou_over_classes(counts))
    assert np.isnan(worst_images_mean_iou(counts))
    assert not recwarn.list


@pytest.mark.parametrize(
    ("preds", "target", "says"),
    [
        (np.array([[0, 3]]), np.array([[0, 1]]), "preds hold the label 3"),
        (np.array([[0, 1]]), np.array([[0, 7]]), "target holds the label 7"),
        (np.array([[0, 1]]), np.array([[0, 1, 1]]), "differ in shape"),
        (np.array([[0.5, 1]]), np.array([[0, 1]]), "integer label maps"),
        (np.array([[-1, 1]]), np.array([[0, 1]]), "preds hold the label -1"),
    ],
)
def test_unfit_maps_are_refused(preds: np.ndarray, target: np.ndarray, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        image_counts(preds, target, 3)
