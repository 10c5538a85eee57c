"""What the figures share: the order of variants and settings, the chosen runs, marks of diverged and missing trials."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ablate.analysis.analyse import Analysis
from ablate.report import style
from ablate.report.style import Look, plain, rate_text, shorten

Made = TypeVar("Made")


def once_an_analysis(make: Callable[[Analysis], Made]) -> Callable[[Analysis], Made]:
    """`make` with what it made kept for as long as the analysis is: several figures ask for the same."""
    kept: WeakKeyDictionary[Analysis, Made] = WeakKeyDictionary()

    @wraps(make)
    def made(analysis: Analysis) -> Made:
        if analysis not in kept:
            kept[analysis] = make(analysis)
        return kept[analysis]

    return made


class NotDrawn(Exception):
    """A figure that a study has no data for; the reason is shown instead of it."""


def looks(analysis: Analysis) -> dict[str, Look]:
    """The look of each variant, the same in every figure: the baseline first, then the study's order."""
    return style.looks(order(analysis))


def order(analysis: Analysis) -> list[str]:
    """The baseline, then the other variants as the study lists them."""
    return [analysis.baseline, *(v for v in analysis.variants_in_order if v != analysis.baseline)]


def others(analysis: Analysis) -> list[str]:
    """The variants that are compared with something, in order."""
    compared = set(analysis.contrasts["variant"])
    return [variant for variant in order(analysis) if variant in compared]


def by_variant(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """The first row of each variant as a dict of its columns."""
    rows = frame.drop_duplicates("variant").to_dict("records") if len(frame) else []
    return {str(row["variant"]): {str(key): value for key, value in row.items()} for row in rows}


def main_trials(analysis: Analysis) -> pd.DataFrame:
    """The trials of the grid, without those that confirm."""
    trials = analysis.frames.trials
    return trials[trials["role"] == "main"]


def settings(analysis: Analysis) -> list[str]:
    """The settings of the grid, by their axes, the lowest rate first."""
    axes = list(analysis.frames.axes)
    cells = analysis.cells.drop_duplicates("setting")
    return list(cells.sort_values(axes, kind="stable")["setting"]) if axes else list(cells["setting"])


# Letters of a setting where there is room for all of it.
WHOLE = 200


def setting_label(analysis: Analysis, setting: str | None, most: int = 48) -> str:
    """A setting as a label of at most so many letters: the rate alone where nothing else varies, a dash for none."""
    if setting is None:
        return "–"
    rate = _rates(analysis).get(setting)
    return shorten(setting.replace("=", " "), most) if rate is None else rate_text(rate)


def searched(analysis: Analysis) -> bool:
    """Whether every variant has settings of its own, proposed by a search."""
    return analysis.frames.study.search is not None


@once_an_analysis
def own_settings(analysis: Analysis) -> dict[str, list[str]]:
    """The settings of each variant by their axes, the lowest rate first: the same for all in a grid."""
    shown = settings(analysis)
    if not searched(analysis):
        return dict.fromkeys(order(analysis), shown)
    tried = set(zip(analysis.cells["variant"], analysis.cells["setting"], strict=True))
    return {variant: [s for s in shown if (variant, s) in tried] for variant in order(analysis)}


def setting_title(analysis: Analysis, setting: str) -> str:
    """A setting as the title of a panel, every axis of the grid in a line of its own."""
    if list(analysis.frames.axes) == ["lr"]:
        return plain(f"lr {setting_label(analysis, setting)}")
    return "\n".join(plain(shorten(part.replace("=", " "), 20)) for part in setting.split(", "))


def setting_values(analysis: Analysis, setting: str) -> str:
    """A setting as the label of a tick: its values alone, for `settings_axis` names them."""
    if list(analysis.frames.axes) == ["lr"]:
        return setting_label(analysis, setting)
    return ", ".join(shorten(part.partition("=")[2] or part, 10) for part in setting.split(", "))


def settings_axis(analysis: Analysis) -> str:
    """What `setting_values` are values of."""
    if list(analysis.frames.axes) == ["lr"]:
        return "learning rate"
    shown = settings(analysis)
    return ", ".join(shorten(part.partition("=")[0], 24) for part in shown[0].split(", ")) if shown else "setting"


@once_an_analysis
def _rates(analysis: Analysis) -> dict[str, float]:
    """The rate of every setting, where nothing else is varied."""
    if list(analysis.frames.axes) != ["lr"]:
        return {}
    cells = analysis.cells.drop_duplicates("setting")
    return dict(zip(cells["setting"], cells["lr"].astype(float), strict=True))


def chosen_notes(analysis: Analysis) -> dict[str, str]:
    """For the legend: the setting that each variant is drawn at, where they are drawn at different ones."""
    if _one_for_all(analysis):
        return {}
    return {
        variant: f"({_named(analysis, setting)})"
        for variant, setting in analysis.own_best.items()
        if setting is not None
    }


def chosen_rule(analysis: Analysis) -> str:
    """For the rule beneath: at which settings the variants are drawn, and with how many seeds."""
    one = next(iter(analysis.own_best.values())) if _one_for_all(analysis) else None
    which = f", {_named(analysis, one)} for all" if one is not None else ""
    return f"Each variant at its own best setting, chosen on validation{which}; {seeds_text(analysis)}."


def seeds_text(analysis: Analysis) -> str:
    """How many seeds a cell at a chosen setting has: "3 seeds", "2 to 3 seeds"."""
    counts = at_own_best(analysis.cells, analysis)["n"].astype(int)
    counts = counts[counts > 0]
    if counts.empty:
        return "no seed yet"
    low, high = int(counts.min()), int(counts.max())
    return f"{low if low == high else f'{low} to {high}'} seed{'s' * (high > 1)}"


def _one_for_all(analysis: Analysis) -> bool:
    return len(analysis.own_best) > 1 and len(set(analysis.own_best.values())) == 1


def _named(analysis: Analysis, setting: str | None) -> str:
    if setting is None or list(analysis.frames.axes) != ["lr"]:
        return setting_label(analysis, setting)
    return f"lr {setting_label(analysis, setting)}"


def at_own_best(frame: pd.DataFrame, analysis: Analysis) -> pd.DataFrame:
    """The rows of a frame that belong to each variant's own best setting."""
    return frame[frame["setting"] == frame["variant"].map(analysis.own_best)]


def epochs_at_own_best(analysis: Analysis) -> pd.DataFrame:
    """The curves of the grid's trials at each variant's own best setting."""
    chosen = at_own_best(main_trials(analysis), analysis)
    return curves_of(analysis, chosen)


def curves_of(analysis: Analysis, trials: pd.DataFrame) -> pd.DataFrame:
    """The epochs of these trials, with their status."""
    epochs = analysis.frames.epochs
    epochs = epochs[epochs["key"].isin(trials["key"])]
    return epochs.merge(trials[["key", "status"]], on="key", how="left")


def progress(analysis: Analysis) -> tuple[int, int]:
    """How many of the planned trials have a result, and how many are planned."""
    trials = analysis.frames.trials
    return int(trials["status"].isin(["complete", "diverged", "pruned"]).sum()), len(trials)


def finish(figure: Figure, analysis: Analysis, rule: str) -> Figure:
    """Print the rule beneath the figure, and n of N on it while the study is unfinished."""
    done, planned = progress(analysis)
    return style.finish(
        figure, rule, f"Unfinished: {done} of {planned} trials have a result." if done < planned else ""
    )


def spreads(frame: pd.DataFrame, column: str, by: Sequence[str]) -> dict[Any, pd.DataFrame]:
    """Mean, lowest and highest of a column over the seeds that did not diverge: a frame (epoch x 3) for each `by`.

    All at once: a search through the rows for each takes seconds where there are thousands of trials.
    """
    lived = frame[~frame["status"].eq("diverged").to_numpy(bool)]
    spread = lived.groupby([*by, "epoch"], sort=True)[column].agg(["mean", "min", "max"])
    places = spread.groupby(level=list(range(len(by)))).indices
    epochs = spread.index.get_level_values(-1)
    values = spread.to_numpy()
    return {
        name: pd.DataFrame(values[rows], index=epochs[rows], columns=spread.columns) for name, rows in places.items()
    }


def draw_curves(
    axes: Axes,
    frame: pd.DataFrame,
    column: str,
    variants: Sequence[str],
    looks: dict[str, Look],
    lived: dict[Any, pd.DataFrame] | None = None,
) -> None:
    """Mean over seeds as a line, the range of the seeds as a band; a diverged run as a thin line up to its ×.

    `frame` holds `variant seed epoch status` and the column; all rows of a variant are of one setting. `lived` are
    the `spreads` by variant, where they are known already.
    """
    dead = frame["status"].eq("diverged").to_numpy(bool)
    lived = spreads(frame, column, ["variant"]) if lived is None else lived
    died = {name: part.groupby("key") for name, part in frame[dead].groupby("variant")}
    for variant in variants:
        look = looks[variant]
        if variant in lived:
            mean, low, high = (lived[variant][name] for name in ("mean", "min", "max"))
            if (high > low).any():
                axes.fill_between(mean.index, low, high, color=look.color, alpha=0.16, linewidth=0)
            axes.plot(mean.index, mean, **look.line(zorder=3))
            if len(mean) == 1:
                axes.plot(mean.index, mean, look.marker, color=look.color)
        for _, run in died.get(variant, ()):
            known = run[np.isfinite(run[column])]
            if len(known):
                axes.plot(known["epoch"], known[column], **look.line(linewidth=0.8, alpha=0.8))
                axes.plot(
                    known["epoch"].iloc[-1:], known[column].iloc[-1:], "x", color=style.ALARM, markersize=5, zorder=4
                )
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True, steps=[1, 2, 5, 10]))


def loss_axis(axes: Axes, values: Iterable[float]) -> None:
    """A logarithmic loss axis where the losses span more than a factor of six, else from what there is."""
    known = np.array([value for value in values if math.isfinite(value) and value > 0])
    if len(known) and known.max() / known.min() > 6:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _place: f"{value:g}")
        axes.yaxis.set_minor_formatter(lambda value, _place: f"{value:g}" if str(f"{value:e}")[0] in "25" else "")
        axes.tick_params(axis="y", which="minor", labelsize=6.5, labelcolor=style.MUTED)


def percent_axis(axes: Axes, which: str = "y", most: int = 6) -> None:
    """Fractions on the axis, per cent on its labels, at most about so many."""
    axis = axes.yaxis if which == "y" else axes.xaxis
    axis.set_major_locator(MaxNLocator(nbins=most, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(percent_tick)


def percent_tick(value: float, _place: float = 0.0) -> str:
    """A fraction as a tick label in per cent."""
    return f"{round(100 * value, 6):g}".replace("-", "−")


def label_rows(axes: Axes, names: Sequence[str], *, most: int = 22) -> None:
    """The rows of a horizontal chart, the first at the top, each with its name."""
    short = style.short_names(names, most)
    axes.set_yticks(range(len(names)), [plain(short[name]) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")


def layer_depth(layer: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts layers as the image passes them: encoder, bottleneck, decoder, head; numbers as numbers."""
    words = re.findall(r"[A-Za-z_]+|[0-9]+", layer)
    return tuple((0, int(w), "") if w.isdigit() else (_STAGES.get(w, 5), 0, w) for w in words)


_STAGES = {"encoder": 0, "bottleneck": 1, "decoder": 2, "head": 9, "up": 0, "gate": 1, "block": 2}
