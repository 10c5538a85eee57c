"""The tables that show a frame of the analysis as it is: one list of their columns."""

from __future__ import annotations

from typing import NamedTuple

from ablate.analysis.analyse import Analysis
from ablate.registry import register_table
from ablate.report import rules
from ablate.report.tables.table import (
    AGAINST,
    CLASS,
    DECISION,
    DELTA,
    P_HOLM,
    SEEDS,
    VARIANT,
    Column,
    Table,
    axis_columns,
    in_order,
    of_table,
)

# Stands for the axes of the grid.
AXES = Column("", "")


class FrameTable(NamedTuple):
    """A table: the `frame` of the analysis is by default called as the table is, its `rule` as the frame."""

    name: str
    title: str
    order: int
    columns: tuple[Column, ...]
    frame: str = ""
    rule: str = ""


TABLES_OF_FRAMES = (
    FrameTable("looks", "Looks of the sequential decision", 15, (
        VARIANT,
        Column("look", "Look", "whole"),
        Column("n", "Seeds a side", "whole"),
        Column("estimate", "Δ, points", "delta", "low", "high"),
        Column("p", "p", "number", digits=2),
        Column("level", "must reach", "number", digits=2),
        Column("bound", "Bound, SE", "number"),
        Column("power", "Chance at the last look, %", "percent", digits=0),
        DECISION,
    )),
    FrameTable("main_effects", "Main effects", 22, (
        Column("factor", "Factor"),
        Column("level_0", "From"),
        Column("level_1", "To"),
        Column("estimate", "Δ mIoU", "delta", "low", "high"),
        P_HOLM,
        DECISION,
    )),
    FrameTable("class_differences", "Differences per class", 50, (
        CLASS,
        VARIANT,
        AGAINST,
        Column("left", "IoU, %", "percent"),
        Column("right", "Its IoU, %", "percent"),
        DELTA,
    ), frame="class_contrasts"),
    FrameTable("learning_rate", "Learning rate", 100, (
        VARIANT,
        Column("lr", "Own best lr", "rate"),
        Column("bracket", "Bracket"),
        Column("stability_of_choice", "Chosen again, %", "percent", digits=0),
        Column("lr_sensitivity", "lr sensitivity, nats", "number", best="min"),
        Column("sensitivity_low", "from", "rate"),
        Column("sensitivity_high", "to", "rate"),
        Column("basin_optimum", "Basin optimum", "rate"),
        Column("basin_width", "Width, decades", "number", best="max"),
    ), frame="variants", rule="sensitivity"),
    FrameTable("headroom", "Learning-rate headroom", 120, (
        VARIANT,
        AXES,
        Column("point", "Point", "whole"),
        Column("mean", "Headroom", "factor", "low", "high"),
        Column("lowest", "Lowest", "factor"),
        Column("highest", "Highest", "factor"),
        SEEDS,
        Column("n_censored", "At an end", "whole"),
    )),
    FrameTable("convergence", "Convergence at the epoch budget", 130, (
        VARIANT,
        AXES,
        Column("verdict", "Convergence", "word"),
        Column("gain", "Projected gain, points", "delta", "low", "high"),
        SEEDS,
        Column("reason", "Reason"),
    )),
    FrameTable("extension", "What training on brought", 140, (
        VARIANT,
        AXES,
        Column("budget", "Epochs", "whole"),
        Column("epochs", "extended to", "whole"),
        Column("projected_verdict", "Projected", "word"),
        Column("projected", "Projected gain, points", "delta"),
        Column("verdict", "Trained on", "word"),
        Column("gain", "Gain, points", "delta", "low", "high"),
        SEEDS,
        Column("reason", "Reason"),
    )),
    FrameTable("ranking", "Ranking between settings", 150, (
        Column("setting", "Setting"),
        Column("other", "Other setting"),
        Column("tau", "Kendall τ", "number", digits=2),
        Column("n_variants", "Variants", "whole"),
    )),
    FrameTable("gates", "Attention gates", 160, (
        VARIANT,
        Column("gate", "Gate"),
        CLASS,
        Column("auroc", "AUROC", "number", "auroc_low", "auroc_high"),
        Column("over_shuffled", "over shuffled", "number", "over_shuffled_low", "over_shuffled_high", digits=2),
        Column("over_untrained", "over untrained", "number", "over_untrained_low", "over_untrained_high", digits=2),
        Column("lift", "Lift", "factor", "lift_low", "lift_high"),
        SEEDS,
    )),
    FrameTable("gate_ablation", "Attention gates flattened", 170, (
        VARIANT,
        Column("gate", "Gate flattened"),
        Column("delta", "Δ test mIoU, points", "delta", "low", "high"),
        SEEDS,
    )),
)  # fmt: skip


def _register(one: FrameTable) -> None:
    name = one.frame or one.name

    @register_table(one.name, title=one.title, order=one.order)
    def made(analysis: Analysis) -> Table:
        rows = getattr(analysis, name)
        columns = [part for column in one.columns for part in (axis_columns(analysis) if column is AXES else [column])]
        rows = in_order(rows, analysis) if "variant" in rows else rows
        rows = of_table(rows, columns) if name == "variants" else rows
        return Table(rows, columns, rules.rule(analysis, one.rule or name))


for each in TABLES_OF_FRAMES:
    _register(each)
