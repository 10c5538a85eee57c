"""All numbers of a report, computed once: `analysis = analyse(load_results(path))`.

`Analysis` is frozen; its frames are tidy pandas, one observation a row, their columns listed in
`ablate.analysis.schema`. NaN means "could not be had", and the column `reason` says why ("" otherwise).

A *score* is a fraction in which a diverged seed counts 0. V is the mean over seeds of val mIoU at the best-val epoch,
T that of test mIoU. The *primary* decision is the row of `contrasts` with `primary` true; all else is descriptive.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from functools import lru_cache

import pandas as pd

from ablate.analysis import cells, contrasts, factorial, fine_detail
from ablate.analysis.by_variant import classes_frame, cost_frame, gate_frames, throughput_frame, variants_frame
from ablate.analysis.fine_detail import DETAIL
from ablate.analysis.frames import Frames
from ablate.analysis.looks import confirm_looks
from ablate.analysis.scores import StudyScores
from ablate.analysis.selection import best_of_all, best_of_each, rank_agreement
from ablate.errors import ResultsError

__all__ = ["DETAIL", "Analysis", "analyse"]


@dataclass(frozen=True, eq=False, repr=False)
class Analysis:
    """The numbers of a study. The columns of the frames stand in `ablate.analysis.schema`."""

    frames: Frames
    baseline: str
    variants_in_order: tuple[str, ...]
    confidence: float
    rope: float
    v: pd.DataFrame
    """V, variants × settings, NaN where a cell may not be chosen."""
    shared_setting: str | None
    own_best: dict[str, str | None]
    scores: StudyScores
    cells: pd.DataFrame
    variants: pd.DataFrame
    contrasts: pd.DataFrame
    looks: pd.DataFrame
    classes: pd.DataFrame
    class_contrasts: pd.DataFrame
    detail: pd.DataFrame
    class_detail: pd.DataFrame
    detail_verdicts: pd.DataFrame
    no_detail: str
    """Which variants have no measures of fine detail, and why; "" where all have them."""
    stability: pd.DataFrame
    headroom: pd.DataFrame
    convergence: pd.DataFrame
    extension: pd.DataFrame
    ranking: pd.DataFrame
    budget: pd.DataFrame
    gates: pd.DataFrame
    gate_ablation: pd.DataFrame
    throughput: pd.DataFrame
    cost: pd.DataFrame
    interactions: pd.DataFrame
    main_effects: pd.DataFrame
    data_size: pd.DataFrame

    def __repr__(self) -> str:
        return f"<Analysis of {self.frames.study.study}: {', '.join(self.variants_in_order)}; baseline {self.baseline}>"

    def _repr_html_(self) -> str:
        """Return how a notebook shows the analysis: the primary decision about each variant."""
        shown = self.contrasts[self.contrasts["primary"]]
        columns = ["variant", "against", "setting", "left", "right", "delta", "low", "high", "decision"]
        table = shown[columns].to_html(float_format="{:.4f}".format, index=False)
        return f"<p>{html.escape(repr(self)[1:-1])}</p>{table}"


@lru_cache(maxsize=4)
def analyse(frames: Frames) -> Analysis:
    """Return all of a study's numbers, with their intervals and decisions; computed once for the same `frames`.

    A study that has begun can be analysed: what has no result yet is NaN, with its reason. Raises `ResultsError`
    where the plan is empty.
    """
    if not len(frames.trials):
        raise ResultsError("this study has no trials yet", file=str(frames.path), cure="run it first")
    confidence, rope = frames.study.measure.confidence, frames.study.measure.rope
    scores = StudyScores(frames)
    v = scores.v
    own_best = best_of_each(scores.eligible)
    shared = next((setting for setting in best_of_all(v, frames.controls).values() if setting), None)
    made = contrasts.ways(scores)
    looks = confirm_looks(frames, scores)
    converged = cells.convergence_frame(frames)
    gates, gate_ablation = gate_frames(scores, looks, confidence)
    detail, class_detail, no_detail = fine_detail.detail_frames(scores, looks)
    return Analysis(
        frames=frames,
        baseline=frames.baseline,
        variants_in_order=frames.variants,
        confidence=confidence,
        rope=rope,
        v=v,
        shared_setting=shared,
        own_best=own_best,
        scores=scores,
        cells=cells.cells_frame(scores, own_best, shared, converged),
        variants=variants_frame(scores, looks, own_best, cells.rate_response(frames, v, own_best, rope)),
        contrasts=contrasts.contrasts_frame(scores, made, looks),
        looks=looks.frame,
        classes=classes_frame(scores, looks),
        class_contrasts=contrasts.class_contrasts_frame(scores, looks),
        detail=detail,
        class_detail=class_detail,
        detail_verdicts=fine_detail.detail_verdicts_frame(detail),
        no_detail=no_detail,
        stability=cells.stability_frame(frames, confidence),
        headroom=cells.headroom_frame(frames, confidence),
        convergence=converged,
        extension=cells.extension_frame(frames),
        ranking=rank_agreement(v if frames.study.search is None else v.iloc[:, :0]),
        budget=cells.budget_frame(frames, v),
        gates=gates,
        gate_ablation=gate_ablation,
        throughput=throughput_frame(frames),
        cost=cost_frame(frames),
        interactions=factorial.interactions_frame(scores, looks),
        main_effects=factorial.main_effects_frame(scores, looks),
        data_size=factorial.data_size_frame(scores, own_best),
    )
