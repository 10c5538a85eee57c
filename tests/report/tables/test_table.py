"""One table in three languages, with what is best in bold and nothing a name could break."""

from __future__ import annotations

import io
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ablate.report.tables.latex import latex, to_latex
from ablate.report.tables.table import Column, Table, all_tables, best_rows, cell_text, cells, to_csv, to_markdown
from tests.report.conftest import Analysed

COLUMNS = (
    Column("variant", "Variant"),
    Column("miou", "mIoU, %", "percent", "low", "high", best="max", spread=True),
    Column("delta", "Δ, points", "delta", "dlow", "dhigh"),
    Column("rise", "Rise", "number", best="min"),
)


@pytest.fixture
def table() -> Table:
    frame = pd.DataFrame(
        {
            "variant": ["unet", "no_skip|&<b>", "50 % $x$"],
            "miou": [0.62, 0.55, np.nan],
            "low": [0.60, np.nan, np.nan],
            "high": [0.64, np.nan, np.nan],
            "delta": [np.nan, -0.07, 0.01],
            "dlow": [np.nan, -0.09, np.nan],
            "dhigh": [np.nan, -0.05, np.nan],
            "rise": [1.0, np.inf, 1.0],
        }
    )
    return Table(frame, COLUMNS, "The rule: 100 % named.", name="main", title="Main results")


def test_cells_say_value_interval_and_absence(table: Table) -> None:
    rows = [[cell.text for cell in row] for row in cells(table)]
    assert rows == [
        ["unet", "62.0 ± 2.0", "–", "1.00"],
        ["no_skip|&<b>", "55.0", "−7.0 [−9.0, −5.0]", "∞"],
        ["50 % $x$", "–", "+1.0", "1.00"],
    ]


def test_what_is_absent_sorts_below_everything(table: Table) -> None:
    sorts = [float(row[1].sort) for row in cells(table)]
    assert sorts[2] < sorts[1] < sorts[0]
    assert isinstance(cells(table)[1][3].sort, float) and np.isfinite(cells(table)[1][3].sort)


def test_best_is_bold_and_equals_share_it(table: Table) -> None:
    assert best_rows(table, COLUMNS[1]) == {0}
    assert best_rows(table, COLUMNS[3]) == {0, 2}
    assert best_rows(table, COLUMNS[2]) == set()


def test_none_is_best_where_all_are_equal(table: Table) -> None:
    level = Table(table.frame.assign(rise=1.0), COLUMNS)
    assert best_rows(level, COLUMNS[3]) == set()


def test_a_single_row_is_not_the_best_of_anything(table: Table) -> None:
    alone = Table(table.frame.head(1), COLUMNS)
    assert best_rows(alone, COLUMNS[1]) == set()


def test_best_is_found_within_groups(table: Table) -> None:
    frame = table.frame.assign(group=["a", "b", "b"], miou=[0.6, 0.5, 0.4])
    grouped = Table(frame, COLUMNS, bold_of="group")
    assert best_rows(grouped, COLUMNS[1]) == {1}


def test_csv_keeps_fractions(table: Table) -> None:
    back = pd.read_csv(io.StringIO(to_csv(table)))
    pd.testing.assert_frame_equal(back, table.frame)


@pytest.mark.fault(35, "a CSV cell that a spreadsheet would compute is quoted; control characters are escaped")
def test_csv_is_text_to_a_spreadsheet_and_to_a_terminal() -> None:
    texts = ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "\tx", "plain\x1b[2J", "a=b", None]
    frame = pd.DataFrame({"=variant": texts, "number": [-1.0, 2, 3, 4, 5, 6, 7, 8]})
    made = pd.read_csv(StringIO(to_csv(Table(frame, []))), keep_default_na=False)
    assert list(made) == ["'=variant", "number"] and made["number"].iloc[0] == -1
    assert made["'=variant"].tolist() == [
        "'=HYPERLINK(1)", "'+1", "'-1", "'@SUM(A1)", "'\tx", "plain\\x1b[2J", "a=b", "",
    ]  # fmt: skip


def test_csv_holds_no_rule_and_nothing_that_only_the_page_adds() -> None:
    frame = pd.DataFrame({"id": ["a"], "value": [0.5], "rule": ["How it was made."], "why": ["Few seeds."]})
    table = Table(frame, [Column("id", "Id", sub="why"), Column("value", "Value", "number")])
    assert to_csv(table) == "id,value\na,0.5\n"


def test_markdown_escapes_and_names_the_rule(table: Table) -> None:
    text = to_markdown(table)
    lines = text.splitlines()
    assert "The rule: 100 % named." in lines[0]
    assert lines[2] == "| Variant | mIoU, % | Δ, points | Rise |"
    assert lines[3] == "| --- | ---: | ---: | ---: |"
    assert lines[4] == "| unet | **62.0 ± 2.0** | – | **1.00** |"
    assert lines[5].startswith(r"| no\_skip\|&amp;&lt;b&gt; | 55.0 |")


def test_latex_is_booktabs_with_bold_and_caption(table: Table) -> None:
    text = to_latex(table)
    for part in (r"\toprule", r"\midrule", r"\bottomrule", r"\begin{tabular}{@{}lrrr@{}}", r"\label{tab:main}"):
        assert part in text
    assert r"unet & \textbf{62.0 $\pm$ 2.0} & -- & \textbf{1.00} \\" in text
    assert r"no\_skip\textbar{}\&\textless{}b\textgreater{} & 55.0 & $-$7.0 [$-$9.0, $-$5.0] & $\infty$ \\" in text
    assert r"50 \% \$x\$" in text
    assert r"\caption{Main results.}" in text
    assert r"\footnotesize The rule: 100 \% named.\par" in text
    assert text.splitlines()[0] == r"% needs \usepackage{booktabs}"


def test_latex_sets_a_wide_table_in_smaller_type(table: Table) -> None:
    wide = Table(table.frame.assign(variant="x" * 66), COLUMNS)
    assert r"\normalsize\setlength{\tabcolsep}{4pt}" in to_latex(table)
    assert r"\footnotesize\setlength{\tabcolsep}{4pt}" in to_latex(wide)


def test_latex_of_every_table_is_ascii(two: Path, analysed: Analysed) -> None:
    for made in all_tables(analysed(two)):
        assert to_latex(made).isascii(), made.name


def test_latex_says_which_engine_a_name_beyond_latin_needs(table: Table) -> None:
    named = Table(table.frame.assign(variant="木"), COLUMNS)
    assert "XeLaTeX" in to_latex(named).splitlines()[0]
    assert latex("木") == "木"


def test_an_interval_without_spread_is_written_with_its_ends() -> None:
    column = Column("x", "x", "number", "low", "high", digits=2)
    assert cell_text(column, {"x": 1.5, "low": 1.0, "high": 2.0}) == "1.5 [1.0, 2.0]"
