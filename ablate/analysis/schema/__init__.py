"""The columns of every frame: their kind, their unit and what they hold.

`TRIAL_FRAMES` are those of `Frames`, `FRAMES` those of `Analysis`, `CLAIMS` is that of `ablate.claims.verdicts.judge`.
`setting` is the text that identifies a setting, "lr=3e-4": the key of `Frames.settings`. Fractions are fractions. A
number that could not be had is NaN, and `reason` says why ("" otherwise). Intervals, from `low` to `high`, are at the
study's confidence unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping

from ablate.analysis.schema.columns import Column, Frame, count, flag, number, text

_VERDICT = text('"under-converged", "converged", "inconclusive" or "none"')

TRIAL_FRAMES: Mapping[str, Frame] = {
    "trials": Frame(
        "a planned trial",
        "key variant setting seed",
        {
            "name folder": text("name of its folder, and its path"),
            "role": text('"main", or "confirm" for a fresh seed at a chosen setting'),
            "status reason": text('status of its record, or "missing"; why it has no result'),
            "val_mean_iou test_mean_iou": number("mIoU at the best-val epoch"),
            "val_score test_score": number("the same, 0 for a diverged trial, NaN without a result"),
            "wall_s": number("time it took", "s"),
            "loss_function": Column("any", "what it was trained with, NaN without a record"),
            "schedule": Column("any", "schedule of the learning rate, NaN without a record"),
            "missing": Column("any", "measure -> why it is NaN"),
            "computed_by": Column("any", "what its numbers depend on besides the trial"),
        },
        axes=True,
        measures=True,
        metrics=True,
    ),
    "epochs": Frame(
        "an epoch of a trial that has begun",
        "key variant setting seed",
        {
            "epoch": count("number of the epoch, from 1"),
            "train_loss val_loss": number("loss of the epoch", "nats"),
            "val_mean_iou": number("val mIoU after the epoch"),
            "val_cross_entropy": number("the same for every loss", "nats"),
        },
        axes=True,
    ),
    "classes": Frame(
        "a class of a split of a complete trial, over the whole split",
        "key variant setting seed split class",
        {"tp fp fn": count("counted pixels", "pixels"), "iou dice": number("IoU and Dice score of the class")},
        axes=True,
    ),
    "images": Frame(
        "an image of a split of a complete trial",
        "key variant setting seed split",
        {
            "image": text("name of the image"),
            "mean_iou": number("mean IoU over the classes in its target"),
            "loss": number("loss, of the test split only", "nats"),
        },
        axes=True,
    ),
    "layers": Frame(
        "a probed value of a trial with a record",
        "key variant setting seed measure",
        {
            "layer": text("name of the layer"),
            "point": count("number of the probe, from 0"),
            "value": number("what was measured"),
        },
        axes=True,
    ),
    "throughput": Frame(
        "a variant and round of the closing profile",
        "variant",
        {
            "round": count("number of the round, from 0"),
            "train_images_per_s inference_images_per_s": number("rate, measured alone", "images/s"),
        },
    ),
}

FRAMES: Mapping[str, Frame] = {
    "cells": Frame(
        "a variant and setting of the plan (role main), A/A controls too",
        "variant setting control n blind_score",
        {
            "n_planned n_complete n_diverged n_pruned n_failed n_missing": count(
                "seeds of the plan, by status", "seeds"
            ),
            "diverged_share diverged_low diverged_high": number("share of diverged seeds, with Wilson's interval"),
            "val_mean val_sd val_low val_high": number("V, the SD between seeds, and the t interval over seeds"),
            "test_mean test_sd test_low test_high": number("the same of T"),
            "val_loss test_loss": number("mean over complete seeds of the loss at the best-val epoch", "nats"),
            "best_epoch": number("mean over complete seeds of the best-val epoch"),
            "regret": number("highest V of the variant less V"),
            "eligible": flag("whether the cell may be chosen"),
            "untrained": flag("whether its mean test mIoU is at most a point above `blind_score`: nothing was learned"),
            "own_best shared": flag("whether the rule chose it"),
            "convergence": _VERDICT,
            "convergence_reason": text("what that verdict rests on"),
            "gain gain_low gain_high": number("projected gain of val mIoU, with its 90 % interval"),
            "reason": text("what the cell lacks"),
        },
        axes=True,
        measures=True,
    ),
    "variants": Frame(
        "a variant, in the order of the plan, at its own best setting, by the seeds that it is judged by",
        "variant control against setting n reason parameters_ratio flops_ratio",
        {
            "baseline": flag("whether it is the baseline"),
            "differs": text("fields that differ from the baseline"),
            "confounds": text("training settings of its own"),
            "unbracketed": flag("whether its best rate lies on an edge of the grid"),
            "bracket": text("which edge"),
            "stability_of_choice": number("share of the replicates that choose the same setting"),
            "n_planned": count("seeds of the plan", "seeds"),
            "provisional": flag("whether a trial of the variant has no result"),
            "val_mean": number("V"),
            "test_mean test_low test_high": number("T, its interval: of fresh seeds if any, else chosen again"),
            "mean_iou_images mean_iou_classes worst_images": number("mIoU^I, mIoU^C, mIoU^I of the worst tenth: means"),
            "pixel_accuracy dice": number("mean over seeds"),
            "test_loss test_cross_entropy": number("mean over complete seeds", "nats"),
            "between_runs_sd": number("standard deviation of one run's test mIoU on these images"),
            "seed_sd image_sd interaction_sd": number("its parts by seed, by images, by a run's luck with the images"),
            "lr_sensitivity": number("learning-rate sensitivity", "nats"),
            "sensitivity_low sensitivity_high": number("range of rates that it is the mean over"),
            "sensitivity_reason basin_reason": text("why there is none"),
            "basin_optimum": number("rate at the vertex of the parabola through the best V"),
            "basin_width": number("width within the rope of its top", "decades"),
            "basin_bracketed": flag("whether the best rate is not on the edge"),
            "basin_extrapolated": flag("whether the width reaches past the rates used"),
            "parameters": number("parameters of the network"),
            "forward_flops": number("operations of one forward pass", "FLOP"),
            "modules_added modules_removed": Column("any", "how many modules the baseline's network lacks or has more"),
            "modules": text("the lines of these modules"),
        },
        axes=True,
    ),
    "contrasts": Frame(
        "a contrast and way: `variant` minus `against` in T",
        "variant against control kind setting delta low high n left right reason parameters_ratio flops_ratio "
        "blind_score",
        {
            "against_setting": text("setting of `against`"),
            "lr against_lr": number("learning rates of the two sides"),
            "se": number("standard error of `delta`"),
            "df": Column("any", "degrees of freedom"),
            "p p_holm": number("two-sided p against no difference, and after Holm's correction"),
            "p_equivalent": number("p of equivalence after Holm's correction"),
            "decision": text(
                '"better", "worse", "equivalent", "undecided", or "futile": stopped before the last look, for it would '
                "hardly have been decided"
            ),
            "primary": flag("whether it is the primary decision: of the fresh seeds where the study declares them"),
            "fresh": flag("whether the seeds took no part in choosing; a best chosen on the same seeds is optimistic"),
            "error_bar": text('"retune", "fixed" or "tune_once"'),
            "n_against": count("seeds of `against`", "seeds"),
            "stability": number("share of replicates in which both sides choose the same again; own best only"),
            "lr_confounded": flag("whether the contrast depends on how the settings are chosen: `interaction_p` ≤ α"),
            "interaction interaction_low interaction_high": number("`delta` less that at the shared setting; own best"),
            "interaction_p": number("two-sided p of no such difference, after Holm's correction"),
            "unbracketed": flag("whether the best rate of a side lies on an edge; own best and shared"),
            "provisional": flag("whether a trial that it rests on has no result"),
            "confounded": text("training settings that a side has of its own"),
            "superiority superiority_low superiority_high": number("P(a run of `variant` beats one of `against`)"),
            "superiority_verdict": text('"meaningful", "negligible", "noise", or "" where none may be given'),
            "untrained": flag(
                "whether a side's mean test mIoU is at most a point above `blind_score`: nothing was learned"
            ),
            "detectable": number("undecided only: the difference it would have found with a chance of 80 %"),
            "seeds_needed": number("undecided only: seeds a side that find `delta` so; infinite above 1,000", "seeds"),
            "images_drawn": text('how the test images are resampled: "independent", whole "groups", or in "blocks"'),
            "groups": count("groups of test images, 0 where they are independent", "groups"),
            "block": count("images in a block, 0 where they are not drawn in blocks", "images"),
            "conditional": flag("whether the interval is conditional on these groups, too few to stand for others"),
            "order_correlation": number(
                "correlation of neighbours in what the images add to the difference at own best"
            ),
            "order_warning": flag(
                "whether the images seem dependent in the order of the files though no groups are declared: intervals "
                "are then too narrow"
            ),
        },
    ),
    "looks": Frame(
        "a contrast of fresh seeds and look that it was open at, in a study that trains until it is decided",
        "variant against low high",
        {
            "look": count("number of the look, from 1"),
            "n": count("fresh seeds of either side that it looks at", "seeds"),
            "estimate": number("`variant` minus `against` in T"),
            "se df": number("its standard error, and degrees of freedom"),
            "confidence": number("level of the interval, which holds over all looks together at the study's"),
            "p p_equivalent": number("two-sided p against no difference, and of equivalence"),
            "level": number("what p had to reach at this look"),
            "bound": number("the same as the size of a normal deviate"),
            "power": number("chance of a decision at the last look if the estimate is true; NaN where not judged"),
            "decision": text('"better", "worse", "equivalent", "futile", "undecided" at the last look, or "open"'),
        },
    ),
    "classes": Frame(
        "a variant and class, at own best, by the seeds that the variant is judged by",
        "variant class pixels n reason",
        {
            "iou iou_low iou_high": number("IoU, with the Multi-Bootstrap's interval"),
            "dice": number("Dice score, mean over seeds"),
        },
    ),
    "class_contrasts": Frame(
        "a contrast and class, at own best, of the seeds that decide the contrast",
        "variant against class delta low high left right n reason",
        {"fresh": flag("whether these seeds took no part in choosing")},
    ),
    "detail": Frame(
        "a contrast and measure of detail, of the seeds that decide it; excesses are logs of ratios to interior IoU",
        "variant against measure left right delta low high n reason",
        {},
    ),
    "class_detail": Frame(
        "a contrast, class and measure of fine detail, of the seeds that decide the contrast",
        "variant against class measure left right delta low high n reason",
        {"pixels": count("target pixels of that kind and class in the test split", "pixels")},
    ),
    "detail_verdicts": Frame(
        "a contrast",
        "variant against",
        {"verdict": text('"lost", "gained" or "undecided"'), "reason": text("the four intervals that it rests on")},
    ),
    "stability": Frame(
        "a cell and registered measure, those of quality left out, by its fresh seeds if it has any",
        "variant setting measure low high n reason",
        {
            "mean": number("mean over seeds, infinite where a seed's is; geometric for lr_headroom"),
            "finite_mean largest": number("mean of the finite values, and the largest value"),
            "n_infinite": count("seeds whose value is infinite", "seeds"),
        },
        axes=True,
    ),
    "headroom": Frame(
        "a cell and probed point of training, by its fresh seeds if it has any",
        "variant setting low high n reason",
        {
            "point": count("number of the point, from 1"),
            "mean lowest highest": number("geometric mean over seeds, and the extremes", "multiples of the step"),
            "n_censored": count("seeds at an end of the range probed", "seeds"),
        },
        axes=True,
    ),
    "convergence": Frame(
        "a cell, by its fresh seeds if it has any",
        "variant setting n",
        {
            "verdict": _VERDICT,
            "gain low high": number("projected gain of val mIoU, with its 90 % interval"),
            "reason": text("what the verdict rests on"),
        },
        axes=True,
    ),
    "extension": Frame(
        "a cell of a study that went on from shorter trials",
        "variant setting n",
        {
            "budget epochs": count("epochs of the shorter trials, and of the longer ones", "epochs"),
            "projected": number("gain that the shorter curves alone projected"),
            "projected_verdict verdict": _VERDICT,
            "gain low high": number("gain that came, with its 90 % interval"),
            "reason": text("what the verdict rests on"),
        },
        axes=True,
    ),
    "ranking": Frame(
        "two settings",
        "setting",
        {
            "other": text("the other setting"),
            "tau": number("Kendall's tau-b between the rankings of the variants by V"),
            "n_variants": count("variants that have V at both"),
        },
    ),
    "budget": Frame(
        "a variant and number of settings tried, from eight settings on",
        "variant",
        {
            "settings_tried": count("settings tried"),
            "expected_test": number("expected test mIoU of the val-best of them"),
        },
    ),
    "gates": Frame(
        "an attention gate and class, at own best, means over seeds with t intervals (of the AUROC on its logit)",
        "variant class n reason",
        {
            "gate": text("name of the gate"),
            "auroc auroc_low auroc_high": number(
                "chance that a pixel of the class has the larger coefficient; by logits"
            ),
            "shuffled untrained": number("the AUROC of the two nulls"),
            "over_shuffled over_shuffled_low over_shuffled_high": number("AUROC less that of shuffled masks, by run"),
            "over_untrained over_untrained_low over_untrained_high": number("AUROC less that of a fresh gate, by run"),
            "lift lift_low lift_high": number("mean coefficient of the class over that of all pixels"),
        },
    ),
    "gate_ablation": Frame(
        "an attention gate, or all together",
        "variant low high n reason",
        {
            "gate": text('name of the gate, or "all"'),
            "delta": number("test mIoU with it flattened less that without"),
        },
    ),
    "throughput": Frame(
        "a profiled variant and rate",
        "variant against low high reason",
        {
            "quantity": text('"train_images_per_s" or "inference_images_per_s"'),
            "value": number("median over rounds", "images/s"),
            "ratio": number("geometric mean over rounds of the ratio to `against`"),
            "rounds": count("rounds"),
        },
    ),
    "cost": Frame(
        "a profiled variant",
        "variant",
        {
            "parameters forward_flops": Column("any", "parameters, and FLOPs of one forward pass"),
            "latency_p50_ms latency_p95_ms": number("latency of one image", "ms"),
            "peak_memory_bytes": Column("any", "peak memory", "bytes"),
            "memory_ratio": number("peak memory over the baseline's"),
        },
    ),
    "interactions": Frame(
        "two factors of a full grid, and a level of each beside its first; all other factors at their first level",
        "low high reason",
        {
            "factor_a factor_b": text("the factors"),
            "level_a0 level_a1 level_b0 level_b1": text("their levels, the first one of each being 0"),
            "mean_00 mean_01 mean_10 mean_11": number("test mIoU of the cell, the level of A before that of B"),
            "mean_00_low mean_01_low mean_10_low mean_11_low": number("lower end of its interval"),
            "mean_00_high mean_01_high mean_10_high mean_11_high": number("upper end of its interval"),
            "effect_b0 effect_b1": number("what A's level 1 changes at either level of B"),
            "effect_b0_low effect_b1_low": number("lower end of its interval"),
            "effect_b0_high effect_b1_high": number("upper end of its interval"),
            "estimate": number("`effect_b1` less `effect_b0`"),
            "p p_holm": number("two-sided p-value against 0, and adjusted over all rows"),
            "decision": text('"synergistic", "antagonistic", "additive" (within the rope) or "undecided"'),
        },
    ),
    "main_effects": Frame(
        "a factor of a full grid and a level beside its first",
        "low high reason",
        {
            "factor level_0 level_1": text("the factor and the two levels"),
            "estimate": number("test mIoU at level 1 less that at level 0, the mean over all other levels"),
            "p p_holm": number("two-sided p-value against 0, and adjusted over all rows"),
            "decision": text('"better", "worse", "equivalent" or "undecided"'),
        },
    ),
    "data_size": Frame(
        "a variant of those that differ in their training images",
        "variant low high reason",
        {
            "name": text("its name in the study; `variant` names the curve that it is a point of"),
            "images": count("training images, each once", "images"),
            "score": number("test mIoU on the same test images"),
            "seeds": count("seeds with a result", "seeds"),
        },
    ),
}

CLAIMS = Frame(
    "a claim of the study",
    "low high reason",
    {
        "id text": text("id of the claim, and the claim in words"),
        "verdict": text('"supported", "refuted" or "inconclusive"'),
        "value": number("the comparison that the verdict hangs on, at the level it was judged at"),
        "threshold": number("number that the interval must lie beyond"),
        "confidence": number("level of the interval"),
        "at": text("which of `comparisons` it is: variants and settings"),
        "n": count("seeds (rounds for throughput) of its smaller side"),
        "comparisons": count("how many comparisons the claim is over"),
        "quantifiers": text('of several comparisons "all" or "any" must hold; "all any": over variants and settings'),
        "quantity method": text("name of the number that was compared, and how its interval was made"),
        "side": text('where the interval must lie, "above" or "below" the threshold'),
        "exact": flag("whether the number is without sampling error"),
    },
)
