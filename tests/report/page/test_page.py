"""The page as a file: nothing of a study is markup, nothing is asked of anybody, the first lines answer."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from ablate.records.paint import data_uri
from ablate.report.build import build_report
from ablate.report.figures.inline import adaptive, curve_values, svg_uri
from ablate.report.figures.theme import COLORS, DARK
from ablate.report.format import typeset
from ablate.report.page.document import make_page
from ablate.report.page.render import asset, badge_kind, policy, style_sheet, whole
from ablate.report.tables.measures import classes
from ablate.report.tables.table import to_csv
from ablate.report.words.headline import cards, headline
from ablate.report.words.verdict_rows import verdict_rows
from tests.planted import plant
from tests.report.conftest import Analysed
from tests.report.hostile import MARKUP


class Elements(HTMLParser):
    """Every element of a page with its attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def found(pattern: str, text: str) -> str:
    """Return the first group of a pattern that has to be in the text."""
    match = re.search(pattern, text, re.DOTALL)
    assert match is not None, pattern
    return match[1]


@pytest.fixture(scope="module")
def html(page_of_two: Path) -> str:
    return page_of_two.read_text(encoding="utf-8")


def test_the_policy_allows_this_style_and_script_and_nothing_else(html: str) -> None:
    elements = Elements(html)
    given = next(a["content"] for tag, a in elements.found if a.get("http-equiv") == "Content-Security-Policy")
    style, script = (found(rf"<{tag}>(.*?)</{tag}>", html) for tag in ("style", "script"))
    assert given == policy(style, script)
    for text in (style, script):
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in given
    assert given.startswith("default-src 'none'")
    assert "unsafe" not in given


def test_nothing_is_asked_of_anybody(html: str) -> None:
    for tag, attributes in Elements(html).found:
        assert tag not in ("iframe", "object", "embed", "base", "form")
        for name in ("src", "href", "srcset", "data", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, name, value[:60])
        assert "style" not in attributes, "the policy refuses style attributes"
        assert not [name for name in attributes if name.startswith("on")]
    assert html.count("<script") == 1


def test_styles_and_script_of_the_page_ask_for_nothing() -> None:
    for text in (style_sheet(), asset("page.js")):
        assert "url(" not in text and "http" not in text and "@import" not in text


def test_the_page_is_small(page_of_two: Path) -> None:
    assert page_of_two.stat().st_size < 2e6


def test_it_opens_with_the_finding_in_a_sentence(html: str, two: Path, analysed: Analysed) -> None:
    first = found(r"<h1>(.*?)</h1>", html)
    assert re.sub(r"<[^>]+>", "", first) == headline(analysed(two))
    assert first.startswith("Skip connections help: ")


def test_small_intervals_are_drawn_to_scale(two: Path, analysed: Analysed) -> None:
    analysis = analysed(two)
    rows, scale = verdict_rows(analysis)
    row = analysis.contrasts[analysis.contrasts["primary"]].iloc[0]
    unit = (scale.rope_width / 2) / analysis.rope
    drawn = next(one for one in rows if one.variant == "noskip")
    assert drawn.x == pytest.approx(scale.zero + unit * row["delta"], abs=0.1)
    assert drawn.low == pytest.approx(scale.zero + unit * row["low"], abs=0.1)
    assert drawn.low is not None and drawn.high is not None and 0 <= drawn.low < drawn.high <= 200
    assert rows[0].verdict == "baseline" and rows[0].low is None


def test_a_reader_of_the_csv_finds_each_class_by_its_name(two: Path, analysed: Analysed) -> None:
    head = to_csv(classes(analysed(two))).splitlines()[0]
    assert head == ",".join(["variant", *(f"iou/{name}" for name in analysed(two).frames.class_names)])


def test_every_word_of_the_tables_has_a_badge() -> None:
    for word in ("better", "worse", "equivalent", "undecided", "supported", "diverged", "under-converged", "missing"):
        assert badge_kind(word)
    assert badge_kind("better (lr-confounded)") == "good"
    assert badge_kind("anything else") == ""


@pytest.mark.fault("R5", "shown as text")
@pytest.mark.fault(35, "markup is shown as text on the page")
def test_names_that_are_markup_are_shown_as_text(page_of_hostile: Path) -> None:
    html = page_of_hostile.read_text(encoding="utf-8")
    elements = Elements(html)
    assert html.count("<script") == 1
    assert not [tag for tag, attributes in elements.found if "onerror" in attributes or tag in ("b", "i", "marquee")]
    text = " ".join(elements.text)
    for name in MARKUP:
        assert name in text, name


def test_an_unfinished_study_says_so_and_loads_itself_anew_only_while_watched(unfinished: Path) -> None:
    page = build_report(unfinished, only=["page"])[-1].read_text(encoding="utf-8")
    assert "15 of 20 trials have a result" in page
    assert 'http-equiv="refresh"' not in page


def test_figures_follow_the_scheme_of_the_page(html: str) -> None:
    sources = re.findall(r'src="data:image/svg\+xml,([^"]+)"', html)
    assert len(sources) > 8
    for source in sources:
        svg = unquote(source)
        assert "prefers-color-scheme:dark" in svg
        assert "<metadata>" not in svg and "<script" not in svg and "<!--" not in svg
        assert not re.search(r"href='(?!#|data:)", svg)


def test_inks_are_exchanged_on_dark_pages() -> None:
    light, dark = next(iter(DARK.items()))
    given = f'<svg><metadata>x</metadata><defs/><defs><path style="fill: {light}; stroke: none"/></defs></svg>'
    svg = adaptive(given)
    name = found(r'<path class="(\w+)"/>', svg)
    assert f".{name}{{fill:{light};stroke:none}}" in svg and f"{{.{name}{{fill:{dark};stroke:none}}}}" in svg
    assert svg.count("prefers-color-scheme") == 1
    assert "metadata" not in svg


def test_pictures_within_figures_keep_every_pixel_of_a_label_map() -> None:
    labels = np.random.default_rng(0).integers(0, 4, (40, 60)).astype(np.uint8) * 60
    buffer = io.BytesIO()
    Image.fromarray(labels).convert("RGB").save(buffer, "PNG")
    svg = adaptive(f'<svg><defs/><image href="{data_uri(buffer.getvalue(), "image/png")}"/></svg>')
    packed = base64.b64decode(found(r"data:image/webp;base64,([^\"]+)", svg))
    assert (np.asarray(Image.open(io.BytesIO(packed)).convert("L")) == labels).all()


def test_coordinates_are_shortened_and_scales_are_not() -> None:
    path = '<path d="M 1.234567 2 L 3 -4.56 z" style="stroke-width: 0.25"/>'
    svg = adaptive(f"<svg><defs/>{path}</svg>")
    assert 'd="M1.2 2L3 -4.6 z"' in svg and "stroke-width:0.25" in svg
    kept = adaptive('<svg><g transform="translate(1.23456 2) scale(0.085 -0.085)"><path/></g></svg>')
    assert "translate(1.2 2) scale(0.085 -0.085)" in kept


def test_an_svg_can_stand_in_an_attribute_as_it_is() -> None:
    uri = svg_uri('<svg a="b">&lt; 100 % #f</svg>')
    assert not set('"&#') & set(uri) and unquote(uri).endswith("<svg a='b'>&lt; 100 % #f</svg>")


def test_the_values_of_curves_are_those_drawn_at_the_places_they_are_drawn_at() -> None:
    figure = Figure(figsize=(4, 2))
    left, right = figure.subplots(1, 2)
    left.plot([1, 10, 100], [0.5, math.nan, 0.25], label="<b>", color=COLORS[1])
    left.plot([1, 10], [0.1, 0.2], color="grey")
    left.set(xscale="log", xlim=(1, 100), xlabel="step", title="Loss", ylim=(0, 1))
    right.plot([1, 2], [1, 2])
    (panel,) = curve_values(figure)
    assert panel["curves"] == [["<b>", 1, ["0.500", "–", "0.250"]]]
    assert panel["at"] == [0, 50, 100] and panel["xs"] == ["1", "10", "100"]
    assert (panel["title"], panel["x"]) == ("Loss", "step")
    box = left.get_position()
    assert panel["box"] == pytest.approx([100 * v for v in (box.x0, 1 - box.y1, box.width, box.height)], abs=0.01)


def test_long_curves_are_thinned() -> None:
    figure = Figure()
    figure.subplots().plot(np.arange(5000), np.zeros(5000), label="one")
    (panel,) = curve_values(figure)
    assert len(panel["xs"]) == 100 and (panel["xs"][0], panel["xs"][-1]) == ("0", "4999")


def test_data_uri() -> None:
    assert data_uri(b"\x00\xff", "image/png") == "data:image/png;base64,AP8="


def test_minus_signs_of_sentences() -> None:
    assert typeset("by -0.061 (-0.078 to +0.1) at 1e-3 and lr-3") == "by −0.061 (−0.078 to +0.1) at 1e-3 and lr-3"


def test_the_answers_stay_short_with_many_variants(twelve: Path, analysed: Analysed) -> None:
    analysis = analysed(twelve)
    for card in cards(analysis):
        assert len(card.answer) + len(card.more) < 420, card.question


def test_one_seed_is_said_to_have_no_interval(tmp_path: Path, analysed: Analysed) -> None:
    path = plant(tmp_path / "one", variants=("unet", "noskip"), lrs=(1e-3,), seeds=1, epochs=3, images=4, size=(16, 24))
    analysis = analysed(path)
    assert headline(analysis).startswith("Nothing can be decided from one seed a variant. Seen: skip connections")
    assert "no interval" in next(card.more for card in cards(analysis) if card.question == "How sure?")


def test_a_variant_alone_has_a_report_of_its_own(tmp_path: Path, analysed: Analysed) -> None:
    path = plant(tmp_path / "one", variants=("unet",), lrs=(1e-3,), seeds=1, epochs=3, images=4, size=(16, 24))
    html = build_report(path)[-1].read_text(encoding="utf-8")
    score = f"{100 * analysed(path).variants['test_mean'].iloc[0]:.1f}"
    assert headline(analysed(path)) == f"unet scores {score} % test mIoU; there is no other variant to compare it with."
    # Of one rate: neither a choice nor an edge.
    assert "Only one setting was tried" in html and "Every variant at lr 1e-3, the only one tried" in html
    assert "edge of the grid" not in html.partition('id="supplement"')[0] and "(f) Mean" not in html
    assert "1 row<" in html and "1 rows" not in html
    assert (path / "tables" / "results.csv").read_text(encoding="utf-8").count("\n") == 2
    assert (path / "figures" / "consolidated.png").exists() and not (path / "figures" / "contrasts.png").exists()


def test_a_figure_of_one_column_is_not_blown_up_to_two(html: str) -> None:
    assert 'class="drawing single" id="fig-maps"' in html
    assert 'class="drawing fitted" id="fig-consolidated"' in html


def test_per_cents_of_sentences_have_one_space() -> None:
    assert typeset("95% of 90 %") == "95\u202f% of 90\u202f%"


def test_a_number_is_one_word_and_markup_beside_it_stays_text() -> None:
    assert str(whole("<i> at lr=1e-3 [−2.0, +0.5].")) == (
        '&lt;i&gt; at <span class="nb">lr=1e-3</span> <span class="nb">[−2.0, +0.5]</span>.'
    )
    assert str(whole("run-1e-3-a")) == "run-1e-3-a"


def test_the_page_names_files_from_its_own_folder(tmp_path: Path) -> None:
    path = plant(
        tmp_path / "moved", variants=("unet", "noskip"), lrs=(1e-3,), seeds=2, epochs=3, images=4, size=(16, 24)
    )
    (path / "test" / "targets.zip").unlink()
    html = build_report(path, only=["page"])[-1].read_text()
    assert "No measures of fine detail: the results folder holds no test masks." in html
    assert str(path) not in html


def test_the_tiles_are_the_planted_images(html: str, two: Path) -> None:
    index = json.loads((two / "test" / "index.json").read_text())
    assert (
        '<svg viewBox="0 0 {1} {0}" role="img" aria-label="test image 0: truth"><use href="#truth-1"/>'.format(
            *index["size"]
        )
        in html
    )
    truth = found(r'<image id="truth-1" href="data:image/webp;base64,([^"]+)"', html)
    picture = Image.open(io.BytesIO(base64.b64decode(truth))).convert("RGB")
    assert picture.size == (index["size"][1], index["size"][0])
    colours = {tuple(colour) for colour in np.asarray(picture).reshape(-1, 3).tolist()}
    assert colours <= {*map(tuple, index["palette"]), (235, 237, 240)}


def test_what_is_not_the_finding_is_one_fold(html: str) -> None:
    above, _, folded = html.partition('<details class="supplement"')
    for name in ("limits", "verdicts", "consolidated", "panels", "claims", "reproduce"):
        assert f'id="{name}"' in above
    for name in ("words", "tables", "figures", "failures", "methods", "provenance", "fig-rates", "t-results"):
        assert f'id="{name}"' in folded
    assert re.findall(r'<figure class="drawing[^>]* id="([^"]+)"', above) == ["fig-consolidated"]
    for link in re.findall(r'<a href="#([^"]+)"', above):
        assert f'id="{link}"' in html


def test_a_caption_is_text_beside_the_figure_and_a_file_beside_its_files(two: Path, html: str) -> None:
    build_report(two, only=["rates"])
    caption = (two / "figures" / "rates.txt").read_text(encoding="utf-8").strip()
    shown = found(r'id="fig-rates".*?<figcaption>(.*?)</figcaption>', html)
    assert len(caption) > 40 and Elements(shown).text[0].startswith(caption)


def test_the_same_numbers_on_another_machine_need_its_choices_named(two: Path, analysed: Analysed) -> None:
    analysis = analysed(two)
    decided = {
        name: {"value": value} for name, value in (("precision", "float32"), ("engine", "fused"), ("threads", 1))
    }
    frames = replace(analysis.frames, run={**analysis.frames.run, "decisions": decided})
    page = make_page(replace(analysis, frames=frames), [], [])
    assert page.fixed == "-o train.precision=float32 -o run.engine=fused -o run.threads=1"
    train = frames.study.train.model_copy(update={"precision": "float32"})
    named = replace(frames, study=frames.study.model_copy(update={"train": train}))
    assert "precision" not in make_page(replace(analysis, frames=named), [], []).fixed
