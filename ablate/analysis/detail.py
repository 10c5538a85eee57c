"""Fine detail, scored from the stored predictions: each variant against the baseline, each at its own best setting.

The columns of every frame are listed at the top of `analyse`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from ablate.analysis.compare import against, interval_text
from ablate.analysis.frames import Frames
from ablate.analysis.resampling import Floats, class_iou, mean_of_classes
from ablate.analysis.scores import StudyScores
from ablate.analysis.selection import OWN_BEST, Choice
from ablate.analysis.spread import MANY_TRIALS, spread
from ablate.analysis.statistics import Estimate, Replicates
from ablate.errors import ResultsError
from ablate.measure.detail import (
    BOUNDARY_WIDTHS,
    THIN_DIAMETERS,
    TRIMAP_WIDTHS,
    scaled_width,
)

DETAIL = (
    *(f"boundary_{width}" for width in BOUNDARY_WIDTHS),
    *(f"trimap_{width}" for width in TRIMAP_WIDTHS),
    "interior",
    *(f"thin_{diameter}" for diameter in THIN_DIAMETERS),
)
EXCESS = {"excess_boundary": "boundary_3", "excess_thin": "thin_3"}
BY_CLASS = ("boundary_3", "interior", "thin_3", "thin_6")
LOSSES = ("boundary_3", "thin_3", *EXCESS)
VERDICT_TEXT = (
    "Detail is lost where boundary IoU and the recall of thin structures fall, and fall further than the interior IoU "
    "does, each with an interval below zero; gained where all four lie above zero; else undecided."
)
COLUMNS = ["variant", "against", "measure", "left", "right", "delta", "low", "high", "n", "reason", "rule"]
CLASS_COLUMNS = ["variant", "against", "class", "measure", "pixels", *COLUMNS[3:]]
VERDICT_COLUMNS = ["variant", "against", "verdict", "reason", "rule"]


def detail_rule(frames: Frames) -> str:
    """What the measures are at the size that was scored, and how their intervals are made, in words."""
    shapes = frames.detail_target.shapes
    band = _range([scaled_width(BOUNDARY_WIDTHS[0], shape) for shape in shapes])
    disc = _range([scaled_width(THIN_DIAMETERS[0], shape, at_least=2) for shape in shapes])
    size = " to ".join(dict.fromkeys(f"{shape[0]} × {shape[1]}" for shape in (shapes[0], shapes[-1])))
    own = ", the masks' own size" if frames.study.measure.native else ""
    return (
        f"Scored at {size} pixels{own}; widths are given for a diagonal of 600 and scaled (boundary_3 is a "
        f"band of {band} pixel{'s' * (band != '1')} here, thin_3 what a disc of {disc} pixels removes). boundary: IoU "
        "of the bands inside the masks; trimap: IoU near target boundaries; interior: IoU away from them; thin: recall "
        f"of thin structures. {OWN_BEST.text} The setting is chosen once. A diverged seed counts 0 in all. "
        f"{interval_text(frames)} Descriptive."
    )


def _range(widths: list[int]) -> str:
    return " to ".join(dict.fromkeys(map(str, (min(widths), max(widths)))))


def stacked(counts: Mapping[str, np.ndarray]) -> np.ndarray:
    """The counts of `detail_counts` as one array (N, M, C, 3), in the order of `DETAIL`.

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
    """Every measure of `DETAIL`, of `EXCESS`, and the classes of `BY_CLASS`: (..., M, C, 3) -> (..., K).

    `sums` are those of `stacked`. K is M + 2 + 4·C, the measures of `BY_CLASS` one after another, NaN for a class that
    has nothing of the kind.
    """
    iou = class_iou(sums)
    inside = DETAIL.index("interior")
    gone = sums[..., inside, :, 0] + sums[..., inside, :, 2] == 0
    iou[..., inside, :] = np.where(gone, np.nan, iou[..., inside, :])
    means = mean_of_classes(iou)
    excess = [means[..., DETAIL.index(name)] - means[..., inside] for name in EXCESS.values()]
    of_classes = [iou[..., DETAIL.index(name), :] for name in BY_CLASS]
    return np.concatenate([means, np.stack(excess, axis=-1), *of_classes], axis=-1)


def detail_frame(
    frames: Frames, scores: StudyScores, own_best: Choice, meanwhile: Callable[[], object] = lambda: None
) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """A row a contrast and measure; a row a contrast, class and measure; which variants have none and why.

    `meanwhile` is called once, of a large study while other processes score predictions.
    """
    try:
        rule = detail_rule(frames)
    except (ResultsError, ValueError) as error:
        meanwhile()
        why = f"no measures of fine detail: {error}"
        return pd.DataFrame(columns=COLUMNS), pd.DataFrame(columns=CLASS_COLUMNS), why
    cells, pixels, problems = _cells(frames, scores, own_best, meanwhile)
    rows, class_rows = [], []
    for name, other in against(frames).items():
        if name not in cells or other not in cells:
            continue
        left, right = cells[name], cells[other]
        found_each = scores.between(left, right, str(own_best[name]), str(own_best[other]))
        for place, contrast in enumerate(found_each):
            estimate = contrast.estimate
            row: dict[str, Any] = {"variant": name, "against": other}
            row |= {"left": float(left.test[place]), "right": float(right.test[place])}
            row |= {"delta": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}
            row |= {"reason": _reason(estimate), "rule": rule}
            if place < len(DETAIL) + len(EXCESS):
                rows.append(row | {"measure": (*DETAIL, *EXCESS)[place]})
            else:
                kind, label = divmod(place - len(DETAIL) - len(EXCESS), len(frames.class_names))
                row |= {"measure": BY_CLASS[kind], "class": frames.class_names[label]}
                place_of = DETAIL.index(BY_CLASS[kind])
                class_rows.append(row | {"pixels": int(pixels[place_of, label]) if len(pixels) else 0})
    detail, by_class = pd.DataFrame(rows, columns=COLUMNS), pd.DataFrame(class_rows, columns=CLASS_COLUMNS)
    return detail, by_class, "; ".join(problems)


def _cells(
    frames: Frames, scores: StudyScores, own_best: Choice, meanwhile: Callable[[], object]
) -> tuple[dict[str, Replicates], np.ndarray, list[str]]:
    """Replicates of every variant at its best, the target pixels of each measure and class (M, C), and what failed."""
    chosen = [(variant, setting) for variant, setting in own_best.items() if setting is not None]

    def made(place: int) -> tuple[Replicates, np.ndarray] | str:
        try:
            return _cell(frames, scores, *chosen[place])
        except (ResultsError, ValueError) as error:
            return f"no measures of fine detail for {chosen[place][0]}: {error}"

    # Thousands of predictions are scored by several processes.
    many = sum(len(scores.members(*cell)) for cell in chosen) >= MANY_TRIALS
    cells: dict[str, Replicates] = {}
    pixels, problems = np.zeros(0), []
    results = spread(made, range(len(chosen)), least=2 if many else len(chosen) + 1, meanwhile=meanwhile)
    for (variant, _), found in zip(chosen, results, strict=True):
        if isinstance(found, str):
            problems.append(found)
            continue
        cells[variant] = found[0]
        pixels = found[1] if len(found[1]) else pixels
    return cells, pixels, problems


def _cell(frames: Frames, scores: StudyScores, variant: str, setting: str) -> tuple[Replicates, np.ndarray]:
    """Replicates of a cell, and how many target pixels each measure and class has (M, C); empty if all diverged."""
    members = scores.members(variant, setting)
    counts = scores.counts(variant, setting)
    val = [None if seed is None else seed["val"] for seed in counts]
    test = [
        stacked(frames.detail_target.counts(frames.preds(seed.key))) if seed.status == "complete" else None
        for seed in members
    ]
    known = [seed.sum(axis=0)[..., [0, 2]].sum(axis=-1) for seed in test if seed is not None]
    entries = len(DETAIL) + len(EXCESS) + len(BY_CLASS) * len(frames.class_names)
    made = scores.replicates(f"{variant}|{setting}|main", val, test, detail_vector, entries)
    return made, known[0] if known else np.zeros(0)


def _reason(estimate: Estimate) -> str:
    if np.isnan(estimate.value):
        return "nothing of this kind in the target at this size"
    return estimate.reason


def detail_verdicts_frame(detail: pd.DataFrame) -> pd.DataFrame:
    """A row a contrast: whether fine detail, beyond the rest, is lost or gained."""
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
        rows.append((name, other, verdict, reason, VERDICT_TEXT))
    return pd.DataFrame(rows, columns=VERDICT_COLUMNS)
