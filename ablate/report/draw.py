"""Figures to files: every registered figure drawn once, laid out once, and encoded in all its formats."""

from __future__ import annotations

import gc
import io
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext as uncollected
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from ablate.analysis.analyse import Analysis
from ablate.parallel import _leave_interrupts as leave_interrupts
from ablate.parallel import usable_cores
from ablate.records.files import write_atomic
from ablate.registry import FIGURES
from ablate.report import figures
from ablate.report.figures.common import NotDrawn, order
from ablate.report.figures.panels import variant_panel
from ablate.report.fonts import quick_font
from ablate.report.page import Drawing
from ablate.report.png import png
from ablate.report.style import theme
from ablate.report.svg import adaptive, data_uri
from ablate.report.tape import Tape
from ablate.report.ticks import remember_ticks, settle_titles

FORMATS = ("png", "svg", "pdf")
DPI = 200


@dataclass(frozen=True)
class Drawn:
    """What came of one figure: its files, what the page shows, or why there is none."""

    name: str
    title: str
    files: tuple[Path, ...] = ()
    shown: Drawing | None = None
    reason: str = ""


def figure_names() -> list[str]:
    """Every registered figure: those of the report in their order, then those of plugins."""
    return [*figures.ORDER, *(name for name in FIGURES if name not in figures.ORDER)]


def panel_names(analysis: Analysis) -> dict[str, str]:
    """The variants' own panels by the names of their files.

    A variant's name may be anything; the file is numbered, and named as far as a file's name allows.
    """
    return {
        f"panel_{place}_{''.join(c if c.isalnum() and c.isascii() else '-' for c in variant)[:40]}": variant
        for place, variant in enumerate(order(analysis))
    }


def draw_all(
    analysis: Analysis, names: Sequence[str], folder: Path, formats: Sequence[str], meanwhile: Callable[[], None]
) -> list[Drawn]:
    """Draw the named figures and panels in a few processes, and call `meanwhile` while they work.

    Forked processes share what was computed. Where other threads run a fork is not safe: then all is done here.
    """
    global _analysis, _family
    _analysis = analysis
    processes = min(usable_cores(), len(names))
    with quick_font() as _family:
        if processes < 2:
            meanwhile()
            return _draw(names, folder, tuple(formats))
        with ProcessPoolExecutor(processes, mp_context=get_context("fork"), initializer=leave_interrupts) as pool:
            waiting = [pool.submit(_draw, job, folder, tuple(formats)) for job in jobs(names)]
            try:
                meanwhile()
                drawn = {one.name: one for done in waiting for one in done.result()}
                return [drawn[name] for name in names]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


# Drawn by one process: seaborn, which both need, takes as long to import as one of them to draw.
_TOGETHER = ("consolidated", "maps")
# What takes longest, begun first so that the processes end together.
_LONGEST = ("curves_by_rate", "streams", "contrasts", "detail", "gradients", "rates", "classes")


def jobs(names: Sequence[str]) -> list[tuple[str, ...]]:
    """The figures as they are handed out to processes: every name once, those that take longest first."""
    together = tuple(name for name in names if name in _TOGETHER)
    longest = [name for name in _LONGEST if name in names]
    rest = [name for name in names if name not in _TOGETHER and name not in _LONGEST]
    return [*([together] if together else []), *((name,) for name in [*longest, *rest])]


# What the forked processes draw, and in which font: set before they start.
_analysis: Analysis
_family: str


def _draw(names: Sequence[str], folder: Path, formats: tuple[str, ...]) -> list[Drawn]:
    """Figures, without the collector of cycles in between: a look through all that was read takes longer."""
    drawn = []
    with uncollected():
        for name in names:
            drawn.append(_made(name, folder, formats))
            # What the figure leaves behind is young and in circles.
            gc.collect(0)
    return drawn


def _made(name: str, folder: Path, formats: tuple[str, ...]) -> Drawn:
    variant = panel_names(_analysis).get(name)
    title = figures.TITLES.get(name, name.replace("_", " "))
    with theme(_family):
        try:
            figure = FIGURES.get(name)(_analysis) if variant is None else variant_panel(_analysis, variant)
        except NotDrawn as reason:
            for kind in FORMATS:
                # A figure of an earlier state would contradict the page.
                (folder / f"{name}.{kind}").unlink(missing_ok=True)
            return Drawn(name, title, reason=str(reason))
        remember_ticks(figure)
        # The page shows every figure but the variants' own panels as SVG.
        shown = variant is None
        encoded = encode(figure, dict.fromkeys([*formats, *(["svg"] if shown else [])]))
    files = []
    for kind in formats:
        folder.mkdir(exist_ok=True)
        path = folder / f"{name}.{kind}"
        write_atomic(path, encoded[kind], lasting=False)
        files.append(path)
    return Drawn(name, title, tuple(files), drawing(figure, encoded["svg"], name, title) if shown else None)


def encode(figure: Figure, kinds: Iterable[str]) -> dict[str, bytes]:
    """The figure as PNG, SVG or PDF, without the time it was made at: equal figures give equal bytes.

    It is laid out and drawn once, at the resolution of the pixels, at which letters are measured best. The other
    formats get what was drawn from a tape; where not all of it could be kept on one, they draw it anew.
    """
    figure.set_dpi(DPI)
    pixels = FigureCanvasAgg(figure).get_renderer()
    tape = Tape(pixels, DPI)
    figure.draw(tape)
    # Everything has its place now.
    figure.set_layout_engine("none")
    settle_titles(figure)
    if tape.whole:
        # The canvases of the other formats set 72 dots an inch and have the figure draw itself.
        figure.draw = lambda renderer: tape.play(renderer, figure)  # type: ignore[method-assign]
    return {kind: _encoded(figure, kind, np.asarray(pixels.buffer_rgba())) for kind in kinds}


def _encoded(figure: Figure, kind: str, pixels: np.ndarray) -> bytes:
    # Straight to the canvas: `savefig` would draw everything a second time to find out its size.
    if kind == "svg":
        # As text: a writer that encodes every piece by itself takes longer.
        text = io.StringIO()
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None})
        return text.getvalue().encode()
    if kind == "png":
        return png(pixels, DPI)
    data = io.BytesIO()
    if kind == "pdf":
        FigureCanvasPdf(figure).print_pdf(data, metadata={"CreationDate": None, "ModDate": None})
    else:
        raise ValueError(f"unknown format '{kind}': choose from {', '.join(FORMATS)}")
    return data.getvalue()


def drawing(figure: Figure, svg: bytes, name: str, title: str) -> Drawing:
    """The figure as the page shows it: an SVG that follows light and dark, with its rule as alternative text."""
    width, height = figure.get_size_inches()
    rule = next((text.get_text() for text in figure.texts if text.get_gid() == "rule"), "")
    return Drawing(
        name,
        title,
        " ".join(rule.split()),
        data_uri(adaptive(svg), "image/svg+xml"),
        round(96 * width),
        round(96 * height),
    )
