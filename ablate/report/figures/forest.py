"""The primary contrasts: a forest of every variant against the baseline, and how firm the variants' order is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ablate.analysis.analyse import Analysis
from ablate.registry import register_figure
from ablate.report import lookup
from ablate.report.figures import marks, theme
from ablate.report.figures.theme import FULL, canvas
from ablate.report.format import number, percent, percent_change, shorten

# Rows of a figure: more of them fill more than a page.
MOST_ROWS = 32
# Variants whose ranks are shown: of more every label would be too small.
MOST_RANKED = 30
DECIDED = ("better", "worse", "equivalent")


@register_figure("contrasts", title="Differences to the baseline", order=5)
def contrasts(analysis: Analysis) -> Figure:
    """Draw the primary difference of test mIoU of every variant, with its interval, numbers and verdict in its row."""
    frame = lookup.primary_contrasts(analysis)
    if frame.empty:
        raise lookup.NotDrawn("there is nothing to compare the baseline with")
    if not np.isfinite(frame["delta"].astype(float)).any():
        raise lookup.NotDrawn("no two variants have a result to compare")
    compared, left_out = marks.largest(analysis, lookup.among(analysis, frame["variant"]), MOST_ROWS, "contrasts")
    rows = frame.set_index("variant").loc[compared].reset_index()
    figure = canvas(FULL, 0.75 + 0.21 * max(len(rows), 2))
    axes = figure.subplots()
    marks.label_rows(axes, [_name(row, analysis) for row in lookup.rows_of(rows)], most=30)
    limits = marks.reach_of(rows)
    marks.draw_zero(axes, analysis, limits)
    styles = marks.looks(analysis)
    marks.draw_spans(axes, rows, rows.index, [styles[variant].color for variant in compared], limits, width=1.6)
    texts = []
    for place, row in enumerate(lookup.rows_of(rows)):
        look = styles[row["variant"]]
        # Where a side has learned nothing, that is the word, whatever was decided.
        word = lookup.decided(row)
        style: dict[str, Any] = {} if word in DECIDED else {"markerfacecolor": theme.PAPER}
        axes.plot(row["delta"], place, look.marker, color=look.color, markersize=5.5, zorder=4, **style)
        texts.append((percent_change(row["delta"], row["low"], row["high"]), _decision(row, word, analysis)))
    # Points: a letter of 7 pt is about 4.2 wide.
    heads = ("Δ, points", "decision")
    second = 12 + 4.2 * max(len(numbers) for numbers, _ in [*texts, heads])
    for height, pair in [*enumerate(texts), (-0.85, heads)]:
        for text, shift in zip(pair, (6, second), strict=True):
            marks.write_beside(axes, height, text, shift, theme.MUTED if pair is heads else theme.INK)
    fresh = lookup.primary_kind(analysis) == "confirmed"
    holds = "fresh seeds and images" if fresh else "seeds, images and the choosing of the rate"
    intervals = lookup.has_intervals(analysis)
    axes.set_xlabel("Δ test mIoU, points" + f" ({marks.interval_words(analysis)}: {holds})" * intervals)
    again = " and run again with fresh seeds" if fresh else ""
    judged = "The decision goes by p, which is corrected for the number of variants (Holm); the interval is not."
    judged = judged if intervals else "Without an interval nothing is decided."
    rule = (
        f"Test mIoU of the variant minus that of {shorten(analysis.baseline, 40)} (a copy: minus its original), each "
        f"at its own best setting, chosen on validation{lookup.only_one(analysis)}{again}. Filled: decided; hollow: "
        f"undecided. {judged} Grey band: differences within ± {percent(analysis.rope)} points count as none."
        f"{' Arrow: goes on beyond the axis.' * intervals}{left_out}"
    )
    return marks.finish(figure, analysis, rule)


def _name(row: dict[str, Any], analysis: Analysis) -> str:
    usual = row["against"] == analysis.baseline
    return row["variant"] if usual else f"{row['variant']} − {row['against']}"


def _decision(row: dict[str, Any], word: str, analysis: Analysis) -> str:
    """Return the verdict with its p, and the rates it is made at where there is but one number to name."""
    if not np.isfinite(row["delta"]):
        return "no result yet"
    p = f", p {number(row['p_holm'], 2)}" if np.isfinite(row["p_holm"]) else ""
    if not lookup.only_rate(analysis) or len(lookup.settings(analysis)) < 2:
        return word + p
    here, there = (lookup.setting_label(analysis, row[key]) for key in ("setting", "against_setting"))
    return f"{word}{p}, at {here if here == there else f'{here} and {there}'}"


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
    texts = [[percent(v, 0) if v >= 0.005 else "" for v in row] for row in shares.to_numpy()]
    written = np.array(texts, object) if cell >= 0.2 else None
    names = [str(variant) for variant in shares.index]
    marks.draw_heat(axes, shares, names, written, 7, cmap="Blues", vmin=0, vmax=1, cbar=False, linewidths=0.8)
    step = max(1, round(0.2 / cell))
    axes.set_xticks(np.arange(0, shares.shape[1], step) + 0.5, [str(rank) for rank in shares.columns[::step]])
    axes.set_xlabel("rank by test mIoU, 1 is best")
    fresh = lookup.primary_kind(analysis) == "confirmed"
    chosen = "at the chosen settings" if fresh else "the settings chosen again in each"
    rule = (
        f"Number: % of the {analysis.frames.study.measure.resamples} bootstrap replicates in which the variant takes "
        f"that rank, blank below 0.5; {lookup.seeds_text(analysis)} and the test images drawn again, {chosen}: the "
        "replicates of the primary decision, which alone decides. Variants by their mean rank. A row of one dark "
        "cell is a firm place."
    )
    left = len(lookup.order(analysis)) - len(shares)
    return marks.finish(figure, analysis, rule + (f" {left} variants are left out." if left else ""))
