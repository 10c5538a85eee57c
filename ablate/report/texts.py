"""Texts measured, set and embedded once: the same names and numbers stand in many figures and in every format.

matplotlib shapes each text anew whenever it is measured or drawn, and cuts a font anew for every file. What is kept
here is what matplotlib found itself; the names it is found under are private and those of one release. With any other
release nothing is kept, which costs time and changes nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
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
    with contextlib.ExitStack() as undone:
        for owner, name, kept in (
            (Text, "_get_layout", _kept_boxes),
            (TextToPath, "get_glyphs_with_font", _kept_outlines),
            (backend_agg.RendererAgg, "get_text_width_height_descent", _kept_sizes),
            (backend_agg.RendererAgg, "draw_text", _kept_pixels),
            (backend_pdf, "_text_helpers", _kept_shapes),
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
    """A line drawn as pixels, letters shaped once. As matplotlib does it, but for the size of the font.

    It sets the size anew for every letter, after which FreeType works out anew how that size is hinted: three quarters
    of the time.
    """
    found: dict[Any, Any] = {}
    turn = backend_agg.RendererAgg._draw_text_glyphs_and_boxes

    class SizedOnce:
        """A font whose size is set already."""

        def __init__(self, font: Any) -> None:
            self._set_transform, self._render_glyph = font._set_transform, font._render_glyph

        def set_size(self, size: float, dpi: float) -> None:
            """Nothing: see above."""

    def kept(
        renderer: Any, gc: Any, x: float, y: float, s: str, prop: Any, angle: float, ismath: Any = False,
        mtext: Any = None,
    ) -> None:  # fmt: skip
        if ismath:
            draw(renderer, gc, x, y, s, prop, angle, ismath, mtext)
            return
        size = prop.get_size_in_points()
        features = mtext.get_fontfeatures() if mtext is not None else None
        language = mtext.get_language() if mtext is not None else None
        key = s, hash(prop), renderer.dpi, features, language
        if key not in found:
            font = renderer._prepare_font(prop)
            items = font._layout(s, flags=backend_agg.get_hinting_flag(), features=features, language=language)
            fonts = {id(item.ft_object): item.ft_object for item in items}
            sized = {name: SizedOnce(font) for name, font in fonts.items()}
            placed = [(sized[id(item.ft_object)], size, item.glyph_index, 0, 1, item.x, item.y) for item in items]
            found[key] = list(fonts.values()), placed
        fonts, placed = found[key]
        for font in fonts:
            font.set_size(size, renderer.dpi)
        turn(renderer, gc, x, y, angle, placed, [])

    return kept


def _kept_outlines(work_out: Callable[..., Any]) -> Callable[..., Any]:
    """The outlines of a text's letters, which SVG draws."""
    found: dict[Any, Any] = {}

    def kept(
        maker: Any, font: Any, s: str, glyph_map: Any = None, return_new_glyphs_only: bool = False, *,
        features: Any = None, language: Any = None,
    ) -> Any:  # fmt: skip
        if glyph_map is None or not return_new_glyphs_only:
            return work_out(maker, font, s, glyph_map, return_new_glyphs_only, features=features, language=language)
        key = s, font, features, language
        if key not in found:
            found[key] = work_out(maker, font, s, {}, True, features=features, language=language)
        placed, outlines, boxes = found[key]
        return placed, {name: path for name, path in outlines.items() if name not in glyph_map}, boxes

    return kept


def _kept_shapes(helpers: Any) -> Any:
    """The letters of a text and their places, which PDF writes."""
    found: dict[Any, Any] = {}

    def layout(string: str, font: Any, *, features: Any = None, language: Any = None) -> Iterable[Any]:
        # A font cannot be asked for its size, but one of its letters can: its advance in 1/65536 of a pixel.
        size = font.load_glyph(1, flags=ft2font.LoadFlags.NO_HINTING).linearHoriAdvance
        key = string, font, size, features, language
        if key not in found:
            found[key] = list(helpers.layout(string, font, features=features, language=language))
        return found[key]

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
        with TTFont(fontfile, fontNumber=fontfile.face_index, lazy=True) as font:
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
