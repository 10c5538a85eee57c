"""A LaTeX table fits its page: heads in lines, paragraphs, turned, and only then scaled down."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from ablate.report.tables.latex import TEXT_HEIGHT, TEXT_WIDTH, fit_page, to_latex
from ablate.report.tables.table import Column, Table

PROSE = "a reason that is told in a sentence of some length, as reasons often are"


def points(size: float, letters: int, columns: int) -> float:
    return 0.5 * size * letters + 8 * columns


def test_a_small_table_keeps_its_size_and_its_heads_in_one_line() -> None:
    heads, fit = fit_page(["Variant", "mIoU, %"], [["unet", "57.0 [55.6, 58.3]"]])
    assert heads == [["Variant"], ["mIoU, %"]]
    assert (fit.size, fit.widths, fit.sideways, fit.squeezed) == (r"\normalsize", (0, 0), False, False)


def test_a_head_wider_than_its_numbers_is_broken_between_words() -> None:
    heads, _ = fit_page(["Regret, points", "Unbreakablehead"], [["0.0", "1"]])
    assert heads == [["Regret,", "points"], ["Unbreakablehead"]]


def test_the_type_is_the_largest_that_fits_upright() -> None:
    for columns, size in ((8, 10), (10, 8), (11, 7)):
        _, fit = fit_page(["a"] * columns, [["12345678"] * columns])
        names = {10: r"\normalsize", 9: r"\small", 8: r"\footnotesize", 7: r"\scriptsize"}
        assert (fit.size, fit.sideways) == (names[size], False), columns
        assert points(size, 8 * columns, columns) <= TEXT_WIDTH


def test_what_does_not_fit_upright_is_turned_and_then_scaled() -> None:
    _, turned = fit_page(["a"] * 15, [["12345678"] * 15])
    assert turned.sideways and not turned.squeezed
    assert points(7, 8 * 15, 15) <= TEXT_HEIGHT
    _, scaled = fit_page(["a"] * 40, [["12345678"] * 40])
    assert scaled.sideways and scaled.squeezed


def test_long_texts_become_paragraphs_as_wide_as_the_rest_leaves() -> None:
    heads, fit = fit_page(["Name", "Reason"], [["unet", 2 * PROSE]])
    assert fit.size == r"\normalsize" and not fit.sideways
    assert fit.widths[0] == 0
    assert 300 < fit.widths[1] < TEXT_WIDTH
    assert heads == [["Name"], ["Reason"]]


def test_a_word_that_no_line_holds_is_no_paragraph() -> None:
    _, fit = fit_page(["Name"], [["x" * 90]])
    assert fit.widths == (0,)
    assert fit.size != r"\normalsize"


def test_an_empty_table_fits() -> None:
    assert fit_page(["Name"], [])[1].size == r"\normalsize"


def test_the_written_table_is_what_fits() -> None:
    def table(columns: int, text: str) -> str:
        frame = pd.DataFrame({f"c{n}": [text] for n in range(columns)})
        columns_of = [Column(f"c{n}", "long head") for n in range(columns)]
        return to_latex(Table(frame, columns_of, "A rule.", name="t", title="T"))

    upright, turned, scaled = table(2, "1234"), table(15, "12345678"), table(40, "12345678")
    assert upright.splitlines()[0] == r"% needs \usepackage{booktabs}"
    assert r"\shortstack[l]{long\\head} & \shortstack[l]{long\\head} \\" in upright
    assert turned.splitlines()[0] == r"% needs \usepackage{booktabs,rotating}"
    assert r"\begin{sidewaystable}" in turned and r"\end{sidewaystable}" in turned
    assert "resizebox" not in turned
    assert scaled.count(r"\resizebox{\linewidth}{!}{\begin{tabular}") == 1
    assert r"\end{tabular}}" in scaled
    prose = table(1, 2 * PROSE)
    assert r"\begin{tabular}{@{}p{" in prose
    assert r"\raggedright a reason" in prose and r"\tabularnewline" in prose
    for text in (upright, turned, scaled, prose):
        assert text.count("{") == text.count("}")


def long_table(rows: int, columns: int) -> Table:
    frame = pd.DataFrame({f"c{i}": [f"cell {row}" for row in range(rows)] for i in range(columns)})
    shown = [Column(name, name) for name in frame.columns]
    return Table(frame, shown, "The rule.", name="main", title="Main results")


def test_more_rows_than_a_page_holds_go_on_over_the_next_with_their_head() -> None:
    assert "longtable" not in to_latex(long_table(42, 2))
    text = to_latex(long_table(60, 2))
    lines = text.splitlines()
    assert lines[0] == r"% needs \usepackage{booktabs,longtable}"
    assert text.count("c0 & c1") == 2 and lines.index(r"\endfirsthead") < lines.index(r"\endhead")
    assert text.count("cell 59 & cell 59") == 1 and lines[-1] == r"\endgroup"
    assert lines[-2] == r"{\raggedright\footnotesize The rule.\par}"


def test_a_long_table_that_is_wide_is_turned_and_at_last_set_in_the_smallest_type() -> None:
    turned = to_latex(long_table(60, 14))
    assert turned.startswith("% needs \\usepackage{booktabs,longtable,pdflscape}\n\\begin{landscape}\n\\normalsize")
    assert turned.endswith("\\end{landscape}\n")
    assert to_latex(long_table(60, 40)).splitlines()[2].startswith(r"\tiny\setlength{\tabcolsep}{2pt}")


def test_rows_of_paragraphs_count_by_their_lines() -> None:
    table = long_table(30, 5)
    assert "longtable" not in to_latex(table)
    prose = table.frame.assign(c4=" ".join([PROSE] * 3))
    assert "longtable" in to_latex(replace(table, frame=prose))
