"""Single cells (all seeds of a variant at a setting), and one variant over its settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ablate.analysis.frames import Frames
from ablate.analysis.load import ENDED
from ablate.analysis.schema import FRAMES
from ablate.analysis.scores import StudyScores
from ablate.analysis.selection import Choice, alike_but_rate
from ablate.measure.convergence import continuation, convergence
from ablate.measure.sensitivity import BUDGET_CURVE_FROM, basin, budget_curve, lr_sensitivity
from ablate.measure.stability import censored_headroom
from ablate.registry import MEASURES, Measure
from ablate.stats.decisions import trained
from ablate.stats.intervals import geometric_interval, sample_sd, share_interval, t_interval
from ablate.wording import count_of


class Cell(NamedTuple):
    """The trials of a variant at a setting as plain columns: thousands of small frames take seconds."""

    variant: str
    setting: str
    columns: dict[str, np.ndarray]
    ended: np.ndarray
    """Which have a result, complete or diverged: bool (trials,)."""

    def of_ended(self, name: str) -> np.ndarray:
        """Return a column for the trials with a result; NaN throughout where the study has no such column."""
        values = self.columns.get(name)
        return np.full(int(self.ended.sum()), np.nan) if values is None else values[self.ended]

    def of_measure(self, measure: Measure) -> np.ndarray:
        """Return what every trial with a result counts in a mean over seeds, NaN where it is left out: float64 (n,)."""
        values = self.of_ended(measure.name).astype(float)
        return np.where(np.isnan(values) & (self.of_ended("status") == "diverged"), measure.if_diverged, values)

    def identity(self, axes: Sequence[str]) -> dict[str, Any]:
        """Return what names the cell: variant, setting, and the level of every axis, the same for all trials."""
        levels = {axis: self.columns[axis][0] for axis in axes}
        return {"variant": self.variant, "setting": self.setting, **levels}


@lru_cache(maxsize=4)
def cell_groups(frames: Frames, fresh: bool = False) -> list[Cell]:
    """Return every cell of the role "main", in the order of the plan; put together once for the same `frames`.

    With `fresh`, a cell that the study confirms stands by its fresh seeds, once one of them has ended.
    """
    trials = frames.trials
    cells = list(zip(trials["variant"].tolist(), trials["setting"].tolist(), strict=True))
    confirms, has_result = trials["role"].eq("confirm").to_numpy(), trials["status"].isin(ENDED).to_numpy()
    judged: set[tuple[str, str]] = set()
    if fresh and frames.study.confirm is not None:
        judged = {cell for cell, there in zip(cells, confirms & has_result, strict=True) if there}
    places: dict[tuple[str, str], list[int]] = {cell: [] for cell, new in zip(cells, confirms, strict=True) if not new}
    for place, (cell, new) in enumerate(zip(cells, confirms, strict=True)):
        if new == (cell in judged):
            places[cell].append(place)
    columns = {str(name): trials[name].to_numpy() for name in trials.columns}
    return [
        Cell(variant, setting, {name: values[at] for name, values in columns.items()}, has_result[at])
        for (variant, setting), at in places.items()
    ]


def cells_frame(scores: StudyScores, own_best: Choice, shared: str | None, converged: pd.DataFrame) -> pd.DataFrame:
    """Return a row a cell; `converged` is the frame of `convergence_frame`."""
    frames, v, confidence = scores.frames, scores.v, scores.confidence
    verdicts = {(row["variant"], row["setting"]): row for row in converged.to_dict("records")}
    known = {variant: {str(name): float(score) for name, score in v.T[variant].items()} for variant in v.index}
    may_be_chosen = scores.eligible.notna()
    rows = []
    for cell in cell_groups(frames):
        variant, setting = cell.variant, cell.setting
        status = Counter(cell.columns["status"].tolist())
        n, diverged = int(cell.ended.sum()), status["diverged"]
        share = share_interval(diverged, n, confidence)
        row: dict[str, Any] = cell.identity(frames.axes)
        row |= {"control": variant in frames.controls, "n": n, "n_planned": len(cell.ended)}
        row |= {f"n_{name}": status[name] for name in ("complete", "diverged", "pruned", "failed", "missing")}
        row |= dict(zip(("diverged_share", "diverged_low", "diverged_high"), share, strict=True))
        for split in ("val", "test"):
            reached = cell.of_ended(f"{split}_score").astype(float)
            mean, low, high = t_interval(reached, confidence)
            row |= {
                f"{split}_mean": mean,
                f"{split}_sd": sample_sd(reached),
                f"{split}_low": low,
                f"{split}_high": high,
            }
        row["blind_score"] = scores.blind_score
        row["untrained"] = trained(reached, scores.blind_score) == "untrained"
        complete = cell.of_ended("status") == "complete"
        for name in ("val_loss", "test_loss", "best_epoch"):
            found = _known(cell.of_ended(name)[complete])
            row[name] = float(found.mean()) if found.size else np.nan
        row |= {name: _over_seeds(name, _known(cell.of_measure(one)), confidence)[0] for name, one in MEASURES.items()}
        scored = known[variant]
        row["regret"] = float(np.nanmax([*scored.values(), -np.inf])) - scored[setting]
        row["eligible"] = bool(may_be_chosen.loc[variant, setting])
        row["own_best"] = own_best.get(variant) == setting
        row["shared"] = shared == setting
        verdict = verdicts[variant, setting]
        row["convergence"], row["convergence_reason"] = verdict["verdict"], verdict["reason"]
        row |= {"gain": verdict["gain"], "gain_low": verdict["low"], "gain_high": verdict["high"]}
        row["reason"] = _cell_reason(row)
        rows.append(row)
    return pd.DataFrame(rows)


def _known(values: np.ndarray) -> np.ndarray:
    values = values.astype(float)
    return values[~np.isnan(values)]


def _cell_reason(row: Mapping[str, Any]) -> str:
    if row["n_pruned"]:
        return f"{row['n_pruned']} of {count_of(row['n_planned'], 'seed')} pruned: the cell is not chosen"
    if row["n"] == 0:
        return f"no result yet: {row['n_missing']} missing, {row['n_failed']} failed"
    if row["n"] < row["n_planned"]:
        return f"{row['n']} of {count_of(row['n_planned'], 'seed')}"
    return "one seed: no interval" if row["n"] == 1 else ""


def stability_frame(frames: Frames, confidence: float) -> pd.DataFrame:
    """Return a row a cell and registered measure that is none of quality."""
    measures = {name: measure for name, measure in MEASURES.items() if measure.section != "quality"}
    rows = []
    for cell in cell_groups(frames, fresh=True):
        for measure, registered in measures.items():
            known = _known(cell.of_measure(registered))
            finite = known[np.isfinite(known)]
            mean, low, high = _over_seeds(measure, known, confidence)
            row = cell.identity(frames.axes) | {"measure": measure, "mean": mean}
            row["finite_mean"] = float(finite.mean()) if finite.size else np.nan
            row |= {"low": low, "high": high, "largest": float(known.max()) if known.size else np.nan}
            row |= {"n": len(known), "n_infinite": len(known) - len(finite)}
            rows.append(row | {"reason": _why(measure, cell, known, len(finite))})
    return pd.DataFrame(rows)


def _over_seeds(measure: str, known: np.ndarray, confidence: float) -> tuple[float, float, float]:
    """Return the mean over seeds with its interval.

    Of lr_headroom, a factor over many octaves, both are on the logarithm.
    """
    if not known.size:
        return np.nan, np.nan, np.nan
    if measure != "lr_headroom":
        _, low, high = t_interval(known, confidence)
        return float(known.mean()), low, high
    mean, low, high = geometric_interval(known, confidence)
    return (mean, np.nan, np.nan) if censored_headroom(known).any() else (mean, low, high)


def _why(measure: str, cell: Cell, values: np.ndarray, finite: int) -> str:
    known = len(values)
    if not cell.ended.any():
        return "no result yet"
    if known and measure == "lr_headroom":
        return headroom_reason(known, int(censored_headroom(values).sum()))
    if not known:
        reasons = [missing[measure] for missing in cell.of_ended("missing") if measure in missing]
        return reasons[0] if reasons else "not measured in this study"
    if finite < known:
        return f"{known - finite} of {count_of(known, 'seed')} left the finite: no interval"
    return "one seed: no interval" if known == 1 else ""


def headroom_reason(n: int, n_censored: int) -> str:
    """Say why the headroom of n seeds has no interval, "" where it has one."""
    if n_censored:
        lie = "lies" if n_censored == 1 else "lie"
        return f"{n_censored} of {count_of(n, 'seed')} {lie} at an end of the range probed: no interval"
    return "one seed: no interval" if n == 1 else ""


def headroom_frame(frames: Frames, confidence: float) -> pd.DataFrame:
    """Return a row a cell and probed point; empty where headroom was not probed."""
    rows = []
    measured = frames.trials["lr_headroom"].notna().any()
    for cell in cell_groups(frames, fresh=True) if measured else ():
        probed = [_headroom(frames, key) for key in cell.columns["key"]]
        for point in range(max(map(len, probed))):
            values = np.array([series[point] for series in probed if len(series) > point], dtype=float)
            values = values[np.isfinite(values)]
            if not len(values):
                continue
            n_censored = int(censored_headroom(values).sum())
            mean, low, high = geometric_interval(values, confidence)
            row = cell.identity(frames.axes) | {"point": point + 1, "mean": mean}
            row |= {"low": np.nan, "high": np.nan} if n_censored else {"low": low, "high": high}
            row |= {"lowest": values.min(), "highest": values.max(), "n": len(values), "n_censored": n_censored}
            rows.append(row | {"reason": headroom_reason(len(values), n_censored)})
    return FRAMES["headroom"].filled(rows, frames.axes)


def _headroom(frames: Frames, key: str) -> list[float]:
    layers = frames.arrays[key].layers.get("lr_headroom", {})
    return [np.nan if value is None else value for values in layers.values() for value in values]


def convergence_frame(frames: Frames) -> pd.DataFrame:
    """Return a row a cell: whether its seeds had converged when their epochs ended."""
    curves = _val_curves(frames)
    rows = []
    for cell in cell_groups(frames, fresh=True):
        schedules = {schedule for schedule in cell.of_ended("schedule").tolist() if isinstance(schedule, str)}
        # Every schedule but the constant one ends near zero by its definition.
        decays = bool(schedules - {"constant"})
        verdict = convergence([curves[key] for key in cell.of_ended("key") if key in curves], decays=decays)
        row = cell.identity(frames.axes) | {"verdict": verdict.verdict, "gain": verdict.gain}
        row |= {"low": verdict.low, "high": verdict.high, "n": verdict.seeds}
        rows.append(row | {"reason": verdict.reason})
    return pd.DataFrame(rows)


def _val_curves(frames: Frames) -> dict[str, np.ndarray]:
    """Return val mIoU by epoch (E,) of every trial that has begun, by its key."""
    keys, scores = frames.epochs["key"].to_numpy(), frames.epochs["val_mean_iou"].to_numpy(float)
    # A trial's epochs stand together, in order.
    starts = np.flatnonzero(keys[1:] != keys[:-1]) + 1
    return dict(zip(keys[[0, *starts]] if len(keys) else [], np.split(scores, starts), strict=False))


def extension_frame(frames: Frames) -> pd.DataFrame:
    """Return a row a cell of a study that went on from shorter trials: what the further epochs brought.

    Empty for others.
    """
    before: Mapping[str, int] = frames.run.get("extended_from") or {}
    curves = _val_curves(frames) if before else {}
    rows = []
    for cell in cell_groups(frames):
        budget = before.get(cell.variant)
        if budget is None:
            continue
        known = [curves[key] for key in cell.of_ended("key") if key in curves]
        found, projected = continuation(known, budget), convergence([curve[:budget] for curve in known])
        row = cell.identity(frames.axes) | {"budget": budget}
        row |= {"epochs": max((len(curve) for curve in known), default=0), "projected": projected.gain}
        row |= {"projected_verdict": projected.verdict, "verdict": found.verdict, "gain": found.gain}
        rows.append(row | {"low": found.low, "high": found.high, "n": found.seeds, "reason": found.reason})
    return FRAMES["extension"].filled(rows, frames.axes)


def rate_response(frames: Frames, v: pd.DataFrame, own_best: Choice, rope: float) -> dict[str, dict[str, Any]]:
    """Return for every variant its learning-rate sensitivity and basin, along the rates through its best setting."""
    cells = {(cell.variant, cell.setting): cell for cell in cell_groups(frames)}
    return {
        str(variant): _response(frames, cells, str(variant), v.loc[variant], own_best.get(str(variant)), rope)
        for variant in v.index
    }


def _response(
    frames: Frames, cells: Mapping[tuple[str, str], Cell], variant: str, row: pd.Series, best: str | None, rope: float
) -> dict[str, Any]:
    names = ("lr_sensitivity", "sensitivity_low", "sensitivity_high", "basin_optimum", "basin_width")
    empty: dict[str, Any] = dict.fromkeys(names, np.nan) | {"basin_bracketed": False, "basin_extrapolated": False}
    if best is None:
        return empty | {"sensitivity_reason": "no result yet", "basin_reason": "no result yet"}
    rates, final, initial, scores = [], [], [], []
    for setting in alike_but_rate(best, [str(name) for name in row.dropna().index], frames.levels):
        cell = cells[variant, setting]
        start, end = (cell.of_ended(name).astype(float) for name in ("initial_val_loss", "final_val_loss"))
        # A diverged seed ends, for this purpose, where it began, whatever its last finite epoch was.
        end = np.where((cell.of_ended("status") == "diverged") | ~np.isfinite(end), start, end)
        rates.append(float(cell.of_ended("lr")[0]))
        final.append(float(np.minimum(end, start).mean()))
        initial.append(float(start.mean()))
        scores.append(float(row[setting]))
    sensitivity = lr_sensitivity(np.array(rates), np.array(final), np.array(initial))
    shape = basin(np.array(rates), np.array(scores), rope)
    return {
        "lr_sensitivity": sensitivity.value,
        "sensitivity_low": min(rates),
        "sensitivity_high": max(rates),
        "sensitivity_reason": sensitivity.reason or "",
        "basin_optimum": shape.optimum,
        "basin_width": shape.width,
        "basin_bracketed": shape.bracketed,
        "basin_extrapolated": shape.extrapolated,
        "basin_reason": shape.reason or "",
    }


def budget_frame(frames: Frames, v: pd.DataFrame) -> pd.DataFrame:
    """Return the tuning-budget curve of every variant with at least eight settings; empty where there is none."""
    ended = frames.trials[(frames.trials["role"] == "main") & frames.trials["status"].isin(ENDED)]
    t = ended.groupby(["variant", "setting"], sort=False)["test_score"].mean()
    rows: list[tuple[str, int, float]] = []
    for variant in v.index:
        known = v.loc[variant].dropna()
        if len(known) < BUDGET_CURVE_FROM:
            continue
        test = np.array([t[(variant, setting)] for setting in known.index])
        for tried, expected in enumerate(budget_curve(known.to_numpy(float), test).tolist(), start=1):
            rows.append((str(variant), tried, expected))
    return pd.DataFrame(rows, columns=["variant", "settings_tried", "expected_test"])
