"""Tables: every one has rows and the rule behind its numbers, and what the analysis knows is in one of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ablate.analysis.analyse import Analysis
from ablate.claims.verdicts import judge
from ablate.report.render import Table, to_markdown
from ablate.report.tables import all_tables

Analysed = Callable[[Path], Analysis]


@pytest.fixture(scope="module")
def tables(unfinished: Path, two: Path, analysed: Analysed) -> dict[str, dict[str, Table]]:
    """The tables of an unfinished study of four variants with a control, and of a finished one with claims."""
    made = {}
    for name, path in (("unfinished", unfinished), ("two", two)):
        analysis = analysed(path)
        every = all_tables(analysis, judge(analysis.frames, analysis))
        made[name] = {table.name: table for table in every if len(table.frame)}
    return made


def test_every_table_prints_a_rule_of_whole_sentences(tables):
    for made in tables.values():
        for table in made.values():
            assert table.rule.endswith(".") and len(table.rule) > 40, table.name
            missing = [column.key for column in table.columns if column.key not in table.frame]
            assert not missing, f"{table.name}: {missing}"


def test_what_the_analysis_knows_has_a_table(tables):
    expected = {"results", "contrasts", "cells", "classes", "class_dice", "class_differences", "detail", "class_detail"}
    expected |= {"quality", "purity", "learning_rate", "stability", "headroom", "convergence", "ranking", "gates"}
    expected |= {"gate_ablation", "cost", "failures", "trials"}
    assert expected <= set(tables["unfinished"])
    assert "claims" in tables["two"]


def test_contrasts_name_their_error_bars_and_the_rule_of_every_way(tables):
    table = tables["unfinished"]["contrasts"]
    assert dict(zip(table.frame["kind"], table.frame["error_bar"], strict=True)) == {
        "own_best": "retune", "shared": "fixed", "matched": "fixed",
    }  # fmt: skip
    text = to_markdown(table)
    for words in ("Own best: Each variant", "Shared: All variants", "Matched: All variants", "P(better)", "Holm over"):
        assert words in text
    assert table.rule.count("Multi-Bootstrap") == 1


def test_dice_of_a_class_lies_above_its_iou(tables):
    iou, dice = tables["two"]["classes"], tables["two"]["class_dice"]
    assert [column.label for column in iou.columns] == [column.label for column in dice.columns]
    ious, dices = (
        table.frame[[column.key for column in table.columns if column.key != "variant"]].to_numpy()
        for table in (iou, dice)
    )
    assert (dices >= ious).all() and (ious > 0).any()


def test_detail_of_a_class_is_a_row_with_a_difference_a_measure(tables, two, analysed):
    table, long = tables["two"]["class_detail"], analysed(two).class_detail
    assert len(table.frame) == len(long) / long["measure"].nunique()
    row = table.frame.query("variant == 'noskip' and `class` == 'pole'").iloc[0]
    for _, one in long.query("variant == 'noskip' and `class` == 'pole'").iterrows():
        shown = [row[f"{one['measure']}_{field}"] for field in ("delta", "low", "high", "pixels")]
        assert np.array_equal(shown, [one["delta"], one["low"], one["high"], one["pixels"]], equal_nan=True)


def test_a_claim_shows_its_rule_beside_its_reason(tables):
    claims = tables["two"]["claims"].frame
    assert claims["why"].str.contains("Supported where the whole interval").all()
