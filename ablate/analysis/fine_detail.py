"""Fine detail, scored from the stored predictions: each variant against the baseline, each at its own best setting."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ablate.analysis.contrasts import against
from ablate.analysis.scores import StudyScores
from ablate.analysis.selection import Choice
from ablate.errors import ResultsError
from ablate.measure.detail import (
    BOUNDARY_WIDTHS,
    LEAST_PIXELS,
    THIN_DIAMETERS,
    TRIMAP_WIDTHS,
    DetailTargets,
    with_enough_pixels,
)
from ablate.measure.segmentation import iou, nan_mean
from ablate.parallel import parallel_map
from ablate.records.images import unpack_maps
from ablate.stats.bootstrap import Replicates
from ablate.stats.intervals import Estimate
from ablate.stats.resampling import Floats

DETAIL = (
    *(f"boundary_{width}" for width in BOUNDARY_WIDTHS),
    *(f"trimap_{width}" for width in TRIMAP_WIDTHS),
    "interior",
    *(f"thin_{diameter}" for diameter in THIN_DIAMETERS),
)
EXCESS = {"excess_boundary": "boundary_3", "excess_thin": "thin_3"}
BY_CLASS = ("boundary_3", "interior", "thin_3", "thin_6")
# Detail is lost where all four fall, each with an interval below zero, and gained where all lie above it.
LOSSES = ("boundary_3", "thin_3", *EXCESS)
COLUMNS = ["variant", "against", "measure", "left", "right", "delta", "low", "high", "n", "reason"]
CLASS_COLUMNS = ["variant", "against", "class", "measure", "pixels", *COLUMNS[3:]]
# From so many pixels of predictions on several processes score them sooner than one.
MANY_PIXELS = 1 << 27


def stacked(counts: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the counts of `detail_counts` as one array (N, M, C, 3), in the order of `DETAIL`.

    Recall is an IoU without false positives: hit and all become tp, 0, fn.
    """
    parts = []
    for name in DETAIL:
        table = counts[name]
        if name.startswith("thin"):
            hit, total = table[..., 0], table[..., 1]
            table = np.stack([hit, np.zeros_like(hit), total - hit], axis=-1)
        parts.append(table)
    return np.stack(parts, axis=1)


def detail_vector(sums: Floats) -> Floats:
    """Return every measure of `DETAIL`, of `EXCESS`, and the classes of `BY_CLASS`: (..., M, C, 3) -> (..., K).

    `sums` are those of `stacked`. K is M + 2 + 4·C, the measures of `BY_CLASS` one after another, NaN for a class that
    has nothing of the kind. An excess is the logarithm of a measure's ratio to interior IoU, so that its difference
    between variants compares relative losses: what a weaker model loses everywhere alike is none, at whatever level.
    """
    scores = iou(sums)
    inside = DETAIL.index("interior")
    means = nan_mean(scores)
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = np.where(means > 0, np.log(means), np.nan)
    excess = [logs[..., DETAIL.index(name)] - logs[..., inside] for name in EXCESS.values()]
    of_classes = [scores[..., DETAIL.index(name), :] for name in BY_CLASS]
    return np.concatenate([means, np.stack(excess, axis=-1), *of_classes], axis=-1)


def detail_frames(scores: StudyScores, own_best: Choice) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Return a row a contrast and measure; a row a contrast, class and measure; which variants have none and why."""
    frames = scores.frames
    try:
        cells, pixels, problems = _cells(scores, own_best)
    except (ResultsError, ValueError) as error:
        why = f"no measures of fine detail: {error}"
        return pd.DataFrame(columns=COLUMNS), pd.DataFrame(columns=CLASS_COLUMNS), why
    rows, class_rows = [], []
    for name, other in against(frames).items():
        if name not in cells or other not in cells:
            continue
        left, right = cells[name], cells[other]
        for place, contrast in enumerate(scores.between(left, right, str(own_best[name]), str(own_best[other]))):
            estimate = contrast.estimate
            row: dict[str, Any] = {"variant": name, "against": other}
            row |= {"left": float(left.test[place]), "right": float(right.test[place])}
            row |= {"delta": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}
            row["reason"] = _reason(estimate)
            if place < len(DETAIL) + len(EXCESS):
                rows.append(row | {"measure": (*DETAIL, *EXCESS)[place]})
            else:
                kind, label = divmod(place - len(DETAIL) - len(EXCESS), len(frames.class_names))
                row |= {"measure": BY_CLASS[kind], "class": frames.class_names[label]}
                place_of = DETAIL.index(BY_CLASS[kind])
                class_rows.append(row | {"pixels": int(pixels[place_of, label]) if len(pixels) else 0})
    detail, by_class = pd.DataFrame(rows, columns=COLUMNS), pd.DataFrame(class_rows, columns=CLASS_COLUMNS)
    return detail, by_class, "; ".join(problems)


def _cells(scores: StudyScores, own_best: Choice) -> tuple[dict[str, Replicates], np.ndarray, list[str]]:
    """Return the replicates of every variant at its best, target pixels (M, C), and why variants have none.

    Pixels are counted by measure and class. Raises `ResultsError` or ValueError where the study's target cannot be
    used at all.
    """
    frames = scores.frames
    target = frames.detail_target
    chosen = [(variant, setting) for variant, setting in own_best.items() if setting is not None]
    keys = [seed.key for cell in chosen for seed in scores.members(*cell) if seed.status == "complete"]
    many = len(keys) * target.pixels >= MANY_PIXELS
    paths = [frames.source.preds_path(key) for key in keys]
    counted = parallel_map(partial(_counts, target=target), paths, workers=None if many else 1)
    found = dict(zip(keys, counted, strict=True))
    cells: dict[str, Replicates] = {}
    pixels, problems = np.zeros(0), []
    entries = len(DETAIL) + len(EXCESS) + len(BY_CLASS) * len(frames.class_names)
    for variant, setting in chosen:
        test = [found.get(seed.key) for seed in scores.members(variant, setting)]
        problem = next((one for one in test if isinstance(one, str)), None)
        if problem is not None:
            problems.append(f"no measures of fine detail for {variant}: {problem}")
            continue
        val = [None if seed is None else seed["val"] for seed in scores.counts(variant, setting)]
        raw = [None if isinstance(one, str) else one for one in test]
        seeds = [None if one is None else with_enough_pixels(one) for one in raw]
        cells[variant] = scores.replicates(f"{variant}|{setting}|main", val, seeds, detail_vector, entries)
        known = [seed.sum(axis=0)[..., [0, 2]].sum(axis=-1) for seed in raw if seed is not None]
        pixels = known[0] if known else pixels
    return cells, pixels, problems


def _counts(predictions: Path, target: DetailTargets) -> np.ndarray | str:
    """Return the counts of the stored predictions of a trial (`stacked`), or why there are none."""
    try:
        return stacked(target.counts(unpack_maps(predictions)))
    except (ResultsError, ValueError) as error:
        return str(error)


def _reason(estimate: Estimate) -> str:
    if np.isnan(estimate.value):
        return f"fewer than {LEAST_PIXELS} target pixels of this kind at this size, or none that is right"
    return estimate.reason


def detail_verdicts_frame(detail: pd.DataFrame) -> pd.DataFrame:
    """Return a row a contrast: whether fine detail, beyond the rest, is lost or gained."""
    rows = []
    for (name, other), part in detail.groupby(["variant", "against"], sort=False):
        table = part.set_index("measure").loc[list(LOSSES)]
        if table[["low", "high"]].isna().any(axis=None):
            verdict = "undecided"
            reason = next((text for text in table["reason"] if text), "no interval")
        else:
            verdict = "lost" if (table["high"] < 0).all() else "gained" if (table["low"] > 0).all() else "undecided"
            reason = "; ".join(
                f"Δ{measure} {row['delta']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
                for measure, row in table.iterrows()
            )
        rows.append((name, other, verdict, reason))
    return pd.DataFrame(rows, columns=["variant", "against", "verdict", "reason"])
