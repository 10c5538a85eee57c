"""The tables of single measures: classes, detail, quality, stability, cost, and what lies behind them."""

from __future__ import annotations

from typing import Literal

import pandas as pd

from ablate.analysis.analyse import Analysis
from ablate.registry import register_table
from ablate.report import rules
from ablate.report.format import detail_name
from ablate.report.lookup import among, by_variant, distinct_detail, loss_column, rows_of
from ablate.report.tables.table import (
    AGAINST,
    CLASS,
    DECISION,
    DELTA,
    P_HOLM,
    VARIANT,
    Column,
    Table,
    axis_columns,
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
    wide = rows.set_index(["variant", "class"])[score].unstack("class")  # noqa: PD010 (pivot_table would average)
    wide = wide.reindex(index=among(analysis, rows["variant"]), columns=names)
    best: Literal["max"] | None = "max" if len(names) <= MOST_ACROSS else None
    wide, first = (wide, VARIANT) if best else (wide.T, CLASS)
    # A class may be called "variant", so its column is named as the metric of a claim is.
    columns = [first, *(Column(f"{score}/{name}", name, "percent", best=best) for name in wide.columns)]
    frame = pd.DataFrame(wide.to_numpy(), columns=[column.key for column in columns[1:]])
    frame.insert(0, first.key, list(wide.index))
    return Table(frame, columns, rules.classes(analysis))


@register_table("detail", title="Fine detail", order=60)
def detail(analysis: Analysis) -> Table:
    """Return fine detail at own best settings."""
    frame = in_order(distinct_detail(analysis, analysis.detail), analysis)
    verdicts = by_variant(analysis.detail_verdicts)
    frame = frame.assign(
        name=[detail_name(str(measure)) for measure in frame["measure"]],
        verdict=[verdicts.get(variant, {}).get("verdict", "") for variant in frame["variant"]],
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


@register_table("quality", title="Quality and its spread", order=80)
def quality(analysis: Analysis) -> Table:
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
    columns = [
        VARIANT,
        Column("test_mean", "mIoU, %", "percent", "test_low", "test_high", best="max"),
        *(Column(key, label, "percent") for key, label in scores.items()),  # without an interval none is marked as best
        Column(loss, title, "number"),
        *(Column(key, label, "percent", digits=2) for key, label in spreads.items()),
    ]
    return Table(of_table(in_order(analysis.variants, analysis), columns), columns, rules.variants(analysis))


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


# --- factors that are crossed ---------------------------------------------------------------------------------------


@register_table("interactions", title="Interactions", order=24)
def interactions(analysis: Analysis) -> Table:
    """Return for two factors what one changes at either level of the other, and the difference of the two."""
    frame = analysis.interactions.copy()
    for side in ("a", "b"):
        levels = frame[f"level_{side}0"] + " → " + frame[f"level_{side}1"]
        frame[f"change_{side}"] = frame[f"factor_{side}"] + ": " + levels
    columns = [
        Column("change_a", "Factor A"),
        Column("change_b", "Factor B"),
        Column("effect_b0", "Δ of A at B's first", "delta", "effect_b0_low", "effect_b0_high"),
        Column("effect_b1", "Δ of A at B's second", "delta", "effect_b1_low", "effect_b1_high"),
        Column("estimate", "Interaction", "delta", "low", "high"),
        P_HOLM,
        DECISION,
    ]
    return Table(frame, columns, rules.rule(analysis, "interactions"))


@register_table("data_size", title="Training images", order=26)
def data_size(analysis: Analysis) -> Table:
    """Return test mIoU against the number of training images."""
    columns = [
        Column("variant", "Curve"),
        Column("name", "Variant"),
        Column("images", "Training images", "whole"),
        Column("score", "Test mIoU", "percent", "low", "high"),
        Column("seeds", "Seeds", "whole"),
    ]
    return Table(analysis.data_size, columns, rules.rule(analysis, "data_size"))
