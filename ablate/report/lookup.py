"""Look-ups in an analysis that the whole report needs: variants and settings in order, their labels, chosen runs."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from ablate.analysis.analyse import Analysis
from ablate.analysis.load import ENDED
from ablate.errors import AblateError
from ablate.measure.detail import scaled_width
from ablate.records.record import FINISHED
from ablate.registry import Displays
from ablate.report.format import rate_text, shorten
from ablate.wording import count_of, listed, range_of

Row = dict[str, Any]
# Letters of a setting where there is room for all of it.
WHOLE = 200
# Keeps what a function made of the last analysis: several figures ask for the same. More would keep analyses alive.
once_an_analysis = lru_cache(maxsize=1)


class NotDrawn(Exception):
    """A figure that a study has no data for; the reason is shown instead of it."""


def made(registry: Displays, name: str, analysis: Analysis) -> Any:
    """Return the figure or table of that name; raise `PluginError` where the function of a plugin fails."""
    function = registry.get(name)
    try:
        return function(analysis)
    except (AblateError, NotDrawn):
        raise
    except Exception as error:
        if function.__module__.startswith("ablate."):
            raise
        raise registry.broken(name, error) from error


def rows_of(frame: pd.DataFrame) -> list[Row]:
    """Return the rows of a frame as dicts."""
    return frame.to_dict("records")  # type: ignore[return-value]


def by_variant(frame: pd.DataFrame) -> dict[str, Row]:
    """Return the first row of each variant as a dict of its columns."""
    return {str(row["variant"]): row for row in rows_of(frame.drop_duplicates("variant"))} if len(frame) else {}


# --- variants and their runs ----------------------------------------------------------------------------------------


def order(analysis: Analysis) -> list[str]:
    """Return the baseline, then the other variants as the study lists them."""
    return [analysis.baseline, *(v for v in analysis.variants_in_order if v != analysis.baseline)]


def among(analysis: Analysis, present: Iterable[str]) -> list[str]:
    """Return the variants that are present, in order."""
    there = set(present)
    return [variant for variant in order(analysis) if variant in there]


def decided(row: Row) -> str:
    """Return the word for the decision of a contrast; where a side has learned nothing there is none to make."""
    return "untrained" if row["untrained"] else str(row["decision"])


def primary_contrasts(analysis: Analysis) -> pd.DataFrame:
    """Return the contrasts that decide: each variant against what it is compared with, once."""
    return analysis.contrasts[analysis.contrasts["primary"].astype(bool)]


def has_intervals(analysis: Analysis) -> bool:
    """Return whether a contrast that decides has an interval: one seed a side gives none."""
    return bool(np.isfinite(primary_contrasts(analysis)["low"].astype(float)).any())


def primary_kind(analysis: Analysis) -> str:
    """Return the way that decides: "confirmed" where fresh seeds were run for it, else "own_best"."""
    kinds = set(primary_contrasts(analysis)["kind"])
    return "confirmed" if "confirmed" in kinds else "own_best"


@once_an_analysis
def busy(analysis: Analysis) -> str:
    """Return why the rates of the closing profile are not those of an idle machine; "" where nothing says so.

    Its rounds agree on an idle machine, and a variant alone is not slower than it was while trials shared the machine.
    """
    trials, rates = main_trials(analysis), analysis.frames.throughput
    if rates.empty or "steps_per_epoch" not in trials:
        return ""
    rounds = rates.groupby("variant")["train_images_per_s"]
    if (rounds.max() > 1.25 * rounds.min()).any():
        return (
            "the rounds of the measurement differ by more than a quarter, so the machine was busy with something else"
        )
    steps = trials["steps_per_epoch"] * trials["epochs_run"] * analysis.frames.study.train.batch_size
    shared = (steps / trials["wall_s"]).groupby(trials["variant"]).median()
    slower = rounds.median() < 0.9 * shared.reindex(rounds.median().index)
    return (
        "a variant alone was slower than beside other trials, so the machine was busy with something else"
        if slower.any()
        else ""
    )


def judged_trials(analysis: Analysis) -> pd.DataFrame:
    """Return the trials that each variant is judged by: fresh seeds where they decide, else those at its own best."""
    trials = analysis.frames.trials
    fresh = trials[trials["role"] == "confirm"]
    decided = primary_kind(analysis) == "confirmed" and fresh["status"].isin(ENDED).any()
    return at_own_best(fresh if decided else main_trials(analysis), analysis)


def main_trials(analysis: Analysis) -> pd.DataFrame:
    """Return the trials of the grid, without those that confirm."""
    trials = analysis.frames.trials
    return trials[trials["role"] == "main"]


def at_own_best(frame: pd.DataFrame, analysis: Analysis) -> pd.DataFrame:
    """Return the rows of a frame that belong to each variant's own best setting."""
    return frame[frame["setting"] == frame["variant"].map(analysis.own_best)]


def curves_of(analysis: Analysis, trials: pd.DataFrame) -> pd.DataFrame:
    """Return the epochs of these trials, with their status."""
    epochs = analysis.frames.epochs
    frame = epochs[epochs["key"].isin(trials["key"])].merge(trials[["key", "status"]], on="key", how="left")
    if not one_loss(analysis):
        # Of a loss of its own kind a curve says nothing beside others.
        functions = analysis.frames.trials.set_index("key")["loss_function"].reindex(frame["key"])
        frame["train_loss"] = frame["train_loss"].where(functions.eq("cross_entropy").to_numpy(bool))
    return frame


def one_loss(analysis: Analysis) -> bool:
    """Return whether all trials were trained with one loss, so that their losses can be compared."""
    trials = analysis.frames.trials
    return "loss_function" not in trials or trials["loss_function"].dropna().nunique() < 2


def loss_column(analysis: Analysis) -> tuple[str, str]:
    """Return the column of the loss on the test split by which variants may be compared, and its title."""
    return ("test_loss", "Test loss") if one_loss(analysis) else ("test_cross_entropy", "Test cross entropy")


def progress(analysis: Analysis) -> tuple[int, int]:
    """Return how many of the planned trials have a result, and how many are planned."""
    trials = analysis.frames.trials
    return int(trials["status"].isin(FINISHED).sum()), len(trials)


@once_an_analysis
def _settings_tried(analysis: Analysis) -> pd.DataFrame:
    """Return for each variant, a row, the number of settings that are planned and that have a result."""
    has = analysis.cells["n"].astype(float) > 0
    groups = has.groupby(analysis.cells["variant"])
    return pd.DataFrame({"planned": groups.size(), "tried": groups.sum()})


def untuned(analysis: Analysis) -> list[str]:
    """Return the variants that have a result at one setting only, of several planned: nothing was chosen yet."""
    return among(analysis, _settings_tried(analysis).query("tried == 1 and planned > 1").index)


def tuned(analysis: Analysis) -> list[str]:
    """Return the variants with results at several settings, among which their own was chosen."""
    return among(analysis, _settings_tried(analysis).query("tried > 1").index)


def one_setting(analysis: Analysis) -> bool:
    """Return whether the study has one setting only, so that nothing is chosen and there is no edge."""
    return len(set(analysis.cells["setting"])) == 1


@once_an_analysis
def on_edge(analysis: Analysis) -> list[str]:
    """Return the variants whose best rate lies on the edge of the grid, without those that none was chosen for."""
    rows, alone = by_variant(analysis.variants), untuned(analysis)
    return [name for name in order(analysis) if name in rows and rows[name]["unbracketed"] and name not in alone]


@once_an_analysis
def provisional(analysis: Analysis) -> list[str]:
    """Return the variants of which a trial, or one that their comparison rests on, has no result."""
    frames = (analysis.variants, primary_contrasts(analysis))
    return among(
        analysis, (name for frame in frames for name in frame.loc[frame["provisional"].astype(bool), "variant"])
    )


def distinct_detail(analysis: Analysis, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of fine detail to show: measures of their own at the size that was scored, ratios as ratios.

    On small images several widths scale to the same number of pixels: trimaps of 1, 3 and 5 px are one there. An excess
    is the logarithm of a ratio to interior IoU; it is shown as that ratio, its difference as a relative one.
    """
    if frame.empty:
        return frame
    shapes = analysis.frames.detail_target.shapes
    first: dict[tuple[object, ...], str] = {}
    for measure in dict.fromkeys(frame["measure"]):
        kind, _, width = str(measure).rpartition("_")
        least = 2 if kind == "thin" else 1
        scaled = [scaled_width(int(width), shape, at_least=least) for shape in shapes] if width.isdigit() else [measure]
        first.setdefault((kind, *scaled), str(measure))
    shown = frame[frame["measure"].isin(first.values())].copy()
    ratio = shown["measure"].astype(str).str.startswith("excess_")
    for columns, less in ((["left", "right"], 0.0), (["delta", "low", "high"], 1.0)):
        shown.loc[ratio, columns] = np.exp(shown.loc[ratio, columns].astype(float)) - less
    return shown


def frequent_classes(analysis: Analysis, most: int) -> list[int]:
    """Return the labels of the classes that the test target has, of many those with most pixels, in their order."""
    pixels = dict(zip(analysis.classes["class"], analysis.classes["pixels"].astype(float), strict=True))
    counted = [pixels.get(name, 0.0) for name in analysis.frames.class_names]
    there = sorted(
        (label for label, count in enumerate(counted) if count or not any(counted)), key=lambda label: -counted[label]
    )
    return sorted(there[:most])


@once_an_analysis
def shown_trials(analysis: Analysis) -> dict[str, str]:
    """Return the trial whose images stand for each variant: of its own best cell the seed of median val mIoU."""
    rows = at_own_best(main_trials(analysis), analysis)
    rows = rows[rows["status"] == "complete"].sort_values(["val_mean_iou", "seed"], kind="stable")
    shown = {}
    for variant in among(analysis, rows["variant"]):
        own = rows[rows["variant"] == variant]
        shown[variant] = str(own["name"].iloc[(len(own) - 1) // 2])
    return shown


# --- settings and their labels --------------------------------------------------------------------------------------


def only_rate(analysis: Analysis) -> bool:
    """Return whether the learning rate is all that distinguishes settings."""
    return list(analysis.frames.axes) == ["lr"]


def searched(analysis: Analysis) -> bool:
    """Return whether every variant has settings of its own, proposed by a search."""
    return analysis.frames.study.search is not None


def settings(analysis: Analysis) -> list[str]:
    """Return the settings of the grid, by their axes, the lowest rate first."""
    axes = list(analysis.frames.axes)
    cells = analysis.cells.drop_duplicates("setting")
    return list(cells.sort_values(axes, kind="stable")["setting"]) if axes else list(cells["setting"])


@once_an_analysis
def own_settings(analysis: Analysis) -> dict[str, list[str]]:
    """Return the settings of each variant by their axes, the lowest rate first: the same for all in a grid."""
    shown = settings(analysis)
    if not searched(analysis):
        return dict.fromkeys(order(analysis), shown)
    tried = set(zip(analysis.cells["variant"], analysis.cells["setting"], strict=True))
    return {variant: [s for s in shown if (variant, s) in tried] for variant in order(analysis)}


def _parts(analysis: Analysis, setting: str) -> list[tuple[str, str]]:
    """Return axis and level of a setting, as text; none for a contrast that has no setting yet."""
    found = analysis.frames.settings.get(setting)
    return [] if found is None else list(zip(found.levels, found.values, strict=True))


def setting_words(analysis: Analysis, setting: str) -> str:
    """Return a setting as it is said in a sentence: "lr 1e-3, weight_decay 0.01"; "as given" where nothing varies."""
    return ", ".join(f"{axis} {level}" for axis, level in _parts(analysis, setting)) or setting


def setting_label(analysis: Analysis, setting: str | None, most: int = 48) -> str:
    """Return a setting as a label of at most so many letters: the rate alone where nothing else varies."""
    if setting is None:
        return "–"
    rates = analysis.frames.levels["lr"]
    if only_rate(analysis) and setting in rates.index:
        return rate_text(float(rates[setting]))
    return shorten(setting_words(analysis, setting), most)


def named_setting(analysis: Analysis, setting: str | None) -> str:
    """Return a setting as a label with the names of its axes: "lr 3e-4"; a dash for none."""
    label = setting_label(analysis, setting)
    return label if setting is None or not only_rate(analysis) else f"lr {label}"


def setting_lines(analysis: Analysis, setting: str) -> list[str]:
    """Return a setting as the title of a panel, every axis of the grid in a line of its own."""
    if only_rate(analysis):
        return [named_setting(analysis, setting)]
    return [shorten(f"{axis} {level}", 20) for axis, level in _parts(analysis, setting)] or [setting]


def setting_values(analysis: Analysis, setting: str) -> str:
    """Return a setting as the label of a tick: its values alone, for `settings_axis` names them."""
    if only_rate(analysis):
        return setting_label(analysis, setting)
    return ", ".join(shorten(level, 10) for _, level in _parts(analysis, setting)) or setting


def settings_axis(analysis: Analysis) -> str:
    """Return what `setting_values` are values of."""
    if only_rate(analysis):
        return "learning rate"
    shown = settings(analysis)
    return ", ".join(shorten(axis, 24) for axis, _ in _parts(analysis, shown[0])) if shown else "setting"


# --- the settings at which variants are shown -----------------------------------------------------------------------


def _one_for_all(analysis: Analysis) -> bool:
    return len(analysis.own_best) > 1 and len(set(analysis.own_best.values())) == 1


def chosen_notes(analysis: Analysis) -> dict[str, str]:
    """Return, for a legend, the setting that each variant is drawn at, where they are drawn at different ones."""
    if _one_for_all(analysis):
        return {}
    chosen = analysis.own_best.items()
    return {variant: f"({named_setting(analysis, setting)})" for variant, setting in chosen if setting is not None}


def chosen_rule(analysis: Analysis) -> str:
    """Return, for the text beneath a figure, at which settings the variants are drawn, and with how many seeds."""
    one = next(iter(analysis.own_best.values())) if _one_for_all(analysis) else None
    which = f", {named_setting(analysis, one)} for all" if one is not None else ""
    where = f"Each variant at its own best setting, chosen on validation{only_one(analysis)}{which}"
    if one_setting(analysis):
        where = f"Every variant at {named_setting(analysis, settings(analysis)[0])}, the only one tried"
    return f"{where}; {seeds_text(analysis)}."


def only_one(analysis: Analysis) -> str:
    """Return for which variants nothing was chosen, to follow "chosen": " (unet: the only one with a result)"."""
    alone = untuned(analysis)
    whose = "every variant" if len(alone) == len(analysis.own_best) else listed(alone)
    return f" ({whose}: the only one with a result)" if alone else ""


def seeds_text(analysis: Analysis) -> str:
    """Return how many seeds each variant is judged by: "3 seeds", "2 to 3 seeds", "6 fresh seeds"."""
    rows = judged_trials(analysis)
    ended = rows[rows["status"].isin(ENDED)]
    if ended.empty:
        return "no seed yet"
    fresh = "fresh " * bool((ended["role"] == "confirm").all())
    return count_of(range_of(ended.groupby("variant").size()), f"{fresh}seed")
