"""The tables of single measures: classes, detail, quality, rates, stability, cost, and what lies behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from ablate.analysis.analyse import Analysis
from ablate.registry import register_table
from ablate.report import rules
from ablate.report.format import detail_name
from ablate.report.lookup import distinct_detail, loss_column, order, rows_of
from ablate.report.tables.table import (
    AGAINST,
    CLASS,
    DELTA,
    SEEDS,
    VARIANT,
    Column,
    Table,
    axis_columns,
    frame_table,
    in_order,
    of_table,
    with_rates,
)

# More classes than this stand below one another: side by side they would fit neither page nor paper.
MOST_ACROSS = 16
MEMORY = Column("peak_memory_mib", "Peak memory, MiB", "number", best="min")


@register_table("classes", title="IoU per class", order=30)
def classes(analysis: Analysis) -> Table:
    """Return the IoU of every class, a row a variant, at own best settings."""
    return _by_class(analysis, "iou")


@register_table("class_dice", title="Dice per class", order=40)
def class_dice(analysis: Analysis) -> Table:
    """Return the Dice of every class, a row a variant, at own best settings."""
    return _by_class(analysis, "dice")


def _by_class(analysis: Analysis, score: str) -> Table:
    rows = analysis.classes
    names = list(dict.fromkeys(rows["class"]))
    # A class may be called "variant", so its column is named as the metric of a claim is.
    keys = {name: f"{score}/{name}" for name in names}
    found = {variant: dict(zip(part["class"], part[score], strict=True)) for variant, part in rows.groupby("variant")}
    if len(names) > MOST_ACROSS:
        shown = [variant for variant in order(analysis) if variant in found]
        frame = pd.DataFrame([{"class": n, **{f"{score}/{v}": found[v].get(n, np.nan) for v in shown}} for n in names])
        columns = [CLASS, *(Column(f"{score}/{v}", v, "percent") for v in shown)]
        return Table(frame, columns, rules.classes(analysis))
    frame = pd.DataFrame(
        [{"variant": v, **{keys[n]: found[v].get(n, np.nan) for n in names}} for v in order(analysis) if v in found]
    )
    columns = [VARIANT, *(Column(keys[n], n, "percent", best="max") for n in names)]
    return Table(frame, columns, rules.classes(analysis))


@frame_table("class_differences", title="Differences per class", order=50, frame="class_contrasts")
def class_differences(_analysis: Analysis) -> Sequence[Column]:
    """Return the difference of every class's IoU to the baseline with its interval."""
    return [
        CLASS,
        VARIANT,
        AGAINST,
        Column("left", "IoU, %", "percent"),
        Column("right", "Its IoU, %", "percent"),
        DELTA,
    ]


@register_table("detail", title="Fine detail", order=60)
def detail(analysis: Analysis) -> Table:
    """Return fine detail at own best settings."""
    frame = in_order(distinct_detail(analysis, analysis.detail), analysis)
    verdicts = analysis.detail_verdicts
    by_variant = dict(zip(verdicts["variant"], verdicts["verdict"], strict=True)) if len(verdicts) else {}
    frame = frame.assign(
        name=[detail_name(str(measure)) for measure in frame["measure"]],
        verdict=[by_variant.get(variant, "") for variant in frame["variant"]],
    )
    columns = [
        VARIANT,
        Column("name", "Measure"),
        Column("left", "Value, %", "percent"),
        Column("right", "Baseline, %", "percent"),
        DELTA,
        Column("verdict", "Detail", "word"),
    ]
    rule = f"{rules.detail(analysis)} {rules.rule(analysis, 'detail_verdicts')}"
    return Table(frame, columns, rule, page_only=("name",))


@register_table("class_detail", title="Fine detail per class", order=70)
def class_detail(analysis: Analysis) -> Table:
    """Return fine detail of every class: a row a class and variant, a difference a measure."""
    rows = in_order(distinct_detail(analysis, analysis.class_detail), analysis)
    columns = [CLASS, VARIANT, AGAINST]
    wide: dict[tuple[str, str], dict[str, object]] = {}
    for row in rows_of(rows):
        cell = wide.setdefault(
            (row["class"], row["variant"]), {name: row[name] for name in ("class", "variant", "against")}
        )
        cell |= {f"{row['measure']}_{name}": row[name] for name in ("pixels", "left", "right", "delta", "low", "high")}
    for name in dict.fromkeys(rows["measure"]):
        columns.append(Column(f"{name}_pixels", f"{detail_name(name)}: pixels", "count"))
        columns.append(Column(f"{name}_delta", "Δ, points", "delta", f"{name}_low", f"{name}_high"))
    return Table(pd.DataFrame(list(wide.values())), columns, rules.detail(analysis))


@frame_table("quality", title="Quality and its spread", order=80, frame="variants")
def quality(analysis: Analysis) -> Sequence[Column]:
    """Return other scores of the same predictions."""
    scores = {
        "mean_iou_images": "mIoU over images, %",
        "mean_iou_classes": "mIoU over classes, %",
        "worst_images": "Worst 10 % of images, %",
        "dice": "Dice, %",
        **({} if analysis.frames.multilabel else {"pixel_accuracy": "Pixel accuracy, %"}),
    }
    loss, title = loss_column(analysis)
    spreads = {
        "between_runs_sd": "SD between runs, points",
        "seed_sd": "of seeds",
        "interaction_sd": "of seed × image",
        "image_sd": "SD of images, points",
    }
    return [
        VARIANT,
        Column("test_mean", "mIoU, %", "percent", "test_low", "test_high", best="max"),
        *(Column(key, label, "percent") for key, label in scores.items()),  # without an interval none is marked as best
        Column(loss, title, "number"),
        *(Column(key, label, "percent", digits=2) for key, label in spreads.items()),
    ]


@frame_table("learning_rate", title="Learning rate", order=100, frame="variants", rule="sensitivity")
def learning_rate(_analysis: Analysis) -> Sequence[Column]:
    """Return how sensitive each variant is to the rate, and how firmly its own was chosen."""
    return [
        VARIANT,
        Column("lr", "Own best lr", "rate"),
        Column("bracket", "Bracket"),
        Column("stability_of_choice", "Chosen again, %", "percent", digits=0),
        Column("lr_sensitivity", "lr sensitivity, nats", "number", best="min"),
        Column("sensitivity_low", "from", "rate"),
        Column("sensitivity_high", "to", "rate"),
        Column("basin_optimum", "Basin optimum", "rate"),
        Column("basin_width", "Width, decades", "number", best="max"),
    ]


@register_table("stability", title="Stability", order=110)
def stability(analysis: Analysis) -> Table:
    """Return every measure of stability of every cell."""
    frame = analysis.stability
    axes = list(analysis.frames.axes)
    names = list(dict.fromkeys(frame["measure"])) if len(frame) else []
    wide = frame[["variant", "setting", *axes]].drop_duplicates(["variant", "setting"]) if len(frame) else frame
    for name in names:
        ends = {"mean": name, "low": f"{name}_low", "high": f"{name}_high", "n": f"{name}_n"}
        values = frame.loc[frame["measure"] == name, ["variant", "setting", *ends]].rename(columns=ends)
        wide = wide.merge(values, on=["variant", "setting"], how="left")
    shown = in_order(wide, analysis)
    # The headline with its interval; those of the others are in the file of the table.
    columns = [VARIANT, *axis_columns(analysis)]
    for name in names:
        best: Literal["min"] | None = None if name == "lr_headroom" else "min"
        low, high = (f"{name}_low", f"{name}_high") if name == "rise" else (None, None)
        if best or shown[name].notna().any():
            columns.append(Column(name, name.replace("_", " "), "number", low, high, best))
    return Table(shown, columns, rules.rule(analysis, "stability"), bold_of="variant")


@frame_table("convergence", title="Convergence at the epoch budget", order=130)
def convergence(analysis: Analysis) -> Sequence[Column]:
    """Return whether each cell had converged when its epochs ended."""
    return [
        VARIANT,
        *axis_columns(analysis),
        Column("verdict", "Convergence", "word"),
        Column("gain", "Projected gain, points", "delta", "low", "high"),
        SEEDS,
        Column("reason", "Reason"),
    ]


@frame_table("extension", title="What training on brought", order=140)
def extension(analysis: Analysis) -> Sequence[Column]:
    """Return what training on brought, where a study was extended."""
    return [
        VARIANT,
        *axis_columns(analysis),
        Column("budget", "Epochs", "whole"),
        Column("epochs", "extended to", "whole"),
        Column("projected_verdict", "Projected", "word"),
        Column("projected", "Projected gain, points", "delta"),
        Column("verdict", "Trained on", "word"),
        Column("gain", "Gain, points", "delta", "low", "high"),
        SEEDS,
        Column("reason", "Reason"),
    ]


@frame_table("ranking", title="Ranking between settings", order=150)
def ranking(_analysis: Analysis) -> Sequence[Column]:
    """Return how far the order of the variants depends on the setting."""
    return [
        Column("setting", "Setting"),
        Column("other", "Other setting"),
        Column("tau", "Kendall τ", "number", digits=2),
        Column("n_variants", "Variants", "whole"),
    ]


@register_table("cost", title="Cost", order=180)
def cost(analysis: Analysis) -> Table:
    """Return what each variant costs, alone on the device."""
    frame = analysis.cost.copy()
    rates = {"train_images_per_s": "Train img/s", "inference_images_per_s": "Inference img/s"}
    if len(frame):
        for quantity in rates:
            frame = with_rates(frame, analysis, quantity, quantity)
        if analysis.frames.profile.get("device") != "cpu":
            # A process's peak never falls, so that on a CPU it is not that of the variant.
            frame["peak_memory_mib"] = frame["peak_memory_bytes"].astype(float) / 2**20
    columns = [
        VARIANT,
        Column("parameters", "Parameters", "count", best="min"),
        Column("forward_flops", "FLOPs an image", "count", best="min"),
    ]
    for quantity, label in rates.items():
        columns.append(Column(quantity, label, "number", best="max"))
        columns.append(Column(f"{quantity}_ratio", "× base", "factor", f"{quantity}_low", f"{quantity}_high"))
    columns += [
        Column("latency_p50_ms", "Latency p50, ms", "number", best="min"),
        Column("latency_p95_ms", "p95, ms", "number", best="min"),
        *([MEMORY] if "peak_memory_mib" in frame else []),
    ]
    unknown = () if "peak_memory_mib" in frame else ("peak_memory_bytes", "memory_ratio")
    return Table(in_order(frame, analysis), columns, rules.cost(analysis), page_only=unknown)


# --- why: what differs, how long the steps could be, what attention gates are good for ------------------------------


@register_table("purity", title="What differs", order=90)
def purity(analysis: Analysis) -> Table:
    """Return what else than the component differs: settings, modules, parameters, FLOPs."""
    columns = [
        VARIANT,
        Column("differs", "Settings that differ"),
        Column("confounds", "Training settings of its own"),
        Column("modules_added", "Modules added", "whole"),
        Column("modules_removed", "removed", "whole"),
        Column("parameters_ratio", "Params", "factor"),
        Column("flops_ratio", "FLOPs", "factor"),
    ]
    rule = (
        "Against the baseline (an A/A control: what it copies, for parameters and FLOPs): the resolved settings in "
        "which the study makes the variant differ, and the modules by which its network then does (their lines are in "
        "the file of the table). At another number of parameters or FLOPs a difference is that of component and "
        "capacity together."
    )
    frame = in_order(analysis.variants[~analysis.variants["baseline"].astype(bool)], analysis)
    return Table(of_table(frame, columns, "modules"), columns, rule)


@frame_table("headroom", title="Learning-rate headroom", order=120)
def headroom(analysis: Analysis) -> Sequence[Column]:
    """Return how much longer the steps could be, over training."""
    return [
        VARIANT,
        *axis_columns(analysis),
        Column("point", "Point", "whole"),
        Column("mean", "Headroom", "factor", "low", "high"),
        Column("lowest", "Lowest", "factor"),
        Column("highest", "Highest", "factor"),
        SEEDS,
        Column("n_censored", "At an end", "whole"),
    ]


@frame_table("gates", title="Attention gates", order=160)
def gates(_analysis: Analysis) -> Sequence[Column]:
    """Return what the attention gates tell apart, beside what position and inputs alone give."""
    return [
        VARIANT,
        Column("gate", "Gate"),
        CLASS,
        Column("auroc", "AUROC", "number", "auroc_low", "auroc_high"),
        Column("over_shuffled", "over shuffled", "number", "over_shuffled_low", "over_shuffled_high", digits=2),
        Column("over_untrained", "over untrained", "number", "over_untrained_low", "over_untrained_high", digits=2),
        Column("lift", "Lift", "factor", "lift_low", "lift_high"),
        SEEDS,
    ]


@frame_table("gate_ablation", title="Attention gates flattened", order=170)
def gate_ablation(_analysis: Analysis) -> Sequence[Column]:
    """Return what the attention gates are good for: the score without their pattern."""
    return [
        VARIANT,
        Column("gate", "Gate flattened"),
        Column("delta", "Δ test mIoU, points", "delta", "low", "high"),
        SEEDS,
    ]
