"""The table of the study's claims: a line each, the number in the claim's own unit."""

from __future__ import annotations

import re

from ablate.analysis.analyse import Analysis
from ablate.claims.verdicts import judge
from ablate.registry import register_table
from ablate.report import rules
from ablate.report.lookup import rows_of
from ablate.report.tables.table import Column, Table
from ablate.report.words.claim_words import beside, deciding, sentence, value_text

RULE = (
    "A claim is supported or refuted only where the interval of its number lies wholly beyond the bound; else it is "
    "inconclusive. Each is judged by itself."
)


@register_table("claims", title="Claims", section="claims", order=0)
def claims(analysis: Analysis) -> Table:
    """Return the verdict on every claim of the study."""
    frame = judge(analysis.frames, analysis)
    said = []
    for claim, row in zip(analysis.frames.study.claims, rows_of(frame), strict=True):
        # A report is passed on: a file of its folder is named from there, not from the root of somebody's disk.
        reason = str(row["reason"]).replace(f"{analysis.frames.path}/", "")
        # That a rate lies on the edge of the grid, or a trial has no result yet, is said once, before all numbers.
        own = "; ".join(part for part in reason.split("; ") if not re.search("^provisional: | is unbracketed: ", part))
        notes = [text for text in (beside(analysis, claim, row), own, deciding(analysis, claim, row)) if text]
        where = f"{row['at']}; " if row["comparisons"] > 1 and row["at"] else ""
        level = f"{100 * row['confidence']:.3g} % level" if row["comparisons"] and not row["exact"] else ""
        said.append(
            {
                "says": _sentence(sentence(claim)),
                "note": " ".join(map(_sentence, notes)),
                "found": value_text(claim, row),
                "where": where + level,
                "reason": reason,
            }
        )
    for key in ("says", "note", "found", "where", "reason"):
        frame[key] = [one[key] for one in said]
    columns = [
        Column("says", "Claim", sub="note"),
        Column("verdict", "Verdict", "word"),
        Column("found", "Found", sub="where"),
        Column("n", "Seeds", "whole"),
    ]
    made = [f"{row['id']}: {rule}" for row in rows_of(frame) if (rule := rules.claim(row))]
    return Table(frame, columns, " ".join([RULE, *made]), page_only=("says", "found", "method"))


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
