"""Detail measures: hand-made masks, scipy's morphology, and the coarsening ladder on real targets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from ablate.measure.detail import (
    DetailTarget,
    DetailTargets,
    boundary_distance,
    detail_counts,
    disc,
    mean_recall,
    scaled_width,
    thin_pixels,
)
from ablate.measure.segmentation import image_counts, iou, mean_iou


def patchy(seed: int, shape: tuple[int, int, int], classes: int) -> np.ndarray:
    """Random label maps of smooth patches."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.standard_normal(shape), (0, 2, 2))
    field = (field / field.std() + 2) * classes / 4
    return np.clip(field, 0, classes - 1).astype(np.uint8)


# Each measure by itself and by its definition, a class at a time: what the joint histogram must agree with.


def counted(
    preds: np.ndarray, target: np.ndarray, classes: int, in_preds: np.ndarray, in_target: np.ndarray
) -> np.ndarray:
    """tp, fp, fn (N, C, 3) of the pixels of each class inside the two regions, ignored ones left out."""
    table = np.zeros((len(target), classes, 3), dtype=np.int64)
    for c in range(classes):
        guess, truth = in_preds & (preds == c) & (target != 255), in_target & (target == c)
        parts = (guess & truth, guess & ~truth, truth & ~guess)
        table[:, c] = np.stack([part.sum(axis=(1, 2)) for part in parts], axis=-1)
    return table


def distance(labels: np.ndarray, target: np.ndarray, classes: int, *, border: bool) -> np.ndarray:
    """Distance to another label, the target's ignored pixels being one."""
    return boundary_distance(np.where(target == 255, classes, labels).astype(np.uint8), 200, border=border)


def boundary_counts(preds: np.ndarray, target: np.ndarray, classes: int, width: float = 3) -> np.ndarray:
    d = scaled_width(width, target.shape[1:])
    near = [distance(labels, target, classes, border=True) <= d for labels in (preds, target)]
    return counted(preds, target, classes, *near)


def trimap_counts(preds: np.ndarray, target: np.ndarray, classes: int, width: float = 3) -> np.ndarray:
    near = distance(target, target, classes, border=False) <= scaled_width(width, target.shape[1:])
    return counted(preds, target, classes, near, near)


def interior_counts(preds: np.ndarray, target: np.ndarray, classes: int, width: float = 12) -> np.ndarray:
    far = distance(target, target, classes, border=True) > scaled_width(width, target.shape[1:])
    return counted(preds, target, classes, far, far)


def thin_counts(preds: np.ndarray, target: np.ndarray, classes: int, diameter: float = 3) -> np.ndarray:
    labels = np.where(target == 255, classes, target).astype(np.uint8)
    thin = thin_pixels(labels, scaled_width(diameter, target.shape[1:], at_least=2))
    counts = counted(preds, target, classes, thin, thin)
    return np.stack([counts[..., 0], counts[..., 0] + counts[..., 2]], axis=-1)


def detail_scores(counts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The score of each entry of `detail_counts` over all images."""
    return {
        name: mean_recall(table.sum(0)) if name.startswith("thin") else mean_iou(table, 0)
        for name, table in counts.items()
    }


def test_widths_scale_with_the_diagonal() -> None:
    assert [scaled_width(w, (360, 480)) for w in (1, 3, 5, 10, 12)] == [1, 3, 5, 10, 12]
    assert [scaled_width(w, (720, 960)) for w in (3, 12)] == [6, 24]
    assert [scaled_width(w, (96, 128)) for w in (1, 3, 5, 10, 12)] == [1, 1, 1, 3, 3]
    assert scaled_width(3, (64, 96), at_least=2) == 2


@pytest.mark.parametrize("width", [1, 2, 5])
def test_the_band_is_the_mask_minus_its_erosion(width: int) -> None:
    labels = patchy(0, (3, 40, 31), 4)
    near = boundary_distance(labels, 6, border=True) <= width
    for image, band in zip(labels, near, strict=True):
        for c in range(4):
            mask = image == c
            eroded = ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=width, border_value=0)
            assert np.array_equal(band & mask, mask & ~eroded)


def test_distance_to_another_label_is_the_chessboard_one() -> None:
    labels = np.zeros((1, 7, 9), dtype=np.uint8)
    labels[0, 3, 4] = 1
    rows, columns = np.indices((7, 9))
    expected = np.maximum(abs(rows - 3), abs(columns - 4))
    expected[3, 4] = 1
    assert np.array_equal(boundary_distance(labels, 9, border=False)[0], expected)
    assert np.array_equal(boundary_distance(labels, 2, border=False)[0], np.minimum(expected, 3))
    assert (boundary_distance(np.zeros((1, 7, 9), np.uint8), 4, border=False) == 5).all()


def test_boundary_iou_of_two_squares_counted_by_hand() -> None:
    # On a 360×480 map widths are what they say. A 20×20 square against the same moved right by one pixel; both are
    # far from the border of the image, whose own frame belongs to the band of the background.
    target = np.zeros((1, 360, 480), dtype=np.uint8)
    target[0, 100:120, 100:120] = 1
    preds = np.roll(target, 1, axis=2)
    counts = boundary_counts(preds, target, 2, width=1)[0, 1]
    # Bands: the outer ring of 76 pixels. The rings share the two horizontal edges but one pixel each, and nothing else.
    assert counts.tolist() == [2 * 19, 76 - 38, 76 - 38]
    assert iou(counts) == pytest.approx(38 / (76 + 38))
    frame = 2 * 480 + 2 * 358
    outside = boundary_counts(target, target, 2, width=1)[0, 0]
    assert outside.tolist() == [frame + 84, 0, 0]


def test_ignored_pixels_count_nowhere_and_ask_no_boundary() -> None:
    target = np.zeros((1, 360, 480), dtype=np.uint8)
    target[0, :, 240:] = 1
    target[0, :, 230:250] = 255
    preds = np.zeros_like(target)
    preds[0, :, 240:] = 1
    for counts in (
        boundary_counts(preds, target, 2, 3),
        boundary_counts(preds, target, 2, 12),
        trimap_counts(preds, target, 2, 5),
        interior_counts(preds, target, 2, 12),
    ):
        assert counts[..., 0].sum() > 0
        assert (counts[..., 1:] == 0).all()
    # 230 columns left of the ignored strip and as many right of it, three of each in the band by the strip.
    assert trimap_counts(preds, target, 2, 3)[0].tolist() == [[3 * 360, 0, 0], [3 * 360, 0, 0]]


def test_trimap_looks_at_both_sides_of_target_boundaries_only() -> None:
    target = np.zeros((1, 360, 480), dtype=np.uint8)
    target[0, :, 240:] = 1
    preds = target.copy()
    preds[0, :, 240:242] = 0  # the boundary lies two pixels too far right
    preds[0, :50, :50] = 1  # a mistake away from every boundary
    assert trimap_counts(preds, target, 2, 5)[0].tolist() == [[5 * 360, 2 * 360, 0], [3 * 360, 0, 2 * 360]]
    inner = interior_counts(preds, target, 2, 12)[0]
    # The interior begins 12 pixels from the image border and sees 38×38 pixels of the far mistake.
    assert inner.tolist() == [[336 * 216 - 38 * 38, 0, 38 * 38], [336 * 216, 38 * 38, 0]]


def test_disc() -> None:
    assert len(disc(1)) == 1
    assert len(disc(2)) == 4
    assert len(disc(3)) == 9
    assert len(disc(6)) == 32
    corners = {(0, 0), (0, 5), (5, 0), (5, 5)}
    assert not corners & {tuple(offset) for offset in disc(6).tolist()}


@pytest.mark.parametrize("diameter", [2, 3, 6])
def test_thin_pixels_are_what_an_opening_removes(diameter: int) -> None:
    labels = patchy(1, (2, 48, 40), 5)
    labels[0, :, 20] = 4
    thin = thin_pixels(labels, diameter)
    structure = np.zeros((diameter, diameter), dtype=bool)
    structure[tuple(disc(diameter).T)] = True
    pad = 3 * diameter
    for image, found in zip(labels, thin, strict=True):
        padded = np.pad(image, pad, mode="edge")
        for c in range(5):
            mask = padded == c
            opened = ndimage.binary_opening(mask, structure)
            removed = (mask & ~opened)[pad:-pad, pad:-pad]
            assert np.array_equal(found & (image == c), removed)


def test_thin_recall_of_a_pole_and_a_block() -> None:
    target = np.zeros((1, 360, 480), dtype=np.uint8)
    target[0, 100:200, 50:52] = 1  # two pixels wide: thin at 3 and at 6
    target[0, 100:200, 200:204] = 2  # four pixels wide: thin at 6 only
    target[0, 100:200, 300:340] = 3  # a block
    preds = target.copy()
    preds[0, 100:125, 50:52] = 0
    assert thin_counts(preds, target, 4, 3)[0].tolist() == [[0, 0], [150, 200], [0, 0], [0, 0]]
    at_six = thin_counts(preds, target, 4, 6)[0]
    # The disc of diameter 6 lacks its corners, so it leaves one pixel in each corner of the block uncovered.
    assert at_six.tolist() == [[0, 0], [150, 200], [400, 400], [4, 4]]
    assert mean_recall(thin_counts(preds, target, 4, 3).sum(0)) == pytest.approx(0.75)
    assert mean_recall(at_six) == pytest.approx((0.75 + 1 + 1) / 3)
    assert np.isnan(mean_recall(np.zeros((3, 2), dtype=np.int64)))


def test_the_border_of_the_image_makes_nothing_thin() -> None:
    target = np.zeros((1, 360, 480), dtype=np.uint8)
    target[0, :, 0] = 1  # the visible pixel column of something wider
    target[0, 0:100, 100] = 1  # a pole that leaves the image at its top
    assert thin_counts(target, target, 2, 3)[0].tolist() == [[0, 0], [100, 100]]


@pytest.mark.parametrize(("shape", "classes"), [((5, 96, 128), 4), ((2, 300, 400), 4), ((2, 96, 128), 60)])
def test_all_measures_at_once_equal_each_alone(shape: tuple[int, int, int], classes: int) -> None:
    target = patchy(2, shape, classes)
    target[:, :3] = 255
    rng = np.random.default_rng(0)
    preds = np.where(rng.random(target.shape) < 0.9, patchy(2, shape, classes), 1).astype(np.uint8)
    against = DetailTarget(target, classes)
    counts = detail_counts(preds, against)
    for width in (3, 12):
        assert np.array_equal(counts[f"boundary_{width}"], boundary_counts(preds, target, classes, width))
    for width in (1, 3, 5, 10):
        assert np.array_equal(counts[f"trimap_{width}"], trimap_counts(preds, target, classes, width))
    for diameter in (3, 6):
        assert np.array_equal(counts[f"thin_{diameter}"], thin_counts(preds, target, classes, diameter))
    assert np.array_equal(counts["interior"], interior_counts(preds, target, classes))
    # The target's side is kept; a second set of predictions does not see the first.
    perfect = detail_scores(detail_counts(np.where(target == 255, 0, target).astype(np.uint8), against))
    assert all(score == 1.0 or np.isnan(score) for score in perfect.values())
    assert all(perfect[name] == 1.0 for name in perfect if name != "interior")  # which small patches do not have
    assert set(perfect) == set(counts)


def test_preds_that_are_no_class_are_refused() -> None:
    target = np.zeros((1, 8, 8), dtype=np.uint8)
    with pytest.raises(ValueError, match="preds hold the label 2"):
        detail_counts(np.full_like(target, 2), DetailTarget(target, 2))
    with pytest.raises(ValueError, match="differ in shape"):
        detail_counts(target[:, :4], DetailTarget(target, 2))


def coarsen(target: np.ndarray, factor: int, classes: int) -> np.ndarray:
    """The target at 1/factor of its size and enlarged again: what a model without fine detail could at best say.

    Majority of the labelled pixels of each cell, ties to the lowest label, ignored only where the whole cell is.
    """
    _, height, width = target.shape
    padded = np.pad(target, ((0, 0), (0, -height % factor), (0, -width % factor)), mode="edge")
    best = np.full((len(target), padded.shape[1] // factor, padded.shape[2] // factor), 255, dtype=np.uint8)
    most = np.zeros(best.shape, dtype=np.uint16)
    for c in range(classes):
        is_class = (padded == c).view(np.uint8)
        votes = np.zeros(best.shape, dtype=np.uint16)
        for row in range(factor):
            for column in range(factor):
                votes += is_class[:, row::factor, column::factor]
        best[votes > most] = c
        np.maximum(most, votes, out=most)
    return best.repeat(factor, axis=1).repeat(factor, axis=2)[:, :height, :width]


# Coarsening factor: mIoU, IoU of pole, fence and road over all 233 test targets; boundary IoU at d = 3 and 12 and,
# first found by these functions, recall of thin structures at 3 and 6 over every fourth target.
LADDER = {
    2: (0.937, 0.733, 0.965, 0.993, 0.808, 0.914, 0.667, 0.786),
    4: (0.886, 0.551, 0.932, 0.985, 0.653, 0.843, 0.550, 0.690),
    8: (0.808, 0.315, 0.866, 0.971, 0.443, 0.728, 0.441, 0.528),
    16: (0.710, 0.128, 0.777, 0.944, 0.293, 0.573, 0.369, 0.394),
}


@pytest.fixture(scope="module")
def camvid_targets(camvid_root: Path) -> np.ndarray:
    files = sorted((camvid_root / "testannot").glob("*.png"))
    assert len(files) == 233
    targets = np.stack([np.asarray(Image.open(file)) for file in files])
    targets[targets == 11] = 255
    return targets


@pytest.fixture(scope="module")
def every_fourth(camvid_targets: np.ndarray) -> DetailTarget:
    return DetailTarget(camvid_targets[::4], 11)


@pytest.mark.camvid
@pytest.mark.parametrize("factor", LADDER)
def test_the_coarsening_ladder_on_camvid(camvid_targets: np.ndarray, every_fourth: DetailTarget, factor: int) -> None:
    coarse = coarsen(camvid_targets, factor, 11)
    counts = image_counts(coarse, camvid_targets, 11)
    per_class = iou(counts.sum(axis=0))
    detail = detail_scores(detail_counts(coarse[::4], every_fourth))
    found = (
        mean_iou(counts, axis=0),
        *per_class[[2, 7, 3]],
        *(detail[name] for name in ("boundary_3", "boundary_12", "thin_3", "thin_6")),
    )
    # Half a unit of the printed digit.
    assert [float(value) for value in found] == pytest.approx(LADDER[factor], abs=0.0005)
    # What is coarse loses its edges and its poles, and nothing of its interior.
    assert detail["interior"] > 0.9999


# Maps of several sizes: every image has the counts that it has among maps of its own size.


def maps(rng: np.random.Generator, sizes: list[tuple[int, int]]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    target = [rng.integers(0, 3, (h // 4, w // 4)).astype(np.uint8).repeat(4, 0).repeat(4, 1) for h, w in sizes]
    for labels in target:
        labels[:, -1] = 255
    preds = [np.where(rng.random(t.shape) < 0.2, 0, np.where(t == 255, 1, t)).astype(np.uint8) for t in target]
    return target, preds


def test_each_image_is_measured_by_the_widths_of_its_own_size() -> None:
    sizes = [(40, 48), (200, 240), (40, 48), (360, 480)]
    target, preds = maps(np.random.default_rng(0), sizes)
    found = DetailTargets(target, 3)
    counts = found.counts(preds)
    assert found.shapes == [(40, 48), (200, 240), (360, 480)]
    for place, (labels, guess) in enumerate(zip(target, preds, strict=True)):
        alone = detail_counts(guess, DetailTarget(labels, 3))
        for name, table in alone.items():
            assert (counts[name][place] == table[0]).all(), (name, place)
    # A width of 3 at a diagonal of 600 is one pixel on the smallest maps and three on the largest.
    assert (counts["trimap_3"][0] == counts["trimap_1"][0]).all()
    assert counts["trimap_3"][3].sum() > counts["trimap_1"][3].sum()


def test_a_stack_is_what_it_always_was() -> None:
    target, preds = maps(np.random.default_rng(1), [(40, 48)] * 3)
    stack = np.stack(target), np.stack(preds)
    counts, expected = DetailTargets(stack[0], 3).counts(stack[1]), detail_counts(stack[1], DetailTarget(stack[0], 3))
    assert all((counts[name] == expected[name]).all() for name in expected)


def test_predictions_of_another_number_or_size_are_refused() -> None:
    target, preds = maps(np.random.default_rng(2), [(40, 48), (80, 80)])
    found = DetailTargets(target, 3)
    with pytest.raises(ValueError, match="1 predictions for 2 targets"):
        found.counts(preds[:1])
    with pytest.raises(ValueError, match="differ in shape"):
        found.counts(preds[::-1])
