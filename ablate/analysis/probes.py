"""The probes of the live model: how much longer the steps could be, and what attention gates tell apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from ablate.analysis.cells import cell_groups, headroom_reason
from ablate.analysis.frames import Frames
from ablate.analysis.looks import Looks, basis
from ablate.analysis.schema import FRAMES
from ablate.analysis.scores import StudyScores
from ablate.measure.stability import censored_headroom
from ablate.stats.bounded import logit_interval
from ablate.stats.intervals import Estimate, geometric_interval, mean_estimate


def headroom_frame(frames: Frames, confidence: float) -> pd.DataFrame:
    """Return a row a cell and probed point; empty where headroom was not probed."""
    rows: list[dict[str, Any]] = []
    measured = frames.trials["lr_headroom"].notna().any()
    for cell in cell_groups(frames, fresh=True) if measured else ():
        at = {"variant": cell.variant, "setting": cell.setting, **cell.levels(frames.axes)}
        probed = [_headroom(frames, key) for key in cell.columns["key"]]
        for point in range(max(map(len, probed))):
            values = np.array([series[point] for series in probed if len(series) > point], dtype=float)
            values = values[np.isfinite(values)]
            if not len(values):
                continue
            n_censored = int(censored_headroom(values).sum())
            mean, low, high = geometric_interval(values, confidence)
            row = at | {"point": point + 1, "mean": mean}
            row |= {"low": np.nan, "high": np.nan} if n_censored else {"low": low, "high": high}
            row |= {"lowest": values.min(), "highest": values.max(), "n": len(values), "n_censored": n_censored}
            rows.append(row | {"reason": headroom_reason(len(values), n_censored)})
    return FRAMES["headroom"].filled(rows, frames.axes)


def _headroom(frames: Frames, key: str) -> list[float]:
    layers = frames.arrays[key].layers.get("lr_headroom", {})
    return [np.nan if value is None else value for values in layers.values() for value in values]


def gate_frames(scores: StudyScores, looks: Looks, confidence: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a row a gate and class at own best, and a row a gate of what flattening it does; empty without gates.

    By the seeds that each variant is judged by.
    """
    frames = scores.frames
    sides = [basis(scores, looks.frame, variant).sides[0] for variant in frames.variants]
    keys = {seed.key for side in sides for seed in scores.members(*side) if seed.status == "complete"}
    chosen = frames.trials[frames.trials["key"].isin(keys)]
    probes = frames.layers_of(chosen)
    probes = probes[probes["measure"].str.startswith("gate_")]
    gates, ablated = [], []
    for (variant, layer), part in probes.groupby(["variant", "layer"], sort=False):
        # One value a trial: gates are measured once, at the end.
        values = part.pivot_table(index="key", columns="measure", values="value", sort=False, dropna=False)
        if "gate_auroc" in values:
            gates.append({"variant": variant, **_gate_row(str(layer), values, confidence)})
        if "gate_ablation" in values:
            estimate = _estimate(values["gate_ablation"], confidence)
            row = {"variant": variant, "gate": layer, "delta": estimate.value, "low": estimate.low}
            ablated.append(row | {"high": estimate.high, "n": estimate.n, "reason": estimate.reason})
    return FRAMES["gates"].filled(gates), FRAMES["gate_ablation"].filled(ablated)


def _gate_row(layer: str, values: pd.DataFrame, confidence: float) -> dict[str, Any]:
    """Return the row of a gate and class; `values` has a row a trial and a column a measure, of which some may lack."""
    auroc, shuffled, untrained, lift = (
        values.get(name, pd.Series(np.nan, values.index))
        for name in ("gate_auroc", "gate_auroc_shuffled", "gate_auroc_untrained", "gate_lift")
    )
    found = {"auroc": auroc, "over_shuffled": auroc - shuffled, "over_untrained": auroc - untrained, "lift": lift}
    estimates = {name: _estimate(part, confidence) for name, part in found.items()}
    gate, _, label = layer.partition("/")
    row: dict[str, Any] = {"gate": gate, "class": label}
    _, low, high = logit_interval(auroc.dropna(), confidence)  # cannot leave [0, 1]
    estimates["auroc"] = replace(estimates["auroc"], low=low, high=high)
    for name, estimate in estimates.items():
        row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    row |= {"shuffled": _estimate(shuffled, confidence).value, "untrained": _estimate(untrained, confidence).value}
    return row | {"n": estimates["auroc"].n, "reason": estimates["auroc"].reason}


def _estimate(values: pd.Series, confidence: float) -> Estimate:
    return mean_estimate(values.dropna().to_numpy(float), confidence)
