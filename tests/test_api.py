"""The functions of the package in the order in which a person calls them, and what a notebook shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import ablate
from ablate.errors import StudyError
from tests.planted import plant
from tests.study.study_files import GOOD, write


def test_every_name_is_there_and_listed() -> None:
    assert dir(ablate) == sorted(ablate.__all__)
    assert all(getattr(ablate, name) is not None for name in dir(ablate))
    with pytest.raises(AttributeError, match="no attribute 'trials'"):
        ablate.trials  # noqa: B018


def test_a_study_is_shown_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, GOOD, "small.yaml")
    monkeypatch.chdir(tmp_path)
    study = ablate.read_study("small", ["seeds=1"])
    assert repr(study) == "<Study small: variants unet, noskip; 4 trials in the first phase>"
    assert ablate.read_study(tmp_path).name == "small"
    with pytest.raises(StudyError, match="no such study file"):
        ablate.read_study("smal.yaml")


def test_results_and_analysis_are_short_and_have_a_table(tmp_path: Path) -> None:
    path = plant(tmp_path / "<p>", variants=("unet", "noskip"), lrs=(1e-3,), seeds=2, epochs=2, images=2)
    results = ablate.load_results(path)
    assert repr(results) == f"<Results of planted: 4 of 4 trials done, in {path}>"
    assert "<td>" in results._repr_html_() and "&lt;p&gt;" in results._repr_html_()
    analysis = ablate.analyse(results)
    assert repr(analysis) == "<Analysis of planted: unet, noskip; baseline unet>"
    assert "noskip" in analysis._repr_html_() and "decision" in analysis._repr_html_()
    page = ablate.build_report(analysis, out=tmp_path / "report")
    assert page == tmp_path / "report" / "report.html" and page.exists()


def test_a_study_runs_from_a_script(tmp_path: Path) -> None:
    write(tmp_path, GOOD + "measure: {gradients: 0, profile: false}\ntrack: {wandb: disabled}\n")
    code = """import ablate
if __name__ == "__main__":
    results = ablate.run_study("study.yaml", only=["variant=unet", "lr=1e-3", "seed=0"])
    print(results.trials["status"].tolist().count("complete"), len(results.trials))
"""
    (tmp_path / "script.py").write_text(code)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.stdout.splitlines()[-1] == "1 8", done.stdout + done.stderr
