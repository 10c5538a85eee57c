"""The report of a study that is still running: at every number of records, and refreshed as they appear."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from planted import Truth, plant

from ablate.analysis.analyse import analyse
from ablate.analysis.frames import load_results
from ablate.claims.verdicts import judge
from ablate.registry import FIGURES
from ablate.report import page
from ablate.report.build import build_report
from ablate.report.compose import make_page, write_tables
from ablate.report.draw import figure_names, jobs
from ablate.report.figures.common import NotDrawn
from ablate.report.tables import all_tables
from tests.report.conftest import CLAIMS

Return = Callable[[], None]


def emptied(path: Path, seed: int, **planted: object) -> list[Return]:
    """Plant a study, take its records away, and give what puts each back, in an order of no system."""
    plant(path, epochs=6, images=6, classes=4, claims=CLAIMS, **planted)  # type: ignore[arg-type]
    records = sorted(path.glob("trials/*/record.json"))
    random.Random(seed).shuffle(records)
    hidden = [record.rename(record.with_name("hidden")) for record in records]
    return [lambda one=one, record=record: one.rename(record) for one, record in zip(hidden, records, strict=True)]


def test_a_study_can_be_reported_at_every_number_of_its_records(tmp_path):
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
        frames = load_results(path)
        analysis = analyse(frames)
        tables = all_tables(analysis, judge(frames, analysis))
        write_tables(path / "tables", tables)
        html = page.render(make_page(analysis, tables))
        assert ("Unfinished" in html) or count == len(returns)
        for name in figure_names():
            try:
                FIGURES.get(name)(analysis)
            except NotDrawn as reason:
                assert str(reason)
            else:
                drawn[name] = count
    assert drawn["consolidated"] == drawn["contrasts"] == len(returns)


def test_it_is_refreshed_as_trials_end_and_ends_with_the_last(tmp_path, monkeypatch, capsys):
    path = tmp_path / "study"
    returns = emptied(path, 1, variants=("unet", "noskip"), lrs=(1e-3, 3e-4), seeds=1)
    for restore in returns[:2]:
        restore()
    seen = []

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


def test_a_watched_folder_is_reported_anew_and_ctrl_c_ends_it_quietly(tmp_path):
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


def test_every_figure_is_handed_out_once_and_the_two_that_need_seaborn_together():
    names = ["budget", "maps", "streams", "panel_0_unet", "consolidated"]
    handed = jobs(names)
    assert sorted(name for job in handed for name in job) == sorted(names)
    assert handed[0] == ("maps", "consolidated")
    assert handed.index(("streams",)) < handed.index(("budget",))
    assert jobs(["budget"]) == [("budget",)]
