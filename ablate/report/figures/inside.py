"""Inside the network: how far every layer moves, which path its gradient takes, what attention gates look at."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from ablate.analysis.analyse import Analysis
from ablate.analysis.frames import layers_frame
from ablate.registry import register_figure
from ablate.report.figures import theme
from ablate.report.figures.marks import finish, label_rows, layer_depth, looks
from ablate.report.figures.theme import FULL, SINGLE, Look, canvas, legend, plain
from ablate.report.format import rate_text, short_names, shorten
from ablate.report.lookup import NotDrawn, among, at_own_best, chosen_notes, chosen_rule, main_trials

FLOW = (
    ("update_ratio", "Update ratio ‖ΔW‖ / ‖W‖", True),
    ("skip_share", "Gradient share of the skips", False),
)


# More layers than this go on in a second column.
MOST_LAYERS = 16
# What a panel's title and its axis take, in rows.
BETWEEN = 4


@register_figure("gradients", title="Gradient flow by layer", order=110)
def gradients(analysis: Analysis) -> Figure:
    """Draw gradient flow by layer: relative size of an update, and the share that comes through a skip connection."""
    frame = probes(analysis)
    frame = frame[np.isfinite(frame["value"].astype(float))]
    measures = set(frame["measure"])
    present = [entry for entry in FLOW if entry[0] in measures]
    if not present:
        raise NotDrawn("the records hold no gradient probes (measure.gradients)")
    layers = {m: sorted(set(frame.loc[frame["measure"] == m, "layer"]), key=layer_depth) for m, _, _ in present}
    columns = _columns(list(layers.items()))
    shown = among(analysis, frame["variant"])
    row = 0.1 + 0.012 * len(shown)
    tallest = max(sum(len(names) + BETWEEN for _, names in column) for column in columns)
    figure = canvas(FULL if len(columns) > 1 else SINGLE, 0.5 + row * max(tallest, 8))
    outer = figure.add_gridspec(1, len(columns))
    drawn: dict[str, list[Axes]] = {}
    for place, column in enumerate(columns):
        # Rows as high in one panel as in the other: what is over stays empty at the foot.
        rest = max(tallest - sum(len(names) + BETWEEN for _, names in column), 0.1)
        ratios = [len(names) + BETWEEN for _, names in column] + [rest]
        inner = outer[place].subgridspec(len(ratios), 1, height_ratios=ratios)
        for line, (measure, names) in enumerate(column):
            axes = figure.add_subplot(inner[line])
            _flow(axes, frame[(frame["measure"] == measure) & frame["layer"].isin(names)], names, analysis)
            title = next(title for name, title, _ in FLOW if name == measure)
            axes.set_title("… continued" if measure in drawn else title)
            drawn.setdefault(measure, []).append(axes)
    for measure, _, logarithmic in present:
        for axes in drawn[measure] if logarithmic else ():
            axes.set_xscale("log")
        low, high = zip(*(axes.get_xlim() for axes in drawn[measure]), strict=True)
        for axes in drawn[measure]:
            axes.set_xlim((min(low), max(high)) if logarithmic else (-0.03, 1.03))
            if logarithmic:
                _rate_like(axes)
    legend(figure, looks(analysis), shown, notes=chosen_notes(analysis))
    rule = (
        f"{chosen_rule(analysis)} Median over seeds and probed epochs; lines: from the lowest to the highest. Update "
        "ratio: the size of one optimizer step relative to the layer's weights. Share: ‖g_skip‖ / (‖g_skip‖ + "
        "‖g_deep‖), from one backward pass as it is and one with the skip tensors detached; 0 = everything comes "
        "through the bottleneck."
    )
    return finish(figure, analysis, rule)


def _columns(panels: list[tuple[str, list[str]]]) -> list[list[tuple[str, list[str]]]]:
    """Return the panels in one or two columns of about equal height: the later of many layers go to the second one.

    A cut lies between two stages of the network (encoder, bottleneck, decoder) where one is near.
    """
    (measure, names), others = panels[0], panels[1:]
    if len(names) <= MOST_LAYERS:
        return [[panel] for panel in panels]
    below = sum(len(more) + BETWEEN for _, more in others)
    half = max(1, round((len(names) - below) / 2))
    stages = [n for n in range(1, len(names)) if layer_depth(names[n])[:1] != layer_depth(names[n - 1])[:1]]
    cut = min(stages, key=lambda n: abs(n - half), default=half)
    cut = cut if abs(cut - half) <= 0.2 * len(names) else half
    return [[(measure, names[:cut]), *others], [(measure, names[cut:])]]


def _rate_like(axes: Axes) -> None:
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(MaxNLocator(4) if high / low < 10 else LogLocator(subs=(1,), numticks=6))
    axes.xaxis.set_major_formatter(lambda value, _place: rate_text(value))
    axes.xaxis.set_minor_locator(NullLocator())


def _flow(axes: Axes, frame: pd.DataFrame, layers: list[str], analysis: Analysis) -> None:
    styles = looks(analysis)
    variants = among(analysis, frame["variant"])
    label_rows(axes, layers, most=26)
    axes.tick_params(axis="y", labelsize=6.5)
    for row, variant in enumerate(variants):
        shift = 0.5 * ((row + 0.5) / len(variants) - 0.5)
        grouped = frame[frame["variant"] == variant].groupby("layer", sort=False)["value"]
        spread = grouped.agg(["median", "min", "max"])
        at = np.array([layers.index(layer) for layer in spread.index]) + shift
        look = styles[variant]
        axes.hlines(at, spread["min"], spread["max"], color=look.color, linewidth=0.8, alpha=0.6)
        axes.plot(spread["median"], at, look.marker, color=look.color, markersize=3.6, zorder=3)
    axes.grid(True, axis="x")


def probes(analysis: Analysis) -> pd.DataFrame:
    """Return what was probed in the trials at own best settings, a row a value; other records stay unread."""
    frames = analysis.frames
    return layers_frame(at_own_best(main_trials(analysis), analysis), frames.axes, frames.source)


@register_figure("gate_scores", title="What attention gates tell apart", order=120)
def gate_scores(analysis: Analysis) -> Figure:
    """Draw how well each gate's attention separates every class from the rest, beside its two nulls."""
    frame = probes(analysis)
    frame = frame[frame["measure"].isin(["gate_auroc", "gate_auroc_shuffled", "gate_auroc_untrained"])]
    frame = frame[np.isfinite(frame["value"].astype(float))]
    if frame.empty:
        raise NotDrawn("no variant has attention gates")
    frame = frame.assign(gate=frame["layer"].str.partition("/")[0], label=frame["layer"].str.partition("/")[2])
    gates, labels = sorted(set(frame["gate"]), key=layer_depth), _class_order(frame, analysis)
    variants = among(analysis, frame["variant"])
    figure = canvas(FULL, len(variants) * (0.55 + 0.15 * max(len(labels), 4)) + 0.35)
    grid = figure.subplots(len(variants), len(gates), sharex=True, sharey=True, squeeze=False)
    short = short_names(variants, 14)
    for row, variant in zip(grid, variants, strict=True):
        for axes, gate in zip(row, gates, strict=True):
            part = frame[(frame["variant"] == variant) & (frame["gate"] == gate)]
            _gate(axes, part, labels, looks(analysis)[variant])
            title = shorten(gate, 14) if len(variants) == 1 else f"{short[variant]}, {shorten(gate, 12)}"
            axes.set_title(plain(title), size=8)
    for axes in grid[-1]:
        axes.set_xlabel("AUROC")
    look = looks(analysis)[variants[0]]
    figure.legend(
        [
            Line2D([], [], marker=look.marker, color=look.color, linestyle=""),
            Line2D([], [], marker="|", color=theme.MUTED, linestyle="", markersize=7),
            Line2D([], [], marker="o", color=theme.MUTED, linestyle="", markerfacecolor="none"),
        ],
        ["trained gate", "masks shuffled over images", "untrained gate"],
        loc="outside upper left",
        ncols=3,
        borderaxespad=0.3,
    )
    rule = (
        "AUROC of the gate's attention for the pixels of a class on the test split, mean over seeds at the "
        "variant's own best setting; 0.5 = the gate does not tell the class from the rest, below: it turns away "
        "from it. A gate has learned something only where it stands apart from both nulls."
    )
    return finish(figure, analysis, rule)


def _class_order(frame: pd.DataFrame, analysis: Analysis) -> list[str]:
    known = set(frame["label"])
    return [name for name in analysis.frames.class_names if name in known] or sorted(known)


def _gate(axes: Axes, part: pd.DataFrame, labels: list[str], look: Look) -> None:
    label_rows(axes, labels)
    axes.axvline(0.5, color=theme.MUTED, linewidth=0.8)
    marks = {
        "gate_auroc_untrained": {"marker": "o", "color": theme.MUTED, "markerfacecolor": "none", "markersize": 4},
        "gate_auroc_shuffled": {"marker": "|", "color": theme.MUTED, "markersize": 7},
        "gate_auroc": {"marker": look.marker, "color": look.color, "markersize": 4.5},
    }
    for measure, mark in marks.items():
        mean = part[part["measure"] == measure].groupby("label", sort=False)["value"].mean()
        at = [labels.index(label) for label in mean.index]
        axes.plot(mean.to_numpy(), at, linestyle="", **mark)  # type: ignore[arg-type]
    axes.grid(True, axis="x")
