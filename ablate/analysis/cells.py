"""What one cell shows by itself (all seeds of a variant at a setting), and one variant over its settings.

The columns of every frame are listed at the top of `analyse`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ablate.analysis.compare import scored_text
from ablate.analysis.frames import Frames
from ablate.analysis.selection import V_TEXT, Choice, alike_but_rate
from ablate.analysis.statistics import geometric_interval, sample_sd, share_interval, t_interval
from ablate.measure.convergence import GAIN_THRESHOLD, continuation, convergence
from ablate.measure.sensitivity import BUDGET_CURVE_FROM, basin, budget_curve, lr_sensitivity
from ablate.measure.stability import censored_headroom
from ablate.study.metrics import STABILITY
from ablate.wording import count_of

CELLS_RULE = (
    f"{V_TEXT}; T is the same of test mIoU. Intervals are Student's t over seeds; the share of diverged seeds has "
    "Wilson's. Regret is the variant's highest V minus V."
)
STABILITY_RULE = (
    "Mean over the seeds of a cell, infinite where a seed diverged; the interval is Student's t over seeds. rise: "
    "largest ratio of an epoch's median training loss to the lowest of an earlier epoch (1 = never rose); val_rise: "
    "the same of val loss; spike_rate: spikes of loss or gradient norm per 1,000 steps; spike_score: share of steps "
    "that spike in the form of OLMo; roughness: IQR of the loss' first differences over its descent; "
    "excess_variation: way to and fro over the range of the epoch medians; tail_risk: mean of the upper 5 % of the "
    "steps of log loss; late_oscillation: std of val mIoU about its line over the last epochs; lr_headroom: the least "
    "of the probed points, its mean geometric and its interval on the logarithm, none where a seed's is an end of the "
    "range probed."
)
CONVERGENCE_RULE = (
    "Per seed the Theil–Sen slope of val mIoU over the last fifth of the epochs (5 to 20), times their number, is the "
    "projected gain; the 90 % interval is Student's t over seeds. Under-converged where it lies above "
    f"{GAIN_THRESHOLD:g}, converged where it lies below, else inconclusive, as always below three seeds. No verdict "
    "for a schedule that ends near zero."
)
EXTENSION_RULE = (
    "The decisive check of convergence, by training on: per seed the mean val mIoU of the last fifth of the shorter "
    "budget (5 to 20 epochs) is taken from that of as many epochs at the end of the longer one; the 90 % interval is "
    "Student's t over seeds. Verdict on the shorter budget: under-converged where the interval lies above "
    f"{GAIN_THRESHOLD:g}, converged where it lies below, else inconclusive, as always below three seeds. Projected: "
    "what the shorter curves alone had said."
)
SENSITIVITY_RULE = (
    "lr_sensitivity: mean over log rate, over the range stated, of min(final val loss, loss at initialisation) minus "
    "its lowest, a diverged seed counting as the loss at initialisation. Basin: parabola in log rate through the best "
    "V and its neighbours; width in decades within the rope of its top."
)
BUDGET_RULE = (
    "Expected test mIoU of the val-best among n of the settings tried, uniform over the grid, by enumeration of the "
    f"subsets; from {BUDGET_CURVE_FROM} settings on."
)
_ENDED = {"complete", "diverged"}


class Cell(NamedTuple):
    """The trials of a variant at a setting, role "main", as plain columns: thousands of small frames take seconds."""

    variant: str
    setting: str
    columns: dict[str, np.ndarray]
    ended: np.ndarray
    """Which have a result, complete or diverged: bool (trials,)."""

    def of_ended(self, name: str) -> np.ndarray:
        """A column for the trials with a result; NaN throughout where the study has no such column."""
        values = self.columns.get(name)
        return np.full(int(self.ended.sum()), np.nan) if values is None else values[self.ended]

    def levels(self, axes: Sequence[str]) -> dict[str, Any]:
        """The level of every axis, the same for all trials."""
        return {axis: self.columns[axis][0] for axis in axes}


@lru_cache(maxsize=4)
def cell_groups(frames: Frames) -> list[Cell]:
    """Every cell of the role "main", in the order of the plan; put together once for the same `frames`."""
    trials = frames.trials
    main = trials[trials["role"] == "main"]
    columns = {str(name): main[name].to_numpy() for name in main.columns}
    places: dict[tuple[str, str], list[int]] = {}
    for place, cell in enumerate(zip(main["variant"].tolist(), main["setting"].tolist(), strict=True)):
        places.setdefault(cell, []).append(place)
    has_result = main["status"].isin(_ENDED).to_numpy()
    return [
        Cell(variant, setting, {name: values[at] for name, values in columns.items()}, has_result[at])
        for (variant, setting), at in places.items()
    ]


def cells_frame(
    frames: Frames, v: pd.DataFrame, own_best: Choice, shared: str | None, converged: pd.DataFrame, confidence: float
) -> pd.DataFrame:
    """A row a cell; `converged` is the frame of `convergence_frame`."""
    controls = {name for name, spec in frames.study.variants.items() if spec.control}
    verdicts = {(row["variant"], row["setting"]): row for row in converged.to_dict("records")}
    rule = f"{CELLS_RULE} {scored_text(frames)}"
    known = {variant: {str(name): float(score) for name, score in v.T[variant].items()} for variant in v.index}
    rows = []
    for cell in cell_groups(frames):
        variant, setting = cell.variant, cell.setting
        status = Counter(cell.columns["status"].tolist())
        n, diverged = int(cell.ended.sum()), status["diverged"]
        share = share_interval(diverged, n, confidence)
        row: dict[str, Any] = {"variant": variant, "setting": setting, **cell.levels(frames.axes)}
        row |= {"control": variant in controls, "n": n, "n_planned": len(cell.ended)}
        row |= {f"n_{name}": status[name] for name in ("complete", "diverged", "pruned", "failed", "missing")}
        row |= dict(zip(("diverged_share", "diverged_low", "diverged_high"), share, strict=True))
        for split in ("val", "test"):
            scores = cell.of_ended(f"{split}_score").astype(float)
            mean, low, high = t_interval(scores, confidence)
            row |= {f"{split}_mean": mean, f"{split}_sd": sample_sd(scores), f"{split}_low": low, f"{split}_high": high}
        complete = cell.of_ended("status") == "complete"
        row |= {name: _mean(cell.of_ended(name)[complete]) for name in ("val_loss", "test_loss", "best_epoch")}
        row |= {name: _mean(cell.of_ended(name)) for name in STABILITY}
        scored = known[variant]
        row["regret"] = float(np.nanmax([*scored.values(), -np.inf])) - scored[setting]
        row["eligible"] = not np.isnan(scored[setting])
        row["own_best"] = own_best.get(variant) == setting
        row["shared"] = shared == setting
        verdict = verdicts[variant, setting]
        row["convergence"], row["convergence_reason"] = verdict["verdict"], verdict["reason"]
        row |= {"gain": verdict["gain"], "gain_low": verdict["low"], "gain_high": verdict["high"]}
        row["reason"] = _cell_reason(row)
        rows.append(row | {"rule": rule})
    return pd.DataFrame(rows)


def _mean(values: np.ndarray) -> float:
    values = values.astype(float)
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else np.nan


def _cell_reason(row: Mapping[str, Any]) -> str:
    if row["n_pruned"]:
        return f"{row['n_pruned']} of {count_of(row['n_planned'], 'seed')} pruned: the cell is not chosen"
    if row["n"] == 0:
        return f"no result yet: {row['n_missing']} missing, {row['n_failed']} failed"
    if row["n"] < row["n_planned"]:
        return f"{row['n']} of {count_of(row['n_planned'], 'seed')}"
    return "one seed: no interval" if row["n"] == 1 else ""


def stability_frame(frames: Frames, confidence: float) -> pd.DataFrame:
    """A row a cell and measure."""
    rows = []
    for cell in cell_groups(frames):
        at: dict[str, Any] = {"variant": cell.variant, "setting": cell.setting, **cell.levels(frames.axes)}
        for measure in (*STABILITY, "lr_headroom"):
            values = cell.of_ended(measure).astype(float)
            known = values[~np.isnan(values)]
            finite = known[np.isfinite(known)]
            mean, low, high = _over_seeds(measure, known, confidence)
            row = at | {"measure": measure, "mean": mean}
            row["finite_mean"] = float(finite.mean()) if finite.size else np.nan
            row |= {"low": low, "high": high, "largest": float(known.max()) if known.size else np.nan}
            row |= {"n": len(known), "n_infinite": len(known) - len(finite)}
            row["reason"] = _why(measure, cell, known, len(finite))
            rows.append(row | {"rule": STABILITY_RULE})
    return pd.DataFrame(rows)


def _over_seeds(measure: str, known: np.ndarray, confidence: float) -> tuple[float, float, float]:
    """Mean over seeds with its interval; of lr_headroom, a factor over many octaves, both on the logarithm."""
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
    """Why the headroom of n seeds has no interval, "" where it has one."""
    if n_censored:
        lie = "lies" if n_censored == 1 else "lie"
        return f"{n_censored} of {count_of(n, 'seed')} {lie} at an end of the range probed: no interval"
    return "one seed: no interval" if n == 1 else ""


def convergence_frame(frames: Frames) -> pd.DataFrame:
    """A row a cell: whether its seeds had converged when their epochs ended."""
    curves = _val_curves(frames)
    rows = []
    for cell in cell_groups(frames):
        schedules = {schedule for schedule in cell.of_ended("schedule").tolist() if isinstance(schedule, str)}
        # Every schedule but the constant one ends near zero by its definition.
        rates = np.array([1.0, 0.0]) if schedules - {"constant"} else None
        verdict = convergence([curves[key] for key in cell.of_ended("key") if key in curves], rates=rates)
        row = {"variant": cell.variant, "setting": cell.setting, **cell.levels(frames.axes), "verdict": verdict.verdict}
        row |= {"gain": verdict.gain, "low": verdict.low, "high": verdict.high, "n": verdict.seeds}
        rows.append(row | {"reason": verdict.reason, "rule": CONVERGENCE_RULE})
    return pd.DataFrame(rows)


def _val_curves(frames: Frames) -> dict[str, np.ndarray]:
    """Val mIoU by epoch (E,) of every trial that has begun, by its key."""
    keys, scores = frames.epochs["key"].to_numpy(), frames.epochs["val_mean_iou"].to_numpy(float)
    # A trial's epochs stand together, in order.
    starts = np.flatnonzero(keys[1:] != keys[:-1]) + 1
    return dict(zip(keys[[0, *starts]] if len(keys) else [], np.split(scores, starts), strict=False))


def extension_frame(frames: Frames) -> pd.DataFrame:
    """A row a cell of a study that went on from shorter trials: what the further epochs brought; empty for others."""
    before: Mapping[str, int] = frames.run.get("extended_from") or {}
    curves = _val_curves(frames) if before else {}
    rows = []
    for cell in cell_groups(frames):
        budget = before.get(cell.variant)
        if budget is None:
            continue
        known = [curves[key] for key in cell.of_ended("key") if key in curves]
        found, projected = continuation(known, budget), convergence([curve[:budget] for curve in known])
        row = {"variant": cell.variant, "setting": cell.setting, **cell.levels(frames.axes), "budget": budget}
        row |= {"epochs": max((len(curve) for curve in known), default=0), "projected": projected.gain}
        row |= {"projected_verdict": projected.verdict, "verdict": found.verdict, "gain": found.gain}
        row |= {"low": found.low, "high": found.high, "n": found.seeds, "reason": found.reason}
        rows.append(row | {"rule": EXTENSION_RULE})
    columns = ["budget", "epochs", "projected", "projected_verdict", "verdict", "gain", "low", "high", "n", "reason"]
    return pd.DataFrame(rows, columns=["variant", "setting", *frames.axes, *columns, "rule"])


def rate_response(frames: Frames, v: pd.DataFrame, own_best: Choice, rope: float) -> dict[str, dict[str, Any]]:
    """For every variant its learning-rate sensitivity and basin, along the rates through its best setting."""
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


def budget_rule(frames: Frames) -> str:
    """What the tuning-budget curve is uniform over, in words."""
    search = frames.study.search
    if search is None:
        return BUDGET_RULE
    text = BUDGET_RULE.replace("uniform over the grid", "uniform over the settings that the search tried")
    if search.sampler == "tpe":
        text += " The sampler learns: its early settings were worse than its late ones, and the curve hides that order."
    return text


def budget_frame(frames: Frames, v: pd.DataFrame) -> pd.DataFrame:
    """Tuning-budget curve of every variant with at least eight settings; empty where there is none."""
    ended = frames.trials[(frames.trials["role"] == "main") & frames.trials["status"].isin(_ENDED)]
    t = ended.groupby(["variant", "setting"], sort=False)["test_score"].mean()
    parts, rule = [], budget_rule(frames)
    for variant in v.index:
        known = v.loc[variant].dropna()
        if len(known) < BUDGET_CURVE_FROM:
            continue
        test = np.array([t[(variant, setting)] for setting in known.index])
        expected = budget_curve(known.to_numpy(float), test)
        parts.append(
            pd.DataFrame(
                {
                    "variant": variant,
                    "settings_tried": np.arange(1, len(known) + 1),
                    "expected_test": expected,
                    "rule": rule,
                }
            )
        )
    columns = ["variant", "settings_tried", "expected_test", "rule"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
