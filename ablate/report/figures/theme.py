"""The look of every figure: fonts, colours, lines and marks of the variants, the legend, the caption.

Nothing here knows a study; nothing is set at import.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import matplotlib.style
from matplotlib import font_manager
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ablate.report.format import short_names

# The colours of the variants, on a light and on a dark page: what is nearly black there becomes nearly white here.
# Lightness alternates between neighbours: the first four are told apart in grey by it alone, the others by line and
# marker too. Simulated colour blindness keeps neighbours distinct; a test computes both.
INKS = {
    "#22304f": "#dfe7f7",  # ink blue, the baseline
    "#d1442f": "#ef6b57",  # vermilion
    "#3fa0d8": "#4fb0e8",  # sky
    "#f2b134": "#f2b134",  # amber
    "#77318c": "#c184d6",  # purple
    "#6bbf8a": "#6bbf8a",  # mint
    "#0c6b58": "#2fa68c",  # pine
    "#7a1f2b": "#b8606e",  # wine
    "#ec8fb5": "#ec8fb5",  # pink
    "#8a5a2b": "#c08b55",  # brown
    "#b3a5e8": "#b3a5e8",  # lavender
    "#bccf3a": "#bccf3a",  # lime
}
COLORS, DARK_COLORS = tuple(INKS), tuple(INKS.values())
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (2.5, 1)))

INK = "#1f2328"
MUTED = "#626b76"
GRID = "#e3e6ea"
PAPER = "#ffffff"
ALARM = "#b3261e"
# What a dark page replaces in an SVG: see `ablate.report.figures.saving`.
DARK = {INK: "#e6e9ee", MUTED: "#9aa4b1", GRID: "#333a44", PAPER: "#14171c", ALARM: "#ff8a80"} | INKS

FAMILY = "DejaVu Sans"  # comes with matplotlib: the same figure on every machine
# Fonts that systems have for the letters of names that DejaVu Sans has not: Chinese, Japanese, Korean, Indic, Thai.
FURTHER = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Noto Sans JP", "WenQuanYi Micro Hei", "IPAexGothic"),
    *("Hiragino Sans", "PingFang SC", "Apple SD Gothic Neo", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic"),
    *("Noto Sans Devanagari", "Noto Sans Thai", "Nirmala UI", "Leelawadee UI"),
)

FULL = 7.0  # inches, the width of a page's text
SINGLE = 3.5  # inches, the width of one of its two columns
BAD = "#c9ced6"  # cells without a number

RC: dict[str, Any] = {
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "axes.facecolor": "none",
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 6.0,
    "axes.labelsize": 8.0,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "text.color": INK,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.0,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "svg.fonttype": "path",  # no text of the reader's fonts, whose widths would make labels overlap
    "svg.hashsalt": "ablate",  # equal figures, equal bytes
    "pdf.fonttype": 42,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.05,
    "figure.constrained_layout.w_pad": 0.05,
}


@cache
def further_families() -> tuple[str, ...]:
    """Return those of the fonts for other scripts that are installed, for the letters that DejaVu Sans has not."""
    known = {entry.name for entry in font_manager.fontManager.ttflist}
    return tuple(name for name in FURTHER if name in known)


@contextlib.contextmanager
def theme() -> Iterator[None]:
    """Apply the settings of every figure while it is drawn and saved; the user's matplotlibrc takes no part."""
    # In this order: a letter that the first font has not is taken from the next.
    families = {"font.family": [FAMILY, *further_families()]}
    with matplotlib.style.context(["default", RC | families]), warnings.catch_warnings():
        # A letter that no font here has is drawn as an empty box: to be told so for every figure helps nobody.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


# Rows of a legend that a figure has room for, and the inches that one more takes.
LEGEND_ROWS, LEGEND_LINE = 4, 0.16


@dataclass(frozen=True)
class Look:
    """The look of one variant in every figure: colour, dash pattern, marker."""

    color: str
    dash: Any
    marker: str

    def line(self, **changes: Any) -> dict[str, Any]:
        """Return the arguments of `Axes.plot` for a curve of this variant."""
        return {"color": self.color, "linestyle": self.dash, **changes}


def looks(variants: Sequence[str]) -> dict[str, Look]:
    """Return a look for each variant, in the study's order, the baseline first; no two of the first 132 are equal."""
    return {
        variant: Look(COLORS[i % len(COLORS)], DASHES[i % len(DASHES)], MARKERS[i % len(MARKERS)])
        for i, variant in enumerate(variants)
    }


def canvas(width: float, height: float) -> Figure:
    """Return an empty figure of that many inches. It is not pyplot's: nothing has to be closed."""
    return Figure(figsize=(width, height), layout="constrained")


def legend(figure: Figure, styles: Mapping[str, Look], variants: Sequence[str], *, notes: Mapping[str, str]) -> None:
    """Draw one legend above the panels of a figure: each variant once, with what `notes` says of it.

    The figure grows by the rows beyond `LEGEND_ROWS`, so that many variants leave the panels their room.
    """
    columns, labels = _laid_out(variants, notes, figure.get_figwidth() * 72)
    handles: list[Artist] = [
        Line2D([], [], **styles[v].line(marker=styles[v].marker, markersize=4.5, linewidth=1.6)) for v in variants
    ]
    extra = max(0, -(-len(labels) // columns) - LEGEND_ROWS) * LEGEND_LINE
    figure.set_size_inches(figure.get_figwidth(), figure.get_figheight() + extra)
    # matplotlib fills column by column, people read row by row.
    read = [place for column in range(columns) for place in range(column, len(labels), columns)]
    figure.legend(
        [handles[place] for place in read],
        [plain(labels[place]) for place in read],
        loc="outside upper left",
        ncols=columns,
        handlelength=3.2,
        columnspacing=1.6,
        borderaxespad=0.3,
    )


def _laid_out(variants: Sequence[str], notes: Mapping[str, str], room: float) -> tuple[int, list[str]]:
    """Return the columns of a legend in so many points, in rows about equally full, and labels as long as fits."""
    laid: list[tuple[int, list[str]]] = []
    for most in (22, 28, 34, 40):
        short = short_names(variants, most)
        labels = [f"{short[v]} {notes[v]}" if notes.get(v) else short[v] for v in variants]
        # Points: the letters of 7.5 pt about half as wide as high, then the handle and the gaps.
        wide = [7.5 * 0.54 * len(label) + 42 for label in labels]
        columns = max((n for n in range(1, len(labels) + 1) if _fits(wide, n, room)), default=1)
        rows = -(-len(labels) // columns)
        laid.append((-(-len(labels) // rows), labels))
    # Longer names only where they take no more columns away.
    return max(laid, key=lambda one: (one[0], sum(map(len, one[1]))))


def _fits(wide: Sequence[float], columns: int, room: float) -> bool:
    """Return whether entries so wide, read row by row, fit into the room."""
    return sum(max(wide[column::columns]) for column in range(columns)) <= room


def plain(text: str) -> str:
    """Return text that matplotlib shows as it is: a pair of dollar signs in a name is no mathematics."""
    return text.replace("$", r"\$")
