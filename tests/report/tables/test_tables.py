"""Tables: every one has rows and the rule behind its numbers, and what the analysis knows is in one of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ablate.registry import TABLES
from ablate.report.lookup import distinct_detail
from ablate.report.tables.measures import MOST_ACROSS, classes, cost, detail
from ablate.report.tables.table import Table, all_tables, cells, to_markdown
from tests.report.conftest import Analysed

Tables = dict[str, dict[str, Table]]


@pytest.fixture(scope="module")
def tables(unfinished: Path, two: Path, analysed: Analysed) -> dict[str, dict[str, Table]]:
    """The tables of an unfinished study of four variants with a control, and of a finished one with claims."""
    made = {}
    for name, path in (("unfinished", unfinished), ("two", two)):
        made[name] = {table.name: table for table in all_tables(analysed(path)) if len(table.frame)}
    return made


def test_every_table_prints_a_rule_of_whole_sentences(tables: Tables) -> None:
    for made in tables.values():
        for table in made.values():
            assert table.rule.endswith(".") and len(table.rule) > 40, table.name
            absent = {column.key for column in table.columns} - set(table.frame)
            assert not absent, f"{table.name}: {absent}"


def test_what_the_analysis_knows_has_a_table(tables: Tables) -> None:
    expected = {"results", "contrasts", "cells", "classes", "class_dice", "class_differences", "detail", "class_detail"}
    expected |= {"quality", "purity", "learning_rate", "stability", "headroom", "convergence", "ranking", "gates"}
    expected |= {"gate_ablation", "cost", "failures", "trials"}
    assert expected <= set(tables["unfinished"])
    assert "claims" in tables["two"]


def test_contrasts_name_their_error_bars_and_the_rule_of_every_way(tables: Tables) -> None:
    table = tables["unfinished"]["contrasts"]
    assert dict(zip(table.frame["kind"], table.frame["error_bar"], strict=True)) == {
        "own_best": "retune", "shared": "fixed", "matched": "fixed",
    }  # fmt: skip
    text = to_markdown(table)
    for words in ("Own best: Each variant", "Shared: All variants", "Matched: All variants", "P(better)", "Holm over"):
        assert words in text
    assert table.rule.count("Multi-Bootstrap") == 1


def test_dice_of_a_class_lies_above_its_iou(tables: Tables) -> None:
    iou, dice = tables["two"]["classes"], tables["two"]["class_dice"]
    assert [column.label for column in iou.columns] == [column.label for column in dice.columns]
    ious, dices = (
        table.frame[[column.key for column in table.columns if column.key != "variant"]].to_numpy()
        for table in (iou, dice)
    )
    assert (dices >= ious).all() and (ious > 0).any()


def test_detail_of_a_class_is_a_row_with_a_difference_a_measure(tables: Tables, two: Path, analysed: Analysed) -> None:
    table = tables["two"]["class_detail"]
    long = distinct_detail(analysed(two), analysed(two).class_detail)
    assert len(table.frame) == len(long) / long["measure"].nunique()
    row = table.frame.query("variant == 'noskip' and `class` == 'pole'").iloc[0]
    for _, one in long.query("variant == 'noskip' and `class` == 'pole'").iterrows():
        shown = [row[f"{one['measure']}_{field}"] for field in ("delta", "low", "high", "pixels")]
        assert np.array_equal(shown, [one["delta"], one["low"], one["high"], one["pixels"]], equal_nan=True)


def test_a_claim_shows_its_rule_beside_its_reason(tables: Tables) -> None:
    claims = tables["two"]["claims"].frame
    assert list(claims["says"]) == [
        "noskip has a lower test mIoU than unet, by at least 1.0 points.",
        "At least one variant is under-converged at lr = 1e-4.",
    ]
    assert claims["found"].str.contains("points").all()
    assert "supported where the whole interval" in tables["two"]["claims"].rule.lower()


def test_measures_that_are_one_at_this_size_are_shown_once(two: Path, analysed: Analysed) -> None:
    analysis = analysed(two)
    # At 24 x 32 pixels, a fifteenth of the diagonal that widths are given for, all trimaps are of one pixel.
    kept = list(dict.fromkeys(distinct_detail(analysis, analysis.detail)["measure"]))
    assert [name for name in kept if name.startswith("trimap")] == ["trimap_1"]
    assert [name for name in kept if name.startswith("thin")] == ["thin_3"]
    assert "interior" in kept
    assert set(detail(analysis).frame["measure"]) == set(kept)


def test_an_excess_of_detail_is_shown_as_a_ratio(two: Path, analysed: Analysed) -> None:
    frame = analysed(two).detail.query("measure == 'excess_boundary'")
    shown = distinct_detail(analysed(two), analysed(two).detail).query("measure == 'excess_boundary'")
    # The logarithms of the ratios of two measures to one another.
    np.testing.assert_allclose(np.log(shown["left"].astype(float)), frame["left"].astype(float))
    np.testing.assert_allclose(np.log1p(shown["delta"].astype(float)), frame["delta"].astype(float))


def test_the_peak_memory_of_a_cpu_is_not_shown(two: Path, analysed: Analysed) -> None:
    analysis = analysed(two)

    def labels(device: str) -> list[str]:
        profile = {**analysis.frames.profile, "device": device}
        changed = replace(analysis, frames=replace(analysis.frames, profile=profile))
        return [column.label for column in cost(changed).columns]

    assert "Peak memory, MiB" in labels("cuda:0") and "Peak memory, MiB" not in labels("cpu")


def test_every_look_of_a_sequential_study_is_a_row(two: Path, analysed: Analysed) -> None:
    same = {"variant": "noskip", "against": "unet", "estimate": -0.06, "low": -0.1, "high": -0.02, "power": np.nan}
    rows = [
        same | {"look": 1, "n": 4, "p": 0.01, "level": 0.0001, "bound": 3.9, "decision": "open"},
        same | {"look": 2, "n": 8, "p": 0.001, "level": 0.01, "bound": 2.6, "decision": "worse"},
    ]
    table = TABLES.get("looks")(replace(analysed(two), looks=pd.DataFrame(rows)))
    assert [[cell.text for cell in row][1:] for row in cells(table)] == [
        ["1", "4", "−6.0 [−10.0, −2.0]", "0.010", "1.0e−4", "3.90", "–", "open"],
        ["2", "8", "−6.0 [−10.0, −2.0]", "0.0010", "0.010", "2.60", "–", "worse"],
    ]
    assert "O'Brien–Fleming" in table.rule


def test_many_classes_stand_below_one_another(two: Path, analysed: Analysed) -> None:
    analysis = analysed(two)
    few = analysis.classes
    many = pd.concat([few.assign(**{"class": few["class"] + f" {part}"}) for part in range(8)], ignore_index=True)
    table = classes(replace(analysis, classes=many))
    names = list(dict.fromkeys(many["class"]))
    assert len(names) > MOST_ACROSS and table.frame["class"].tolist() == names
    assert [column.label for column in table.columns] == ["Class", *dict.fromkeys(few["variant"])]
    one = few.iloc[0]
    assert table.frame.loc[0, f"iou/{one['variant']}"] == one["iou"]
