"""Texts measured, set and embedded once: the same names and numbers stand in many figures and in every format.

matplotlib shapes each text anew whenever it is measured or drawn, and cuts a font anew for every file. What is kept
here is what matplotlib found itself; the names it is found under are private and those of one release. With any other
release nothing is kept, which costs time and changes nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import matplotlib
from fontTools import subset
from fontTools.ttLib import TTFont
from matplotlib import ft2font
from matplotlib.backends import _backend_pdf_ps, backend_agg, backend_pdf
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from matplotlib.textpath import TextToPath

KNOWN = (3, 11)  # the release whose private names these are
# What figures are written with nearly always: files that hold all of it hold the same cut of the font.
USUAL = "".join(map(chr, range(0x20, 0x7F))) + "–…−±×Δα‖∞"


@contextlib.contextmanager
def remembered_texts() -> Iterator[None]:
    """Inside, matplotlib measures, shapes and embeds equal texts once. For one thread only."""
    if matplotlib.__version_info__[:2] != KNOWN:
        yield
        return
    shapes = _Shapes()
    with contextlib.ExitStack() as undone:
        for owner, name, kept in (
            (Text, "_get_layout", _kept_boxes),
            (TextToPath, "get_glyphs_with_font", partial(_kept_outlines, shapes=shapes)),
            (backend_agg.RendererAgg, "get_text_width_height_descent", _kept_sizes),
            (backend_agg.RendererAgg, "draw_text", _kept_pixels),
            (backend_pdf, "_text_helpers", partial(_kept_shapes, shapes=shapes)),
            (_backend_pdf_ps, "get_glyphs_subset", _kept_cuts),
        ):
            original = getattr(owner, name)
            undone.callback(setattr, owner, name, original)
            setattr(owner, name, kept(original))
        yield


def _kept_boxes(work_out: Callable[[Text, Any], Any]) -> Callable[[Text, Any], Any]:
    """The boxes of a text relative to where it stands, by all that they depend on."""
    found: dict[Any, Any] = {}

    def kept(text: Text, renderer: Any) -> Any:
        if text.get_wrap() or text.get_usetex():
            return work_out(text, renderer)
        key = (
            text.get_text(),
            hash(text.get_fontproperties()),
            text.get_rotation(),
            text.get_rotation_mode(),
            text.get_horizontalalignment(),
            text.get_verticalalignment(),
            text._get_multialignment(),  # type: ignore[attr-defined]
            text._linespacing,  # type: ignore[attr-defined]
            text.get_parse_math(),
            text.get_figure(root=True).dpi,  # type: ignore[union-attr]
            # Pixels are measured hinted, everything else is not.
            isinstance(renderer, backend_agg.RendererAgg) or hasattr(renderer, "draw_artist"),
        )
        if key not in found:
            found[key] = work_out(text, renderer)
        box, lines, corner = found[key]
        # A box of their own: who asks may move it.
        return box.frozen(), lines, corner

    return kept


def _kept_sizes(work_out: Callable[..., Any]) -> Callable[..., Any]:
    """Width, height and descent of a line in pixels."""
    found: dict[Any, Any] = {}

    def kept(renderer: Any, s: str, prop: FontProperties, ismath: Any) -> Any:
        key = s, hash(prop), ismath, renderer.dpi
        if key not in found:
            found[key] = work_out(renderer, s, prop, ismath)
        return found[key]

    return kept


def _kept_pixels(draw: Callable[..., None]) -> Callable[..., None]:
    """A level line drawn as pixels: letters shaped once, each made into pixels once for every quarter of a pixel.

    Its foot stands on a whole pixel, as matplotlib had it up to 3.10. What takes most of matplotlib's time is that it
    sets the size of the font anew for every letter, after which FreeType works out anew how that size is hinted.
    """
    lines: dict[Any, list[Any]] = {}
    letters: dict[Any, Any] = {}

    def letter(renderer: Any, item: Any, size: float, quarter: int) -> Any:
        font = item.ft_object
        key = font, item.glyph_index, size, renderer.dpi, quarter
        if key not in letters:
            font.set_size(size, renderer.dpi)
            font._set_transform([[0x10000, 0], [0, 0x10000]], [0x10 * quarter, 0])
            mode = ft2font.RenderMode.NORMAL
            bitmap = font._render_glyph(item.glyph_index, backend_agg.get_hinting_flag(), mode)
            letters[key] = bitmap.buffer, bitmap.left, bitmap.top
        return letters[key]

    def kept(
        renderer: Any, gc: Any, x: float, y: float, s: str, prop: Any, angle: float, ismath: Any = False,
        mtext: Any = None,
    ) -> None:  # fmt: skip
        if ismath or angle or not gc.get_antialiased():
            draw(renderer, gc, x, y, s, prop, angle, ismath, mtext)
            return
        size = prop.get_size_in_points()
        features = mtext.get_fontfeatures() if mtext is not None else None
        language = mtext.get_language() if mtext is not None else None
        key = s, hash(prop), renderer.dpi, features, language
        if key not in lines:
            font, flags = renderer._prepare_font(prop), backend_agg.get_hinting_flag()
            lines[key] = font._layout(s, flags=flags, features=features, language=language)
        foot = round(y)
        for item in lines[key]:
            whole, quarter = divmod(round(4 * (x + item.x)), 4)
            pixels, left, top = letter(renderer, item, size, quarter)
            if pixels.size:
                place = whole + left, foot - round(item.y) - top + len(pixels)
                renderer._renderer.draw_text_image(pixels, *place, 0, gc)

    return kept


class _Shapes:
    """The letters of texts and their places, at the size at which outlines are taken and without hints.

    What is not hinted is as good at any size but for the scale.
    """

    def __init__(self) -> None:
        self._found: dict[Any, list[Any]] = {}

    def __call__(self, s: str, font: Any, features: Any, language: Any) -> list[Any]:
        key = s, font, features, language
        if key not in self._found:
            font.set_size(TextToPath.FONT_SCALE, TextToPath.DPI)
            flags = ft2font.LoadFlags.NO_HINTING
            self._found[key] = font._layout(s, flags, features=features, language=language)
        return self._found[key]


def _kept_outlines(work_out: Callable[..., Any], shapes: _Shapes) -> Callable[..., Any]:
    """The outlines of a text's letters, which SVG draws."""
    outlines: dict[Any, Any] = {}

    def kept(
        maker: Any, font: Any, s: str, glyph_map: Any = None, return_new_glyphs_only: bool = False, *,
        features: Any = None, language: Any = None,
    ) -> Any:  # fmt: skip
        if glyph_map is None or not return_new_glyphs_only:
            return work_out(maker, font, s, glyph_map, return_new_glyphs_only, features=features, language=language)
        placed, new = [], {}
        for item in shapes(s, font, features, language):
            letter = item.ft_object, item.glyph_index
            if letter not in outlines:
                item.ft_object.set_size(TextToPath.FONT_SCALE, TextToPath.DPI)
                item.ft_object.load_glyph(item.glyph_index, flags=ft2font.LoadFlags.NO_HINTING)
                outlines[letter] = maker._get_glyph_repr(*letter), item.ft_object.get_path()
            name, path = outlines[letter]
            placed.append((name, item.x, item.y, 1.0))
            if name not in glyph_map:
                new[name] = path
        return placed, new, []

    return kept


def _kept_shapes(helpers: Any, shapes: _Shapes) -> Any:
    """The letters of a text and their places, which PDF writes."""

    def size(font: Any) -> float:
        # A font cannot be asked for its size, but one of its letters can: its advance in 1/65536 of a pixel.
        return float(font.load_glyph(0, flags=ft2font.LoadFlags.NO_HINTING).linearHoriAdvance)

    def layout(string: str, font: Any, *, features: Any = None, language: Any = None) -> Iterator[Any]:
        wanted = size(font)
        items = shapes(string, font, features, language)
        font.set_size(TextToPath.FONT_SCALE, TextToPath.DPI)
        scale = wanted / size(font)
        for item in items:
            yield SimpleNamespace(
                ft_object=item.ft_object,
                char=item.char,
                glyph_index=item.glyph_index,
                x=item.x * scale,
                y=item.y * scale,
                prev_kern=item.prev_kern * scale,
            )

    return SimpleNamespace(layout=layout)


class _Cut:
    """A font cut down to some letters and saved, as matplotlib handles one: saved again, and left again."""

    def __init__(self, data: bytes, places: dict[int, int]) -> None:
        self._data, self.font, self.glyph_index_map = data, self, places

    def save(self, file: BytesIO, reorderTables: bool | None = True) -> None:
        """Write it, see fontTools."""
        file.write(self._data)

    def __enter__(self) -> _Cut:
        return self

    def __exit__(self, *exception: object) -> None:
        pass


def _kept_cuts(cut: Callable[..., Any]) -> Callable[..., Any]:
    """A font cut down to the letters of a file, and to those that are usual, without the hints for coarse screens."""
    found: dict[Any, _Cut] = {}
    usual: dict[Any, set[int]] = {}

    def kept(fontfile: Any, glyphs: Iterable[int]) -> Any:
        with TTFont(fontfile, fontNumber=fontfile.face_index, lazy=True, recalcBBoxes=False) as font:
            if "glyf" not in font:
                return cut(fontfile, glyphs)
            if fontfile not in usual:
                known = font.getBestCmap()
                usual[fontfile] = {font.getGlyphID(known[code]) for code in map(ord, USUAL) if code in known}
            key = fontfile, frozenset({*glyphs, *usual[fontfile]})
            if key not in found:
                options = subset.Options(hinting=False, layout_features=[], notdef_outline=True)
                subsetter = subset.Subsetter(options)
                subsetter.populate(gids=key[1])
                subsetter.subset(font)
                data = BytesIO()
                font.save(data, reorderTables=False)
                found[key] = _Cut(data.getvalue(), subsetter.glyph_index_map)
        return found[key]

    return kept
