"""Marks that several figures draw alike: curves with bands, intervals of differences, maps, axes, names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from ablate.analysis.analyse import Analysis
from ablate.report.figures import theme
from ablate.report.figures.theme import Look, plain
from ablate.report.format import number, short_names
from ablate.report.lookup import one_loss, only_rate, order, primary_contrasts, progress, setting_lines

# What the panels of curves show: a column of the epochs, and its title.
PANELS = (("train_loss", "Training loss"), ("val_loss", "Validation loss"), ("val_mean_iou", "Validation mIoU, %"))
# The same where losses differ: what is computed for every trial, whatever it learned from.
COMPARABLE = (
    ("train_loss", "Training cross entropy"),
    ("val_cross_entropy", "Validation cross entropy"),
    PANELS[-1],
)


def panels_of(analysis: Analysis) -> tuple[tuple[str, str], ...]:
    """Return the panels of curves that may be compared: column and title of each."""
    return PANELS if one_loss(analysis) else COMPARABLE


def losses_rule(analysis: Analysis) -> str:
    """Return what a caption says of the curves of losses where variants learn from different ones."""
    return "" if one_loss(analysis) else " Training: only of variants that learn from the cross entropy itself."


def looks(analysis: Analysis) -> dict[str, Look]:
    """Return the look of each variant, the same in every figure: the baseline first, then the study's order."""
    return theme.looks(order(analysis))


def finish(figure: Figure, analysis: Analysis, rule: str) -> Figure:
    """Keep the rule as the figure's label, its caption; print n of N beneath it while the study is unfinished."""
    figure.set_label(" ".join(rule.split()))
    done, planned = progress(analysis)
    if done < planned:
        width, height = figure.get_size_inches()
        extra = 0.22
        figure.set_size_inches(width, height + extra)
        share = extra / (height + extra)
        engine = figure.get_layout_engine()
        if isinstance(engine, ConstrainedLayoutEngine):
            engine.set(rect=(0, share, 1, 1 - share))
        at, text = (0.1 / width, 0.08 / (height + extra)), f"Unfinished: {done} of {planned} trials have a result."
        figure.text(*at, text, size=6.5, color=theme.ALARM, va="bottom", gid="warning").set_in_layout(False)
    return figure


def panel_grid(figure: Figure, count: int, columns: int, **shared: Any) -> list[Axes]:
    """Return axes for so many panels in rows of `columns`; `shared` are arguments of `Figure.subplots`."""
    grid = figure.subplots(-(-count // columns), columns, squeeze=False, **shared).ravel()
    for axes in grid[count:]:
        axes.set_visible(False)
    return list(grid[:count])


def spreads(frame: pd.DataFrame, column: str, by: list[Any]) -> dict[Any, pd.DataFrame]:
    """Return mean, lowest and highest of a column over the seeds that did not diverge: (epochs x 3) for each `by`.

    With one name in `by` the keys are its values, with several tuples of theirs.
    """
    lived = frame[~frame["status"].eq("diverged").to_numpy(bool)]
    spread = lived.groupby([*by, "epoch"], sort=True)[column].agg(["mean", "min", "max"])
    return {name: part.droplevel(by) for name, part in spread.groupby(level=by[0] if len(by) == 1 else by)}


def draw_curve_panels(
    analysis: Analysis, panels: Iterable[Axes], frame: pd.DataFrame, which: Sequence[int] = (0, 1, 2)
) -> str:
    """Draw the panels of curves, or `which` of them, each with its title and its axis; return what lies beyond one."""
    beyond = []
    for axes, (column, title) in zip(panels, (panels_of(analysis)[place] for place in which), strict=True):
        draw_curves(axes, frame, column, looks(analysis), spreads(frame, column, ["variant"]))
        axes.set_title(title)
        beyond.append(curve_axis(axes, column, frame))
    return "".join(dict.fromkeys(beyond))


def draw_curves(
    axes: Axes, frame: pd.DataFrame, column: str, looks: Mapping[str, Look], lived: Mapping[str, pd.DataFrame]
) -> None:
    """Draw the mean over seeds as a line, their range as a band; a diverged run as a thin line up to its ×.

    `frame` holds `variant key epoch status` and the column; all rows of a variant are of one setting. `lived` are
    the `spreads` by variant.
    """
    dead = frame[frame["status"].eq("diverged").to_numpy(bool)]
    died = {name: part.groupby("key") for name, part in dead.groupby("variant")}
    for variant, look in looks.items():
        if variant in lived:
            mean, low, high = (lived[variant][name] for name in ("mean", "min", "max"))
            if (high > low).any():
                # Paler where many lie on one another.
                alpha = 0.16 if len(lived) <= 6 else 0.06
                axes.fill_between(mean.index, low, high, color=look.color, alpha=alpha, linewidth=0)
            # The page shows the values of lines that have a label.
            axes.plot(mean.index, mean, **look.line(zorder=3, label=variant))
            if len(mean) == 1:
                axes.plot(mean.index, mean, look.marker, color=look.color)
        for _, run in died.get(variant, ()):
            known = run[np.isfinite(run[column])]
            if len(known):
                axes.plot(known["epoch"], known[column], **look.line(linewidth=0.8, alpha=0.8))
                last = known["epoch"].iloc[-1:], known[column].iloc[-1:]
                axes.plot(*last, "x", color=theme.ALARM, markersize=5, zorder=4)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True, steps=[1, 2, 5, 10]))


def curve_axis(axes: Axes, column: str, frame: pd.DataFrame) -> str:
    """Set the vertical axis of curves: per cent of mIoU; of losses logarithmic where they span a factor of six.

    Losses of the first tenth of the epochs that would flatten all later ones go beyond it; returns a sentence on them.
    """
    if column == "val_mean_iou":
        percent_axis(axes)
        return ""
    known = frame[np.isfinite(frame[column].astype(float)) & (frame[column] > 0)]
    if known.empty:
        return ""
    low, high = float(known[column].min()), float(known[column].max())
    late = known.loc[(known["epoch"] > max(1, 0.1 * known["epoch"].max())) | known["status"].eq("diverged"), column]
    top = float(late.max()) if len(late) and high > 3 * late.max() else high
    if top / low > 6:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _place: f"{value:g}")
        axes.yaxis.set_minor_formatter(lambda value, _place: f"{value:g}" if str(f"{value:e}")[0] in "25" else "")
        axes.tick_params(axis="y", which="minor", labelsize=6.5, labelcolor=theme.MUTED)
    if top == high:
        return ""
    axes.set_ylim(low - 0.05 * (top - low) if top / low <= 6 else 0.9 * low, 1.1 * top)
    kind = "Training" if column == "train_loss" else "Validation"
    return f" {kind} losses of the first epochs, up to {number(high)}, lie above the axis."


def percent_axis(axes: Axes, which: str = "y", most: int = 6) -> None:
    """Write fractions on the axis as per cent, at most about so many labels."""
    axis = axes.yaxis if which == "y" else axes.xaxis
    axis.set_major_locator(MaxNLocator(nbins=most, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(percent_tick)


def percent_tick(value: float, _place: float = 0.0) -> str:
    """Return a fraction as a tick label in per cent."""
    return f"{round(100 * value, 6):g}".replace("-", "−")


def interval_words(analysis: Analysis) -> str:
    """Return what the lines of a figure of contrasts are, for its axis."""
    return f"{100 * analysis.confidence:.0f} % interval"


def largest(analysis: Analysis, compared: list[str], most: int, table: str) -> tuple[list[str], str]:
    """Return, of many variants, those that differ most in their primary contrast, and in words where others stand."""
    if len(compared) <= most:
        return compared, ""
    primary = primary_contrasts(analysis)
    delta = dict(zip(primary["variant"], primary["delta"].astype(float).abs().fillna(-1.0), strict=True))
    kept = set(sorted(compared, key=lambda variant: -delta.get(variant, -1.0))[:most])
    rest = len(compared) - most
    stand = f"the {rest} others stand in tables/{table}.csv" if table else f"{rest} others are left out"
    said = f" Shown: the {most} variants that differ most in test mIoU; {stand}."
    return [variant for variant in compared if variant in kept], said


def reach_of(frame: pd.DataFrame) -> tuple[float, float]:
    """Return the limits of an axis for differences: all of them, and of their intervals what leaves them readable."""
    delta = frame["delta"].to_numpy(dtype=float)
    ends = frame[["delta", "low", "high"]].to_numpy(dtype=float)
    if not np.isfinite(delta).any():
        return -0.05, 0.05
    low, high = min(np.nanmin(delta), 0.0), max(np.nanmax(delta), 0.0)
    # One interval over two unlike seeds would flatten all others: it goes on beyond the axis, as an arrow.
    room = max(high - low, 0.02)
    low, high = max(low - room, min(np.nanmin(ends), low)), min(high + room, max(np.nanmax(ends), high))
    margin = 0.06 * max(high - low, 0.01)
    return float(low - margin), float(high + margin)


def draw_zero(axes: Axes, analysis: Analysis, limits: tuple[float, float]) -> None:
    """Prepare an axis of differences in points: no difference as a line, what counts as none as a band about it."""
    axes.axvspan(-analysis.rope, analysis.rope, color=theme.GRID, alpha=0.7, linewidth=0, zorder=0)
    axes.axvline(0, color=theme.MUTED, linewidth=0.8, zorder=1)
    axes.set_xlim(*limits)
    percent_axis(axes, "x", 5)
    axes.grid(True, axis="x")


def draw_spans(
    axes: Axes, rows: pd.DataFrame, places: Any, colors: list[str], limits: tuple[float, float], width: float
) -> None:
    """Draw the intervals of differences between `limits`, with an arrow where one goes on."""
    low, high = rows["low"].to_numpy(float), rows["high"].to_numpy(float)
    known = np.isfinite(low) & np.isfinite(high)
    shades = [color for color, there in zip(colors, known, strict=True) if there]
    axes.hlines(np.asarray(places)[known], low[known], high[known], colors=shades, linewidth=width, zorder=2)
    span = limits[1] - limits[0]
    for place, one, other, color in zip(places, low, high, colors, strict=True):
        # Its tip at the edge, so that it does not touch the names beside it.
        if one < limits[0]:
            axes.plot(limits[0] + 0.015 * span, place, "<", color=color, markersize=4)
        if other > limits[1]:
            axes.plot(limits[1] - 0.015 * span, place, ">", color=color, markersize=4)


def label_rows(axes: Axes, names: Sequence[str], *, most: int = 22) -> None:
    """Name the rows of a horizontal chart, the first at the top."""
    short = short_names(names, most)
    axes.set_yticks(range(len(names)), [plain(short[name]) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")


def subtitle(axes: Axes, text: str) -> None:
    """Write a line in small type between a panel and its title."""
    axes.set_title(axes.get_title(loc="left"), pad=16)
    at = {"xytext": (0, 5), "xycoords": "axes fraction", "textcoords": "offset points"}
    axes.annotate(plain(text), (0, 1), size=7, color=theme.MUTED, **at)  # type: ignore[arg-type]


def write_beside(axes: Axes, place: float, text: str, shift: float, color: str = theme.INK) -> None:
    """Write a text in a column of its own right of the axes, so many points away, at the height of `place`."""
    at: dict[str, Any] = {"xytext": (shift, 0), "xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    axes.annotate(plain(text), (1.0, place), va="center", size=7, color=color, **at)


def name_settings(panels: Iterable[Axes], analysis: Analysis, settings: Sequence[str]) -> None:
    """Write above each panel the setting that it shows."""
    for axes, setting in zip(panels, settings, strict=True):
        title = "\n".join(map(plain, setting_lines(analysis, setting)))
        axes.set_title(title, size=8.5 if only_rate(analysis) else 7)


def draw_heat(
    axes: Axes, values: Any, rows: Sequence[str], texts: np.ndarray | None, size: float, **style: Any
) -> None:
    """Draw a map of values (H, W), its rows named, with texts on its cells; `style` is of seaborn's heatmap."""
    # Named here: seaborn draws the whole figure, several times, to find out whether its labels overlap.
    sns.heatmap(values, ax=axes, linecolor=theme.PAPER, xticklabels=False, yticklabels=False, **style)
    if texts is not None:
        mesh = axes.collections[0]
        mesh.update_scalarmappable()
        write_on_cells(axes, texts, np.asarray(mesh.get_facecolor()), size)
    short = short_names(rows)
    axes.set_yticks(np.arange(len(rows)) + 0.5, [plain(short[name]) for name in rows], rotation=0)
    axes.tick_params(length=0)
    axes.set_ylabel("")
    axes.grid(False)


# Numbers on dark and on bright cells: none of the inks that a dark page exchanges, for the cells stay as they are.
ON_CELL = ("#fefefe", "#262626")


def write_on_cells(axes: Axes, texts: np.ndarray, colors: np.ndarray, size: float) -> None:
    """Write texts (H, W) on the cells of a map of these colours (H · W, 3 or more), dark or bright.

    Whichever has the greater contrast on its cell (WCAG 2).
    """
    linear = colors[:, :3]
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    bright = (linear @ (0.2126, 0.7152, 0.0722)).reshape(texts.shape) > 0.215
    for (y, x), text in np.ndenumerate(texts):
        if text:
            axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", size=size, color=ON_CELL[bool(bright[y, x])])


def evenly(shown: Sequence[str], most: int) -> list[str]:
    """Return the outermost of a list and those between, evenly, at most so many."""
    if len(shown) <= most:
        return list(shown)
    step = (len(shown) - 1) / (most - 1)
    return [shown[round(place * step)] for place in range(most)]


def layer_depth(layer: str) -> tuple[tuple[int, int, str], ...]:
    """Return a key that sorts layers as the image passes them: encoder, bottleneck, decoder, head."""
    words = re.findall(r"[A-Za-z_]+|[0-9]+", layer)
    return tuple((0, int(w), "") if w.isdigit() else (_STAGES.get(w, 5), 0, w) for w in words)


_STAGES = {"encoder": 0, "bottleneck": 1, "decoder": 2, "head": 9, "up": 0, "gate": 1, "block": 2}
