"""The tables of single measures: classes, fine detail, quality, learning rate, stability, convergence, cost."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ablate.analysis.analyse import Analysis
from ablate.report.figures.common import order
from ablate.report.figures.contrasts import detail_name
from ablate.report.render import Column, Table
from ablate.report.tables.common import axis_columns, in_order, present, rule_of


def classes_table(analysis: Analysis) -> Table:
    """IoU of every class, a row a variant, at own best settings."""
    return _by_class(analysis, "iou", "classes", "IoU per class")


def dice_table(analysis: Analysis) -> Table:
    """Dice of every class, a row a variant, at own best settings."""
    return _by_class(analysis, "dice", "class_dice", "Dice per class")


def _by_class(analysis: Analysis, score: str, table: str, title: str) -> Table:
    rows = analysis.classes
    names = list(dict.fromkeys(rows["class"]))
    # A class may be called "variant", so its column is named as the metric of a claim is.
    keys = {name: f"{score}/{name}" for name in names}
    found = {variant: dict(zip(part["class"], part[score], strict=True)) for variant, part in rows.groupby("variant")}
    frame = pd.DataFrame(
        [{"variant": v, **{keys[n]: found[v].get(n, np.nan) for n in names}} for v in order(analysis) if v in found]
    )
    columns = [Column("variant", "Variant"), *(Column(keys[n], n, "percent", best="max") for n in names)]
    return Table(table, title, analysis.rules["classes"], frame, tuple(columns))


def class_differences_table(analysis: Analysis) -> Table:
    """Difference of every class's IoU to the baseline with its interval."""
    frame = analysis.class_contrasts
    frame = in_order(frame[frame["kind"] == "own_best"] if len(frame) else frame, analysis)
    columns = [
        Column("class", "Class"),
        Column("variant", "Variant"),
        Column("against", "Against"),
        Column("left", "IoU, %", "percent"),
        Column("right", "Its IoU, %", "percent"),
        Column("delta", "Δ, points", "delta", "low", "high"),
    ]
    return Table(
        "class_differences", "Differences per class", rule_of(analysis, "class_contrasts", frame), frame, tuple(columns)
    )


def detail_table(analysis: Analysis) -> Table:
    """Fine detail at own best settings."""
    frame = in_order(analysis.detail, analysis)
    verdicts = analysis.detail_verdicts
    by_variant = dict(zip(verdicts["variant"], verdicts["verdict"], strict=True)) if len(verdicts) else {}
    frame = frame.assign(
        name=[detail_name(str(measure)) for measure in frame["measure"]],
        verdict=[by_variant.get(variant, "") for variant in frame["variant"]],
    )
    columns = [
        Column("variant", "Variant"),
        Column("name", "Measure"),
        Column("left", "Value, %", "percent"),
        Column("right", "Baseline, %", "percent"),
        Column("delta", "Δ, points", "delta", "low", "high"),
        Column("verdict", "Detail", "word"),
    ]
    return Table("detail", "Fine detail", rule_of(analysis, "detail", frame), frame, tuple(columns))


def class_detail_table(analysis: Analysis) -> Table:
    """Fine detail of every class: a row a class and variant, a difference a measure."""
    rows = in_order(analysis.class_detail, analysis)
    measures = list(dict.fromkeys(rows["measure"]))
    columns = [Column("class", "Class"), Column("variant", "Variant"), Column("against", "Against")]
    wide: dict[tuple[str, str], dict[str, object]] = {}
    for row in rows.to_dict("records"):
        cell = wide.setdefault(
            (row["class"], row["variant"]), {name: row[name] for name in ("class", "variant", "against")}
        )
        cell |= {f"{row['measure']}_{name}": row[name] for name in ("pixels", "left", "right", "delta", "low", "high")}
    for name in measures:
        columns.append(Column(f"{name}_pixels", f"{detail_name(name)}: pixels", "count"))
        columns.append(Column(f"{name}_delta", "Δ, points", "delta", f"{name}_low", f"{name}_high"))
    frame = pd.DataFrame(list(wide.values()))
    return Table(
        "class_detail", "Fine detail per class", rule_of(analysis, "detail", rows), frame, present(columns, frame)
    )


def quality_table(analysis: Analysis) -> Table:
    """Other scores of the same predictions."""
    frame = in_order(analysis.variants, analysis)
    columns = [
        Column("variant", "Variant"),
        Column("test_mean", "mIoU, %", "percent", "test_low", "test_high", best="max"),
        Column("mean_iou_images", "mIoU over images, %", "percent", best="max"),
        Column("mean_iou_classes", "mIoU over classes, %", "percent", best="max"),
        Column("worst_images", "Worst 10 % of images, %", "percent", best="max"),
        Column("dice", "Dice, %", "percent", best="max"),
        Column("pixel_accuracy", "Pixel accuracy, %", "percent", best="max"),
        Column("test_loss", "Test loss", "number", best="min"),
        Column("between_runs_sd", "SD between runs, points", "percent", digits=2),
        Column("seed_sd", "of seeds", "percent", digits=2),
        Column("interaction_sd", "of seed × image", "percent", digits=2),
        Column("image_sd", "SD of images, points", "percent", digits=2),
    ]
    return Table(
        "quality", "Quality and its spread", rule_of(analysis, "variants", frame), frame, present(columns, frame)
    )


def learning_rate_table(analysis: Analysis) -> Table:
    """How sensitive each variant is to the rate, and how firmly its own was chosen."""
    frame = in_order(analysis.variants, analysis)
    columns = [
        Column("variant", "Variant"),
        Column("lr", "Own best lr", "rate"),
        Column("bracket", "Bracket"),
        Column("stability_of_choice", "Chosen again, %", "percent", digits=0),
        Column("lr_sensitivity", "lr sensitivity, nats", "number", best="min"),
        Column("sensitivity_low", "from", "rate"),
        Column("sensitivity_high", "to", "rate"),
        Column("basin_optimum", "Basin optimum", "rate"),
        Column("basin_width", "Width, decades", "number", best="max"),
    ]
    return Table(
        "learning_rate",
        "Learning rate",
        rule_of(analysis, "sensitivity", frame, "variants"),
        frame,
        present(columns, frame),
    )


def stability_table(analysis: Analysis) -> Table:
    """Every measure of stability of every cell."""
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
    columns = [
        Column("variant", "Variant"),
        *axis_columns(analysis),
        *(
            Column(
                name,
                name.replace("_", " "),
                "number",
                low=f"{name}_low" if name == "rise" else None,
                high=f"{name}_high" if name == "rise" else None,
                best=None if name == "lr_headroom" else "min",
            )
            for name in names
            if name != "lr_headroom" or shown[name].notna().any()
        ),
    ]
    return Table(
        "stability", "Stability", rule_of(analysis, "stability", frame), shown, present(columns, shown), "variant"
    )


def convergence_table(analysis: Analysis) -> Table:
    """Whether each cell had converged when its epochs ended."""
    frame = in_order(analysis.convergence, analysis)
    columns = [
        Column("variant", "Variant"),
        *axis_columns(analysis),
        Column("verdict", "Convergence", "word"),
        Column("gain", "Projected gain, points", "delta", "low", "high"),
        Column("n", "Seeds", "whole"),
        Column("reason", "Reason"),
    ]
    return Table(
        "convergence",
        "Convergence at the epoch budget",
        rule_of(analysis, "convergence", frame),
        frame,
        present(columns, frame),
    )


def extension_table(analysis: Analysis) -> Table:
    """What training on brought, where a study was extended."""
    frame = in_order(analysis.extension, analysis)
    columns = [
        Column("variant", "Variant"),
        *axis_columns(analysis),
        Column("budget", "Epochs", "whole"),
        Column("epochs", "extended to", "whole"),
        Column("projected_verdict", "Projected", "word"),
        Column("projected", "Projected gain, points", "delta"),
        Column("verdict", "Trained on", "word"),
        Column("gain", "Gain, points", "delta", "low", "high"),
        Column("n", "Seeds", "whole"),
        Column("reason", "Reason"),
    ]
    rule = rule_of(analysis, "extension", frame)
    return Table("extension", "What training on brought", rule, frame, present(columns, frame))


def ranking_table(analysis: Analysis) -> Table:
    """How far the order of the variants depends on the setting."""
    columns = [
        Column("setting", "Setting"),
        Column("other", "Other setting"),
        Column("tau", "Kendall τ", "number", digits=2),
        Column("n_variants", "Variants", "whole"),
    ]
    return Table(
        "ranking",
        "Ranking between settings",
        rule_of(analysis, "ranking", analysis.ranking),
        analysis.ranking,
        tuple(columns),
    )


def cost_table(analysis: Analysis) -> Table:
    """What each variant costs, alone on the device."""
    frame = analysis.cost.drop(columns=["rule"], errors="ignore").copy()
    if len(frame):
        for quantity in ("train_images_per_s", "inference_images_per_s"):
            rows = analysis.throughput[analysis.throughput["quantity"] == quantity]
            rows = rows[["variant", "value", "ratio", "low", "high"]].drop_duplicates("variant")
            rows.columns = pd.Index(["variant", quantity, *(f"{quantity}_{end}" for end in ("ratio", "low", "high"))])
            frame = frame.merge(rows, on="variant", how="left")
        frame["peak_memory_mib"] = frame["peak_memory_bytes"].astype(float) / 2**20
    columns = [
        Column("variant", "Variant"),
        Column("parameters", "Parameters", "count", best="min"),
        Column("forward_flops", "FLOPs an image", "count", best="min"),
        Column("train_images_per_s", "Train img/s", "number", best="max"),
        Column("train_images_per_s_ratio", "× base", "factor", "train_images_per_s_low", "train_images_per_s_high"),
        Column("inference_images_per_s", "Inference img/s", "number", best="max"),
        Column(
            "inference_images_per_s_ratio",
            "× base",
            "factor",
            "inference_images_per_s_low",
            "inference_images_per_s_high",
        ),
        Column("latency_p50_ms", "Latency p50, ms", "number", best="min"),
        Column("latency_p95_ms", "p95, ms", "number", best="min"),
        Column("peak_memory_mib", "Peak memory, MiB", "number", best="min"),
    ]
    rule = f"{rule_of(analysis, 'cost', analysis.cost)} {rule_of(analysis, 'throughput', analysis.throughput)}"
    return Table("cost", "Cost", rule.strip(), in_order(frame, analysis), present(columns, frame))
