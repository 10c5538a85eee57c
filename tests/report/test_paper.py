"""What a paper takes: figures of the right size in readable type, a table for both columns, only the works cited."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.text import Text
from PIL import Image

from ablate.analysis.analyse import analyse
from ablate.analysis.frames import load_results
from ablate.report.build import build_report
from ablate.report.figures.consolidated import draw_consolidated
from ablate.report.figures.theme import theme
from ablate.report.paper import CITED, WIDTHS, write_paper
from tests.conftest import missing
from tests.report.conftest import Analysed
from tests.report.hostile import plant_hostile


@pytest.fixture(scope="module")
def folder(twelve: Path, analysed: Analysed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The paper of a study of twelve variants."""
    path = tmp_path_factory.mktemp("paper") / "paper"
    write_paper(analysed(twelve), path)
    return path


def test_the_figure_is_as_wide_as_one_column_and_as_both(folder: Path) -> None:
    for name, width in WIDTHS.items():
        assert Image.open(folder / f"{name}.png").width == pytest.approx(200 * width, abs=1)
        pdf = (folder / f"{name}.pdf").read_bytes()
        box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ", pdf)
        assert box is not None and float(box[1]) == pytest.approx(72 * width, abs=0.1)
        # Embedded as TrueType, which every publisher takes; type 3 they refuse.
        assert b"/FontFile2" in pdf and b"/Type3" not in pdf


@pytest.mark.parametrize("width", WIDTHS.values())
def test_no_letter_is_smaller_than_six_points(width: float, twelve: Path, analysed: Analysed) -> None:
    with theme():
        figure = draw_consolidated(analysed(twelve), width)
        figure.draw_without_rendering()
    shown = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    assert shown and min(float(text.get_fontsize()) for text in shown) >= 6


def test_the_table_spans_both_columns_with_a_note_of_one_line(folder: Path) -> None:
    text = (folder / "results.tex").read_text(encoding="utf-8")
    assert text.startswith(r"% needs \usepackage{booktabs}")
    assert text.count(r"\begin{table*}") == text.count(r"\end{table*}") == 1
    rows = text.partition(r"\midrule")[2].partition(r"\bottomrule")[0].strip().splitlines()
    assert len(rows) == 12 and {row.count("&") for row in rows} == {7}
    note = re.search(r"\\footnotesize (.*)\\par\}", text)
    assert note is not None and len(note[1]) < 140


def test_exactly_the_works_that_the_methods_cite_are_in_the_references(folder: Path) -> None:
    methods = (folder / "methods.tex").read_text(encoding="utf-8")
    cited = {key for keys in re.findall(r"\\cite\{([^}]+)\}", methods) for key in keys.split(",")}
    references = (folder / "references.bib").read_text(encoding="utf-8")
    assert cited == set(re.findall(r"^@\w+\{(\w+),", references, re.MULTILINE))
    assert {"sellam2022", "satterthwaite1946", "holm1979", "schuirmann1987", "ronneberger2015"} <= cited
    assert "note =" not in references and references.count("{") == references.count("}")
    in_markdown = (folder / "methods.md").read_text(encoding="utf-8")
    assert set(re.findall(r"@(\w+)", in_markdown)) == cited


def test_every_work_that_may_be_cited_is_known() -> None:
    known = (Path(__file__).parents[2] / "docs" / "references.bib").read_text(encoding="utf-8")
    for keys in CITED.values():
        assert all(f"{{{key}," in known for key in keys)


def test_the_report_writes_it_beside_the_page_where_it_is_asked_for(two: Path, tmp_path: Path) -> None:
    written = build_report(two, only=["tables"], paper=True, out=tmp_path / "out")
    assert (tmp_path / "out" / "paper" / "example.tex") in written
    # And once more into the same folder, which holds a report only.
    assert build_report(two, only=["tables"], paper=True, out=tmp_path / "out") == written


def test_no_name_is_markup_in_the_methods(tmp_path: Path) -> None:
    analysis = analyse(load_results(plant_hostile(tmp_path / "hostile")))
    run = {**analysis.frames.run, "versions": {"torch": r"<script>\\input{/etc/passwd}"}}
    analysis = replace(analysis, frames=replace(analysis.frames, run=run))
    write_paper(analysis, tmp_path / "paper")
    text = (tmp_path / "paper" / "methods.md").read_text(encoding="utf-8")
    assert "<" not in text and re.search(r"(?<!\\)\\input", text) is None


@pytest.mark.parametrize("hostile", [False, True])
def test_latex_takes_it_without_a_warning(hostile: bool, folder: Path, tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None:
        missing("pdflatex is missing")
    place = tmp_path / "tex"
    if hostile:
        write_paper(analyse(load_results(plant_hostile(tmp_path / "hostile"))), place)
    else:
        shutil.copytree(folder, place)
    for command in ("pdflatex", "bibtex", "pdflatex", "pdflatex"):
        flags = ["-interaction=nonstopmode", "-no-shell-escape"] if command == "pdflatex" else []
        done = subprocess.run([command, *flags, "example"], cwd=place, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:]
    assert "Warning" not in done.stdout and "Overfull" not in done.stdout
