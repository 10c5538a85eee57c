"""Which images are shown, and what their tiles are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ablate.records.images import panel_indices
from ablate.records.paint import centred, error_tile, fitted, mosaic, overlay, reduce, with_outline
from ablate.records.store import Results
from ablate.report.gallery import Gallery, read_maps, telling_images


def test_fixed_images_are_evenly_spaced_from_first_to_last() -> None:
    assert panel_indices(233) == [0, 33, 66, 99, 133, 166, 199, 232]
    assert panel_indices(3) == [0, 1, 2]
    assert panel_indices(0) == []


def test_telling_images() -> None:
    scores = {"a": np.array([0.9, 0.5, 0.1, 0.6, np.nan]), "b": np.array([0.8, 0.5, 0.2, 0.1, 0.3])}
    assert list(telling_images(scores).items()) == [("best", 0), ("median", 3), ("worst", 2), ("disputed", 3)]


def test_one_variant_disagrees_with_nobody() -> None:
    assert len(telling_images({"a": np.array([0.1, 0.2])})) == 3
    assert telling_images({"a": np.array([np.nan])}) == {}
    assert telling_images({}) == {}


@pytest.fixture
def gallery(two: Path) -> Gallery:
    return Gallery(Results(two))


def test_gallery_reads_what_was_planted(gallery: Gallery) -> None:
    assert gallery.there and gallery.count == 12
    assert gallery.image(3).shape == (*gallery.target(3).shape, 3)
    assert gallery.name(3) == "test0003"
    np.testing.assert_array_equal(gallery.palette[0], (128, 128, 128))


def test_error_marks_wrong_pixels_and_blanks_ignored_ones(gallery: Gallery) -> None:
    target = np.array([[0, 1], [255, 1]], np.uint8)
    prediction = np.array([[0, 0], [0, 1]], np.uint8)
    tile = error_tile(np.zeros((2, 2, 3), np.uint8), target, prediction, gallery.ignore_index)
    red, blank, faded = (179, 38, 30), tuple(gallery.palette[255]), (185, 185, 185)
    assert [tuple(int(v) for v in tile[y, x]) for y in (0, 1) for x in (0, 1)] == [faded, red, blank, faded]


def test_classes_without_a_colour_get_one(two: Path) -> None:
    gallery = Gallery(Results(two))
    gallery.index = {**gallery.index, "palette": [[1, 2, 3]]}
    colours = {tuple(gallery.palette[label]) for label in range(5)}
    assert len(colours) == 5


def test_damaged_predictions_cost_their_panel_only(tmp_path: Path) -> None:
    folder = Results(tmp_path).trial("t").path
    folder.mkdir(parents=True)
    (folder / "predictions.zip").write_bytes(b"PK no zip")
    assert Gallery(Results(tmp_path)).predictions("t", [0]) is None
    assert Gallery(Results(tmp_path)).predictions("nothing", [0]) is None


def test_crops_hold_the_planted_thin_structures(gallery: Gallery) -> None:
    crops = gallery.crops()
    assert 0 < len(crops) <= 4
    assert len({crop.index for crop in crops}) == len(crops)
    for crop in crops:
        # Fences and poles, the classes 3 and 4, are one pixel wide in planted scenes.
        assert np.isin(crop.cut(gallery.target(crop.index)), (3, 4)).any()


def test_window_is_outlined_and_the_rest_untouched() -> None:
    tile = np.zeros((40, 60, 3), np.uint8)
    marked = with_outline(tile, 10, 20, 12, 16)
    assert (marked[10, 20:36] == (179, 38, 30)).all()
    assert (marked[:8] == 0).all() and (marked[:, :18] == 0).all()
    assert not tile.any()
    # On the image enlarged twice the window lies twice as far and is twice as wide.
    large = with_outline(np.zeros((80, 120, 3), np.uint8), 20, 40, 24, 32)
    assert (large[20, 40:72] == (179, 38, 30)).all() and (large[43, 40:72] == (179, 38, 30)).all()
    assert not large[:18].any() and not large[46:].any()


def test_a_fitted_tile_keeps_its_proportions_and_stands_in_the_middle() -> None:
    tile = fitted(np.zeros((40, 80, 3), np.uint8), (30, 20))
    assert tile.shape == (10, 20, 3)
    sheet = centred(tile, (30, 20))
    assert (sheet[:10] == 255).all() and (sheet[10:20] == 0).all() and (sheet[20:] == 255).all()


def test_mosaic_places_tiles_with_gaps() -> None:
    tiles = [[np.full((2, 3, 3), 10 * (3 * y + x), np.uint8) for x in range(3)] for y in range(2)]
    sheet = mosaic(tiles, 1)
    assert sheet.shape == (5, 11, 3)
    assert (sheet[2] == 255).all() and (sheet[:, 3] == 255).all()
    assert sheet[4, 10, 0] == 50


def test_reducing_labels_invents_none() -> None:
    labels = np.random.default_rng(0).integers(0, 2, (60, 90)).astype(np.uint8) * 7
    small = reduce(labels, 30, labels=True)
    assert small.shape == (20, 30)
    assert set(np.unique(small)) <= {0, 7}
    assert reduce(labels, 200, labels=True) is labels


def test_gate_maps_are_read_and_laid_over_the_image(tmp_path: Path) -> None:
    np.savez(tmp_path / "gates.npz", gate=np.array([[[0.0, 1.0], [0.0, 1.0]]], np.float16))
    maps = read_maps(tmp_path / "gates.npz")
    assert maps["gate"].shape == (1, 2, 2)
    colours = np.stack([np.arange(256)] * 3, axis=1).astype(np.uint8)
    tile = overlay(np.zeros((8, 8, 3), np.uint8), maps["gate"][0], colours)
    assert tile[0, 0, 0] == 0
    assert tile[0, 7, 0] == int(0.55 * 255)


@pytest.mark.parametrize("content", [None, b"", b"PK damaged"])
def test_gate_maps_that_cannot_be_read_are_none(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "gates.npz"
    if content is not None:
        path.write_bytes(content)
    assert read_maps(path) == {}
