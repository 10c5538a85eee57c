"""Confusion: counted from stored predictions, as shares of a class's pixels, readable with few classes and many."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from ablate.analysis.analyse import analyse
from ablate.analysis.frames import load_results
from ablate.measure.segmentation import confusion as count_confusion
from ablate.measure.segmentation import image_counts
from ablate.report.figures.confusion import MOST_CLASSES, confusion, confusion_differences, confusions
from ablate.report.figures.saving import encode
from ablate.report.figures.theme import theme
from ablate.report.lookup import NotDrawn, frequent_classes, judged_trials
from tests.planted import plant
from tests.report.conftest import Analysed


def test_the_counts_are_those_of_two_images_written_down() -> None:
    target = np.array([[[0, 0], [1, 255]], [[2, 1], [1, 0]]])
    preds = np.array([[[0, 1], [1, 2]], [[2, 1], [0, 0]]])
    table = count_confusion(preds, target, 3)
    assert table.tolist() == [[2, 1, 0], [1, 2, 0], [0, 0, 1]]
    tp, fp, fn = image_counts(preds, target, 3).sum(axis=0).T
    np.testing.assert_array_equal(tp, np.diag(table))
    np.testing.assert_array_equal(fp, table.sum(axis=0) - tp)
    np.testing.assert_array_equal(fn, table.sum(axis=1) - tp)


def test_shares_agree_with_the_counts_of_the_records(two: Path, analysed: Analysed) -> None:
    analysis = analysed(two)
    shares = confusions(analysis)
    assert list(shares) == ["unet", "noskip"]
    for variant, table in shares.items():
        np.testing.assert_allclose(table.sum(axis=1), 1)
        judged = judged_trials(analysis)
        trials = judged[(judged["variant"] == variant) & (judged["status"] == "complete")]
        total = sum(analysis.frames.counts(key)["test"].sum(axis=0) for key in trials["key"])
        np.testing.assert_allclose(np.diag(table), total[:, 0] / (total[:, 0] + total[:, 2]))


def test_the_baseline_has_no_difference_and_the_change_is_written_in_points(two: Path, analysed: Analysed) -> None:
    shares = confusions(analysed(two))
    with theme():
        figure = confusion_differences(analysed(two))
    (axes,) = [axes for axes in figure.axes if axes.get_visible()]
    assert axes.get_title(loc="left") == "noskip"
    moved = shares["noskip"] - shares["unet"]
    written = {text.get_text() for text in axes.texts}
    assert f"{100 * moved[0, 0]:+.0f}".replace("-", "−") in written
    assert "more errors than the baseline" in str(figure.get_label())


def test_without_predictions_it_is_not_available(two: Path, tmp_path: Path) -> None:
    path = shutil.copytree(two, tmp_path / "bare")
    for stored in path.glob("trials/*/predictions.zip"):
        stored.unlink()
    with pytest.raises(NotDrawn, match="stored its predictions"):
        confusion(analyse(load_results(path)))


def test_of_many_classes_the_most_frequent_are_shown_by_colour_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = MOST_CLASSES + 6
    monkeypatch.setattr("tests.planted.CLASSES", tuple(f"class-{i}" for i in range(count)))
    monkeypatch.setattr("tests.planted.PALETTE", tuple((i, i, i) for i in range(count)))
    path = plant(
        tmp_path / "many", variants=("unet", "noskip"), lrs=(1e-3,), seeds=2, epochs=3, images=6, classes=count,
        size=(48, 64),
    )  # fmt: skip
    analysis = analyse(load_results(path))
    shown = frequent_classes(analysis, MOST_CLASSES)
    assert len(shown) == MOST_CLASSES and shown == sorted(shown)
    pixels = analysis.classes.drop_duplicates("class")["pixels"].to_numpy()
    assert pixels[shown].min() >= np.delete(pixels, shown).max()
    with theme():
        figure = confusion(analysis)
    panels = [axes for axes in figure.axes if axes.images]
    assert len(panels) == 2 and figure.get_figwidth() <= 7
    for axes in panels:
        assert len(axes.get_yticks()) == MOST_CLASSES
        assert all(float(label.get_fontsize()) >= 6 for label in axes.get_yticklabels())
        assert len(axes.texts) == 1  # the line beneath the title, no number
    assert f"the {MOST_CLASSES} of {count} classes" in str(figure.get_label())


@pytest.mark.filterwarnings("error")
def test_panels_of_few_classes_are_as_wide_as_the_line_above_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.planted.CLASSES", ("background", "membrane", "nucleus"))
    path = plant(tmp_path / "few", variants=("a", "b", "c", "d"), lrs=(1e-3,), seeds=1, epochs=2, images=2, classes=3)
    with theme():
        figure = confusion_differences(analyse(load_results(path)))
        encode(figure, ("png",))
    assert all(axes.get_window_extent().width > 1.6 * figure.dpi for axes in figure.axes)
