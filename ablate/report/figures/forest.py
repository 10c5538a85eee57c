"""The forest of primary contrasts: every variant against the baseline, its interval, its numbers and its verdict."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ablate.analysis.analyse import Analysis
from ablate.registry import register_figure
from ablate.report import lookup
from ablate.report.figures import theme
from ablate.report.figures.differences import draw_spans, draw_zero, interval_words, largest, reach_of
from ablate.report.figures.marks import finish, label_rows, looks
from ablate.report.figures.theme import FULL, canvas, plain
from ablate.report.format import number, percent, percent_interval, shorten

# Rows of a figure: more of them fill more than a page.
MOST_ROWS = 32
DECIDED = ("better", "worse", "equivalent")


@register_figure("contrasts", title="Differences to the baseline", section="consolidated", order=10)
def contrasts(analysis: Analysis) -> Figure:
    """Draw the primary difference of test mIoU of every variant, with its interval, numbers and verdict in its row."""
    frame = lookup.primary_contrasts(analysis)
    if frame.empty:
        raise lookup.NotDrawn("there is nothing to compare the baseline with")
    if not np.isfinite(frame["delta"].astype(float)).any():
        raise lookup.NotDrawn("no two variants have a result to compare")
    compared, left_out = largest(analysis, lookup.among(analysis, frame["variant"]), MOST_ROWS, "contrasts")
    rows = frame.set_index("variant").loc[compared].reset_index()
    figure = canvas(FULL, 0.75 + 0.21 * max(len(rows), 2))
    axes = figure.subplots()
    label_rows(axes, [_name(row, analysis) for row in lookup.rows_of(rows)], most=30)
    limits = reach_of(rows)
    draw_zero(axes, analysis, limits)
    styles = looks(analysis)
    draw_spans(axes, rows, rows.index, [styles[variant].color for variant in compared], limits, width=1.6)
    texts = []
    for place, row in enumerate(lookup.rows_of(rows)):
        look = styles[row["variant"]]
        # Where a side has learned nothing, that is the word, whatever was decided.
        word = "untrained" if row["untrained"] else str(row["decision"])
        style: dict[str, Any] = {} if word in DECIDED else {"markerfacecolor": theme.PAPER}
        axes.plot(row["delta"], place, look.marker, color=look.color, markersize=5.5, zorder=4, **style)
        numbers = f"{percent(row['delta'], sign=True)} {percent_interval(row['low'], row['high'])}"
        texts.append((numbers.strip(), _decision(row, word, analysis)))
    # Points: a letter of 7 pt is about 4.2 wide.
    heads = ("Δ, points", "decision")
    second = 12 + 4.2 * max(len(numbers) for numbers, _ in [*texts, heads])
    for place, pair in enumerate([*texts, heads]):
        y = place if place < len(texts) else -0.85
        for text, shift in zip(pair, (6, second), strict=True):
            axes.annotate(
                plain(text), (1.0, y), xytext=(shift, 0), xycoords=("axes fraction", "data"),
                textcoords="offset points", va="center", size=7,
                color=theme.INK if place < len(texts) else theme.MUTED,
            )  # fmt: skip
    fresh = lookup.primary_kind(analysis) == "confirmed"
    holds = "fresh seeds and images" if fresh else "seeds, images and the choosing of the rate"
    axes.set_xlabel(f"Δ test mIoU, points ({interval_words(analysis)}: {holds})")
    again = " and run again with fresh seeds" if fresh else ""
    rule = (
        f"Test mIoU of the variant minus that of {shorten(analysis.baseline, 40)} (a copy: minus its original), each "
        f"at its own best setting, chosen on validation{lookup.only_one(analysis)}{again}. Filled: "
        "decided; hollow: undecided. The decision goes by p, which is corrected for the number of variants (Holm); the "
        f"interval is not. Grey band: differences within ± {percent(analysis.rope)} points count as none. Arrow: goes "
        f"on beyond the axis.{left_out}"
    )
    return finish(figure, analysis, rule)


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
