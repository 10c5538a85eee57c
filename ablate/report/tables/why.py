"""The tables that say why: what else differs, how long the steps could be, what attention gates are good for."""

from __future__ import annotations

from ablate.analysis.analyse import Analysis
from ablate.registry import register_table
from ablate.report import rules
from ablate.report.tables.table import Column, Table, axis_columns, in_order


@register_table("purity", title="What differs", order=90)
def purity(analysis: Analysis) -> Table:
    """Return what else than the component differs: settings, modules, parameters, FLOPs."""
    frame = in_order(analysis.variants[~analysis.variants["baseline"].astype(bool)], analysis)
    columns = [
        Column("variant", "Variant"),
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
    return Table(frame, columns, rule)


@register_table("headroom", title="Learning-rate headroom", order=120)
def headroom(analysis: Analysis) -> Table:
    """Return how much longer the steps could be, over training."""
    frame = in_order(analysis.headroom, analysis)
    columns = [
        Column("variant", "Variant"),
        *axis_columns(analysis),
        Column("point", "Point", "whole"),
        Column("mean", "Headroom", "factor", "low", "high"),
        Column("lowest", "Lowest", "factor"),
        Column("highest", "Highest", "factor"),
        Column("n", "Seeds", "whole"),
        Column("n_censored", "At an end", "whole"),
    ]
    return Table(frame, columns, rules.headroom(analysis))


@register_table("gates", title="Attention gates", order=160)
def gates(analysis: Analysis) -> Table:
    """Return what the attention gates tell apart, beside what position and inputs alone give."""
    frame = in_order(analysis.gates, analysis)
    columns = [
        Column("variant", "Variant"),
        Column("gate", "Gate"),
        Column("class", "Class"),
        Column("auroc", "AUROC", "number", "auroc_low", "auroc_high"),
        Column("over_shuffled", "over shuffled", "number", "over_shuffled_low", "over_shuffled_high", digits=2),
        Column("over_untrained", "over untrained", "number", "over_untrained_low", "over_untrained_high", digits=2),
        Column("lift", "Lift", "factor", "lift_low", "lift_high"),
        Column("n", "Seeds", "whole"),
    ]
    return Table(frame, columns, rules.gates(analysis))


@register_table("gate_ablation", title="Attention gates flattened", order=170)
def gate_ablation(analysis: Analysis) -> Table:
    """Return what the attention gates are good for: the score without their pattern."""
    frame = in_order(analysis.gate_ablation, analysis)
    columns = [
        Column("variant", "Variant"),
        Column("gate", "Gate flattened"),
        Column("delta", "Δ test mIoU, points", "delta", "low", "high"),
        Column("n", "Seeds", "whole"),
    ]
    return Table(frame, columns, rules.gate_ablation(analysis))
