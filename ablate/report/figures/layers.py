"""Inside the network: how far every layer moves, which path its gradient takes, what attention gates look at."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from ablate.analysis.analyse import Analysis
from ablate.analysis.trials import layers_frame
from ablate.registry import register_figure
from ablate.report import style
from ablate.report.figures.common import (
    NotDrawn,
    at_own_best,
    chosen_notes,
    finish,
    label_rows,
    layer_depth,
    looks,
    main_trials,
    order,
)
from ablate.report.style import FULL, canvas, legend, plain, rate_text, shorten

FLOW = (
    ("update_ratio", "Update ratio ‖ΔW‖ / ‖W‖", True),
    ("skip_share", "Share of the gradient by the skips", False),
)


@register_figure("gradients")
def gradients(analysis: Analysis) -> Figure:
    """Gradient flow by layer: relative size of one update, and the share that reaches it through a skip connection."""
    frame = probes(analysis)
    frame = frame[np.isfinite(frame["value"].astype(float))]
    present = [entry for entry in FLOW if entry[0] in set(frame["measure"])]
    if not present:
        raise NotDrawn("the records hold no gradient probes (measure.gradients)")
    layers = {m: sorted(set(frame.loc[frame["measure"] == m, "layer"]), key=layer_depth) for m, _, _ in present}
    tallest = max(len(names) for names in layers.values())
    shown = [variant for variant in order(analysis) if variant in set(frame["variant"])]
    row = 0.1 + 0.012 * len(shown)
    figure = canvas(FULL, 0.9 + row * max(tallest, 6))
    fewest = max(3, min(len(names) for names in layers.values()))
    spec = figure.add_gridspec(2, len(present), height_ratios=[fewest, max(tallest - fewest, 0.1)])
    for place, (measure, title, logarithmic) in enumerate(present):
        # A panel of few layers ends higher up, so that rows are as high in one as in the other.
        axes = figure.add_subplot(spec[: 1 if len(layers[measure]) <= fewest < tallest else 2, place])
        _flow(axes, frame[frame["measure"] == measure], layers[measure], analysis)
        axes.set_title(title)
        if logarithmic:
            _rate_like(axes)
        else:
            axes.set_xlim(-0.03, 1.03)
    legend(figure, looks(analysis), shown, notes=chosen_notes(analysis))
    rule = (
        "Median over seeds and probed epochs at each variant's own best setting; lines: from the lowest to the "
        "highest. Left: the size of one optimizer step relative to the layer's weights. Right: ‖g_skip‖ / (‖g_skip‖ "
        "+ ‖g_deep‖), from one backward pass as it is and one with the skip tensors detached; 0 = everything comes "
        "through the bottleneck."
    )
    return finish(figure, analysis, rule)


def _rate_like(axes: Axes) -> None:
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(MaxNLocator(4) if high / low < 10 else LogLocator(subs=(1,), numticks=6))
    axes.xaxis.set_major_formatter(lambda value, _place: rate_text(value))
    axes.xaxis.set_minor_locator(NullLocator())


def _flow(axes: Axes, frame: pd.DataFrame, layers: list[str], analysis: Analysis) -> None:
    styles = looks(analysis)
    variants = [variant for variant in order(analysis) if variant in set(frame["variant"])]
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
    """What was probed in the trials at own best settings, a row a value; the other trials' records stay unread."""
    frames = analysis.frames
    return layers_frame(at_own_best(main_trials(analysis), analysis), frames.axes, frames.source)


@register_figure("gate_scores")
def gate_scores(analysis: Analysis) -> Figure:
    """How well each gate's attention separates every class from the rest, beside its two nulls."""
    frame = probes(analysis)
    frame = frame[frame["measure"].isin(["gate_auroc", "gate_auroc_shuffled", "gate_auroc_untrained"])]
    frame = frame[np.isfinite(frame["value"].astype(float))]
    if frame.empty:
        raise NotDrawn("no variant has attention gates")
    frame = frame.assign(gate=frame["layer"].str.partition("/")[0], label=frame["layer"].str.partition("/")[2])
    gates, labels = sorted(set(frame["gate"]), key=layer_depth), _class_order(frame, analysis)
    variants = [variant for variant in order(analysis) if variant in set(frame["variant"])]
    figure = canvas(FULL, len(variants) * (0.55 + 0.15 * max(len(labels), 4)) + 0.35)
    grid = figure.subplots(len(variants), len(gates), sharex=True, sharey=True, squeeze=False)
    for row, variant in zip(grid, variants, strict=True):
        for axes, gate in zip(row, gates, strict=True):
            part = frame[(frame["variant"] == variant) & (frame["gate"] == gate)]
            _gate(axes, part, labels, looks(analysis)[variant])
            title = shorten(gate, 14) if len(variants) == 1 else f"{shorten(variant, 14)}, {shorten(gate, 12)}"
            axes.set_title(plain(title), size=8)
    for axes in grid[-1]:
        axes.set_xlabel("AUROC")
    look = looks(analysis)[variants[0]]
    figure.legend(
        [
            Line2D([], [], marker=look.marker, color=look.color, linestyle=""),
            Line2D([], [], marker="|", color=style.MUTED, linestyle="", markersize=7),
            Line2D([], [], marker="o", color=style.MUTED, linestyle="", markerfacecolor="none"),
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


def _gate(axes: Axes, part: pd.DataFrame, labels: list[str], look: style.Look) -> None:
    label_rows(axes, labels)
    axes.axvline(0.5, color=style.MUTED, linewidth=0.8)
    marks = {
        "gate_auroc_untrained": {"marker": "o", "color": style.MUTED, "markerfacecolor": "none", "markersize": 4},
        "gate_auroc_shuffled": {"marker": "|", "color": style.MUTED, "markersize": 7},
        "gate_auroc": {"marker": look.marker, "color": look.color, "markersize": 4.5},
    }
    for measure, mark in marks.items():
        mean = part[part["measure"] == measure].groupby("label", sort=False)["value"].mean()
        at = [labels.index(label) for label in mean.index]
        axes.plot(mean.to_numpy(), at, linestyle="", **mark)  # type: ignore[arg-type]
    axes.grid(True, axis="x")
