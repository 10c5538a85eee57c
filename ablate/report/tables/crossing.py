"""The tables of studies with factors: main effects, interactions, and scores against the training images."""

from __future__ import annotations

from ablate.analysis.analyse import Analysis
from ablate.registry import register_table
from ablate.report.tables.table import Column, Table

P_HOLM = Column("p_holm", "p (Holm)", "number", digits=3)


@register_table("main_effects", title="Main effects", order=22)
def main_effects(analysis: Analysis) -> Table:
    """Return what each factor of a full grid changes, the mean over all levels of the others."""
    columns = [
        Column("factor", "Factor"),
        Column("level_0", "From"),
        Column("level_1", "To"),
        Column("estimate", "Δ mIoU", "delta", "low", "high"),
        P_HOLM,
        Column("decision", "Decision", "word"),
    ]
    rule = (
        "Test mIoU at the second level less that at the first, averaged over all levels of the other factors, with the "
        f"{analysis.confidence:.0%} interval of the contrasts; p is adjusted over this table (Holm)."
    )
    return Table(analysis.main_effects, columns, rule)


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
        Column("decision", "Decision", "word"),
    ]
    rule = (
        "What changing A does to test mIoU at either level of B (all other factors at their first level), and the "
        f"second less the first with its {analysis.confidence:.0%} interval, from the same replicates; p is adjusted "
        "over this table (Holm). Synergistic: together they bring more than their parts."
    )
    return Table(frame, columns, rule)


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
    rule = (
        "All variants are chosen and scored on the same val and test images. A smaller training set is part of every "
        f"larger one. {analysis.confidence:.0%} intervals."
    )
    return Table(analysis.data_size, columns, rule)
