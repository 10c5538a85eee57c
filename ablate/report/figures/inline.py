"""A figure as the page holds it: a small SVG that follows light and dark, and the values of its curves."""

from __future__ import annotations

import base64
import io
import math
import re
from typing import Any
from urllib.parse import quote

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from ablate.records.paint import data_uri
from ablate.report.figures.marks import percent_tick
from ablate.report.figures.theme import COLORS, DARK
from ablate.report.format import number

# Points of a curve that the page can show one by one; more are thinned.
MOST_POINTS = 100
_UNSEEN = re.compile(r"<\?xml.*?\?>|<!DOCTYPE[^>]*>|<metadata>.*?</metadata>|<!--.*?-->|(?<=>)\s+(?=<)", re.DOTALL)
# Numbers with decimals; widths and opacities of a style, and scales, keep all theirs.
_NUMBER = re.compile(r"style=\"[^\"]*\"|scale\([^)]*\)|-?\d+\.\d+")
# The letter of a step of a path, with the blanks about it.
_STEP = re.compile(r" *\b([MLQC]) +(?=-?\d)")
_HASH = re.compile(r"(?<=[\"#])[a-z][0-9a-f]{10}(?=[\")])")
_NAME = re.compile(r"(?<= id=\")[^\"]+|(?<=href=\"#)[^\"]+|(?<=url\(#)[^)]+")


def lean(svg: str) -> str:
    """Return matplotlib's SVG without what nobody sees, its coordinates to a tenth of a point.

    Ids that are hashes are numbered: those of clip paths are made of every digit of their coordinates, of which the
    solver of the layout leaves the last to chance.
    """
    ids: dict[str, str] = {}

    def shortened(found: re.Match[str]) -> str:
        text = found[0]
        return text if text[0] == "s" else f"{float(text):.1f}".rstrip("0").removesuffix(".")

    plain = _STEP.sub(r"\1", _UNSEEN.sub("", svg).replace("xlink:href=", "href=").replace("\n", " "))
    plain = _HASH.sub(lambda found: ids.setdefault(found[0], f"{found[0][0]}{len(ids)}"), plain)
    return _NUMBER.sub(shortened, plain)


def adaptive(svg: str) -> str:
    """Return matplotlib's SVG for a page, in half the letters: light and dark, by classes.

    Where the page is dark the figures' inks are exchanged; a colour map's own colours and the numbers on it are no
    inks and stay. Pictures are stored as WebP.
    """
    names: dict[str, str] = {}
    classes: dict[str, str] = {}
    text = re.sub(r"<g id=\"[^\"]*\"", "<g", lean(svg))
    # Letters of a line stand beside one another, each by its `x`.
    text = re.sub(r"(<use [^>]*?)transform=\"translate\((-?[\d.]+) 0\)\"", r'\1x="\2"', text)
    # Every letter is a reference to its outline by name.
    text = _NAME.sub(lambda found: names.setdefault(found[0], f"i{len(names):x}"), text)
    text = re.sub(
        r"style=\"([^\"]*)\"", lambda one: f'class="{classes.setdefault(one[1], f"c{len(classes):x}")}"', text
    )
    text = re.sub(r"data:image/png;base64,([^\"]*)", lambda found: _repacked(found[1]), text)
    light = "".join(f".{name}{{{style}}}" for style, name in classes.items())
    dark = "".join(f".{name}{{{_darkened(style)}}}" for style, name in classes.items() if _darkened(style) != style)
    rules = f"{light}@media screen and (prefers-color-scheme: dark){{{dark}}}".replace(": ", ":").replace("; ", ";")
    return text.replace("</svg>", f"<style>{rules}</style></svg>")


def _darkened(style: str) -> str:
    return re.sub("|".join(DARK), lambda found: DARK[found[0]], style)


def _repacked(png: str) -> str:
    """Return a picture as a WebP, exact to the pixel; with loss where that saves a quarter, as in photographs."""
    image = Image.open(io.BytesIO(base64.b64decode(png)))
    packed = []
    for options in ({"lossless": True, "quality": 60}, {"quality": 75, "method": 6}):
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", **options)
        packed.append(buffer.getvalue())
    exact, lossy = packed
    return data_uri(lossy if len(lossy) < 0.75 * len(exact) else exact, "image/webp")


def svg_uri(svg: str) -> Markup:
    """Return an SVG as a data URI that may stand in an attribute as it is: quotes and ampersands are escaped in it."""
    return Markup("data:image/svg+xml," + quote(svg.replace('"', "'"), safe="<>/:;=,'()!*+ "))


def curve_values(figure: Figure) -> list[dict[str, Any]]:
    """Return the named curves of every panel of a figure that is laid out: where the panel lies, and their values.

    A curve is named by the label of its line. `box` is left, top, width and height of the panel in per cent of the
    figure; `at` are the places of the values across the panel, in per cent of its width.
    """
    panels = []
    for axes in figure.axes:
        lines = [line for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
        if not lines:
            continue
        every = np.unique(np.concatenate([np.asarray(line.get_xdata(), float) for line in lines]))
        shown = every[np.unique(np.linspace(0, len(every) - 1, min(len(every), MOST_POINTS)).round().astype(int))]
        box = axes.bbox.transformed(figure.transFigure.inverted())
        pixels = axes.transData.transform([(x, axes.get_ylim()[0]) for x in shown])[:, 0]
        curves = []
        for line in lines:
            known = dict(zip(np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float), strict=True))
            colour = to_hex(line.get_color())
            texts = [_value(axes, known.get(x, math.nan)) for x in shown]
            curves.append([str(line.get_label()), COLORS.index(colour) if colour in COLORS else -1, texts])
        panels.append(
            {
                "title": ", ".join(dict.fromkeys(filter(None, (_of_first(axes, "row"), _of_first(axes, "column"))))),
                "x": next(filter(None, (one.get_xlabel() for one in (axes, *figure.axes))), ""),
                "box": [round(100 * part, 2) for part in (box.x0, 1 - box.y1, box.width, box.height)],
                "at": [round(100 * (place - axes.bbox.x0) / axes.bbox.width, 1) for place in pixels],
                "xs": [f"{x:g}" for x in shown],
                "curves": curves,
            }
        )
    return panels


def _of_first(axes: Axes, line: str) -> str:
    """Return the vertical label of the first panel in the same row, or the title of the first in the same column."""
    place = axes.get_subplotspec()
    if place is None:
        return ""
    for other in axes.figure.axes:
        spec = other.get_subplotspec()
        if spec is None or spec.get_gridspec() is not place.get_gridspec():
            continue
        if line == "row" and spec.colspan.start == 0 and spec.rowspan.start == place.rowspan.start:
            return " ".join(other.get_ylabel().split())
        if line == "column" and spec.rowspan.start == 0 and spec.colspan.start == place.colspan.start:
            return " ".join((other.get_title("left") or other.get_title()).split())
    return ""


def _value(axes: Axes, value: float) -> str:
    shown = axes.yaxis.get_major_formatter()
    is_percent = getattr(shown, "func", None) is percent_tick
    return f"{100 * value:.1f}" if is_percent and math.isfinite(value) else number(value)
