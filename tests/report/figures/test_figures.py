"""Every figure at two, five and twelve variants: drawn, legible, with its rule, in the same colours."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.axes import Axes
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from ablate.analysis.analyse import Analysis, analyse
from ablate.analysis.frames import load_results
from ablate.records.images import panel_indices
from ablate.registry import FIGURES
from ablate.report.figures import differences, forest, maps
from ablate.report.figures.inline import lean
from ablate.report.figures.marks import curve_axis, looks
from ablate.report.figures.panels import tile_sheet, variant_panel
from ablate.report.figures.saving import DPI, draw_all, encode
from ablate.report.figures.streams import thinned
from ablate.report.figures.theme import PAPER, theme
from ablate.report.format import short_names
from ablate.report.gallery import gallery, image_scores
from ablate.report.lookup import NotDrawn, order, own_settings, setting_values, settings
from tests.planted import plant
from tests.report.conftest import Analysed

NAMES = list(FIGURES)
OF_IMAGES = [name for name in NAMES if FIGURES.place(name).section == "predictions"]
LINES = ("consolidated", "rates")
NO_DATA = ["budget", "gates", "interactions", "data_size"]


def drawn(name: str, analysis: Analysis) -> Figure:
    """Return the figure laid out; raise `NotDrawn` where the study has no data for it."""
    with theme():
        figure: Figure = FIGURES.get(name)(analysis)
        figure.set_dpi(DPI)
        figure.draw_without_rendering()
    return figure


def texts(figure: Figure) -> list[Text]:
    """Everything legible: titles, labels, tick labels within the axes' limits, notes, legends."""
    ticks, shown = set(), []
    for axes in figure.findobj(Axes):
        for axis in (axes.xaxis, axes.yaxis):
            ticks |= {id(text) for tick in (*axis.majorTicks, *axis.minorTicks) for text in (tick.label1, tick.label2)}
            low, high = sorted(axis.get_view_interval())
            if axes.get_visible() and axes.axison:
                shown += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    shown += [text for text in figure.findobj(Text) if id(text) not in ticks and _seen(text)]
    return [text for text in shown if text.get_visible() and text.get_text().strip()]


def _seen(text: Text) -> bool:
    return text.axes is None or text.axes.get_visible()


@pytest.mark.parametrize(
    ("high_at", "status", "beyond"), [(1, "complete", True), (9, "complete", False), (1, "diverged", False)]
)
def test_a_loss_of_the_first_epochs_flattens_no_curve(high_at: int, status: str, beyond: bool) -> None:
    loss = np.linspace(2.0, 1.0, 20)
    loss[high_at - 1] = 900.0
    axes = Figure().subplots()
    said = curve_axis(axes, "val_loss", pd.DataFrame({"epoch": range(1, 21), "val_loss": loss, "status": status}))
    assert bool(axes.get_ylim()[1] < 3) is beyond
    assert said == " Validation losses of the first epochs, up to 900, lie above the axis." * beyond


def test_figures_come_in_the_order_of_the_page_and_have_titles_of_their_own() -> None:
    assert NAMES[:3] == ["contrasts", "contrasts_by_rate", "ranks"] and len(NAMES) == 23
    main = [name for name in NAMES if FIGURES.place(name).section == "consolidated"]
    assert main == ["consolidated", "interactions", "data_size"]
    assert OF_IMAGES == ["panels", "telling", "crops", "gates"]
    assert len({FIGURES.place(name).title for name in NAMES}) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("study", ["two", "unfinished", "twelve", "settings54"])
@pytest.mark.filterwarnings("error:constrained_layout")
def test_no_label_covers_another_or_leaves_the_figure(
    study: str, name: str, request: pytest.FixtureRequest, analysed: Analysed
) -> None:
    try:
        figure = drawn(name, analysed(request.getfixturevalue(study)))
    except NotDrawn:
        without = [*NO_DATA, "gate_scores", "ranks", "projection"]
        without += ["detail", "confusion", "confusion_differences", *OF_IMAGES] if study == "settings54" else []
        assert name in without
        return
    boxes = [(text, text.get_window_extent()) for text in texts(figure)]
    page = figure.bbox
    for text, box in boxes:
        assert box.x0 >= page.x0 - 3 and box.x1 <= page.x1 + 3, f"{text.get_text()!r} leaves the figure"
        assert box.y0 >= page.y0 - 3 and box.y1 <= page.y1 + 3, f"{text.get_text()!r} leaves the figure"
    for (one, here), (other, there) in combinations(boxes, 2):
        wide = min(here.x1, there.x1) - max(here.x0, there.x0)
        high = min(here.y1, there.y1) - max(here.y0, there.y0)
        # A box is as high as the font's tallest letter: a few pixels of two boxes in common cover no ink.
        assert wide <= 3 or high <= 5, f"{one.get_text()!r} covers {other.get_text()!r}"


@pytest.mark.parametrize("name", [name for name in NAMES if name not in (*NO_DATA, "projection")])
def test_the_rule_and_the_state_stand_under_every_figure(name: str, unfinished: Path, analysed: Analysed) -> None:
    figure = drawn(name, analysed(unfinished))
    by_name = {text.get_gid(): text.get_text() for text in figure.texts}
    # The rule is the caption beside the figure, no pixels of it.
    assert len(rule_of(figure)) > 40 and "rule" not in by_name
    assert by_name["warning"] == "Unfinished: 15 of 20 trials have a result."


@pytest.mark.parametrize("name", NO_DATA)
def test_what_a_study_has_no_data_for_is_not_drawn_and_says_why(
    name: str, unfinished: Path, analysed: Analysed
) -> None:
    with pytest.raises(NotDrawn, match=r"\w+ \w+ \w+"):
        drawn(name, analysed(unfinished))


def test_a_finished_study_has_no_warning(two: Path, analysed: Analysed) -> None:
    figure = drawn("maps", analysed(two))
    assert not figure.texts


@pytest.mark.parametrize("name", LINES)
def test_a_variant_has_one_colour_in_all_figures(name: str, twelve: Path, analysed: Analysed) -> None:
    analysis = analysed(twelve)
    figure = drawn(name, analysis)
    styles = looks(analysis)
    handles = {text.get_text().split(" (")[0]: handle for text, handle in _legend(figure)}
    names = {short: name for most in (22, 28, 34, 40) for name, short in short_names(order(analysis), most).items()}
    assert {names[shown] for shown in handles} == set(order(analysis))
    for shown, handle in handles.items():
        variant = names[shown]
        assert same_color(handle.get_color(), styles[variant].color)
        assert handle.get_marker() == styles[variant].marker


def test_the_numbers_stand_beside_the_bars_and_not_on_them(twelve: Path, analysed: Analysed) -> None:
    figure = drawn("consolidated", analysed(twelve))
    charts = [axes for axes in figure.findobj(Axes) if axes.get_title(loc="left") in ("Test loss", "Test mIoU, %")]
    assert len(charts) == 2
    for axes in charts:
        numbers = [text for text in axes.texts if "±" in text.get_text()]
        assert len(numbers) == 12
        right = axes.get_window_extent().x1
        assert all(text.get_window_extent().x0 >= right for text in numbers)
        values = [text.get_text().partition(" ")[0] for text in numbers]
        assert len({len(value.partition(".")[2]) for value in values}) == 1


def test_one_rate_for_all_is_said_once(tmp_path: Path, analysed: Analysed) -> None:
    path = plant(
        tmp_path / "one", variants=("unet", "residual"), lrs=(3e-4, 1e-4), seeds=2, epochs=3, images=4, size=(16, 24)
    )
    analysis = analysed(path)
    assert set(analysis.own_best.values()) == {"lr=3e-4"}
    figure = drawn("consolidated", analysis)
    assert [text.get_text() for text, _ in _legend(figure)] == ["unet", "residual"]
    assert "lr 3e-4 for all; 2 seeds" in rule_of(figure)


def _legend(figure: Figure) -> list[tuple[Text, Line2D]]:
    legend = figure.legends[0]
    return list(zip(legend.get_texts(), legend.get_lines(), strict=True))


def test_the_curve_is_the_mean_over_the_seeds_that_did_not_diverge(two: Path, analysed: Analysed) -> None:
    analysis = analysed(two)
    figure = drawn("consolidated", analysis)
    frame = analysis.frames.epochs
    rows = frame[(frame["variant"] == "noskip") & (frame["setting"] == analysis.own_best["noskip"])]
    expected = rows.groupby("epoch")["val_mean_iou"].mean().to_numpy()
    color = looks(analysis)["noskip"].color
    curves = [
        np.asarray(line.get_ydata()) for line in figure.axes[2].get_lines() if same_color(line.get_color(), color)
    ]
    assert any(len(curve) == len(expected) and np.allclose(curve, expected) for curve in curves)


def test_a_diverged_run_is_drawn_up_to_its_last_finite_epoch(two: Path, analysed: Analysed) -> None:
    figure = drawn("curves_by_rate", analysed(two))
    crosses = [line for axes in figure.axes for line in axes.get_lines() if line.get_marker() == "x"]
    assert len(crosses) == 3  # the planted diverged trial, once for each of the three measures


def test_the_map_frames_the_chosen_setting_and_hatches_what_has_no_result(unfinished: Path, analysed: Analysed) -> None:
    analysis = analysed(unfinished)
    figure = drawn("maps", analysis)
    patches = figure.axes[0].patches
    assert sum(patch.get_hatch() == "////" for patch in patches) == 2  # residual and attention at 1e-3
    assert sum(patch.get_hatch() is None for patch in patches) == len(order(analysis))


def test_many_settings_are_named_where_there_is_room(settings54: Path, analysed: Analysed) -> None:
    analysis = analysed(settings54)
    assert len(settings(analysis)) == 54
    lower = next(axes for axes in drawn("maps", analysis).axes if axes.get_xlabel())
    assert lower.get_xlabel() == "lr, weight_decay, batch_size"
    named = [label.get_text() for label in lower.get_xticklabels()]
    assert len(named) > 20
    assert named[0] == "1e-4, 0, 2"
    small = next(axes for axes in drawn("consolidated", analysis).findobj(Axes) if "setting" in axes.get_xlabel())
    assert small.get_xlabel() == "54 settings"


def test_a_search_shows_the_settings_of_each_variant(two: Path, tmp_path: Path) -> None:
    path = tmp_path / "searched"
    shutil.copytree(two, path)
    study = yaml.safe_load((path / "study.yaml").read_text())
    study["search"] = {"trials": 3, "space": {"lr": {"low": 1e-4, "high": 1e-2, "log": True}}}
    (path / "study.yaml").write_text(yaml.safe_dump({key: value for key, value in study.items() if key != "grid"}))
    run = json.loads((path / "run.json").read_text())
    for entry in run["plan"]:
        # No two variants at one rate.
        entry["settings"]["lr"] *= 1.1 if entry["variant"] == "noskip" else 1.0
    (path / "run.json").write_text(json.dumps(run))
    analysis = analyse(load_results(path))
    own = own_settings(analysis)
    assert {variant: len(shown) for variant, shown in own.items()} == {"unet": 3, "noskip": 3}
    assert not set(own["unet"]) & set(own["noskip"])
    cells = drawn("maps", analysis).axes[0]
    assert not [patch for patch in cells.patches if patch.get_hatch()]
    assert cells.get_xlim() == (0, 3)
    titles = [axes.get_title(loc="left") for axes in drawn("streams", analysis).axes]
    assert titles == [setting_values(analysis, setting) for shown in own.values() for setting in shown]
    with pytest.raises(NotDrawn, match="settings of its own"):
        FIGURES.get("curves_by_rate")(analysis)


def test_a_figure_is_the_same_every_time(two: Path, analysed: Analysed) -> None:
    analysis = analysed(two)
    with theme():
        first, second = (encode(FIGURES.get("maps")(analysis), ["png", "svg"]) for _ in range(2))
        # The last bits of a layout are those of its solver, whose order of work is not the same in every process.
        moved = FIGURES.get("curves_by_rate")(analysis)
        before = encode(moved, ["svg"])["svg"].decode()
        for axes in moved.axes:
            axes.set_position(axes.get_position().translated(1e-13, 0).bounds)
        after = encode(moved, ["svg"])["svg"].decode()
    assert set(first) == {"png", "svg"}
    for kind, data in first.items():
        assert data == second[kind], kind
    assert before != after
    assert lean(before) == lean(after)


def test_the_own_panel_shows_eight_images_of_one_variant(two: Path, analysed: Analysed) -> None:
    with theme():
        figure = variant_panel(analysed(two), "noskip")
    labels = [text.get_text() for text in figure.axes[0].texts]
    assert labels[-4:] == ["image", "truth", "prediction", "error"]
    numbers = [label for label in labels if label.isdigit()]
    assert len(labels) == 8 + 8 + 4 and len(numbers) == 8
    analysis = analysed(two)
    scores = image_scores(analysis)["noskip"][panel_indices(12)]
    assert [int(number) for number in numbers] == [round(100 * score) for score in scores]


def test_thinning_a_stream_keeps_its_extremes_and_its_order() -> None:
    y = np.sin(np.arange(10_000) / 50)
    y[777], y[5000:5010] = 9.0, np.nan
    x, thin = thinned(np.arange(10_000), y, 400)
    assert len(thin) <= 400
    assert np.nanmax(thin) == 9.0 and np.nanmin(thin) == np.nanmin(y)
    assert (np.diff(x) > 0).all()


def rule_of(figure: Figure) -> str:
    return str(figure.get_label())


@pytest.mark.parametrize("name", ["contrasts", "contrasts_by_rate", "classes", "detail"])
def test_of_many_variants_those_that_differ_most_are_shown_and_the_rest_is_named(
    name: str, twelve: Path, analysed: Analysed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(differences, "MOST_PANELS", 3)
    monkeypatch.setattr(forest, "MOST_ROWS", 3)
    analysis = analysed(twelve)
    figure = drawn(name, analysis)
    table = {"classes": "class_differences", "detail": "detail"}.get(name, "contrasts")
    assert "Shown: the 3 variants that differ most in test mIoU; the 8 others stand in" in rule_of(figure)
    assert f"tables/{table}.csv" in rule_of(figure)
    primary = analysis.contrasts[analysis.contrasts["primary"].astype(bool)]
    largest = primary.reindex(primary["delta"].abs().sort_values(ascending=False).index)["variant"][:3]
    titles = " ".join(text.get_text() for text in texts(figure))
    names = short_names(order(analysis), 22)
    assert [variant for variant in largest if names[variant] not in titles] == []


def test_a_map_of_no_rise_is_a_sentence(two: Path, analysed: Analysed) -> None:
    analysis = analysed(two)
    with pytest.raises(NotDrawn, match="at no setting did the training loss of a variant rise"):
        drawn("maps", replace(analysis, cells=analysis.cells.assign(rise=1.0)))


def test_what_nothing_was_corrected_for_is_drawn_hollow(two: Path, analysed: Analysed) -> None:
    for name in ("classes", "detail"):
        marks = [line for axes in drawn(name, analysed(two)).axes for line in axes.get_lines() if _marked(line)]
        assert marks and all(same_color(line.get_markerfacecolor(), PAPER) for line in marks)


def _marked(line: Line2D) -> bool:
    return line.get_marker() not in ("None", "", None, "<", ">") and line.get_linestyle() == "None"


def test_a_map_of_many_cells_leaves_its_numbers_to_the_table(
    two: Path, analysed: Analysed, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbered = drawn("maps", analysed(two))
    assert "tables/cells.csv" not in rule_of(numbered) and numbered.axes[0].texts
    monkeypatch.setattr(maps, "MOST_NUMBERS", 1)
    crowded = drawn("maps", analysed(two))
    assert "tables/cells.csv" in rule_of(crowded) and not crowded.axes[0].texts


def test_a_sheet_of_tiles_keeps_their_pixels(two: Path, analysed: Analysed) -> None:
    analysis = analysed(two)
    tile = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    with theme():
        figure = tile_sheet(analysis, gallery(analysis), [[tile, tile]], ["image"], ["0", "1"], "A rule.")
    shown = figure.axes[0].images[0]
    assert shown.get_interpolation() == "none"
    np.testing.assert_array_equal(np.asarray(shown.get_array())[:, :32], tile)


def test_files_are_the_same_whenever_they_are_written_and_a_figure_without_data_leaves_none(
    two: Path, analysed: Analysed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    analysis = analysed(two)
    (tmp_path / "budget.png").write_bytes(b"of an earlier state")
    names, formats = ["rates", "budget", "panel_0_unet"], ["png", "svg", "pdf"]
    made = draw_all(analysis, names, tmp_path, dict.fromkeys(names, formats))
    assert [one.name for one in made] == ["rates", "budget", "panel_0_unet"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        f"{name}.{kind}" for name in ("rates", "panel_0_unet") for kind in ("png", "svg", "pdf", "txt")
    )
    assert made[1].reason and not made[1].shown and made[0].shown and not made[2].shown
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr("time.time", lambda: 2e9)
    draw_all(analysis, names, tmp_path, dict.fromkeys(names, formats))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_analysis_travels_to_the_processes_that_draw(two: Path, analysed: Analysed) -> None:
    analysis = analysed(two)
    copy = pickle.loads(pickle.dumps(analysis))
    np.testing.assert_array_equal(copy.cells["test_mean"], analysis.cells["test_mean"])
    assert copy.frames.arrays[copy.frames.trials["key"].iloc[0]].layers
