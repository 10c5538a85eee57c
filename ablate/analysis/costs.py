"""What a variant costs, from the closing profile: rates as ratios over interleaved rounds, latency, memory.

The columns of every frame are listed at the top of `analyse`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ablate.analysis.compare import against
from ablate.analysis.frames import Frames
from ablate.analysis.statistics import Estimate, ratio_interval

RATES = ("train_images_per_s", "inference_images_per_s")
_RATE_COLUMNS = ["variant", "against", "quantity", "value", "ratio", "low", "high", "rounds", "reason", "rule"]
_COST_COLUMNS = [
    "variant", "parameters", "forward_flops", "latency_p50_ms", "latency_p95_ms", "peak_memory_bytes", "memory_ratio",
    "rule",
]  # fmt: skip


def throughput_rule(frames: Frames) -> str:
    """How the rates were measured, in words."""
    profile = frames.profile
    return (
        f"Each variant alone on {profile.get('machine', 'the machine')} ({profile.get('device', 'device')}), batches "
        f"of {profile.get('batch_size', '?')} at {' × '.join(map(str, profile.get('size', ['?'])))} pixels, "
        f"{profile.get('precision', '?')}, {profile.get('engine', '?')}; {profile.get('rounds', '?')} rounds with the "
        "variants interleaved. Value: median over rounds. Ratio: geometric mean over rounds, Student's t interval "
        f"({frames.study.measure.confidence:.0%}) on its logarithm."
    )


def throughput_frame(frames: Frames) -> pd.DataFrame:
    """A row a profiled variant and rate; the baseline's ratio is 1 by definition."""
    sides = against(frames)
    rates = {str(variant): part for variant, part in frames.throughput.groupby("variant", sort=False)}
    rule = throughput_rule(frames)
    rows = []
    for variant, own in rates.items():
        other = sides.get(variant, frames.baseline)
        for quantity in RATES:
            values = own[quantity].to_numpy(float)
            row: dict[str, Any] = {"variant": variant, "against": other, "quantity": quantity}
            row["value"] = float(np.median(values)) if len(values) else np.nan
            estimate = _ratio(values, rates.get(other), quantity, variant == other, frames.study.measure.confidence)
            row |= {"ratio": estimate.value, "low": estimate.low, "high": estimate.high, "rounds": len(values)}
            rows.append(row | {"reason": estimate.reason, "rule": rule})
    return pd.DataFrame(rows, columns=_RATE_COLUMNS)


def _ratio(values: np.ndarray, base: pd.DataFrame | None, quantity: str, itself: bool, confidence: float) -> Estimate:
    if itself:
        return Estimate(1.0, np.nan, np.nan, n=len(values), reason="the baseline itself")
    if base is None or len(base) != len(values):
        return Estimate(np.nan, np.nan, np.nan, reason="the rounds of the two variants do not pair")
    return ratio_interval(values, base[quantity].to_numpy(float), confidence)


def cost_frame(frames: Frames) -> pd.DataFrame:
    """A row a variant of the profile."""
    profiled = frames.profile.get("variants", {})
    base = profiled.get(frames.baseline, {}).get("peak_memory_bytes")
    rule = throughput_rule(frames) + " Latency: of one image; p50 and p95 of the samples."
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
                "rule": rule,
            }
        )
    return pd.DataFrame(rows, columns=_COST_COLUMNS)
