"""The training loss step by step, with its spikes marked and the medians by which a rise is judged."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from ablate.analysis.analyse import Analysis
from ablate.analysis.load import ENDED
from ablate.measure.stability import epoch_medians, spike_steps
from ablate.registry import register_figure
from ablate.report import lookup
from ablate.report.figures import theme
from ablate.report.figures.marks import evenly, finish, looks, name_settings
from ablate.report.figures.theme import FULL, Look, canvas, plain
from ablate.report.format import number, short_names

MOST_ROWS = 6
MOST_COLUMNS = 5
MOST_POINTS = 600


@register_figure("streams", title="Stability of the training loss", order=100)
def streams(analysis: Analysis) -> Figure:
    """Draw the training loss of every step of the least stable seed of every cell, spikes marked."""
    trials = lookup.main_trials(analysis)
    trials = trials[trials["status"].isin(ENDED)]
    chosen = _least_stable(trials)
    variants = _rows(analysis, trials)
    columns = {variant: evenly(lookup.own_settings(analysis)[variant], MOST_COLUMNS) for variant in variants}
    shown = {cell: row for cell, row in chosen.items() if cell[1] in columns.get(cell[0], ())}
    worst = {cell: (row, steps) for cell, row in shown.items() if len(steps := analysis.frames.steps(row["key"]))}
    if not worst:
        raise lookup.NotDrawn("no trial has stored its steps")
    each = lookup.searched(analysis)
    titles = 0.2 * len(variants) if each else 0.14 * (len(analysis.frames.axes) - 1)
    figure = canvas(FULL, 0.5 + titles + 0.85 * len(variants))
    most = max(map(len, columns.values()))
    # Of losses of their own kind the scales say nothing beside one another.
    alike = lookup.one_loss(analysis)
    grid = figure.subplots(len(variants), most, sharex=True, sharey=True if alike else "row", squeeze=False)
    drawn, short = [], short_names(lookup.order(analysis), 13)
    for row, variant in zip(grid, variants, strict=True):
        for axes in row[len(columns[variant]) :]:
            axes.set_visible(False)
        for axes, setting in zip(row, columns[variant], strict=False):
            if each:
                axes.set_title(plain(lookup.setting_values(analysis, setting)), size=6.5, pad=3)
            if (variant, setting) in worst:
                trial, steps = worst[variant, setting]
                drawn.append(_stream(axes, trial, steps, looks(analysis)[variant]))
            else:
                axes.text(0.5, 0.5, "no result", transform=axes.transAxes, ha="center", color=theme.MUTED, size=6.5)
        row[0].set_ylabel(f"{plain(short[variant])}\nloss", rotation=0, ha="right", va="center")
    low = min((float(np.nanmin(loss)) for loss in drawn if np.isfinite(loss).any()), default=1.0)
    for axes in grid[: 1 if alike else None, 0] if low > 0 else ():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _place: f"{value:g}")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=5))
        axes.yaxis.set_minor_locator(NullLocator())
    if not each:
        name_settings(grid[0], analysis, columns[variants[0]])
    for axes in grid[-1]:
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, steps=[1, 2, 5, 10]))
    left_out = len(lookup.order(analysis)) - len(variants)
    rule = (
        "Pale: training loss of every step of the cell's least stable seed (largest rise); line: median of each "
        "epoch; R: its rise, the largest ratio of an epoch's median to the lowest before it; ▲: spikes, steps "
        "whose log loss or log gradient norm exceeds the median of the window before by six robust standard "
        "deviations; ×: diverged."
    )
    more = f" Shown: the baseline and the {len(variants) - 1} least stable variants." if left_out else ""
    between = max(len(lookup.own_settings(analysis)[variant]) - len(columns[variant]) for variant in variants)
    more += f" {between} settings between those shown are left out." if between else ""
    more += f" Above each: {lookup.settings_axis(analysis)}." if each else ""
    more += "" if alike else " Each variant has a loss of its own, and a scale of its own."
    return finish(figure, analysis, rule + more)


def _least_stable(trials: pd.DataFrame) -> dict[tuple[str, str], pd.Series]:
    """Return for every cell the trial with the largest rise; a diverged one is larger than any."""
    rise = trials["rise"].astype(float).where(trials["status"] != "diverged", np.inf).fillna(-1.0)
    chosen = trials.assign(_rise=rise).sort_values(["_rise", "seed"], ascending=[False, True], kind="stable")
    chosen = chosen.drop_duplicates(["variant", "setting"])
    return {(row["variant"], row["setting"]): row for _, row in chosen.iterrows()}


def _rows(analysis: Analysis, trials: pd.DataFrame) -> list[str]:
    variants = lookup.order(analysis)
    if len(variants) <= MOST_ROWS:
        return variants
    rise = trials.groupby("variant")["rise"].max()
    rest = sorted(variants[1:], key=lambda variant: -float(rise.get(variant, 0.0)))[: MOST_ROWS - 1]
    return [variants[0], *(variant for variant in variants[1:] if variant in rest)]


def _stream(axes: Axes, trial: pd.Series, steps: np.ndarray, look: Look) -> np.ndarray:
    """Draw one stream; return the loss that was drawn."""
    loss = steps[:, 0].astype(float)
    loss = np.where(np.isfinite(loss), loss, np.nan)
    places = np.arange(1, len(loss) + 1)
    x, y = thinned(places, loss)
    axes.plot(x, y, color=look.color, linewidth=0.5, alpha=0.4, zorder=2)
    per_epoch = int(trial["steps_per_epoch"]) if np.isfinite(trial["steps_per_epoch"]) else 0
    if per_epoch > 0:
        medians = epoch_medians(loss, per_epoch)
        axes.plot((np.arange(len(medians)) + 0.5) * per_epoch, medians, color=look.color, linewidth=1.3, zorder=3)
    spikes = spike_steps(steps)
    axes.plot(
        places[spikes],
        np.full(len(spikes), 0.05),
        "^",
        color=theme.ALARM,
        markersize=3,
        transform=axes.get_xaxis_transform(),
    )
    known = np.flatnonzero(np.isfinite(loss))
    if trial["status"] == "diverged" and len(known):
        axes.plot(places[known[-1]], loss[known[-1]], "x", color=theme.ALARM, markersize=5, zorder=4)
    text = "diverged" if trial["status"] == "diverged" else f"R {number(float(trial['rise']))}"
    axes.text(0.98, 0.94, text, transform=axes.transAxes, ha="right", va="top", size=6.5, color=theme.INK)
    return loss


def thinned(x: np.ndarray, y: np.ndarray, most: int = MOST_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Return about `most` points of a stream that look the same: the lowest and highest of each stretch, in order."""
    if len(y) <= most:
        return x, y
    stretches = np.array_split(np.arange(len(y)), most // 2)
    filled = np.where(np.isnan(y), -np.inf, y)
    hollow = np.where(np.isnan(y), np.inf, y)
    kept = sorted({int(p[pick]) for p in stretches for pick in (np.argmax(filled[p]), np.argmin(hollow[p]))})
    return x[kept], y[kept]
