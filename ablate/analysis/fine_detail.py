"""Fine detail, scored from the stored predictions: each variant against the baseline, each at its own best setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ablate.analysis.looks import Looks, basis
from ablate.analysis.schema import FRAMES
from ablate.analysis.scores import StudyScores
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
from ablate.stats.bootstrap import Floats, Replicates, combine

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
NOTHING_SCORED = f"fewer than {LEAST_PIXELS} target pixels of this kind at this size, or none that is right"
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


def detail_frames(scores: StudyScores, looks: Looks) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Return a row a contrast and measure; a row a contrast, class and measure; which variants have none and why.

    Of the seeds that decide each contrast.
    """
    frames = scores.frames
    rests = {name: basis(scores, looks.frame, name, other) for name, other in frames.against.items()}
    sides = list(dict.fromkeys(side for one in rests.values() for side in one.sides if scores.members(*side)))
    try:
        counts = _of_trials(scores, sides)
    except (ResultsError, ValueError) as error:
        said = error.problems[0].message if isinstance(error, ResultsError) else error
        why = f"no measures of fine detail: {said}"
        return FRAMES["detail"].filled([]), FRAMES["class_detail"].filled([]), why
    problems: dict[str, str] = {}
    for side in sides:
        if text := next((one for one in map(counts.get, _keys(scores, side)) if isinstance(one, str)), None):
            problems[side[0]] = f"no measures of fine detail for {side[0]}: {text}"
    known = next((one for one in counts.values() if not isinstance(one, str)), None)
    pixels = np.zeros(0) if known is None else known.sum(axis=0)[..., [0, 2]].sum(axis=-1)
    rows, class_rows = [], []
    for name, one in rests.items():
        other = one.sides[1][0]
        if any(side not in sides or side[0] in problems for side in one.sides):
            continue
        left, right = (_cell(scores, side, one.first, counts) for side in one.sides)
        found = combine([{"": left}, {"": right}], [1, -1], at=("", ""), confidence=one.confidence(scores.confidence))
        for place, contrast in enumerate(found):
            estimate = contrast.estimate
            row: dict[str, Any] = {"left": float(left.test[place]), "right": float(right.test[place])}
            row |= {"delta": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}
            row["reason"] = NOTHING_SCORED if np.isnan(estimate.value) else estimate.reason
            own: dict[str, Any] = {"variant": name, "against": other}
            if place < len(DETAIL) + len(EXCESS):
                rows.append(own | {"measure": (*DETAIL, *EXCESS)[place]} | row)
                continue
            kind, label = divmod(place - len(DETAIL) - len(EXCESS), len(frames.class_names))
            counted = int(pixels[DETAIL.index(BY_CLASS[kind]), label]) if len(pixels) else 0
            own |= {"class": frames.class_names[label], "measure": BY_CLASS[kind], "pixels": counted}
            class_rows.append(own | row)
    problem = "; ".join(problems.values())
    return FRAMES["detail"].filled(rows), FRAMES["class_detail"].filled(class_rows), problem


def _keys(scores: StudyScores, side: tuple[str, str, str]) -> list[str]:
    return [seed.key for seed in scores.members(*side) if seed.status == "complete"]


def _of_trials(scores: StudyScores, sides: Sequence[tuple[str, str, str]]) -> dict[str, np.ndarray | str]:
    """Return the counts of every complete trial of these cells by its key, or why it has none.

    Raises `ResultsError` or ValueError where the study's target cannot be used at all.
    """
    target = scores.frames.detail_target
    keys = [key for side in sides for key in _keys(scores, side)]
    many = len(keys) * target.pixels >= MANY_PIXELS
    paths = [scores.frames.arrays[key].folder.predictions for key in keys]
    counted = parallel_map(partial(_counts, target=target), paths, workers=None if many else 1)
    return dict(zip(keys, counted, strict=True))


def _cell(
    scores: StudyScores, side: tuple[str, str, str], first: int | None, counts: Mapping[str, np.ndarray | str]
) -> Replicates:
    """Return the replicates of every measure of detail for a cell, or for its `first` seeds."""
    raw = [counts.get(seed.key) for seed in scores.members(*side)[:first]]
    test = [None if one is None or isinstance(one, str) else with_enough_pixels(one) for one in raw]
    val = scores.counts("val", *side, first)
    entries = len(DETAIL) + len(EXCESS) + len(BY_CLASS) * len(scores.frames.class_names)
    return scores.replicates("|".join(side), val, test, detail_vector, entries)


def _counts(predictions: Path, target: DetailTargets) -> np.ndarray | str:
    """Return the counts of the stored predictions of a trial (`stacked`), or why there are none."""
    try:
        return stacked(target.counts(unpack_maps(predictions)))
    except (ResultsError, ValueError) as error:
        return str(error)


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
