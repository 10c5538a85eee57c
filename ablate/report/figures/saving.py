"""Figures to files: every registered figure drawn once and saved by matplotlib, equal figures as equal bytes."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ablate.analysis.analyse import Analysis
from ablate.parallel import parallel_map, usable_cores
from ablate.records.files import make_folder, write_atomic
from ablate.registry import FIGURES, Place
from ablate.report.figures.consolidated import draw_consolidated
from ablate.report.figures.inline import adaptive, curve_values, lean, svg_uri
from ablate.report.figures.panels import variant_panel
from ablate.report.figures.theme import SINGLE, theme
from ablate.report.lookup import NotDrawn, made, order

FORMATS = ("png", "svg")
DPI = 200
# The sheet of all variants' predictions: the page has the same pictures in its tabs.
FILE_ONLY = "panels"
# Every format by the entries of its metadata that would hold the time.
_TIMES: dict[str, tuple[str, ...]] = {"png": (), "svg": ("Date",), "pdf": ("CreationDate", "ModDate")}
_TIME = "SOURCE_DATE_EPOCH"


@dataclass(frozen=True)
class Shown:
    """One drawing of a figure on the page: an SVG as a data URI, its size in pixels of CSS, curves and caption.

    `kind` is "narrow" for one that is made for a phone.
    """

    source: str
    width: int
    height: int
    curves: Sequence[dict[str, Any]]
    rule: str
    kind: str


@dataclass(frozen=True)
class Drawn:
    """The outcome of one figure: its files, what the page shows of it, or the reason why there is none."""

    name: str
    title: str
    section: str
    files: tuple[Path, ...] = ()
    reason: str = ""
    shown: Sequence[Shown] = ()
    """How the page shows it, on a wide screen and, where that differs, on a narrow one."""


def panel_names(analysis: Analysis) -> dict[str, str]:
    """Return the variants' own panels by the names of their files.

    A variant's name may be anything; the file is numbered, and named as far as a file's name allows.
    """
    return {
        f"panel_{place}_{''.join(c if c.isalnum() and c.isascii() else '-' for c in variant)[:40]}": variant
        for place, variant in enumerate(order(analysis))
    }


def draw_all(
    analysis: Analysis, names: Sequence[str], folder: Path, formats: Mapping[str, Sequence[str]]
) -> list[Drawn]:
    """Draw the named figures and panels by several processes, those in `formats` into the folder, too.

    Every registered figure is drawn for the page too, as an SVG, whatever the formats. Raises `PluginError` where the
    function of a plugin fails.
    """
    # Another process knows the built-in figures only, and only what can be packed travels to it.
    ours = [name for name in names if name not in FIGURES or FIGURES.get(name).__module__.startswith("ablate.")]
    # Figures of one file stay together: what they have in common is computed once.
    files: dict[str, list[str]] = {}
    for name in ours:
        files.setdefault(FIGURES.get(name).__module__ if name in FIGURES else name, []).append(name)
    together = [*files.values()]
    cores = range(usable_cores())
    groups = [[name for part in together[start :: len(cores)] for name in part] for start in cores]
    draw = partial(_draw_some, analysis, folder=folder, formats=formats)
    drawn = [one for part in parallel_map(draw, [group for group in groups if group]) for one in part]
    drawn += draw([name for name in names if name not in ours])
    return sorted(drawn, key=lambda one: names.index(one.name))


def _draw_some(
    analysis: Analysis, names: Sequence[str], *, folder: Path, formats: Mapping[str, Sequence[str]]
) -> list[Drawn]:
    with theme(), timeless():
        return [_draw(analysis, name, folder, formats.get(name, ())) for name in names]


def _draw(analysis: Analysis, name: str, folder: Path, formats: Sequence[str]) -> Drawn:
    variant = panel_names(analysis).get(name)
    place = FIGURES.place(name) if variant is None else Place(name, "", 0)
    try:
        figure = variant_panel(analysis, variant) if variant is not None else made(FIGURES, name, analysis)
    except NotDrawn as reason:
        _remove(folder, name, [*_TIMES, "txt"])
        return Drawn(name, place.title, place.section, reason=str(reason))
    encoded = encode(figure, list(dict.fromkeys([*formats, *(["svg"] if variant is None else [])])))
    if formats:
        _remove(folder, name, [kind for kind in _TIMES if kind not in formats])
    files = tuple(folder / f"{name}.{kind}" for kind in formats)
    for path in files:
        make_folder(folder)
        data = encoded[path.suffix[1:]]
        write_atomic(path, lean(data.decode()).encode() if path.suffix == ".svg" else data, lasting=False)
    rule = str(figure.get_label())
    if formats and rule:
        # The caption, for whoever passes the figure on.
        write_atomic(folder / f"{name}.txt", f"{rule}\n".encode(), lasting=False)
    if variant is not None or name == FILE_ONLY:
        return Drawn(name, place.title, place.section, files)
    shown = [_shown(figure, encoded["svg"])]
    if name == "consolidated":
        figure = draw_consolidated(analysis, SINGLE)
        shown.append(_shown(figure, encode(figure, ["svg"])["svg"], "narrow"))
    return Drawn(name, place.title, place.section, files, "", shown)


def _shown(figure: Figure, svg: bytes, kind: str = "") -> Shown:
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    rule = str(figure.get_label())
    return Shown(svg_uri(adaptive(svg.decode())), width, height, curve_values(figure), rule, kind)


def _remove(folder: Path, name: str, kinds: Sequence[str]) -> None:
    """Remove files of an earlier state, which would contradict the page."""
    for kind in kinds:
        (folder / f"{name}.{kind}").unlink(missing_ok=True)


def encode(figure: Figure, kinds: Sequence[str]) -> dict[str, bytes]:
    """Return the figure as PNG, SVG or PDF, without the time it was made at: equal figures give equal bytes.

    It is laid out once, at the resolution of the pixels, at which letters are measured best.
    """
    figure.set_dpi(DPI)
    FigureCanvasAgg(figure)
    layout = figure.get_layout_engine()
    if layout is not None:
        layout.execute(figure)
    encoded = {}
    # With None, where "none" would keep an engine that does nothing and have matplotlib draw every file twice.
    with matplotlib.rc_context({"figure.constrained_layout.use": False}):
        figure.set_layout_engine(None)
        for kind in kinds:
            data = io.BytesIO()
            dpi = DPI if kind == "png" else 72
            figure.savefig(data, format=kind, dpi=dpi, metadata=dict.fromkeys(_TIMES[kind]))
            encoded[kind] = data.getvalue()
    return encoded


@contextlib.contextmanager
def timeless() -> Iterator[None]:
    """Keep the time out of the fonts embedded in a PDF, which fontTools writes into each.

    The variable is that of reproducible-builds.org; what the user has set stays.
    """
    if _TIME in os.environ:
        yield
        return
    os.environ[_TIME] = "0"
    try:
        yield
    finally:
        del os.environ[_TIME]
