"""How every figure looks: colours, lines and marks of the variants, the rule beneath, how numbers are written."""

from __future__ import annotations

import contextlib
import math
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from ablate.report.fonts import FAMILY, further_families

# Lightness alternates between neighbours: the first four are told apart in grey by it alone, the others by line and
# marker too. Simulated colour blindness keeps neighbours distinct; a test computes both.
COLORS = (
    "#22304f",  # ink blue, the baseline
    "#d1442f",  # vermilion
    "#3fa0d8",  # sky
    "#f2b134",  # amber
    "#77318c",  # purple
    "#6bbf8a",  # mint
    "#0c6b58",  # pine
    "#7a1f2b",  # wine
    "#ec8fb5",  # pink
    "#8a5a2b",  # brown
    "#b3a5e8",  # lavender
    "#bccf3a",  # lime
)
# The same variants on a dark page: what is nearly black there becomes nearly white.
DARK_COLORS = (
    "#dfe7f7",
    "#ef6b57",
    "#4fb0e8",
    "#f2b134",
    "#c184d6",
    "#6bbf8a",
    "#2fa68c",
    "#b8606e",
    "#ec8fb5",
    "#c08b55",
    "#b3a5e8",
    "#bccf3a",
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (2.5, 1)))

INK = "#1f2328"
MUTED = "#626b76"
GRID = "#e3e6ea"
PAPER = "#ffffff"
ALARM = "#b3261e"
# What a dark page replaces in an SVG: see `ablate.report.svg`.
DARK = {INK: "#e6e9ee", MUTED: "#9aa4b1", GRID: "#333a44", PAPER: "#14171c", ALARM: "#ff8a80"} | dict(
    zip(COLORS, DARK_COLORS, strict=True)
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


@contextlib.contextmanager
def theme(family: str = FAMILY) -> Iterator[None]:
    """The settings of every figure, for as long as it is drawn and saved; nothing is set at import."""
    with matplotlib.rc_context():
        # The user's matplotlibrc must not change a figure.
        for key, value in matplotlib.rcParamsDefault.items():
            if key not in _BACKEND:
                matplotlib.rcParams[key] = value
        matplotlib.rcParams.update(RC)  # type: ignore[arg-type]
        # In this order: a letter that the first has not is taken from the next.
        matplotlib.rcParams["font.family"] = list(dict.fromkeys([family, FAMILY, *further_families()]))
        with warnings.catch_warnings():
            # A letter that no font here has is drawn as an empty box: to be told so for every figure helps nobody.
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            yield


_BACKEND = frozenset({"backend", "backend_fallback", "interactive", "toolbar", "timezone", "datapath"})


@dataclass(frozen=True)
class Look:
    """How one variant is drawn in every figure: colour, dash pattern, marker."""

    color: str
    dash: Any
    marker: str

    def line(self, **changes: Any) -> dict[str, Any]:
        """Arguments of `Axes.plot` for a curve of this variant."""
        return {"color": self.color, "linestyle": self.dash, **changes}


def looks(variants: Sequence[str]) -> dict[str, Look]:
    """A look for each variant, in the study's order, the baseline first; no two of the first 132 are equal."""
    return {
        variant: Look(COLORS[i % len(COLORS)], DASHES[i % len(DASHES)], MARKERS[i % len(MARKERS)])
        for i, variant in enumerate(variants)
    }


def canvas(width: float, height: float) -> Figure:
    """An empty figure of that many inches. It is not pyplot's: nothing has to be closed."""
    return Figure(figsize=(width, height), layout="constrained")


def finish(figure: Figure, rule: str, warning: str = "") -> Figure:
    """Print the rule behind the numbers, below a warning, beneath the figure, which grows by the lines it takes."""
    width, height = figure.get_size_inches()
    size = 6.5
    # Characters of DejaVu Sans are about half an em wide on average.
    lines = textwrap.wrap(" ".join(rule.split()), max(20, int((width - 0.2) * 72 / (size * 0.52))))
    line = size * 1.35 / 72
    extra = (len(lines) + bool(warning)) * line + 0.1
    figure.set_size_inches(width, height + extra)
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        share = extra / (height + extra)
        engine.set(rect=(0, share, 1, 1 - share))
    texts = [("\n".join(lines), 0.06, MUTED, "rule"), (warning, 0.08 + len(lines) * line, ALARM, "warning")]
    for text, bottom, color, name in texts:
        if text:
            at = 0.1 / width, bottom / (height + extra)
            drawn = figure.text(*at, plain(text), size=size, color=color, va="bottom", linespacing=1.25, gid=name)
            drawn.set_in_layout(False)
    return figure


def legend(figure: Figure, styles: Mapping[str, Look], variants: Sequence[str], *, notes: Mapping[str, str]) -> None:
    """One legend above the panels of a figure: each variant once, with what `notes` says of it."""
    columns, labels = _laid_out(variants, notes, figure.get_figwidth() * 72)
    handles: list[Artist] = [
        Line2D([], [], **styles[v].line(marker=styles[v].marker, markersize=4.5, linewidth=1.6)) for v in variants
    ]
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
    """Columns of a legend in so many points, in rows about equally full, and its labels, as long as there is room."""
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
    """Whether entries so wide, read row by row, fit into the room."""
    return sum(max(wide[column::columns]) for column in range(columns)) <= room


def plain(text: str) -> str:
    """Text that matplotlib shows as it is: a pair of dollar signs in a name is no mathematics, nor a line break two."""
    return text.replace("$", r"\$")


def shorten(name: str, most: int = 22) -> str:
    """A name that fits a label: one line, the middle of a long one left out; control characters shown as blanks."""
    name = " ".join("".join(c if c.isprintable() else " " for c in str(name)).split())
    if len(name) <= most:
        return name
    tail = (most - 1) // 3
    return f"{name[: most - 1 - tail]}…{name[-tail:]}"


def short_names(names: Sequence[str], most: int = 22) -> dict[str, str]:
    """Names that fit labels and are told apart there: what is left of a long one shows where it differs from others.

    The middle goes, between words where possible; where no cut tells two names apart, they are numbered.
    """
    whole = {name: shorten(name, len(str(name)) + 1) for name in names}
    short = {name: text for name, text in whole.items() if len(text) <= most}
    usual = (most - 1) // 3
    for number, (name, text) in enumerate(whole.items(), 1):
        if name in short:
            continue
        words = [n for n in range(2, most - 3) if not text[-n - 1].isalnum()]
        tails = sorted(words, key=lambda n: (abs(n - usual), -n))
        tails += [n for n in sorted(range(1, most - 2), key=lambda n: abs(n - usual)) if n not in words]
        others = [other for key, other in whole.items() if key != name]
        cut = next((n for n in tails if _cut(text, most, n) not in {_cut(o, most, n) for o in others}), None)
        short[name] = f"{text[: most - 4]}… {number}" if cut is None else _cut(text, most, cut)
    return {name: short[name] for name in whole}


def _cut(text: str, most: int, tail: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1 - tail]}…{text[-tail:]}"


def rate_text(rate: float) -> str:
    """A learning rate as people write it: 3e-4, 0.1."""
    if rate >= 0.01:
        return f"{rate:g}"
    mantissa, exponent = f"{rate:e}".split("e")
    return f"{float(mantissa):.3g}e{int(exponent)}"


def percent(fraction: float | None, digits: int = 1, *, sign: bool = False) -> str:
    """A fraction as a per cent number without its sign of per cent, or a dash where there is none."""
    if fraction is None or not math.isfinite(fraction):
        return "–"
    text = f"{100 * fraction:{'+' if sign else ''}.{digits}f}"
    # "-0.0" says a direction that the digits do not show.
    text = text.replace("-", "−")
    return text.lstrip("+−") if float(text.replace("−", "-")) == 0 else text


def number(value: float | None, digits: int = 3) -> str:
    """A number to so many significant digits, or a dash where there is none; ∞ stays itself."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value != 0 and (abs(value) >= 1e5 or abs(value) < 1e-3):
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}e{int(exponent)}".replace("-", "−")
    places = max(0, digits - 1 - (math.floor(math.log10(abs(value))) if value else 0))
    return f"{value:.{places}f}".replace("-", "−")


def like(text: str, value: float) -> str:
    """A number with as many decimals as the one in `text`, so that the two can stand beside one another."""
    return f"{value:.{len(text.partition('.')[2])}f}"


def count_text(value: float | None) -> str:
    """A large count with its unit: 486 k, 31.0 M, 253.8 G."""
    if value is None or not math.isfinite(value):
        return "–"
    for limit, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.0f}"


def rate_axis(axes: Axes, rates: Sequence[float]) -> list[float]:
    """A logarithmic axis of learning rates; its ticks are rates of the grid, thinned where they would touch."""
    axes.set_xscale("log")
    axes.minorticks_off()
    ordered = sorted(rates)
    kept = ordered
    if len(ordered) > 1:
        # A label takes about 0.35 inch; the axis of a small panel is about 1.7 inches long.
        span = math.log10(ordered[-1] / ordered[0]) or 1.0
        gap = span * 0.16
        kept = ordered[:1]
        for rate in ordered[1:-1]:
            if math.log10(rate / kept[-1]) >= gap and math.log10(ordered[-1] / rate) >= gap:
                kept = [*kept, rate]
        kept = [*kept, ordered[-1]]
    axes.set_xticks(kept, [rate_text(rate) for rate in kept])
    axes.set_xlabel("learning rate")
    return kept
