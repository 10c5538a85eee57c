"""The frames with a row a variant: what each reaches at its own best setting, its classes, its gates, its cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from ablate.analysis.contrasts import confounds, ratio_of
from ablate.analysis.frames import Frames
from ablate.analysis.load import ENDED
from ablate.analysis.looks import Looks, basis
from ablate.analysis.schema import FRAMES
from ablate.analysis.scores import StudyScores
from ablate.analysis.selection import Choice
from ablate.measure import segmentation
from ablate.stats.bounded import logit_interval
from ablate.stats.intervals import Estimate, mean_estimate, ratio_interval
from ablate.study.trial import level_text

QUALITY = {
    "mean_iou_images": "test_mean_iou_images",
    "mean_iou_classes": "test_mean_iou_classes",
    "worst_images": "test_worst_images",
    "pixel_accuracy": "test_pixel_accuracy",
    "dice": "test_dice",
    "test_loss": "test_loss",
    "test_cross_entropy": "test_cross_entropy",
}
# Scores in which a diverged seed counts 0; a loss has no such value, so it is the mean of the complete seeds.
_SCORES = set(QUALITY) - {"test_loss", "test_cross_entropy"}
RATES = ("train_images_per_s", "inference_images_per_s")
COMPONENTS = {f"{part}_sd": part for part in ("between_runs", "seed", "image", "interaction")}


def variants_frame(
    scores: StudyScores, looks: Looks, own_best: Choice, response: Mapping[str, dict[str, Any]]
) -> pd.DataFrame:
    """Return a row a variant, by the seeds that it is judged by; `response` is that of `cells.rate_response`."""
    frames = scores.frames
    described = frames.run.get("variants", {})
    rows = []
    for variant in frames.variants:
        setting = own_best.get(variant)
        other = frames.against.get(variant, frames.baseline)
        ((_, _, role),) = basis(scores, looks.frame, variant).sides
        own = frames.trials[frames.trials["variant"] == variant]
        planned = own[own["role"] == role]
        row: dict[str, Any] = {"variant": variant, "baseline": variant == frames.baseline}
        row |= {
            "control": variant in frames.controls,
            "against": other,
            "differs": _differs(described.get(variant, {})),
        }
        row |= {"confounds": confounds(frames, [variant]), "setting": setting or ""}
        row |= {axis: frames.levels[axis][setting] if setting else np.nan for axis in frames.axes}
        edge = scores.edge(variant, setting) if setting else "no setting has a result"
        row |= {"unbracketed": bool(edge), "bracket": edge}
        row |= _scores(scores, variant, setting, role, planned)
        row["provisional"] = bool(own["status"].isin(["missing", "failed"]).any())
        row |= response[variant]
        for quantity, name in (("parameters", "parameters_ratio"), ("forward_flops", "flops_ratio")):
            row[quantity] = float(described.get(variant, {}).get(quantity) or np.nan)
            row[name] = ratio_of(frames, variant, other, quantity)
        rows.append(row | _modules(described.get(variant, {})))
    return pd.DataFrame(rows)


def classes_frame(scores: StudyScores, looks: Looks) -> pd.DataFrame:
    """Return a row a variant and class, at the variant's own best setting, by the seeds that it is judged by."""
    frames, rows = scores.frames, []
    for variant in frames.variants:
        (side,) = basis(scores, looks.frame, variant).sides
        if not side[1]:
            continue
        seeds = [None if counts is None else counts.sum(axis=0) for counts in scores.counts("test", *side)]
        known = [total for total in seeds if total is not None]
        zero = np.zeros(len(frames.class_names))
        dice = np.mean([zero if total is None else segmentation.dice(total) for total in seeds], axis=0)
        pixels = known[0][:, segmentation.TP] + known[0][:, segmentation.FN] if known else zero
        for place, (label, estimate) in enumerate(zip(frames.class_names, scores.level(*side)[1:], strict=True)):
            row: dict[str, Any] = {"variant": variant, "class": label, "pixels": int(pixels[place])}
            row |= {"iou": estimate.value, "iou_low": estimate.low, "iou_high": estimate.high}
            rows.append(row | {"dice": float(dice[place]), "n": estimate.n, "reason": estimate.reason})
    return FRAMES["classes"].filled(rows)


def _differs(described: Mapping[str, Any]) -> str:
    pairs = described.get("differs", {}).items()
    return "; ".join(f"{name}: {' → '.join('–' if v is None else level_text(v) for v in pair)}" for name, pair in pairs)


def _modules(described: Mapping[str, Any]) -> dict[str, Any]:
    """Count how many modules the variant's network has that the baseline's lacks, and the reverse.

    NaN where unknown.
    """
    trees = described.get("modules") or {}
    counts = {f"modules_{way}": len(trees[way]) if way in trees else np.nan for way in ("added", "removed")}
    return counts | {
        "modules": "; ".join(
            f"{sign}{line}" for sign, way in (("+", "added"), ("−", "removed")) for line in trees.get(way, ())
        )
    }


def _scores(scores: StudyScores, variant: str, setting: str | None, role: str, planned: pd.DataFrame) -> dict[str, Any]:
    names = ("val_mean", "test_mean", "test_low", "test_high", "stability_of_choice", *QUALITY, *COMPONENTS)
    row: dict[str, Any] = dict.fromkeys(names, np.nan) | {"n": 0, "n_planned": 0, "reason": ""}
    if setting is None:
        return row | {"n_planned": int(planned.groupby("setting").size().max()), "reason": "no result yet"}
    cell = planned[planned["setting"] == setting]
    ended = cell[cell["status"].isin(ENDED)]
    estimate = scores.level(variant, setting, role)[0]
    row |= {"n": len(ended), "n_planned": len(cell), "val_mean": float(scores.v.T[variant][setting])}
    row |= {"test_mean": estimate.value, "test_low": estimate.low, "test_high": estimate.high}
    row |= {"reason": estimate.reason, "stability_of_choice": scores.stability_of_choice(variant, setting)}
    for name, column in QUALITY.items():
        if column in ended and not (name == "pixel_accuracy" and scores.frames.multilabel):
            values = ended[column].mask(ended["status"].eq("diverged"), 0.0 if name in _SCORES else np.nan)
            row[name] = float(values.mean())
    split = scores.variance(variant, setting, role)
    return row | {name: float(np.sqrt(getattr(split, part))) for name, part in COMPONENTS.items()}


# --- what attention gates tell apart ----------------------------------------------------------------------------------


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


# --- what a variant costs, from the closing profile -----------------------------------------------------------------


def throughput_frame(frames: Frames) -> pd.DataFrame:
    """Return a row a profiled variant and rate; the baseline's ratio is 1 by definition."""
    rates = {str(variant): part for variant, part in frames.throughput.groupby("variant", sort=False)}
    rows = []
    for variant, own in rates.items():
        other = frames.against.get(variant, frames.baseline)
        for quantity in RATES:
            values = own[quantity].to_numpy(float)
            row: dict[str, Any] = {"variant": variant, "against": other, "quantity": quantity}
            row["value"] = float(np.median(values)) if len(values) else np.nan
            estimate = _ratio(values, rates.get(other), quantity, variant == other, frames.study.measure.confidence)
            row |= {"ratio": estimate.value, "low": estimate.low, "high": estimate.high, "rounds": len(values)}
            rows.append(row | {"reason": estimate.reason})
    return FRAMES["throughput"].filled(rows)


def _ratio(values: np.ndarray, base: pd.DataFrame | None, quantity: str, itself: bool, confidence: float) -> Estimate:
    if itself:
        return Estimate(1.0, np.nan, np.nan, n=len(values), reason="the baseline itself")
    if base is None or len(base) != len(values):
        return Estimate(np.nan, np.nan, np.nan, reason="the rounds of the two variants do not pair")
    return ratio_interval(values, base[quantity].to_numpy(float), confidence)


def cost_frame(frames: Frames) -> pd.DataFrame:
    """Return a row a variant of the profile."""
    profiled = frames.profile.get("variants", {})
    base = profiled.get(frames.baseline, {}).get("peak_memory_bytes")
    rows = []
    for variant in (name for name in frames.variants if name in profiled):
        entry = profiled[variant]
        latency = np.asarray(entry.get("latency_ms") or [np.nan], dtype=float)
        memory = entry.get("peak_memory_bytes")
        rows.append(
            {
                "variant": variant,
                "parameters": entry.get("parameters"),
                "forward_flops": entry.get("forward_flops"),
                "latency_p50_ms": float(np.median(latency)),
                "latency_p95_ms": float(np.percentile(latency, 95)),
                "peak_memory_bytes": memory,
                "memory_ratio": memory / base if memory and base else np.nan,
            }
        )
    return FRAMES["cost"].filled(rows)
