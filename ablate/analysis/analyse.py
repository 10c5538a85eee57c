"""Everything that a report says about a study, computed once: `analysis = analyse(load_results(path))`.

`Analysis` is frozen; its frames are tidy pandas, one observation a row: fractions as fractions, losses in nats, rates
as images per second. NaN means "could not be had", and the column `reason` says why ("" otherwise). Every frame has a
column `rule`: the sentences to print under a table made of it; `Analysis.rules` holds the same by the frame's name.

Words: `setting` is the text that identifies a setting, "lr=3e-4" or "lr=3e-4, weight_decay=0.01"; every axis of the
grid also has a column of its own (`Frames.axes`, `lr` always). A *score* is a fraction in which a diverged seed counts
0. V is the mean over seeds of val mIoU at the best-val epoch, T that of test mIoU. The *primary* decision is the row
with `primary` true; all else is descriptive.

**cells**, a row a variant and setting of the plan (role main), A/A controls too:
  variant, setting, <axes>, control; n (seeds with a result: complete or diverged), n_planned, n_complete, n_diverged,
  n_pruned, n_failed, n_missing; diverged_share, diverged_low, diverged_high (Wilson);
  val_mean (= V), val_sd, val_low, val_high; test_mean (= T), test_sd, test_low, test_high (t intervals over seeds);
  val_loss, test_loss, best_epoch (means over complete seeds); one column for each of `STABILITY` (mean over seeds,
  infinite where a seed's is); regret (highest V of the variant − V); eligible (may be chosen), own_best, shared
  (whether a rule chose it); convergence ("under-converged", "converged", "inconclusive", "none"),
  convergence_reason, gain, gain_low, gain_high (90 %); reason, rule.

**variants**, a row a variant, in the order of the plan, each at its own best setting:
  variant, baseline, control (bools), against (what it is compared with: the baseline, or for a control what it
  copies), differs (text: fields that differ from the baseline), confounds (text: own training settings, "" for none);
  setting, <axes>; unbracketed (bool), bracket (text: which edge, "" for none), stability_of_choice (share of the
  bootstrap replicates that choose the same setting); n, n_planned, provisional (a trial of the variant has no result);
  val_mean (V), test_mean (T), test_low, test_high (Multi-Bootstrap: seeds and images, chosen again);
  mean_iou_images, mean_iou_classes, worst_images (mIoU^I, mIoU^C, worst 10 %), pixel_accuracy, dice, test_loss (means
  over seeds); between_runs_sd, seed_sd, image_sd, interaction_sd (components of the variance of one run, as SD);
  lr_sensitivity, sensitivity_low, sensitivity_high (range of rates), sensitivity_reason; basin_optimum, basin_width
  (decades within the rope), basin_bracketed, basin_extrapolated, basin_reason;
  parameters, forward_flops, parameters_ratio, flops_ratio (to `against`); modules_added, modules_removed, modules
  (how many modules the network has that the baseline's lacks, the reverse, and their lines); reason, rule.

**contrasts**, `variant` minus `against` in T, a row a contrast and way:
  variant, against, control, kind ("own_best", "shared", "matched", "confirmed"), setting, against_setting, lr,
  against_lr; delta, low, high, se, df, p, p_holm, p_equivalent; decision ("better", "worse", "equivalent",
  "undecided"); primary (bool); error_bar ("retune", "fixed", "tune_once"); n, n_against; left, right (the two T);
  stability (share of replicates in which both sides choose the same again, as a product; own best only);
  lr_confounded (own best only: shared and own best are both decided, differ, and stand at different settings),
  unbracketed (either side; own best and shared), provisional (a trial it rests on has no result), confounded (text:
  own training settings of either side); superiority, superiority_low, superiority_high, superiority_verdict
  (P(a run of `variant` beats one of `against`); "" where none may be given); parameters_ratio, flops_ratio;
  reason, rule.

**classes**, a row a variant and class, at own best; `pixels` are the class's in the test target:
  variant, class, pixels, iou, iou_low, iou_high (Multi-Bootstrap), dice, n, reason, rule.
**class_contrasts**, a row a contrast, way (own_best, shared) and class; descriptive:
  variant, against, kind, class, delta, low, high, left, right (mean IoU over seeds), n, reason, rule.

**detail**, fine detail at own best, a row a contrast and measure (`DETAIL`, and "excess_boundary" = boundary_3 −
  interior, "excess_thin" = thin_3 − interior):
  variant, against, measure, left, right, delta, low, high, n, reason, rule.
**class_detail**, the same of each class for boundary_3, interior, thin_3 and thin_6; `pixels` are the class's target
pixels of that kind in the test split (a mean over classes weighs one with ten as much as one with ten thousand):
  variant, against, class, measure, pixels, left, right, delta, low, high, n, reason, rule.
**detail_verdicts**: variant, against, verdict ("lost", "gained", "undecided"), reason (the four intervals), rule.

**stability**, a row a cell and measure (`STABILITY` and "lr_headroom"):
  variant, setting, <axes>, measure, mean (infinite where a seed's is; geometric for lr_headroom), finite_mean, low,
  high (t over seeds, of lr_headroom on the logarithm; NaN where one is infinite or censored), largest, n, n_infinite,
  reason, rule.
**headroom**, a row a cell and probed point of training, empty where it was not probed:
  variant, setting, <axes>, point (from 1), mean (geometric), low, high (t on the logarithm; NaN where a seed is
  censored), lowest, highest, n, n_censored (at an end of the range probed), reason, rule.
**convergence**, a row a cell: variant, setting, <axes>, verdict, gain, low, high, n, reason, rule.

**extension**, a row a cell of a study run by `--extend` (else empty), the verdict on the shorter `budget`:
  variant, setting, <axes>, budget, epochs, projected, projected_verdict (of the shorter curves), verdict, gain, low,
  high (90 %), n, reason, rule.

**ranking**, Kendall's tau of the ranking by V between two settings: setting, other, tau, n_variants, rule.
**budget**, tuning-budget curves, from eight settings on (else empty): variant, settings_tried, expected_test, rule.

**gates**, a row an attention gate and class at own best, means over seeds with t intervals, differences by run:
  variant, gate, class, auroc, auroc_low, auroc_high, shuffled, untrained (the AUROC of the two nulls), over_shuffled,
  over_shuffled_low, over_shuffled_high, over_untrained, over_untrained_low, over_untrained_high, lift, lift_low,
  lift_high, n, reason, rule.
**gate_ablation**, a row a gate ("all" for all together): variant, gate, delta (test mIoU with it flattened − without),
  low, high, n, reason, rule.

**throughput**, a row a profiled variant and quantity ("train_images_per_s", "inference_images_per_s"):
  variant, against, quantity, value (median over rounds), ratio, low, high (to `against`), rounds, reason, rule.
**cost**, a row a profiled variant: variant, parameters, forward_flops, latency_p50_ms, latency_p95_ms,
  peak_memory_bytes, memory_ratio, rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pandas as pd

from ablate.analysis import cells, compare, costs, detail_frames, mechanism, variants
from ablate.analysis.detail_frames import DETAIL
from ablate.analysis.frames import Frames
from ablate.analysis.scores import StudyScores
from ablate.analysis.selection import OWN_BEST, RANKING_TEXT, SHARED, Choice, rank_agreement, v_table
from ablate.errors import ResultsError
from ablate.study.metrics import STABILITY
from ablate.wording import count_of

__all__ = ["DETAIL", "STABILITY", "Analysis", "analyse"]


@dataclass(frozen=True, eq=False)
class Analysis:
    """What a study says. The columns of the frames are listed at the top of this module."""

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
    classes: pd.DataFrame
    class_contrasts: pd.DataFrame
    detail: pd.DataFrame
    class_detail: pd.DataFrame
    detail_verdicts: pd.DataFrame
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
    rules: dict[str, str]
    notes: tuple[str, ...]
    """What a reader must know before the numbers: one sentence each."""


@lru_cache(maxsize=4)
def analyse(frames: Frames) -> Analysis:
    """All of a study's numbers, with their intervals, decisions and rules; computed once for the same `frames`.

    A study that has begun can be analysed: what has no result yet is NaN, with its reason. Raises `ResultsError`
    where the plan is empty.
    """
    if not len(frames.trials):
        raise ResultsError("this study has no trials yet", file=str(frames.path), cure="run it first")
    v = v_table(frames.trials)
    scores = StudyScores(frames, v)
    made = compare.ways(frames, v)
    own_best = OWN_BEST.choose(v)
    shared = next((setting for setting in SHARED.choose(v, compare.controls(frames)).values() if setting), None)
    measure = frames.study.measure
    alone: dict[str, Any] = {}
    compared: dict[str, pd.DataFrame] = {}
    # Of a large study other processes resample cells and score predictions, and this one does the rest beside them.
    scores.prepare(meanwhile=lambda: alone.update(_alone(frames, v, own_best, shared)))
    detail, class_detail, no_detail = detail_frames.detail_frame(
        frames, scores, own_best, meanwhile=lambda: compared.update(_compared(frames, scores, v, own_best, made))
    )
    rules = {
        "cells": f"{cells.CELLS_RULE} {compare.scored_text(frames)}",
        "variants": f"{OWN_BEST.text} {compare.scored_text(frames)} {variants.LEVELS_RULE}",
        "contrasts": compare.ways_rule(frames, made),
        **{f"contrasts/{way.kind}": f"{way.text} {compare.interval_rule(frames)}" for way in made},
        "classes": variants.classes_rule(frames),
        "class_contrasts": (
            f"{OWN_BEST.text} {compare.scored_text(frames)} {compare.interval_text(frames)} Descriptive."
        ),
        "detail": detail["rule"].iloc[0] if len(detail) else no_detail,
        "detail_verdicts": detail_frames.VERDICT_TEXT,
        "stability": cells.STABILITY_RULE,
        "convergence": cells.CONVERGENCE_RULE,
        "extension": cells.EXTENSION_RULE,
        "sensitivity": cells.SENSITIVITY_RULE,
        "ranking": RANKING_TEXT,
        "budget": cells.budget_rule(frames),
        "headroom": mechanism.HEADROOM_RULE,
        "gates": mechanism.GATES_RULE,
        "gate_ablation": mechanism.ABLATION_RULE,
        "throughput": costs.throughput_rule(frames),
    }
    return Analysis(
        frames=frames,
        baseline=frames.baseline,
        variants_in_order=frames.variants,
        confidence=measure.confidence,
        rope=measure.rope,
        v=v,
        shared_setting=shared,
        own_best=own_best,
        scores=scores,
        detail=detail,
        class_detail=class_detail,
        detail_verdicts=detail_frames.detail_verdicts_frame(detail),
        rules=rules,
        notes=notes(frames, compared["contrasts"], no_detail),
        **alone,
        **compared,
    )


def _alone(frames: Frames, v: pd.DataFrame, own_best: Choice, shared: str | None) -> dict[str, Any]:
    """What needs no resampling."""
    confidence = frames.study.measure.confidence
    converged = cells.convergence_frame(frames)
    gates, ablated = mechanism.gate_frames(frames, own_best, confidence)
    return {
        "cells": cells.cells_frame(frames, v, own_best, shared, converged, confidence),
        "stability": cells.stability_frame(frames, confidence),
        "headroom": mechanism.headroom_frame(frames, confidence),
        "convergence": converged,
        "extension": cells.extension_frame(frames),
        "ranking": rank_agreement(v) if frames.study.search is None else rank_agreement(v.iloc[:, :0]),
        "budget": cells.budget_frame(frames, v),
        "gates": gates,
        "gate_ablation": ablated,
        "throughput": costs.throughput_frame(frames),
        "cost": costs.cost_frame(frames),
    }


def _compared(
    frames: Frames, scores: StudyScores, v: pd.DataFrame, own_best: Choice, made: Sequence[compare.Way]
) -> dict[str, pd.DataFrame]:
    """What rests on the replicates of the cells."""
    response = cells.rate_response(frames, v, own_best, frames.study.measure.rope)
    return {
        "contrasts": compare.contrasts_frame(frames, scores, made),
        "variants": variants.variants_frame(frames, scores, v, own_best, response),
        "classes": variants.classes_frame(frames, scores, own_best),
        "class_contrasts": compare.class_contrasts_frame(frames, scores, made),
    }


def notes(frames: Frames, contrasts: pd.DataFrame, no_detail: str = "") -> tuple[str, ...]:
    """What limits the study: missing, failed, pruned and diverged trials, edges of the grid, confounds, few seeds."""
    status = frames.trials["status"].value_counts()
    total = len(frames.trials)
    said = [
        f"{status[name]} of {count_of(total, 'trial')} {one if status[name] == 1 else more}"
        for name, one, more in (
            ("missing", *(f"{have} no result yet: every number is provisional" for have in ("has", "have"))),
            ("failed", *(f"failed by the machine's fault and {are} left out" for are in ("is", "are"))),
            ("pruned", "was stopped early: its cell is not chosen", "were stopped early: their cells are not chosen"),
            ("diverged", "diverged and counts 0", "diverged and count 0"),
        )
        if status.get(name, 0)
    ]
    said += [f"unreadable: {reason}" for reason in frames.unreadable.values()]
    for split, names in frames.run.get("data", {}).get("absent", {}).items():
        said.append(
            f"the {split} split has no pixel of {', '.join(names)}: left out of its means, or IoU 0 where predicted"
        )
    primary = contrasts[contrasts["primary"]] if len(contrasts) else contrasts
    for row in primary.to_dict("records"):
        if row["lr_confounded"]:
            said.append(
                f"{row['variant']} against {row['against']} is lr-confounded: the shared setting and own best disagree"
            )
    if len(primary) and primary["unbracketed"].any():
        names = ", ".join(primary.loc[primary["unbracketed"], "variant"])
        said.append(f"unbracketed: a best rate lies on the edge of the grid in the contrasts of {names}")
    declared = compare.confounds(frames, frames.variants)
    if declared:
        said.append(f"declared confounds, own training settings: {declared}")
    if frames.study.search is not None:
        said.append(
            f"settings were searched ({frames.study.search.sampler}), each variant its own: no rate is shared or "
            "matched, and the intervals hold the choice among the settings tried, not the search itself"
        )
    fewest = int(frames.trials.groupby(["variant", "setting"])["seed"].nunique().min())
    if fewest < 5:
        said.append(f"{count_of(fewest, 'seed')} a cell: five are the workable minimum")
    return (*said, no_detail) if no_detail else tuple(said)
