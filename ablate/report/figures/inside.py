"""Inside the network: how far every stage moves, which path its gradient takes, what attention gates look at."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from ablate.analysis.analyse import Analysis
from ablate.registry import register_figure
from ablate.report import lookup
from ablate.report.figures import theme
from ablate.report.figures.marks import finish, interval_words, label_rows, layer_depth, looks
from ablate.report.figures.theme import FULL, SINGLE, Look, canvas, legend, plain
from ablate.report.format import rate_text, short_names, shorten
from ablate.wording import count_of, range_of

# What a panel shows, its title, and why it is left out where no two variants differ by so much.
FLOW = {
    "update_ratio": ("Update ratio ‖ΔW‖ / ‖W‖", "the update ratios of no stage differ by a factor of two"),
    "skip_share": ("Gradient share of the skips", "the gradient shares of no stage differ by 0.1"),
}
QUARTILES = np.array([0.25, 0.5, 0.75])
# Stages of a figure; of a deeper network the blocks are put together by their first word.
MOST_STAGES = 24


@register_figure("gradients", title="Gradient flow by stage", order=110)
def gradients(analysis: Analysis) -> Figure:
    """Draw gradient flow by stage: relative size of an update, and the share that comes through a skip connection."""
    frame = analysis.frames.layers_of(lookup.judged_trials(analysis))
    frame = frame[frame["measure"].isin(FLOW) & np.isfinite(frame["value"].astype(float))]
    if frame.empty:
        raise lookup.NotDrawn("the records hold no gradient probes (measure.gradients)")
    stages = frame["layer"].str.extract(r"^([^.]+(?:\.\d+)*)", expand=False)
    if stages.nunique() > MOST_STAGES:
        stages = frame["layer"].str.partition(".")[0]
    frame = frame.assign(stage=stages)
    parts = {measure: part for measure, part in frame.groupby("measure") if len(part)}
    shown = [measure for measure in FLOW if measure in parts and _tells(parts[measure], measure)]
    silent = [FLOW[measure][1] for measure in FLOW if measure in parts and measure not in shown]
    if not shown:
        raise lookup.NotDrawn(f"{' and '.join(silent)} between variants")
    variants = lookup.among(analysis, frame["variant"])
    rows = max(part["stage"].nunique() for measure, part in parts.items() if measure in shown)
    figure = canvas(FULL if len(shown) > 1 else SINGLE * 1.3, 0.75 + (0.13 + 0.012 * len(variants)) * max(rows, 6))
    for axes, measure in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        _flow(axes, parts[measure], analysis)
        axes.set_title(FLOW[measure][0])
        if measure == "update_ratio":
            _rate_like(axes)
        else:
            axes.set_xlim(-0.03, 1.03)
    legend(figure, looks(analysis), variants, notes=lookup.chosen_notes(analysis))
    rule = (
        f"{lookup.chosen_rule(analysis)} Median over the layers of a stage, seeds and probed epochs; lines: the middle "
        "half of them. Update ratio: the size of one optimizer step relative to the layer's weights. Share: ‖g_skip‖ / "
        "(‖g_skip‖ + ‖g_deep‖), from one backward pass as it is and one with the skip tensors detached; 0 = everything "
        "comes through the bottleneck."
    )
    return finish(figure, analysis, rule + "".join(f" Not shown: {text} between variants." for text in silent))


def _tells(part: pd.DataFrame, measure: str) -> bool:
    """Return whether variants differ in a stage by more than seeds do by themselves; with one variant nothing can."""
    medians = part.pivot_table("value", "stage", "variant", aggfunc="median")
    low, high = medians.min(axis=1), medians.max(axis=1)
    told = (high >= 2 * low) if measure == "update_ratio" else (high - low >= 0.1)
    return bool(told.any()) or medians.shape[1] < 2


def _rate_like(axes: Axes) -> None:
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(MaxNLocator(4) if high / low < 10 else LogLocator(subs=(1,), numticks=6))
    axes.xaxis.set_major_formatter(lambda value, _place: rate_text(value))
    axes.xaxis.set_minor_locator(NullLocator())


def _flow(axes: Axes, part: pd.DataFrame, analysis: Analysis) -> None:
    """Draw a mark a variant in the row of every stage, the middle half of its values as a line."""
    styles, variants = looks(analysis), lookup.among(analysis, part["variant"])
    stages = sorted(set(part["stage"]), key=layer_depth)
    label_rows(axes, stages, most=26)
    for row, variant in enumerate(variants):
        shift = 0.5 * ((row + 0.5) / len(variants) - 0.5)
        spread = part[part["variant"] == variant].groupby("stage")["value"].quantile(QUARTILES).unstack()  # noqa: PD010
        at = np.array([stages.index(stage) for stage in spread.index]) + shift
        look = styles[variant]
        axes.hlines(at, spread[0.25], spread[0.75], color=look.color, linewidth=0.8, alpha=0.6)
        axes.plot(spread[0.5], at, look.marker, color=look.color, markersize=3.6, zorder=3)
    axes.grid(True, axis="x")


@register_figure("gate_scores", title="What attention gates tell apart", order=120)
def gate_scores(analysis: Analysis) -> Figure:
    """Draw how well each gate's attention separates every class from the rest, beside its two nulls."""
    frame = analysis.gates
    if frame.empty or not np.isfinite(frame["auroc"].astype(float)).any():
        several = analysis.frames.multilabel and "it is not measured where a pixel may bear several classes"
        raise lookup.NotDrawn(several or "no variant has attention gates")
    gates = sorted(set(frame["gate"]), key=layer_depth)
    labels = [name for name in analysis.frames.class_names if name in set(frame["class"])]
    variants = lookup.among(analysis, frame["variant"])
    figure = canvas(FULL, len(variants) * (0.55 + 0.15 * max(len(labels), 4)) + 0.35)
    grid = figure.subplots(len(variants), len(gates), sharex=True, sharey=True, squeeze=False)
    short = short_names(variants, 14)
    for row, variant in zip(grid, variants, strict=True):
        for axes, gate in zip(row, gates, strict=True):
            part = frame[(frame["variant"] == variant) & (frame["gate"] == gate)]
            _gate(axes, part, labels, looks(analysis)[variant])
            name = shorten(gate.removesuffix(".gate"), 14)
            axes.set_title(plain(name if len(variants) == 1 else f"{short[variant]}, {name}"), size=8)
    for axes in grid[-1]:
        axes.set_xlabel(f"AUROC ({interval_words(analysis)})" if len(gates) < 4 else "AUROC")
    look = looks(analysis)[variants[0]]
    trained = Line2D([], [], marker=look.marker, color=look.color, linewidth=1, markerfacecolor=theme.PAPER)
    figure.legend(
        [trained, *(Line2D([], [], linestyle="", **mark) for mark in NULLS.values())],
        ["trained gate", "masks shuffled over images", "untrained gate"],
        loc="outside upper left",
        ncols=3,
        borderaxespad=0.3,
    )
    rule = (
        "AUROC of the gate's attention for the pixels of a class on the test split at the variant's own best setting, "
        f"{count_of(range_of(frame['n'].astype(int)), 'seed')}; its interval is Student's t of the logits, which never "
        "leaves [0, 1]. 0.5 = the gate does not tell the class from the rest, below: it turns away from it. A gate has "
        "learned something only where it stands apart from both nulls. Descriptive, so hollow."
    )
    return finish(figure, analysis, rule)


NULLS: dict[str, dict[str, Any]] = {
    "shuffled": {"marker": "|", "color": theme.MUTED, "markersize": 7},
    "untrained": {"marker": "x", "color": theme.MUTED, "markersize": 4},
}


def _gate(axes: Axes, part: pd.DataFrame, labels: list[str], look: Look) -> None:
    label_rows(axes, labels)
    axes.axvline(0.5, color=theme.MUTED, linewidth=0.8)
    at = [labels.index(name) for name in part["class"]]
    for null, mark in NULLS.items():
        axes.plot(part[null], at, linestyle="", **mark)
    axes.hlines(at, part["auroc_low"], part["auroc_high"], color=look.color, linewidth=1)
    axes.plot(part["auroc"], at, look.marker, color=look.color, markersize=4.5, markerfacecolor=theme.PAPER)
    axes.grid(True, axis="x")
