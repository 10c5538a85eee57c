"""A figure drawn once and written in several formats: what is drawn as pixels is kept, and played to the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.backend_bases import GraphicsContextBase, RendererBase
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.transforms import Affine2D, Bbox, Transform, TransformedPath

_RASTER = ("start_rasterizing", "stop_rasterizing")


class _Matrix:
    """A transform as it was, for artists and figures go on changing theirs."""

    def __init__(self, transform: Transform) -> None:
        self.values = np.array(transform.get_matrix(), dtype=float)


class _Context:
    """A graphics context as it was."""

    def __init__(self, gc: GraphicsContextBase, seen: dict[Any, Any]) -> None:
        self.properties = GraphicsContextBase()
        self.properties.copy_properties(gc)
        box, (path, transform) = gc.get_clip_rectangle(), gc.get_clip_path()
        self.properties.set_clip_rectangle(None)
        self.properties.set_clip_path(None)
        # One object for equal clips: SVG tells them apart by their identity.
        self.box = None if box is None else seen.setdefault(box.bounds, box.bounds)
        self.clip: tuple[Path, _Matrix] | None = None
        if path is not None and transform is not None:
            self.clip = seen.setdefault((id(path), str(transform)), (path, _Matrix(transform)))


class _Player:
    """Kept calls as calls of another renderer, `scale` times as large as they were kept."""

    def __init__(self, renderer: RendererBase, scale: float, height: float) -> None:
        self._renderer, self._scale, self._height = renderer, scale, height
        self._clips: dict[int, Any] = {}

    def draw(self, name: str, kept: _Context, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        """Call the renderer's method of that name."""
        given: list[Any] = [self._transform(arg) if isinstance(arg, _Matrix) else arg for arg in args]
        if name == "draw_text":
            # From the top, or from the foot of the picture.
            y = self._scale * given[1]
            given[:2] = self._scale * given[0], y if self._renderer.flipy() else self._scale * self._height - y
        gc = self._context(kept)
        getattr(self._renderer, name)(gc, *given, **options)
        gc.restore()

    def _transform(self, kept: _Matrix) -> Affine2D:
        values = kept.values * self._scale
        values[2, 2] = 1.0
        return Affine2D(values)

    def _context(self, kept: _Context) -> GraphicsContextBase:
        gc = self._renderer.new_gc()
        gc.copy_properties(kept.properties)
        if (box := kept.box) is not None:
            gc.set_clip_rectangle(self._once(box, lambda: Bbox.from_bounds(*(self._scale * end for end in box))))
        if (clip := kept.clip) is not None:
            gc.set_clip_path(self._once(clip, lambda: TransformedPath(clip[0], self._transform(clip[1]))))
        return gc

    def _once(self, kept: Any, make: Callable[[], Any]) -> Any:
        if id(kept) not in self._clips:
            self._clips[id(kept)] = make()
        return self._clips[id(kept)]


class Tape(RendererBase):
    """Draws with a renderer of pixels and keeps what it was told to draw.

    Kept are the public calls of matplotlib's renderers, with their transforms as they are then. Sizes of letters and
    widths of lines are in points and stay. What each format draws in its own way (plain images, TeX, filters of
    pixels) is not kept: then `whole` is False, and the figure must be drawn anew for every format.
    """

    def __init__(self, pixels: RendererBase, dpi: float) -> None:
        super().__init__()
        self.dpi, self.whole = dpi, True
        self._pixels, self._height = pixels, pixels.get_canvas_width_height()[1]
        self._calls: list[tuple[str, _Context | None, tuple[Any, ...], dict[str, Any]]] = []
        self._seen: dict[Any, Any] = {}

    def play(self, renderer: RendererBase, figure: Figure) -> None:
        """Draw what was kept once more, with a renderer of the same picture at the figure's resolution of now."""
        player = _Player(renderer, figure.dpi / self.dpi, self._height)
        for name, kept, args, options in self._calls:
            if name == "draw_artist":
                args[0].draw(renderer)
            elif kept is not None:
                player.draw(name, kept, args, options)
            else:
                getattr(renderer, name)(*args)
                if name in _RASTER:
                    # What is to be pixels everywhere has a resolution of its own.
                    player = _Player(renderer, figure.dpi / self.dpi, self._height)

    def _keep(self, name: str, gc: GraphicsContextBase | None, *args: Any, **options: Any) -> None:
        kept = tuple(_Matrix(arg) if isinstance(arg, Transform) else arg for arg in args)
        self._calls.append((name, None if gc is None else _Context(gc, self._seen), kept, options))

    # The names and arguments are those of matplotlib's renderers.

    def draw_path(self, gc: Any, path: Path, transform: Transform, rgbFace: Any = None) -> None:
        """Draw and keep."""
        self._pixels.draw_path(gc, path, transform, rgbFace)
        self._keep("draw_path", gc, path, transform, rgbFace)

    def draw_markers(self, gc: Any, *args: Any, **options: Any) -> None:
        """Draw and keep."""
        self._pixels.draw_markers(gc, *args, **options)
        self._keep("draw_markers", gc, *args, *options.values())

    def draw_path_collection(self, gc: Any, *args: Any, **options: Any) -> None:
        """Draw and keep."""
        self._pixels.draw_path_collection(gc, *args, **options)
        self._keep("draw_path_collection", gc, *args, **options)

    def draw_quad_mesh(self, gc: Any, *args: Any) -> None:
        """Draw and keep."""
        self._pixels.draw_quad_mesh(gc, *args)
        self._keep("draw_quad_mesh", gc, *args)

    def draw_gouraud_triangles(self, gc: Any, *args: Any) -> None:
        """Draw and keep."""
        self._pixels.draw_gouraud_triangles(gc, *args)
        self._keep("draw_gouraud_triangles", gc, *args)

    def draw_text(self, gc: Any, x: float, y: float, s: str, *args: Any, **options: Any) -> None:
        """Draw and keep."""
        self._pixels.draw_text(gc, x, y, s, *args, **options)
        self._keep("draw_text", gc, x, y, s, *args, **options)

    def open_group(self, s: str, gid: str | None = None) -> None:
        """Keep: pixels have no groups."""
        self._keep("open_group", None, s, gid)

    def close_group(self, s: str) -> None:
        """Keep: pixels have no groups."""
        self._keep("close_group", None, s)

    def draw_artist(self, artist: Artist) -> None:
        """Draw an artist that every format draws in its own way, and keep it as what it is."""
        artist.draw(self._pixels)
        self._calls.append(("draw_artist", None, (artist,), {}))

    def start_rasterizing(self) -> None:
        """Keep: pixels are pixels already."""
        self._keep("start_rasterizing", None)

    def stop_rasterizing(self) -> None:
        """Keep: pixels are pixels already."""
        self._keep("stop_rasterizing", None)

    # What cannot be kept.

    def draw_image(self, gc: Any, *args: Any, **options: Any) -> None:
        """Draw only."""
        self.whole = False
        self._pixels.draw_image(gc, *args, **options)

    def draw_tex(self, gc: Any, *args: Any, **options: Any) -> None:
        """Draw only."""
        self.whole = False
        self._pixels.draw_tex(gc, *args, **options)

    def start_filter(self) -> None:
        """As the renderer does."""
        self.whole = False
        self._pixels.start_filter()

    def stop_filter(self, filter_func: Any) -> None:
        """As the renderer does."""
        self._pixels.stop_filter(filter_func)

    # What artists ask.

    def get_text_width_height_descent(self, s: str, prop: Any, ismath: Any) -> tuple[float, float, float]:
        """As the renderer does."""
        return self._pixels.get_text_width_height_descent(s, prop, ismath)

    def get_canvas_width_height(self) -> tuple[float, float]:
        """As the renderer does."""
        return self._pixels.get_canvas_width_height()

    def points_to_pixels(self, points: Any) -> Any:
        """As the renderer does."""
        return self._pixels.points_to_pixels(points)

    def new_gc(self) -> GraphicsContextBase:
        """As the renderer does."""
        return self._pixels.new_gc()

    def flipy(self) -> bool:
        """As the renderer does."""
        return self._pixels.flipy()

    def get_image_magnification(self) -> float:
        """As the renderer does."""
        return self._pixels.get_image_magnification()

    def option_image_nocomposite(self) -> bool:
        """As the renderer does."""
        return self._pixels.option_image_nocomposite()
