"""The firmness of the variants' order: how often each takes each rank over the replicates that decide."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from ablate.analysis.analyse import Analysis
from ablate.registry import register_figure
from ablate.report import lookup
from ablate.report.figures import theme
from ablate.report.figures.marks import finish, write_on_cells
from ablate.report.figures.theme import FULL, canvas, plain
from ablate.report.format import percent, short_names

# Variants of a figure: of more every label would be too small.
MOST_RANKED = 30


def rank_shares(analysis: Analysis) -> pd.DataFrame:
    """Return the share of replicates in which each variant (row) takes each rank (column, 1 the best).

    The replicates are those of the primary contrasts: the same seeds and images are drawn for all variants, and the
    settings chosen again where the decision does so. Equals share the better rank. Variants below two seeds, which have
    no replicates of their seeds, are left out; raises `NotDrawn` where fewer than three are left.
    """
    scores, best, baseline = analysis.scores, analysis.own_best, analysis.baseline
    fresh = lookup.primary_kind(analysis) == "confirmed"
    role = "confirm" if fresh else "main"
    compared = [v for v in lookup.order(analysis) if len(scores.members(v, best.get(v), role)) >= 2]
    if baseline not in compared or len(compared) < 3:
        raise lookup.NotDrawn("an order needs three variants of two seeds or more, the baseline among them")
    if fresh:
        draws = {variant: scores.cell(variant, str(best[variant]), role).test_draws[:, 0] for variant in compared}
    else:
        # The differences to the baseline, whose own is none.
        draws = {variant: np.asarray(scores.own_best(variant, baseline)[0].draws) for variant in compared[1:]}
        draws = {baseline: 0 * draws[compared[1]], **draws}
    table = pd.DataFrame(draws).dropna()
    ranks = table.rank(axis=1, ascending=False, method="min")
    return pd.DataFrame({rank: (ranks == rank).mean() for rank in range(1, len(compared) + 1)})


@register_figure("ranks", title="How firm the order is", order=20)
def ranks(analysis: Analysis) -> Figure:
    """Draw how often each variant takes each rank, the variants by their mean rank."""
    shares = rank_shares(analysis)
    mean = shares.to_numpy() @ np.arange(shares.shape[1])
    shares = shares.iloc[np.argsort(mean, kind="stable")[:MOST_RANKED]]
    cell = min(0.42, (FULL - 1.9) / shares.shape[1])
    figure = canvas(1.9 + cell * shares.shape[1], 0.75 + 0.22 * len(shares))
    axes = figure.subplots()
    sns.heatmap(
        shares, ax=axes, cmap="Blues", vmin=0, vmax=1, cbar=False, linewidths=0.8, linecolor=theme.PAPER,
        xticklabels=False, yticklabels=False,
    )  # fmt: skip
    mesh = axes.collections[0]
    mesh.update_scalarmappable()
    if cell >= 0.2:
        texts = np.array([[percent(v, 0) if v >= 0.005 else "" for v in row] for row in shares.to_numpy()], object)
        write_on_cells(axes, texts, np.asarray(mesh.get_facecolor()), 7)
    short = short_names([str(variant) for variant in shares.index])
    axes.set_yticks(np.arange(len(shares)) + 0.5, [plain(short[str(v)]) for v in shares.index], rotation=0)
    step = max(1, round(0.2 / cell))
    axes.set_xticks(np.arange(0, shares.shape[1], step) + 0.5, [str(rank) for rank in shares.columns[::step]])
    axes.tick_params(length=0)
    axes.set(xlabel="rank by test mIoU, 1 is best", ylabel="")
    axes.grid(False)
    fresh = lookup.primary_kind(analysis) == "confirmed"
    chosen = "at the chosen settings" if fresh else "the settings chosen again in each"
    rule = (
        f"Number: % of the {analysis.frames.study.measure.resamples} bootstrap replicates in which the variant takes "
        f"that rank, blank below 0.5; {lookup.seeds_text(analysis)} and the test images drawn again, {chosen}: the "
        "replicates of the primary decision, which alone decides. Variants by their mean rank. A row of one dark "
        "cell is a firm place."
    )
    left = len(lookup.order(analysis)) - len(shares)
    return finish(figure, analysis, rule + (f" {left} variants are left out." if left else ""))
