"""Maps over variant × setting: mIoU with the optimum's ridge, and instability beside it."""

from __future__ import annotations

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from ablate.analysis.analyse import Analysis
from ablate.registry import register_figure
from ablate.report.figures import theme
from ablate.report.figures.marks import draw_heat, finish, percent_tick
from ablate.report.figures.theme import FULL, canvas, plain
from ablate.report.format import number, percent
from ablate.report.lookup import NotDrawn, only_rate, order, own_settings, searched, setting_values, settings_axis

RULE = (
    "Rise: largest ratio of an epoch's median training loss to the lowest one before it, mean over seeds; 1 = never "
    "rose, ∞ = diverged. Frame: the setting that the variant is best at on validation, the ridge of the map. Hatched: "
    "no result yet; white corner: seeds still missing."
)
# The upper right half of a square.
_CORNER = [(-1.0, 0.0), (0.0, 0.0), (0.0, -1.0)]
# Where the loss has risen most.
RISEN = "#7a1f2b"
# Inches: a cell less wide has no room for its number, nor is there any for two maps of such cells side by side.
NARROWEST = 0.3
# Of narrower ones their settings are not named there.
LEAST_NAMED = 0.06
# A letter of a label is so wide.
LETTER = 0.06
# Of more cells a reader sees the pattern; their numbers are one by one in a table.
MOST_NUMBERS = 120
# A rise that is printed as more than 1.00.
LEAST_RISE = 1.005
OWN = " A column holds a setting of each variant's own search, the lowest rate first."
UNNUMBERED = " The numbers of so many cells stand in tables/cells.csv."


@register_figure("maps", title="Instability over variant and rate", order=50)
def maps(analysis: Analysis) -> Figure:
    """Draw the map of rise over variant × setting; that of test mIoU is in the consolidated figure."""
    known = _cells(analysis, "rise", np.nan)
    if np.isfinite(known).any() and not (known > LEAST_RISE).any():
        raise NotDrawn("at no setting did the training loss of a variant rise (rise is 1.00 in every cell)")
    columns, rows = max(map(len, own_settings(analysis).values())), len(order(analysis))
    width = FULL if columns > 7 else FULL * 0.6
    wide = width - 1.4
    figure = canvas(width, 0.65 + 0.3 * rows + _label_height(analysis, wide))
    draw_map(analysis, figure.subplots(), "rise", wide)
    rule = RULE + (OWN if searched(analysis) else "") + (UNNUMBERED if columns * rows > MOST_NUMBERS else "")
    return finish(figure, analysis, rule)


def draw_map(analysis: Analysis, axes: Axes, column: str, wide: float, *, bar: bool = True, named: bool = True) -> None:
    """Draw one map on `axes`, about so many inches wide: cells by colour and number, the ridge framed.

    With a `bar` for the colours beside it, and the settings `named` beneath where there is room.
    """
    variants = order(analysis)
    known = _cells(analysis, column, np.nan)
    finite = known[np.isfinite(known)]
    if not finite.size:
        raise NotDrawn("no cell has a result")
    miou = column == "test_mean"
    dead = _cells(analysis, "n_diverged", 0.0)
    # A cell that diverged altogether would take the colours from all others.
    lived = known[np.isfinite(known) & ((dead == 0) if miou else True)]
    lived = lived if lived.size else finite
    low, high = (float(lived.min()), float(lived.max())) if miou else (1.0, float(max(lived.max(), 1.5)))
    high = high if high > low else low + 1e-3
    filled = np.where(np.isposinf(known), high, known)
    cell = wide / known.shape[1]
    room = cell >= NARROWEST and known.size <= MOST_NUMBERS
    draw_heat(
        axes,
        filled,
        variants,
        _texts(known, dead, miou) if room else None,
        7 if cell >= 0.5 else 6,
        cmap="crest" if miou else sns.light_palette(RISEN, as_cmap=True),
        vmin=low,
        vmax=high,
        linewidths=min(0.8, 6 * cell),
        cbar=bar,
        cbar_kws={"pad": 0.02, "fraction": 0.05, "aspect": 5 * max(3, len(variants))},
    )
    axes.set_facecolor(theme.BAD)
    waiting = _cells(analysis, "n", 0.0) < _cells(analysis, "n_planned", 0.0)
    for y, x in np.argwhere(np.isnan(known)):
        axes.add_patch(Rectangle((x, y), 1, 1, fill=False, hatch="////", edgecolor=theme.MUTED, linewidth=0))
    for y, x in np.argwhere(waiting & ~np.isnan(known)):
        # A corner cut off, as wide as high on paper whatever the cell's shape.
        axes.plot(x + 0.97, y + 0.06, marker=_CORNER, color=theme.PAPER, markersize=9, markeredgewidth=0, zorder=5)
    if bar:
        scale = axes.collections[0].colorbar
        scale.outline.set_visible(False)  # type: ignore[union-attr]
        scale.ax.tick_params(labelsize=6.5, length=2)  # type: ignore[union-attr]
        scale.ax.yaxis.set_major_formatter(  # type: ignore[union-attr]
            percent_tick if miou else "{x:g}"
        )
    for y, (variant, shown) in enumerate(own_settings(analysis).items()):
        if (best := analysis.own_best.get(variant)) in shown:
            at, width = (shown.index(best) + 0.04, y + 0.04), min(1.6, 16 * cell)
            # Seen on dark cells, too.
            halo = [withStroke(linewidth=width + 1.6, foreground=theme.PAPER)]
            frame = {"edgecolor": theme.INK, "linewidth": width, "path_effects": halo}
            axes.add_patch(Rectangle(at, 0.92, 0.92, fill=False, **frame))
    _name_settings(analysis, axes, wide, named=named)


def _name_settings(analysis: Analysis, axes: Axes, wide: float, *, named: bool) -> None:
    """Label the columns: as many as have room, turned where they are of several values."""
    shown = next(iter(own_settings(analysis).values()))
    labels = [plain(setting_values(analysis, setting)) for setting in shown]
    turned = not only_rate(analysis)
    cell = wide / len(shown)
    axes.set_xlabel(settings_axis(analysis))
    if searched(analysis) or not named or (turned and cell < LEAST_NAMED):
        axes.set_xticks([])
        axes.set_xlabel("own settings, by rate" if searched(analysis) else f"{len(shown)} settings")
        return
    # Inches that a label needs: as wide as it is, or as high where it is turned.
    needed = 0.14 if turned else 0.07 + LETTER * max(map(len, labels))
    ticks = range(0, len(shown), max(1, int(np.ceil(needed / cell))))
    axes.set_xticks([tick + 0.5 for tick in ticks], [labels[tick] for tick in ticks])
    if turned:
        axes.tick_params(axis="x", rotation=90, labelsize=6.5)


def _label_height(analysis: Analysis, wide: float) -> float:
    """Return the inches that the labels beneath a map take."""
    shown = next(iter(own_settings(analysis).values()))
    if only_rate(analysis) or searched(analysis) or wide / len(shown) < LEAST_NAMED:
        return 0.25
    return 0.25 + LETTER * max(len(setting_values(analysis, setting)) for setting in shown)


def _cells(analysis: Analysis, column: str, absent: float) -> np.ndarray:
    """Return a column of the cells, variants x their settings, both in their order; `absent` where there is none."""
    cells, own = analysis.cells, own_settings(analysis)
    values = dict(zip(zip(cells["variant"], cells["setting"], strict=True), cells[column].astype(float), strict=True))
    table = np.full((len(own), max(1, *map(len, own.values()))), absent)
    for y, (variant, shown) in enumerate(own.items()):
        for x, setting in enumerate(shown):
            value = values.get((variant, setting), absent)
            table[y, x] = absent if np.isnan(value) else value
    return table


def _texts(known: np.ndarray, dead: np.ndarray, miou: bool) -> np.ndarray:
    texts = np.empty(known.shape, dtype=object)
    for place in np.ndindex(known.shape):
        value = float(known[place])
        if np.isnan(value):
            texts[place] = ""
        elif miou:
            texts[place] = percent(value) + (f" ×{dead[place]:.0f}" if dead[place] else "")
        else:
            texts[place] = "∞" if np.isinf(value) else number(value, 3 if value < 100 else 2)
    return texts
