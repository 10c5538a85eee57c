"""Texts that are kept look as they do without, and matplotlib is left as it was."""

from __future__ import annotations

import io
import time

import matplotlib
import numpy as np
import pytest
from fontTools.ttLib import TTFont
from matplotlib import font_manager
from matplotlib.backends import _backend_pdf_ps, backend_agg, backend_pdf
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.textpath import TextToPath
from PIL import Image
from scipy.ndimage import uniform_filter

from ablate.report import texts
from ablate.report.draw import encode
from ablate.report.fonts import quick_font
from ablate.report.style import canvas, theme
from ablate.report.texts import remembered_texts

TOUCHED = (
    (Text, "_get_layout"),
    (TextToPath, "get_glyphs_with_font"),
    (backend_agg.RendererAgg, "draw_text"),
    (backend_agg.RendererAgg, "get_text_width_height_descent"),
    (backend_pdf, "_text_helpers"),
    (_backend_pdf_ps, "get_glyphs_subset"),
)
of_this_release = pytest.mark.skipif(matplotlib.__version_info__[:2] != texts.KNOWN, reason="another matplotlib")


def figure() -> Figure:
    """Equal texts in different sizes, weights, directions and places, one of two lines, one with mathematics."""
    made = canvas(4, 3)
    for axes in made.subplots(1, 2):
        axes.set(title="equal", xlabel="equal", ylabel="equal\nequal")
        axes.text(0.3, 0.3, "equal", rotation=30, ha="center", size=11)
        axes.text(0.3, 0.3, "equal", rotation=30, ha="right", va="top", size=11, weight="bold")
        axes.text(0.1, 0.8, "Δ −1 $x^2$ ☃ 漢")
    return made


def drawn(kinds: tuple[str, ...] = ("png", "svg")) -> dict[str, bytes]:
    with theme():
        return encode(figure(), kinds)


def test_pictures_with_kept_texts_are_equal_to_those_without():
    plain = drawn()
    with remembered_texts():
        first, second = drawn(), drawn()
    assert first == second
    assert first["svg"] == plain["svg"]
    ours, theirs = (np.asarray(Image.open(io.BytesIO(made["png"])), dtype=float) for made in (first, plain))
    # Letters stand on whole pixels: most of a picture is equal, and blurred by two pixels all of it nearly is.
    assert (ours == theirs).all(axis=2).mean() > 0.97
    assert np.abs(uniform_filter(ours, (5, 5, 0)) - uniform_filter(theirs, (5, 5, 0))).max() < 60


@of_this_release
def test_matplotlib_is_as_before_afterwards():
    before = [getattr(owner, name) for owner, name in TOUCHED]
    with pytest.raises(KeyError), remembered_texts():
        assert all(getattr(owner, name) is not was for (owner, name), was in zip(TOUCHED, before, strict=True))
        raise KeyError
    assert [getattr(owner, name) for owner, name in TOUCHED] == before


def test_another_release_keeps_nothing(monkeypatch):
    monkeypatch.setattr(texts, "KNOWN", (2, 0))
    before = [getattr(owner, name) for owner, name in TOUCHED]
    with remembered_texts():
        assert [getattr(owner, name) for owner, name in TOUCHED] == before


def test_a_text_that_changes_is_measured_anew():
    with theme(), remembered_texts():
        made = Figure()
        text = made.text(0.5, 0.5, "narrow")
        narrow = text.get_window_extent()
        text.set_text("wider than that")
        wide = text.get_window_extent()
        text.set_fontsize(30)
        large = text.get_window_extent()
    assert narrow.width < wide.width < large.width
    assert wide.height < large.height


@of_this_release
def test_a_cut_font_holds_the_letters_asked_for_and_the_usual_ones():
    path = font_manager.fontManager._find_fonts_by_props(font_manager.FontProperties(family="DejaVu Sans"))[0]
    with TTFont(path) as whole:
        snowman = whole.getGlyphID(whole.getBestCmap()[ord("☃")])
    with remembered_texts():
        with _backend_pdf_ps.get_glyphs_subset(path, {snowman}) as cut:
            saved = _backend_pdf_ps.font_as_file(cut.font)
        with _backend_pdf_ps.get_glyphs_subset(path, {snowman}) as again:
            assert again.glyph_index_map == cut.glyph_index_map
    with TTFont(io.BytesIO(saved.getvalue())) as font:
        assert {ord("☃"), ord("a"), ord("−")} <= set(font.getBestCmap())
        assert ord("☂") not in font.getBestCmap()
        assert font.getGlyphID(font.getBestCmap()[ord("☃")]) == cut.glyph_index_map[snowman]
        assert len(font.getGlyphOrder()) < 150


@of_this_release
def test_a_pdf_is_the_same_whether_its_texts_were_kept_before_or_not():
    with remembered_texts():
        first, second = drawn(("pdf",)), drawn(("pdf",))
    assert first == second


def test_a_process_that_has_drawn_can_draw_again_with_the_same_bytes_at_any_time(monkeypatch):
    made = []
    for seconds in (1e9, 2e9):
        monkeypatch.setattr(time, "time", lambda seconds=seconds: seconds)
        with quick_font() as family, theme(family):
            made.append(encode(figure(), ["png", "pdf", "svg"]))
    assert made[0] == made[1]
