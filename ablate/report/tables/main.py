"""The tables a reader starts with: main results, contrasts, claims, cells, failures, trials."""

from __future__ import annotations

import re
from collections.abc import Collection

import numpy as np

from ablate.analysis.analyse import Analysis
from ablate.analysis.contrasts import KINDS
from ablate.claims.verdicts import judge
from ablate.registry import register_table
from ablate.report import lookup, rules
from ablate.report.format import rate_text
from ablate.report.tables.table import (
    AGAINST,
    DECISION,
    DELTA,
    VARIANT,
    Column,
    Table,
    axis_columns,
    in_order,
    of_table,
    with_rates,
)
from ablate.report.words.claim_words import beside, deciding, sentence, value_text

# Of an undecided contrast: what it could have found, and what would decide it.
REACH = (
    Column("detectable", "Would be found from, points", "percent"),
    Column("seeds_needed", "Seeds to decide", "number"),
)
CLAIMS = (
    "A claim is supported or refuted only where the interval of its number lies wholly beyond the bound; else it is "
    "inconclusive. Each is judged by itself."
)


@register_table("results", title="Main results", order=0)
def results(analysis: Analysis) -> Table:
    """Return one row a variant: what it is worth, at which rate, how sure, at what cost."""
    wanted = ["variant", "delta", "low", "high", "p_holm", "decision", "lr_confounded"]
    made = lookup.primary_contrasts(analysis)
    made = made.assign(decision=[lookup.decided(row) for row in lookup.rows_of(made)])
    frame = analysis.variants.merge(made[wanted], on="variant", how="left")
    cells = analysis.cells[["variant", "setting", "rise", "n_diverged", "convergence"]]
    cells = cells.assign(seeds=analysis.cells["n"])
    frame = frame.merge(cells, on=["variant", "setting"], how="left")
    for quantity, name in (("train_images_per_s", "train"), ("inference_images_per_s", "inference")):
        frame = with_rates(frame, analysis, quantity, name)
    frame["provisional"] = frame["variant"].isin(lookup.provisional(analysis))
    frame["unbracketed"] = frame["variant"].isin(lookup.on_edge(analysis))
    frame["chosen"] = [_chosen(row, analysis) for row in lookup.rows_of(frame)]
    frame["diverged"] = [_share(row["n_diverged"], row["seeds"]) for row in lookup.rows_of(frame)]
    frame["decision_text"] = [_decision(row) for row in lookup.rows_of(frame)]
    frame = in_order(frame, analysis)
    columns = [
        VARIANT,
        Column("chosen", "lr" if lookup.only_rate(analysis) else "Setting"),
        Column("test_mean", "Test mIoU, %", "percent", "test_low", "test_high", best="max", spread=True),
        DELTA,
        Column("decision_text", "Decision", "word"),
        Column("rise", "Rise", "number", best="min", digits=3),
        Column("diverged", "Diverged"),
        Column("train_images_per_s", "Train img/s", "number", digits=3, best="max"),
        Column("train_ratio", "× base", "factor"),
        Column("parameters", "Params", "count", best="min"),
    ]
    said = f" Speeds are no measure of cost here: {lookup.busy(analysis)}." if lookup.busy(analysis) else ""
    half = f" ± is half the {100 * analysis.confidence:.0f} % interval of the variant by itself."
    alone = " †: no other has a result yet." if lookup.untuned(analysis) else ""
    rule = (
        f"{rules.primary(analysis) or rules.contrasts(analysis)}{half if frame['test_low'].notna().any() else ''} "
        f"*: on the edge of the grid, the best may lie beyond.{alone} Rise: of the training loss at that setting; 1 = "
        f"never rose.{said}"
    )
    frame = of_table(frame, columns, "p_holm", "decision", "lr_confounded", "unbracketed", "n_diverged", "seeds")
    return Table(frame, columns, rule, page_only=("chosen", "diverged", "decision_text"))


@register_table("contrasts", title="Contrasts three ways", order=10)
def contrasts(analysis: Analysis) -> Table:
    """Return every contrast three ways."""
    frame = in_order(analysis.contrasts, analysis)
    frame = frame.assign(
        way=[
            KINDS[kind].lower() + (" (primary)" if primary else "")
            for kind, primary in zip(frame["kind"], frame["primary"], strict=True)
        ],
        flags=[_flags(row, lookup.untuned(analysis)) for row in lookup.rows_of(frame)],
        seeds=[f"{row['n']:.0f} and {row['n_against']:.0f}" for row in lookup.rows_of(frame)],
    )
    columns = [
        VARIANT,
        AGAINST,
        Column("way", "Compared at"),
        Column("setting", "Setting"),
        Column("against_setting", "Its setting"),
        Column("left", "mIoU, %", "percent"),
        DELTA,
        Column("error_bar", "Error bar"),
        Column("seeds", "Seeds"),
        Column("p_holm", "p (Holm)", "number", digits=2),
        DECISION,
        *(column for column in REACH if column.key in frame),
        Column("superiority", "P(better)", "number", "superiority_low", "superiority_high", digits=2),
        Column("superiority_verdict", "Of runs"),
        Column("parameters_ratio", "Params", "factor"),
        Column("flops_ratio", "FLOPs", "factor"),
        Column("flags", "Flags"),
    ]
    more = "Only the primary contrasts decide; all others are descriptive."
    return Table(frame, columns, f"{rules.contrasts(analysis)} {more}", page_only=("way", "flags", "seeds"))


@register_table("cells", title="Cells: every variant at every setting", order=20)
def cells(analysis: Analysis) -> Table:
    """Return one row a variant and setting."""
    frame = in_order(analysis.cells, analysis)
    frame = frame.assign(
        chosen=[
            " ".join(key.replace("_", " ") for key in ("own_best", "shared") if row[key])
            for row in lookup.rows_of(frame)
        ],
        seeds=[f"{row['n']:.0f} of {row['n_planned']:.0f}" for row in lookup.rows_of(frame)],
    )
    columns = [
        VARIANT,
        *axis_columns(analysis),
        Column("chosen", "Chosen"),
        Column("seeds", "Seeds"),
        Column("n_diverged", "Diverged", "whole"),
        Column("diverged_share", "Diverged, %", "percent", "diverged_low", "diverged_high", digits=0),
        Column("val_mean", "Val mIoU, %", "percent", "val_low", "val_high", best="max"),
        Column("test_mean", "Test mIoU, %", "percent", "test_low", "test_high", best="max"),
        Column("regret", "Regret, points", "percent"),
        Column("rise", "Rise", "number"),
        Column("convergence", "Convergence", "word"),
    ]
    return Table(frame, columns, rules.cells(analysis), bold_of="variant", page_only=("chosen", "seeds"))


@register_table("failures", title="Trials without a full result", section="failures", order=0)
def failures(analysis: Analysis) -> Table:
    """Return every planned trial without a full result, with the reason."""
    trials = analysis.frames.trials
    frame = in_order(trials[trials["status"] != "complete"], analysis)
    columns = [
        Column("name", "Trial"),
        VARIANT,
        *axis_columns(analysis),
        Column("seed", "Seed", "whole"),
        Column("status", "Status", "word"),
        Column("reason", "Reason"),
    ]
    rule = (
        "Diverged trials are results: they count 0 and are never run again. Failed ones are the machine's; `ablate "
        "retry` runs them. Missing ones have not run yet."
    )
    return Table(frame[[c.key for c in columns if c.key in frame.columns]], columns, rule)


@register_table("trials", title="Trials", order=200)
def trials(analysis: Analysis) -> Table:
    """Return every planned trial."""
    frame = in_order(analysis.frames.trials, analysis).drop(
        columns=["missing", "folder", "computed_by"], errors="ignore"
    )
    columns = [
        VARIANT,
        *axis_columns(analysis),
        Column("seed", "Seed", "whole"),
        Column("role", "Role"),
        Column("status", "Status", "word"),
        Column("best_epoch", "Best epoch", "whole"),
        Column("val_mean_iou", "Val mIoU, %", "percent"),
        Column("test_mean_iou", "Test mIoU, %", "percent"),
        Column(*lookup.loss_column(analysis), "number"),
        Column("rise", "Rise", "number"),
        Column("wall_s", "Seconds", "number"),
    ]
    rule = "One row a trial, as its record has it; the epoch is the one with the best validation mIoU."
    return Table(frame, columns, rule)


def _chosen(row: lookup.Row, analysis: Analysis) -> str:
    text = rate_text(float(row["lr"])) if lookup.only_rate(analysis) and np.isfinite(row["lr"]) else str(row["setting"])
    return text + ("†" if row["variant"] in lookup.untuned(analysis) else "*" if row["unbracketed"] else "")


def _share(part: float, whole: float) -> str:
    return f"{part:.0f}/{whole:.0f}" if np.isfinite(part) and np.isfinite(whole) else "–"


def _decision(row: lookup.Row) -> str:
    text = "baseline" if row.get("baseline") else row["decision"] if isinstance(row["decision"], str) else "–"
    named = ("control", "control"), ("lr_confounded", "lr-confounded"), ("provisional", "provisional")
    notes = [word for key, word in named if row.get(key) is True]
    return f"{text} ({', '.join(notes)})" if notes else text


def _flags(row: lookup.Row, alone: Collection[str]) -> str:
    words = [
        ("control", row["control"]),
        ("lr-confounded", row["lr_confounded"]),
        ("unbracketed", row["unbracketed"] and not {row["variant"], row["against"]} <= set(alone)),
        ("provisional", row["provisional"]),
    ]
    found = [word for word, on in words if bool(on)]
    if isinstance(row["confounded"], str) and row["confounded"]:
        found.append(f"own settings: {row['confounded']}")
    return ", ".join(found)


@register_table("claims", title="Claims", section="claims", order=0)
def claims(analysis: Analysis) -> Table:
    """Return the verdict on every claim of the study."""
    frame = judge(analysis.frames, analysis)
    said: dict[str, list[str]] = {key: [] for key in ("says", "note", "found", "where", "reason")}
    for claim, row in zip(analysis.frames.study.claims, lookup.rows_of(frame), strict=True):
        # A report is passed on: a file of its folder is named from there, not from the root of somebody's disk.
        reason = str(row["reason"]).replace(f"{analysis.frames.path}/", "")
        # That a rate lies on the edge of the grid, or a trial has no result yet, is said once, before all numbers.
        own = "; ".join(part for part in reason.split("; ") if not re.search("^provisional: | is unbracketed: ", part))
        notes = [text for text in (beside(analysis, claim, row), own, deciding(analysis, claim, row)) if text]
        where = f"{row['at']}; " if row["comparisons"] > 1 and row["at"] else ""
        level = f"{100 * row['confidence']:.3g} % level" if row["comparisons"] and not row["exact"] else ""
        texts = (
            _sentence(sentence(claim)),
            " ".join(map(_sentence, notes)),
            value_text(claim, row),
            where + level,
            reason,
        )
        for column, text in zip(said.values(), texts, strict=True):
            column.append(text)
    frame = frame.assign(**said)
    columns = [
        Column("says", "Claim", sub="note"),
        Column("verdict", "Verdict", "word"),
        Column("found", "Found", sub="where"),
        Column("n", "Seeds", "whole"),
    ]
    made = [f"{row['id']}: {rule}" for row in lookup.rows_of(frame) if (rule := rules.claim(row))]
    return Table(frame, columns, " ".join([CLAIMS, *made]), page_only=("says", "found", "method"))


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
