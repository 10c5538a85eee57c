"""The statistics of a study under one name: what `compare`, `cells`, `claims` and the planner draw on."""

from __future__ import annotations

from ablate.analysis.bootstrap import (
    Contrast,
    MultiBootstrap,
    Replicates,
    choose,
    level,
    multi_bootstrap,
    multi_bootstrap_each,
)
from ablate.analysis.decisions import Decision, decide, equivalence_p, holm
from ablate.analysis.intervals import (
    Estimate,
    Superiority,
    from_standard_error,
    geometric_interval,
    mean_estimate,
    permutation_p,
    probability_of_superiority,
    ratio_interval,
    sample_sd,
    share_difference,
    share_interval,
    t_interval,
    two_sided_p_least,
    welch_interval,
)
from ablate.analysis.resampling import (
    VarianceSplit,
    class_iou,
    image_weights,
    mean_iou,
    resampled_scores,
    seed_weights,
    variance_split,
)

__all__ = [
    "Contrast",
    "Decision",
    "Estimate",
    "MultiBootstrap",
    "Replicates",
    "Superiority",
    "VarianceSplit",
    "choose",
    "class_iou",
    "decide",
    "equivalence_p",
    "from_standard_error",
    "geometric_interval",
    "holm",
    "image_weights",
    "level",
    "mean_estimate",
    "mean_iou",
    "multi_bootstrap",
    "multi_bootstrap_each",
    "permutation_p",
    "probability_of_superiority",
    "ratio_interval",
    "resampled_scores",
    "sample_sd",
    "seed_weights",
    "share_difference",
    "share_interval",
    "t_interval",
    "two_sided_p_least",
    "variance_split",
    "welch_interval",
]
