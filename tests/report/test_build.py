"""The report of a study that is still running: at every number of records, and refreshed as they appear."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest

from ablate.analysis.analyse import analyse
from ablate.analysis.frames import load_results
from ablate.errors import PluginError, ResultsError
from ablate.registry import FIGURES, TABLES, register_figure
from ablate.report.build import build_report, write_tables
from ablate.report.lookup import NotDrawn
from ablate.report.page.document import make_page
from ablate.report.page.render import render
from ablate.report.tables.table import all_tables
from tests.planted import Truth, plant
from tests.report.conftest import CLAIMS

Return = Callable[[], object]


def emptied(path: Path, seed: int, **planted: Any) -> list[Return]:
    """Plant a study, take its records away, and give what puts each back, in an order of no system."""
    plant(path, epochs=6, images=6, classes=4, claims=CLAIMS, **planted)
    records = sorted(path.glob("trials/*/record.json"))
    random.Random(seed).shuffle(records)
    hidden = [record.rename(record.with_name("hidden")) for record in records]
    return [partial(shutil.move, one, record) for one, record in zip(hidden, records, strict=True)]


def test_a_study_can_be_reported_at_every_number_of_its_records(tmp_path: Path) -> None:
    path = tmp_path / "study"
    returns = emptied(
        path,
        0,
        variants=("unet", "noskip"),
        lrs=(1e-3, 3e-4, 1e-4),
        seeds=2,
        truth=Truth(control={"again": "unet"}, failed=(("unet", 1e-4, 1),)),
    )
    drawn: dict[str, int] = {}
    for count in range(len(returns) + 1):
        if count:
            returns[count - 1]()
        if count not in (0, 1, 2, 3, 5, 9, len(returns)):
            continue
        analysis = analyse(load_results(path))
        tables = all_tables(analysis)
        write_tables(path / "tables", tables)
        html = render(make_page(analysis, tables, []))
        assert ("Unfinished" in html) or count == len(returns)
        for name in FIGURES:
            with contextlib.suppress(NotDrawn):
                FIGURES.get(name)(analysis)
                drawn[name] = count
    assert drawn["consolidated"] == drawn["contrasts"] == len(returns)


def test_it_is_refreshed_as_trials_end_and_ends_with_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "study"
    returns = emptied(path, 1, variants=("unet", "noskip"), lrs=(1e-3, 3e-4), seeds=1)
    for restore in returns[:2]:
        restore()
    seen: list[tuple[int, bool]] = []

    def wait(_seconds: float) -> None:
        # In place of waiting: what is on disk now, then the next trial ends.
        html = (path / "report.html").read_text(encoding="utf-8")
        seen.append((html.count('http-equiv="refresh"'), f"{2 + len(seen)} of 4 trials have a result" in html))
        returns[len(seen) + 1]()

    monkeypatch.setattr("ablate.report.build.time.sleep", wait)
    written = build_report(path, only=["page"], watch=True)
    assert seen == [(1, True), (1, True)]
    html = (path / "report.html").read_text(encoding="utf-8")
    assert "Unfinished" not in html and "refresh" not in html.split("<body>")[0]
    assert written == [path / "report.html"]
    assert capsys.readouterr().out.splitlines() == [
        f"{path / 'report.html'}: 2 trials without a result yet",
        f"{path / 'report.html'}: 1 trial without a result yet",
    ]


def test_a_watched_folder_is_reported_anew_and_ctrl_c_ends_it_quietly(tmp_path: Path) -> None:
    path = tmp_path / "study"
    returns = emptied(path, 1, variants=("unet", "noskip"), lrs=(1e-3, 3e-4), seeds=1)
    returns[0]()
    command = [sys.executable, "-m", "ablate.cli", "report", str(path), "--watch"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == f"{path / 'report.html'}: 3 trials without a result yet\n"
    returns[1]()
    assert process.stdout.readline() == f"{path / 'report.html'}: 2 trials without a result yet\n"
    assert "2 of 4 trials have a result" in (path / "report.html").read_text(encoding="utf-8")
    # As a terminal sends it: to every process of the group.
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "stopped; what was written last stays\n")


def test_a_report_says_its_rules_once_and_has_pdf_only_where_asked_for(two: Path, tmp_path: Path) -> None:
    path = shutil.copytree(two, tmp_path / "two")
    written = build_report(path, only=["tables", "budget", "maps"])
    assert all(one.suffix != ".pdf" for one in written)
    assert {one.name for one in written if one.parent.name == "figures"} == {"maps.png", "maps.svg"}
    rules = json.loads((path / "tables" / "rules.json").read_text(encoding="utf-8"))
    tables = {one.stem for one in written if one.suffix == ".csv"}
    assert set(rules) == tables and all(text.endswith(".") for text in rules.values())
    for csv in (path / "tables").glob("*.csv"):
        assert "rule" not in csv.read_text(encoding="utf-8").splitlines()[0].split(",")
    assert {one.suffix for one in build_report(path, only=["maps"], pdf=True)} == {".png", ".svg", ".pdf"}
    build_report(path, only=["maps"])
    assert not (path / "figures" / "maps.pdf").exists(), "of an earlier state"


def test_an_unknown_part_is_refused_with_the_nearest(two: Path) -> None:
    with pytest.raises(ResultsError, match=r"unknown part of a report 'tabels'.*'tables'"):
        build_report(two, only=["tabels"])


@pytest.mark.fault(13, "`ablate report` names the folder and the cure, and writes elsewhere with `--out`")
def test_the_report_of_a_folder_that_may_only_be_read_is_written_elsewhere(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(dir: Path) -> NoReturn:
        raise PermissionError(errno.EACCES, "Permission denied", str(dir))

    before = {path: path.stat().st_mtime_ns for path in two.rglob("*")}
    with monkeypatch.context() as patched:  # root may write everywhere
        patched.setattr("ablate.report.build.tempfile.TemporaryFile", refuse)
        with pytest.raises(ResultsError, match=r"two: cannot be written \(Permission denied\); .* with --out"):
            build_report(two)
    elsewhere = tmp_path / "new" / "report"
    written = build_report(two, only=["tables", "page"], out=elsewhere)
    assert written and all(elsewhere in path.parents for path in written)
    assert build_report(two, only=["tables", "page"], out=elsewhere) == written
    assert {path: path.stat().st_mtime_ns for path in two.rglob("*")} == before
    (elsewhere / "letters.txt").write_text("mine")
    with pytest.raises(ResultsError, match="holds something else than a report"):
        build_report(two, out=elsewhere)


PLUGIN = """
import pandas as pd
from matplotlib.figure import Figure

import ablate


@ablate.register_figure("mine", title="My own figure", order=15)
def mine(analysis):
    figure = Figure()
    figure.add_subplot().plot([1, 2, 3])
    return figure


@ablate.register_table("my_table", title="My own table", order=5)
def my_table(analysis):
    variants = analysis.variants_in_order
    return pd.DataFrame({"variant": variants, "letters": [len(variant) for variant in variants]})
"""


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what a test registers be forgotten after it."""
    for registry in (FIGURES, TABLES):
        for field in ("_entries", "_places"):
            monkeypatch.setattr(registry, field, dict(getattr(registry, field)))


@pytest.mark.usefixtures("registries")
def test_a_plugin_adds_a_figure_and_a_table_in_one_file(two: Path, tmp_path: Path) -> None:
    path = shutil.copytree(two, tmp_path / "two")
    plugin = tmp_path / "my_plugin.py"
    plugin.write_text(PLUGIN)
    build_report(path, plugins=[plugin])
    html = (path / "report.html").read_text(encoding="utf-8")
    assert html.index(">Differences to the baseline rate by rate<") < html.index(">My own figure<")
    assert html.index(">My own figure<") < html.index(">Curves rate by rate<")
    assert html.index(">Main results") < html.index(">My own table") < html.index(">Contrasts three ways")
    assert (path / "figures" / "mine.png").read_bytes().startswith(b"\x89PNG")
    assert (path / "tables" / "my_table.csv").read_text() == "variant,letters\nunet,4\nnoskip,6\n"
    assert "noskip & 6" in (path / "tables" / "my_table.tex").read_text()


@pytest.mark.usefixtures("registries")
def test_a_plugin_that_fails_is_named_with_its_line(two: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "broken.py"
    plugin.write_text("import ablate\n\n@ablate.register_table('sum')\ndef add(analysis):\n    return 1 / 0\n")
    with pytest.raises(PluginError, match=r"broken.py:5: the table 'sum': ZeroDivisionError"):
        build_report(two, only=["tables"], plugins=[plugin])


@pytest.mark.usefixtures("registries")
def test_a_place_that_no_page_has_is_refused() -> None:
    with pytest.raises(PluginError, match="unknown section 'figure'"):
        register_figure("mine", section="figure")
    with pytest.raises(PluginError, match="names its files"):
        register_figure("../mine")


def test_what_the_documentation_shows_is_a_plugin_that_works(two: Path, tmp_path: Path) -> None:
    path = shutil.copytree(two, tmp_path / "two")
    text = (Path(__file__).resolve().parents[2] / "docs" / "own-components.md").read_text(encoding="utf-8")
    plugin = tmp_path / "contributed.py"
    plugin.write_text("\n\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)))
    command = [sys.executable, "-m", "ablate.cli", "report", str(path), "--plugin", str(plugin)]
    subprocess.run(command, capture_output=True, text=True, check=True)
    html = (path / "report.html").read_text(encoding="utf-8")
    assert ">Val against test<" in html and ">Best epochs" in html and "first loss" in html
    assert (path / "figures" / "scatter.png").exists() and (path / "tables" / "best_epochs.csv").exists()


def test_the_command_takes_plugins_and_pdf(two: Path, tmp_path: Path) -> None:
    path = shutil.copytree(two, tmp_path / "two")
    plugin = tmp_path / "my_plugin.py"
    plugin.write_text(PLUGIN)
    command = [sys.executable, "-m", "ablate.cli", "report", str(path), "--pdf", "--plugin", str(plugin)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{path / 'report.html'}\n" and done.stderr == ""
    assert {one.suffix for one in (path / "figures").glob("mine.*")} == {".png", ".svg", ".pdf"}
