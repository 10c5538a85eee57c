"""The cost of each variant, from the closing profile: rates as ratios over interleaved rounds, latency, memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ablate.analysis.contrasts import against
from ablate.analysis.frames import Frames
from ablate.stats.intervals import Estimate, ratio_interval

RATES = ("train_images_per_s", "inference_images_per_s")
_RATE_COLUMNS = ["variant", "against", "quantity", "value", "ratio", "low", "high", "rounds", "reason"]
_COST_COLUMNS = [
    "variant", "parameters", "forward_flops", "latency_p50_ms", "latency_p95_ms", "peak_memory_bytes", "memory_ratio",
]  # fmt: skip


def throughput_frame(frames: Frames) -> pd.DataFrame:
    """Return a row a profiled variant and rate; the baseline's ratio is 1 by definition."""
    sides = against(frames)
    rates = {str(variant): part for variant, part in frames.throughput.groupby("variant", sort=False)}
    rows = []
    for variant, own in rates.items():
        other = sides.get(variant, frames.baseline)
        for quantity in RATES:
            values = own[quantity].to_numpy(float)
            row: dict[str, Any] = {"variant": variant, "against": other, "quantity": quantity}
            row["value"] = float(np.median(values)) if len(values) else np.nan
            estimate = _ratio(values, rates.get(other), quantity, variant == other, frames.study.measure.confidence)
            row |= {"ratio": estimate.value, "low": estimate.low, "high": estimate.high, "rounds": len(values)}
            rows.append(row | {"reason": estimate.reason})
    return pd.DataFrame(rows, columns=_RATE_COLUMNS)


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
    return pd.DataFrame(rows, columns=_COST_COLUMNS)
