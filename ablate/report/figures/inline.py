"""A figure as the page holds it: a small SVG that follows light and dark, and the values of its curves."""

from __future__ import annotations

import base64
import io
import math
import re
from functools import cache
from itertools import pairwise
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
_ID = re.compile(r'\bid="([^"]+)"')
_NAMED = re.compile(r'(\bid="|#)([\w-]+)')
_MOVED = re.compile(r'transform="translate\((-?[\d.]+) 0\)"(?=/>)')
_LINES = re.compile(r"M-?[\d.]+ -?[\d.]+(?:L-?[\d.]+ -?[\d.]+){3,}")
_NUMBER = re.compile(r"-?\d+\.\d{2,}")
_DRAWN = re.compile(r'(?<= )(?:d|x|y|x1|x2|y1|y2|points)="[^"]*"|translate\([^)]*\)')
_PIXELS = re.compile(r"data:image/png;base64,([^\"]+)")


@cache
def dark_rules() -> str:
    """Return CSS that exchanges the figures' inks where the page is dark.

    matplotlib writes colours into style attributes; rules with attribute selectors reach them. A colour map's own
    colours and the numbers on it are no inks and stay.
    """
    rules = (
        f'[style*="{part}: {light}"]{{{part}:{dark}!important}}'
        for light, dark in DARK.items()
        for part in ("fill", "stroke")
    )
    return "<style>@media screen and (prefers-color-scheme: dark){" + "".join(rules) + "}</style>"


def adaptive(svg: str) -> str:
    """Return matplotlib's SVG with `dark_rules` and without what no reader sees, in a third to a half of the letters.

    Metadata, comments, names of groups and line ends go; coordinates keep one decimal, a tenth of a pixel of a
    screen (those of letters whole units of the font, less than a tenth of one); pictures are stored as WebP.
    """
    svg = re.sub(r"<\?xml.*?\?>|<!DOCTYPE[^>]*>|<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", re.sub(r">\s+<", "><", svg.strip()))
    svg = _PIXELS.sub(lambda found: _repacked(found[1]), _DRAWN.sub(_shortened, svg))
    names = {name: f"i{number:x}" for number, name in enumerate(dict.fromkeys(_ID.findall(svg)))}
    # Every letter is a reference to its outline by name.
    svg = _NAMED.sub(lambda found: found[1] + names.get(found[2], found[2]), svg).replace("xlink:href=", "href=")
    svg = _MOVED.sub(lambda found: f'x="{float(found[1]):.0f}"', svg).replace("<g/>", "")
    return svg.replace("<defs>", dark_rules() + "<defs>", 1)


def _shortened(found: re.Match[str]) -> str:
    rounded = _NUMBER.sub(lambda text: _short(float(text[0])), found[0])
    if not rounded.startswith("d="):
        return rounded
    path = re.sub(r" ?\n|(?<=[A-Za-z]) (?=[-\d])", "", rounded)
    return _LINES.sub(_relative, path)


def _short(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")


def _relative(found: re.Match[str]) -> str:
    """Return straight lines by their steps, which have fewer digits than places; the rounded places stay exact."""
    places = [tuple(map(float, pair.split())) for pair in found[0][1:].split("L")]
    steps = [step for (x0, y0), (x1, y1) in pairwise(places) for step in (_short(x1 - x0), _short(y1 - y0))]
    return found[0].partition("L")[0] + "l" + re.sub(r" (?=-)|(?<!\d)0(?=\.)", "", " ".join(steps))


def _repacked(png: str) -> str:
    """Return a picture as a WebP, exact to the pixel; with loss where that saves a quarter, as in photographs."""
    image = Image.open(io.BytesIO(base64.b64decode(png)))
    packed = []
    for options in ({"lossless": True, "quality": 60}, {"quality": 75}):
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", **options)
        packed.append(buffer.getvalue())
    exact, lossy = packed
    return data_uri(lossy if len(lossy) < 0.75 * len(exact) else exact, "image/webp")


def svg_uri(svg: str) -> Markup:
    """Return an SVG as a data URI that may stand in an attribute as it is: quotes and ampersands are escaped in it."""
    return Markup("data:image/svg+xml," + quote(svg.replace('"', "'"), safe="<>/:;=,'()!* "))


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
