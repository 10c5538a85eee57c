"""A figure as the page holds it: a small SVG that follows light and dark, and the values of its curves."""

from __future__ import annotations

import base64
import io
import math
import re
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

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
_SVG = "http://www.w3.org/2000/svg"
_UNSEEN = re.compile(r"<\?xml.*?\?>|<!DOCTYPE[^>]*>|<metadata>.*?</metadata>|<!--.*?-->|(?<=>)\s+(?=<)", re.DOTALL)
_LINK = re.compile(r"#([\w-]+)")
_PLACE = re.compile(r"translate\([^)]*\)")
_MOVED = re.compile(r"^translate\((-?[\d.]+) 0\)$")
_NUMBER = re.compile(r"-?\d+\.\d+")
_STEP = re.compile(r"([MLQCz])([^MLQCz]*)")
# How matplotlib brings the outline of a letter from the units of its font to hundredths of the letter's size.
_LETTER = "scale(0.015625)"
_PIXELS = "data:image/png;base64,"


def adaptive(svg: str) -> str:
    """Return matplotlib's SVG for a page: light and dark, by classes, in a third of the letters.

    Where the page is dark the figures' inks are exchanged; a colour map's own colours and the numbers on it are no
    inks and stay. Coordinates keep one decimal, a tenth of a pixel of a screen; pictures are stored as WebP.
    """
    root, defs = _compact(svg, decimals=1)
    classes: dict[str, str] = {}
    for element in root.iter():
        style = element.attrib.pop("style", "")
        if style:
            element.set("class", classes.setdefault(style, f"c{len(classes):x}"))
        link = element.get("href", "")
        if link.startswith(_PIXELS):
            element.set("href", _repacked(link.removeprefix(_PIXELS)))
    light = "".join(f".{name}{{{style}}}" for style, name in classes.items())
    dark = "".join(f".{name}{{{_darkened(style)}}}" for style, name in classes.items() if _darkened(style) != style)
    rules = f"{light}@media screen and (prefers-color-scheme: dark){{{dark}}}".replace(": ", ":").replace("; ", ";")
    defs.append(ElementTree.fromstring(f"<style>{rules}</style>"))
    return _text(root)


def lean(svg: str) -> str:
    """Return matplotlib's SVG without what nobody sees, to the hundredth of a point: a file of half the letters."""
    return _text(_compact(svg, decimals=2)[0]) + "\n"


def _text(root: ElementTree.Element) -> str:
    return ElementTree.tostring(root, encoding="unicode").replace(" />", "/>")


def _darkened(style: str) -> str:
    return re.sub("|".join(DARK), lambda found: DARK[found[0]], style)


def _compact(svg: str, decimals: int) -> tuple[ElementTree.Element, ElementTree.Element]:
    """Return the tree and its definitions, of coordinates with so many decimals, without what nobody sees.

    That is metadata, comments, names of groups, and groups that say nothing.
    """
    plain = _UNSEEN.sub("", svg).replace("xlink:href=", "href=").replace(f' xmlns="{_SVG}"', "")
    root = ElementTree.fromstring(plain)
    root.set("xmlns", _SVG)
    defs = ElementTree.Element("defs")
    _flatten(root, defs)
    root.insert(0, defs)
    names: dict[str, str] = {}
    for element in root.iter():
        for name, value in element.attrib.items():
            if name == "id":
                element.set("id", names.setdefault(value, f"i{len(names):x}"))
            elif value.startswith(("#", "url(#")):
                # Every letter is a reference to its outline by name.
                element.set(name, _LINK.sub(lambda found: "#" + names.setdefault(found[1], f"i{len(names):x}"), value))
            elif name in ("x", "y", "x1", "x2", "y1", "y2", "points"):
                element.set(name, _rounded(value, decimals))
            elif name == "transform":
                element.set(name, _PLACE.sub(lambda found: _rounded(found[0], decimals), value))
        if element.get("transform") == _LETTER:
            # Whole units of a font of 1600 to the letter's size.
            element.set("d", _path(element.get("d", ""), 0, 0.25))
            element.set("transform", "scale(.0625)")
        elif "d" in element.attrib:
            element.set("d", _path(element.get("d", ""), decimals))
    return root, defs


def _flatten(element: ElementTree.Element, defs: ElementTree.Element) -> None:
    """Put the children of groups that say nothing in their place, and what is only referred to into `defs`."""
    found: list[ElementTree.Element] = []
    for child in element:
        if child.tag == "g":
            child.attrib.pop("id", None)
        _flatten(child, defs)
        if child.tag == "defs":
            defs.extend(child)
        elif child.tag == "g" and (not child.attrib or not len(child)):
            found.extend(child)
        elif child.tag == "use" and len(moved := _MOVED.findall(child.get("transform", ""))) == 1:
            child.attrib.pop("transform")
            child.set("x", f"{float(moved[0]):.0f}")
            found.append(child)
        else:
            found.append(child)
    element[:] = found


def _path(d: str, decimals: int, scale: float = 1.0) -> str:
    """Return a path by its steps, which have fewer digits than places; the rounded places stay exact."""
    unit = 10**decimals
    here = start = (0, 0)
    text = before = ""
    for command, numbers in _STEP.findall(d):
        if command == "z":
            here, text, before = start, text + "z", ""
            continue
        values = [round(unit * scale * float(number)) for number in numbers.split()]
        places = list(zip(values[::2], values[1::2], strict=True))
        steps = [f"{step / unit:g}" for x, y in places for step in (x - here[0], y - here[1])]
        here = places[-1]
        start = here if command == "M" else start
        # A letter holds for all the steps that follow; after a move they are lines.
        text += (" " if command == before else command.lower()) + " ".join(steps)
        before = "L" if command == "M" else command
    return re.sub(r" (?=-)|(?<!\d)0(?=\.)", "", text)


def _rounded(text: str, decimals: int) -> str:
    return _NUMBER.sub(lambda found: f"{float(found[0]):.{decimals}f}".rstrip("0").removesuffix("."), text)


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
