"""Which tables a report has: the analysis' frames, joined where a reader needs them together; nothing is computed."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from ablate.analysis.analyse import Analysis
from ablate.report.render import Table
from ablate.report.tables import main, measures, why

MAKERS: tuple[Callable[[Analysis], Table], ...] = (
    main.results_table,
    main.contrasts_table,
    main.cells_table,
    measures.classes_table,
    measures.dice_table,
    measures.class_differences_table,
    measures.detail_table,
    measures.class_detail_table,
    measures.quality_table,
    why.purity_table,
    measures.learning_rate_table,
    measures.stability_table,
    why.headroom_table,
    measures.convergence_table,
    measures.extension_table,
    measures.ranking_table,
    why.gates_table,
    why.gate_ablation_table,
    measures.cost_table,
    main.failures_table,
    main.trials_table,
)


def all_tables(analysis: Analysis, claims: pd.DataFrame) -> list[Table]:
    """Every table, the main results first; what was not measured or did not happen is a table without rows."""
    made = [make(analysis) for make in MAKERS]
    made.insert(1, main.claims_table(claims))
    return made
