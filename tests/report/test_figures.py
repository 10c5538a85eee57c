"""Every figure at two, five and twelve variants: drawn, legible, with its rule, in the same colours."""

from __future__ import annotations

import json
import shutil
from itertools import combinations

import numpy as np
import pytest
import yaml
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from matplotlib.text import Text
from planted import plant

from ablate.analysis.analyse import analyse
from ablate.analysis.frames import load_results
from ablate.registry import FIGURES
from ablate.report import figures
from ablate.report.draw import DPI, FORMATS, encode, figure_names
from ablate.report.figures import contrasts, maps
from ablate.report.figures.common import NotDrawn, looks, order, own_settings, setting_values, settings
from ablate.report.figures.panels import image_scores, variant_panel
from ablate.report.figures.streams import thinned
from ablate.report.panels import fixed_images
from ablate.report.sheet import show_sheet
from ablate.report.style import short_names, theme

LINES = ("curves", "consolidated", "rates")


def drawn(name: str, analysis) -> Figure | None:
    """The figure laid out, or None where the study has no data for it."""
    with theme():
        try:
            figure = FIGURES.get(name)(analysis)
        except NotDrawn as reason:
            assert str(reason)
            return None
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


def test_all_figures_are_known_by_name_order_and_title():
    assert set(figures.ORDER) <= set(FIGURES)
    assert set(figures.ORDER) == set(figures.TITLES)
    assert figure_names()[: len(figures.ORDER)] == list(figures.ORDER)


@pytest.mark.parametrize("name", figures.ORDER)
@pytest.mark.parametrize("study", ["two", "unfinished", "twelve", "settings54"])
@pytest.mark.filterwarnings("error:constrained_layout")
def test_no_label_covers_another_or_leaves_the_figure(study, name, request, analysed):
    figure = drawn(name, analysed(request.getfixturevalue(study)))
    if figure is None:
        assert name in (
            "budget",
            "gates",
            "gate_scores",
            *(("detail", *figures.OF_IMAGES) if study == "settings54" else ()),
        )
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


@pytest.mark.parametrize("name", figures.ORDER)
def test_the_rule_and_the_state_stand_under_every_figure(name, unfinished, analysed):
    figure = drawn(name, analysed(unfinished))
    if figure is None:
        return
    by_name = {text.get_gid(): text.get_text() for text in figure.texts}
    assert len(by_name["rule"]) > 40
    assert by_name["warning"] == "Unfinished: 15 of 20 trials have a result."


def test_a_finished_study_has_no_warning(two, analysed):
    figure = drawn("maps", analysed(two))
    assert [text.get_gid() for text in figure.texts] == ["rule"]


@pytest.mark.parametrize("name", LINES)
def test_a_variant_has_one_colour_in_all_figures(name, twelve, analysed):
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


@pytest.mark.parametrize("name", ["test", "consolidated"])
def test_the_numbers_stand_beside_the_bars_and_not_on_them(name, twelve, analysed):
    figure = drawn(name, analysed(twelve))
    charts = [axes for axes in figure.findobj(Axes) if axes.get_title(loc="left") in ("Test loss", "Test mIoU, %")]
    assert len(charts) == 2
    for axes in charts:
        numbers = [text for text in axes.texts if "±" in text.get_text()]
        assert len(numbers) == 12
        right = axes.get_window_extent().x1
        assert all(text.get_window_extent().x0 >= right for text in numbers)
        values = [text.get_text().partition(" ")[0] for text in numbers]
        assert len({len(value.partition(".")[2]) for value in values}) == 1


def test_one_rate_for_all_is_said_once(tmp_path, analysed):
    path = plant(
        tmp_path / "one", variants=("unet", "residual"), lrs=(3e-4, 1e-4), seeds=2, epochs=3, images=4, size=(16, 24)
    )
    analysis = analysed(path)
    assert set(analysis.own_best.values()) == {"lr=3e-4"}
    figure = drawn("consolidated", analysis)
    assert [text.get_text() for text, _ in _legend(figure)] == ["unet", "residual"]
    rule = next(text.get_text() for text in figure.texts if text.get_gid() == "rule")
    assert "lr 3e-4 for all; 2 seeds" in " ".join(rule.split())


def _legend(figure: Figure):
    legend = figure.legends[0]
    return list(zip(legend.get_texts(), legend.get_lines(), strict=True))


def test_the_curve_is_the_mean_over_the_seeds_that_did_not_diverge(two, analysed):
    analysis = analysed(two)
    figure = drawn("curves", analysis)
    frame = analysis.frames.epochs
    rows = frame[(frame["variant"] == "noskip") & (frame["setting"] == analysis.own_best["noskip"])]
    expected = rows.groupby("epoch")["val_mean_iou"].mean().to_numpy()
    color = looks(analysis)["noskip"].color
    curves = [line.get_ydata() for line in figure.axes[2].get_lines() if same_color(line.get_color(), color)]
    assert any(len(curve) == len(expected) and np.allclose(curve, expected) for curve in curves)


def test_a_diverged_run_is_drawn_up_to_its_last_finite_epoch(two, analysed):
    figure = drawn("curves_by_rate", analysed(two))
    crosses = [line for axes in figure.axes for line in axes.get_lines() if line.get_marker() == "x"]
    assert len(crosses) == 3  # the planted diverged trial, once for each of the three measures


def test_the_map_frames_the_chosen_setting_and_hatches_what_has_no_result(unfinished, analysed):
    analysis = analysed(unfinished)
    figure = drawn("maps", analysis)
    patches = figure.axes[0].patches
    assert sum(patch.get_hatch() == "////" for patch in patches) == 2  # residual and attention at 1e-3
    assert sum(patch.get_hatch() is None for patch in patches) == len(order(analysis))


def test_many_settings_are_named_where_there_is_room(settings54, analysed):
    analysis = analysed(settings54)
    assert len(settings(analysis)) == 54
    upper, lower = (axes for axes in drawn("maps", analysis).axes if axes.get_title(loc="left"))
    assert lower.get_xlabel() == "lr, weight_decay, batch_size"
    named = [label.get_text() for label in lower.get_xticklabels()]
    assert len(named) > 20
    assert named[0] == "1e-4, 0, 2"
    assert not upper.get_xticklabels()
    small = next(axes for axes in drawn("consolidated", analysis).findobj(Axes) if "setting" in axes.get_xlabel())
    assert small.get_xlabel() == "54 settings"


def test_a_search_shows_the_settings_of_each_variant(two, analysed, tmp_path):
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


def test_a_figure_is_the_same_every_time(two, analysed):
    analysis = analysed(two)
    with theme():
        first, second = (encode(FIGURES.get("maps")(analysis), FORMATS) for _ in range(2))
    assert set(first) == {"png", "svg", "pdf"}
    for kind, data in first.items():
        assert data == second[kind], kind


def test_the_own_panel_shows_eight_images_of_one_variant(two, analysed):
    with theme():
        figure = variant_panel(analysed(two), "noskip")
    labels = [text.get_text() for text in figure.axes[0].texts]
    assert labels[-4:] == ["image", "truth", "prediction", "error"]
    numbers = [label for label in labels if label.isdigit()]
    assert len(labels) == 8 + 8 + 4 and len(numbers) == 8
    analysis = analysed(two)
    scores = image_scores(analysis)["noskip"][[one.index for one in fixed_images(12)]]
    assert [int(number) for number in numbers] == [round(100 * score) for score in scores]


def test_thinning_a_stream_keeps_its_extremes_and_its_order():
    y = np.sin(np.arange(10_000) / 50)
    y[777], y[5000:5010] = 9.0, np.nan
    x, thin = thinned(np.arange(10_000), y, 400)
    assert len(thin) <= 400
    assert np.nanmax(thin) == 9.0 and np.nanmin(thin) == np.nanmin(y)
    assert (np.diff(x) > 0).all()


def rule_of(figure: Figure) -> str:
    return next(text.get_text() for text in figure.texts if text.get_gid() == "rule").replace("\n", " ")


@pytest.mark.parametrize("name", ["contrasts", "classes", "detail"])
def test_of_many_variants_those_that_differ_most_are_shown_and_the_rest_is_named(name, twelve, analysed, monkeypatch):
    monkeypatch.setattr(contrasts, "MOST_PANELS", 3)
    analysis = analysed(twelve)
    figure = drawn(name, analysis)
    table = {"contrasts": "contrasts", "classes": "class_differences", "detail": "detail"}[name]
    assert "Shown: the 3 variants that differ most in test mIoU; the 8 others stand in" in rule_of(figure)
    assert f"tables/{table}.csv" in rule_of(figure)
    primary = analysis.contrasts[analysis.contrasts["primary"].astype(bool)]
    largest = primary.reindex(primary["delta"].abs().sort_values(ascending=False).index)["variant"][:3]
    titles = " ".join(text.get_text() for text in texts(figure))
    names = short_names(order(analysis), 22)
    assert [variant for variant in largest if names[variant] not in titles] == []


def test_a_map_of_many_cells_leaves_its_numbers_to_the_table(two, analysed, monkeypatch):
    numbered = drawn("maps", analysed(two))
    assert "tables/cells.csv" not in rule_of(numbered) and numbered.axes[0].texts
    monkeypatch.setattr(maps, "MOST_NUMBERS", 1)
    crowded = drawn("maps", analysed(two))
    assert "tables/cells.csv" in rule_of(crowded) and not crowded.axes[0].texts


def test_a_sheet_of_pictures_has_its_own_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    figure = Figure(figsize=(0.8, 0.6), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    show_sheet(axes, pixels)
    axes.set(xlim=(-0.5, 7.5), ylim=(5.5, -0.5))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    shown = np.asarray(canvas.buffer_rgba())[..., :3]
    np.testing.assert_array_equal(shown, pixels.repeat(10, 0).repeat(10, 1))
