"""The columns of every frame: their kind, their unit and what they hold.

`TRIAL_FRAMES` are those of `Frames`, `FRAMES` those of `Analysis`, `CLAIMS` is that of `ablate.claims.verdicts.judge`.
`setting` is the text that identifies a setting, "lr=3e-4": the key of `Frames.settings`. Fractions are fractions. A
number that could not be had is NaN, and `reason` says why ("" otherwise). Intervals, from `low` to `high`, are at the
study's confidence unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from ablate.registry import MEASURES

Kind = Literal["text", "flag", "count", "number", "any"]


@dataclass(frozen=True)
class Column:
    """A column: its kind, what it holds, and its unit ("" for a fraction or a plain number).

    Kinds are text, flag (bool), count (int), number (float), and any (such as a level: number, text or tuple).
    """

    kind: Kind
    about: str
    unit: str = ""


@dataclass(frozen=True)
class Frame:
    """A frame: what one row is, and its columns.

    `named` holds columns by name, or by several names that mean alike ("low high"); `shared` names columns of
    `SHARED`. With `axes` there is a column for every axis of the grid besides ("lr" always), with `measures` one for
    every registered measure, and with `metrics` one for every other metric of the records.
    """

    row: str
    shared: str
    named: Mapping[str, Column]
    axes: bool = False
    measures: bool = False
    metrics: bool = False

    def columns(self, axes: Sequence[str] = ("lr",)) -> dict[str, Column]:
        """Return every column that the frame has for a study with these axes, by its name."""
        found = {name: SHARED[name] for name in self.shared.split()}
        found |= {name: column for names, column in self.named.items() for name in names.split()}
        if self.axes:
            found |= {axis: Column("any", "level of this axis of the grid") for axis in axes}
        if self.measures:
            found |= {name: Column("number", one.title, one.unit) for name, one in MEASURES.items()}
        return found


_text, _flag = partial(Column, "text"), partial(Column, "flag")
_count, _number = partial(Column, "count"), partial(Column, "number")

# Columns that mean the same wherever they stand.
SHARED: Mapping[str, Column] = {
    "variant": _text("the variant"),
    "against": _text("what the variant is compared with: the baseline, or for a control what it copies"),
    "setting": _text("the setting, a key of `Frames.settings`"),
    "key": _text("key of the trial"),
    "seed": _count("seed of the trial"),
    "split": _text('"val" or "test"'),
    "class": _text("name of the class"),
    "measure": _text("name of the measure"),
    "kind": _text('way about the settings: "own_best", "shared", "matched" or "confirmed"'),
    "control": _flag("whether the variant is an A/A copy"),
    "low": _number("lower end of the interval"),
    "high": _number("upper end of the interval"),
    "delta": _number("`variant` minus `against`"),
    "left": _number("score of `variant`, mean over seeds"),
    "right": _number("score of `against`, mean over seeds"),
    "n": _count("seeds with a result, of the smaller side", "seeds"),
    "reason": _text("why a number could not be had"),
    "blind_score": _number("test mIoU of the best prediction without an image: one class, or by class frequencies"),
    "pixels": _count("target pixels of the class in the test split", "pixels"),
    "parameters_ratio": _number("parameters of `variant` over those of `against`"),
    "flops_ratio": _number("forward FLOPs of `variant` over those of `against`"),
}
_VERDICT = _text('"under-converged", "converged", "inconclusive" or "none"')

TRIAL_FRAMES: Mapping[str, Frame] = {
    "trials": Frame(
        "a planned trial",
        "key variant setting seed",
        {
            "name folder": _text("name of its folder, and its path"),
            "role": _text('"main", or "confirm" for a fresh seed at a chosen setting'),
            "status reason": _text('status of its record, or "missing"; why it has no result'),
            "val_mean_iou test_mean_iou": _number("mIoU at the best-val epoch"),
            "val_score test_score": _number("the same, 0 for a diverged trial, NaN without a result"),
            "wall_s": _number("time it took", "s"),
            "schedule": Column("any", "schedule of the learning rate, NaN without a record"),
            "missing": Column("any", "measure -> why it is NaN"),
        },
        axes=True,
        measures=True,
        metrics=True,
    ),
    "epochs": Frame(
        "an epoch of a trial that has begun",
        "key variant setting seed",
        {
            "epoch": _count("number of the epoch, from 1"),
            "train_loss val_loss": _number("loss of the epoch", "nats"),
            "val_mean_iou": _number("val mIoU after the epoch"),
        },
        axes=True,
    ),
    "classes": Frame(
        "a class of a split of a complete trial, over the whole split",
        "key variant setting seed split class",
        {"tp fp fn": _count("counted pixels", "pixels"), "iou dice": _number("IoU and Dice score of the class")},
        axes=True,
    ),
    "images": Frame(
        "an image of a split of a complete trial",
        "key variant setting seed split",
        {
            "image": _text("name of the image"),
            "mean_iou": _number("mean IoU over the classes in its target"),
            "loss": _number("loss, of the test split only", "nats"),
        },
        axes=True,
    ),
    "layers": Frame(
        "a probed value of a trial with a record",
        "key variant setting seed measure",
        {
            "layer": _text("name of the layer"),
            "point": _count("number of the probe, from 0"),
            "value": _number("what was measured"),
        },
        axes=True,
    ),
    "throughput": Frame(
        "a variant and round of the closing profile",
        "variant",
        {
            "round": _count("number of the round, from 0"),
            "train_images_per_s inference_images_per_s": _number("rate, measured alone", "images/s"),
        },
    ),
}

FRAMES: Mapping[str, Frame] = {
    "cells": Frame(
        "a variant and setting of the plan (role main), A/A controls too",
        "variant setting control n blind_score",
        {
            "n_planned n_complete n_diverged n_pruned n_failed n_missing": _count(
                "seeds of the plan, by status", "seeds"
            ),
            "diverged_share diverged_low diverged_high": _number("share of diverged seeds, with Wilson's interval"),
            "val_mean val_sd val_low val_high": _number("V, the SD between seeds, and the t interval over seeds"),
            "test_mean test_sd test_low test_high": _number("the same of T"),
            "val_loss test_loss": _number("mean over complete seeds of the loss at the best-val epoch", "nats"),
            "best_epoch": _number("mean over complete seeds of the best-val epoch"),
            "regret": _number("highest V of the variant less V"),
            "eligible": _flag("whether the cell may be chosen"),
            "untrained": _flag("whether its mean test mIoU is within a point of `blind_score`: nothing was learned"),
            "own_best shared": _flag("whether the rule chose it"),
            "convergence": _VERDICT,
            "convergence_reason": _text("what that verdict rests on"),
            "gain gain_low gain_high": _number("projected gain of val mIoU, with its 90 % interval"),
            "reason": _text("what the cell lacks"),
        },
        axes=True,
        measures=True,
    ),
    "variants": Frame(
        "a variant, in the order of the plan, at its own best setting",
        "variant control against setting n reason parameters_ratio flops_ratio",
        {
            "baseline": _flag("whether it is the baseline"),
            "differs": _text("fields that differ from the baseline"),
            "confounds": _text("training settings of its own"),
            "unbracketed": _flag("whether its best rate lies on an edge of the grid"),
            "bracket": _text("which edge"),
            "stability_of_choice": _number("share of the replicates that choose the same setting"),
            "n_planned": _count("seeds of the plan", "seeds"),
            "provisional": _flag("whether a trial of the variant has no result"),
            "val_mean": _number("V"),
            "test_mean test_low test_high": _number("T, with the Multi-Bootstrap's interval, the setting chosen again"),
            "mean_iou_images mean_iou_classes worst_images": _number(
                "mIoU^I, mIoU^C, mIoU^I of the worst tenth: means"
            ),
            "pixel_accuracy dice": _number("mean over seeds"),
            "test_loss": _number("mean over complete seeds", "nats"),
            "between_runs_sd": _number("standard deviation of one run's test mIoU on these images"),
            "seed_sd image_sd interaction_sd": _number("its parts by seed, by images, by a run's luck with the images"),
            "lr_sensitivity": _number("learning-rate sensitivity", "nats"),
            "sensitivity_low sensitivity_high": _number("range of rates that it is the mean over"),
            "sensitivity_reason basin_reason": _text("why there is none"),
            "basin_optimum": _number("rate at the vertex of the parabola through the best V"),
            "basin_width": _number("width within the rope of its top", "decades"),
            "basin_bracketed": _flag("whether the best rate is not on the edge"),
            "basin_extrapolated": _flag("whether the width reaches past the rates used"),
            "parameters": _number("parameters of the network"),
            "forward_flops": _number("operations of one forward pass", "FLOP"),
            "modules_added modules_removed": Column("any", "how many modules the baseline's network lacks or has more"),
            "modules": _text("the lines of these modules"),
        },
        axes=True,
    ),
    "contrasts": Frame(
        "a contrast and way: `variant` minus `against` in T",
        "variant against control kind setting delta low high n left right reason parameters_ratio flops_ratio "
        "blind_score",
        {
            "against_setting": _text("setting of `against`"),
            "lr against_lr": _number("learning rates of the two sides"),
            "se": _number("standard error of `delta`"),
            "df": Column("any", "degrees of freedom"),
            "p p_holm": _number("two-sided p against no difference, and after Holm's correction"),
            "p_equivalent": _number("p of equivalence after Holm's correction"),
            "decision": _text(
                '"better", "worse", "equivalent", "undecided", or "futile": stopped before the last look, for it would '
                "hardly have been decided"
            ),
            "primary": _flag("whether it is the primary decision: of the fresh seeds where the study declares them"),
            "fresh": _flag("whether the seeds took no part in choosing; a best chosen on the same seeds is optimistic"),
            "error_bar": _text('"retune", "fixed" or "tune_once"'),
            "n_against": _count("seeds of `against`", "seeds"),
            "stability": _number("share of replicates in which both sides choose the same again; own best only"),
            "lr_confounded": _flag("whether the contrast depends on how the settings are chosen: `interaction_p` ≤ α"),
            "interaction interaction_low interaction_high": _number(
                "`delta` less that at the shared setting; own best"
            ),
            "interaction_p": _number("two-sided p of no such difference, after Holm's correction"),
            "unbracketed": _flag("whether the best rate of a side lies on an edge; own best and shared"),
            "provisional": _flag("whether a trial that it rests on has no result"),
            "confounded": _text("training settings that a side has of its own"),
            "superiority superiority_low superiority_high": _number("P(a run of `variant` beats one of `against`)"),
            "superiority_verdict": _text('"meaningful", "negligible", "noise", or "" where none may be given'),
            "untrained": _flag(
                "whether a side's mean test mIoU is within a point of `blind_score`: nothing was learned"
            ),
            "detectable": _number("undecided only: the difference it would have found with a chance of 80 %"),
            "seeds_needed": _number("undecided only: seeds a side that find `delta` so; infinite above 1,000", "seeds"),
            "images_drawn": _text('how the test images are resampled: "independent", whole "groups", or in "blocks"'),
            "groups": _count("groups of test images, 0 where they are independent", "groups"),
            "block": _count("images in a block, 0 where they are not drawn in blocks", "images"),
            "conditional": _flag("whether the interval is conditional on these groups, too few to stand for others"),
            "order_correlation": _number(
                "correlation of neighbours in what the images add to the difference at own best"
            ),
            "order_warning": _flag(
                "whether the images seem dependent in the order of the files though no groups are declared: intervals "
                "are then too narrow"
            ),
        },
    ),
    "looks": Frame(
        "a contrast of fresh seeds and look that it was open at, in a study that trains until it is decided",
        "variant against low high",
        {
            "look": _count("number of the look, from 1"),
            "n": _count("fresh seeds of either side that it looks at", "seeds"),
            "estimate": _number("`variant` minus `against` in T"),
            "se df": _number("its standard error, and degrees of freedom"),
            "confidence": _number("level of the interval, which holds over all looks together at the study's"),
            "p p_equivalent": _number("two-sided p against no difference, and of equivalence"),
            "level": _number("what p had to reach at this look"),
            "bound": _number("the same as the size of a normal deviate"),
            "power": _number("chance of a decision at the last look if the estimate is true; NaN where not judged"),
            "decision": _text('"better", "worse", "equivalent", "futile", "undecided" at the last look, or "open"'),
        },
    ),
    "classes": Frame(
        "a variant and class, at own best",
        "variant class pixels n reason",
        {
            "iou iou_low iou_high": _number("IoU, with the Multi-Bootstrap's interval"),
            "dice": _number("Dice score, mean over seeds"),
        },
    ),
    "class_contrasts": Frame(
        "a contrast, way (own best, shared) and class",
        "variant against kind class delta low high left right n reason",
        {},
    ),
    "detail": Frame(
        "a contrast and measure of fine detail, at own best",
        "variant against measure left right delta low high n reason",
        {},
    ),
    "class_detail": Frame(
        "a contrast, class and measure of fine detail, at own best",
        "variant against class measure left right delta low high n reason",
        {"pixels": _count("target pixels of that kind and class in the test split", "pixels")},
    ),
    "detail_verdicts": Frame(
        "a contrast",
        "variant against",
        {"verdict": _text('"lost", "gained" or "undecided"'), "reason": _text("the four intervals that it rests on")},
    ),
    "stability": Frame(
        "a cell and registered measure, those of quality left out",
        "variant setting measure low high n reason",
        {
            "mean": _number("mean over seeds, infinite where a seed's is; geometric for lr_headroom"),
            "finite_mean largest": _number("mean of the finite values, and the largest value"),
            "n_infinite": _count("seeds whose value is infinite", "seeds"),
        },
        axes=True,
    ),
    "headroom": Frame(
        "a cell and probed point of training",
        "variant setting low high n reason",
        {
            "point": _count("number of the point, from 1"),
            "mean lowest highest": _number("geometric mean over seeds, and the extremes", "multiples of the step"),
            "n_censored": _count("seeds at an end of the range probed", "seeds"),
        },
        axes=True,
    ),
    "convergence": Frame(
        "a cell",
        "variant setting n",
        {
            "verdict": _VERDICT,
            "gain low high": _number("projected gain of val mIoU, with its 90 % interval"),
            "reason": _text("what the verdict rests on"),
        },
        axes=True,
    ),
    "extension": Frame(
        "a cell of a study that went on from shorter trials",
        "variant setting n",
        {
            "budget epochs": _count("epochs of the shorter trials, and of the longer ones", "epochs"),
            "projected": _number("gain that the shorter curves alone projected"),
            "projected_verdict verdict": _VERDICT,
            "gain low high": _number("gain that came, with its 90 % interval"),
            "reason": _text("what the verdict rests on"),
        },
        axes=True,
    ),
    "ranking": Frame(
        "two settings",
        "setting",
        {
            "other": _text("the other setting"),
            "tau": _number("Kendall's tau-b between the rankings of the variants by V"),
            "n_variants": _count("variants that have V at both"),
        },
    ),
    "budget": Frame(
        "a variant and number of settings tried, from eight settings on",
        "variant",
        {
            "settings_tried": _count("settings tried"),
            "expected_test": _number("expected test mIoU of the val-best of them"),
        },
    ),
    "gates": Frame(
        "an attention gate and class, at own best, means over seeds with t intervals",
        "variant class n reason",
        {
            "gate": _text("name of the gate"),
            "auroc auroc_low auroc_high": _number("chance that a pixel of the class has the larger coefficient"),
            "shuffled untrained": _number("the AUROC of the two nulls"),
            "over_shuffled over_shuffled_low over_shuffled_high": _number("AUROC less that of shuffled masks, by run"),
            "over_untrained over_untrained_low over_untrained_high": _number("AUROC less that of a fresh gate, by run"),
            "lift lift_low lift_high": _number("mean coefficient of the class over that of all pixels"),
        },
    ),
    "gate_ablation": Frame(
        "an attention gate, or all together",
        "variant low high n reason",
        {
            "gate": _text('name of the gate, or "all"'),
            "delta": _number("test mIoU with it flattened less that without"),
        },
    ),
    "throughput": Frame(
        "a profiled variant and rate",
        "variant against low high reason",
        {
            "quantity": _text('"train_images_per_s" or "inference_images_per_s"'),
            "value": _number("median over rounds", "images/s"),
            "ratio": _number("geometric mean over rounds of the ratio to `against`"),
            "rounds": _count("rounds"),
        },
    ),
    "cost": Frame(
        "a profiled variant",
        "variant",
        {
            "parameters forward_flops": Column("any", "parameters, and FLOPs of one forward pass"),
            "latency_p50_ms latency_p95_ms": _number("latency of one image", "ms"),
            "peak_memory_bytes": Column("any", "peak memory", "bytes"),
            "memory_ratio": _number("peak memory over the baseline's"),
        },
    ),
}

CLAIMS = Frame(
    "a claim of the study",
    "low high reason",
    {
        "id text": _text("id of the claim, and the claim in words"),
        "verdict": _text('"supported", "refuted" or "inconclusive"'),
        "value": _number("the comparison that the verdict hangs on, at the level it was judged at"),
        "threshold": _number("number that the interval must lie beyond"),
        "confidence": _number("level of the interval"),
        "at": _text("which of `comparisons` it is: variants and settings"),
        "n": _count("seeds (rounds for throughput) of its smaller side"),
        "comparisons": _count("how many comparisons the claim is over"),
        "quantifiers": _text('of several comparisons "all" or "any" must hold; "all any": over variants and settings'),
        "quantity method": _text("name of the number that was compared, and how its interval was made"),
        "side": _text('where the interval must lie, "above" or "below" the threshold'),
        "exact": _flag("whether the number is without sampling error"),
    },
)
