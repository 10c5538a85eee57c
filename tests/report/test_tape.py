"""What is played from a tape is what matplotlib draws itself; what a tape cannot keep is drawn anew."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from matplotlib.patheffects import withStroke

from ablate.report.draw import DPI, encode
from ablate.report.sheet import show_sheet
from ablate.report.style import canvas, theme
from ablate.report.tape import Tape

GREY = np.full((4, 6, 3), 90, np.uint8)


def figure_of_everything() -> Figure:
    """Lines, marks, bands, meshes, collections of one and of several looks, clips, hatches, turned texts."""
    figure = canvas(5, 4)
    (a, b), (c, d) = figure.subplots(2, 2)
    a.plot([1, 2, 4], [1, 10, 100], "o--", color="#3fa0d8", markersize=5, label="line")
    a.fill_between([1, 2, 4], [1, 5, 50], [2, 20, 200], alpha=0.2)
    a.set(yscale="log", xlabel="x", title="α $x^2$")
    b.scatter([1, 2, 3], [3, 1, 2], s=[10, 40, 90], c=["#d1442f", "#22304f", "#6bbf8a"])
    b.scatter([1, 2], [1, 1], s=12, color="k")
    b.hlines([1, 2], [0, 1], [2, 3], linewidth=2)
    c.pcolormesh([[1.0, 2], [3, 4]], linewidths=0.8, edgecolor="w")
    c.add_patch(Rectangle((0.1, 0.1), 1, 1, fill=False, hatch="////", edgecolor="#626b76", linewidth=0))
    (clipped,) = c.plot([0, 2], [0, 2], linewidth=6)
    clipped.set_clip_path(Circle((1, 1), 0.5, transform=c.transData))
    d.annotate("turned", (0.5, 0.5), rotation=40, bbox={"facecolor": "w"}, arrowprops={"arrowstyle": "->"})
    d.text(0.1, 0.1, "two\nlines", path_effects=[withStroke(linewidth=2, foreground="w")])
    figure.legend(loc="outside upper left")
    return figure


def played(figure: Figure) -> str:
    return encode(figure, ["svg"])["svg"].decode()


def as_matplotlib(figure: Figure) -> str:
    """The figure laid out at the same resolution, and drawn as SVG by its artists."""
    figure.set_dpi(DPI)
    FigureCanvasAgg(figure).draw()
    figure.set_layout_engine("none")
    text = io.StringIO()
    FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None})
    return text.getvalue()


def numbers(svg: str, pattern: str) -> list[np.ndarray]:
    return [np.array(re.findall(r"-?\d+\.?\d*", found), float) for found in re.findall(pattern, svg)]


def test_a_played_figure_is_the_one_that_its_artists_draw():
    with theme():
        ours, theirs = played(figure_of_everything()), as_matplotlib(figure_of_everything())
    tags = r"<(\w+)|(?<=style=)\"([^\"]*)\""
    assert re.findall(tags, ours) == re.findall(tags, theirs)
    assert ours.count("<clipPath") == theirs.count("<clipPath") > 3
    for pattern, off in ((r' d="([^"]*)"', 0.1), (r"<use [^>]*(x=.*?)/>", 0.1), (r"<rect ([^>]*)/>", 0.1)):
        mine, right = numbers(ours, pattern), numbers(theirs, pattern)
        assert len(mine) == len(right) >= 5
        for one, other in zip(mine, right, strict=True):
            assert one == pytest.approx(other, abs=off)
    # Letters are measured at the resolution of the pixels: texts may begin elsewhere, by less than anyone sees, and an
    # arrow ends at the box of one.
    mine, right = (numbers(svg, r'<g [^>]*transform="translate\(([^)]*)\)') for svg in (ours, theirs))
    assert len(mine) == len(right) > 20
    assert np.abs(np.array(mine) - np.array(right)).max() < 0.6


def test_the_pixels_are_matplotlibs_own():
    with theme():
        figure = figure_of_everything()
        figure.set_dpi(DPI)
        canvas_of = FigureCanvasAgg(figure)
        canvas_of.draw()
        plain = np.asarray(canvas_of.buffer_rgba()).copy()
        other = figure_of_everything()
        other.set_dpi(DPI)
        pixels = FigureCanvasAgg(other).get_renderer()
        other.draw(Tape(pixels, DPI))
    assert np.array_equal(np.asarray(pixels.buffer_rgba()), plain)


def test_a_sheet_stays_an_image_of_its_own_pixels_on_a_tape():
    with theme():
        figure = Figure(figsize=(2, 2), layout="none")
        show_sheet(figure.add_axes((0.1, 0.1, 0.8, 0.8)), GREY)
        svg = played(figure)
    assert 'width="6" height="4"' in svg
    assert svg.count("<image") == 1


def test_what_is_to_be_pixels_everywhere_has_its_own_resolution():
    def made() -> Figure:
        figure = Figure(figsize=(2, 2), layout="none")
        axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
        axes.pcolormesh([[1.0, 2], [3, 4]], rasterized=True)
        axes.plot([0, 1])
        return figure

    with theme():
        ours, theirs = played(made()), as_matplotlib(made())
    image = r"<image [^>]*>"
    assert re.findall(image, ours) == re.findall(image, theirs)
    assert len(re.findall(image, ours)) == 1
    assert len(re.findall("<path", ours)) == len(re.findall("<path", theirs))


def test_what_a_tape_cannot_keep_is_drawn_anew():
    with theme():
        figure = Figure(figsize=(2, 2), layout="none")
        figure.add_axes((0.1, 0.1, 0.8, 0.8)).imshow(GREY)
        pixels = FigureCanvasAgg(figure).get_renderer()
        tape = Tape(pixels, figure.dpi)
        figure.draw(tape)
        assert not tape.whole
        assert played(figure).count("<image") == 1
