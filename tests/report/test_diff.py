"""Two studies side by side: every difference is found, at the digits it has, and nothing else."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ablate.report.diff import Difference, as_text, compare_studies, print_comparison
from tests.planted import Truth, plant
from tests.report.conftest import Analysed


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two studies of one name that differ in rates, seeds, image size, versions and data."""
    folder = tmp_path_factory.mktemp("pair")
    shared: dict[str, Any] = {"variants": ("unet", "noskip"), "epochs": 6, "images": 6, "classes": 4, "name": "pair"}
    left = plant(folder / "left", lrs=(1e-3, 3e-4), seeds=2, **shared)
    right = plant(
        folder / "right", lrs=(1e-3,), seeds=1, size=(16, 24), truth=Truth(control={"again": "unet"}), **shared
    )
    run = json.loads((right / "run.json").read_text())
    run["versions"]["torch"] = "[2.14.0]"
    run["data"]["fingerprint"] = "f" * 64
    (right / "run.json").write_text(json.dumps(run))
    return left, right


def test_every_difference_is_found_and_only_those(pair: tuple[Path, Path]) -> None:
    found = {(one.part, one.key): (one.left, one.right) for one in compare_studies(*pair).differences}
    assert found.pop(("data", "fingerprint"))[1] == "ffffffffffff…"
    assert found == {
        ("settings", "data.size"): ("[24, 32]", "[16, 24]"),
        ("settings", "grid.lr"): ("[1e-3, 3e-4]", "[1e-3]"),
        ("settings", "seeds"): ("[0, 1]", "[0]"),
        ("settings", "variants.again.control"): ("–", "yes"),
        ("versions", "torch"): ("2.13.0", "[2.14.0]"),
    }


def test_a_study_does_not_differ_from_itself(pair: tuple[Path, Path]) -> None:
    found = compare_studies(pair[0], pair[0])
    assert found.differences == () and found.same_data and found.same_trials == 8


def test_a_trial_that_never_ran_is_in_neither(pair: tuple[Path, Path], tmp_path: Path) -> None:
    path = shutil.copytree(pair[0], tmp_path / "cut")
    shutil.rmtree(next((path / "trials").iterdir()))
    for sides in ((path, pair[0]), (path, path)):
        found = compare_studies(*sides)
        assert found.same_trials == 7 and found.trials[0] == "7 of 8 trials"


def test_what_each_says_is_what_its_own_report_says(pair: tuple[Path, Path], analysed: Analysed) -> None:
    found = compare_studies(*pair)
    row = analysed(pair[0]).contrasts.query("primary").iloc[0]
    left, right = found.variants["noskip"]
    assert left is not None and right is not None
    assert left.decision == row["decision"] and left.delta.startswith(f"{100 * row['delta']:+.1f}".replace("-", "−"))
    assert right.setting == "1e-3"
    baseline = found.variants["unet"][0]
    assert found.variants["again"][0] is None and baseline is not None and baseline.decision == "baseline"
    assert not found.same_data


def test_it_prints_both_by_their_folders_and_no_markup(pair: tuple[Path, Path]) -> None:
    out = io.StringIO()
    print_comparison(*pair, Console(file=out, width=120))
    text = out.getvalue()
    assert "left (8 of 8 trials) and right (3 of 3 trials)" in text and "Both are of the study pair." in text
    assert "[2.14.0]" in text
    assert "The data differ: compare the differences to each baseline, not the levels." in text
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3e-4, "3e-4"), (0.05, "0.05"), (0.0, "0.0"), (1, "1"), (True, "yes"), (None, "none"), ([1e-3, 1], "[1e-3, 1]"),
        ("0" * 40, "000000000000…"), ("concat", "concat"), ({}, "{}"),
    ],
)  # fmt: skip
def test_values_are_written_as_people_write_them(value: Any, text: str) -> None:
    assert as_text(value) == text


def test_values_that_read_alike_are_shown_to_the_last_digit(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ablate.report.diff._settings", lambda frames: {"lr": 1.00001e-3 if frames.axes else 0})
    from ablate.report import diff

    left, right = (diff.load_results(path) for path in pair)
    monkeypatch.setattr("ablate.report.diff._settings", lambda frames: {"lr": 1e-3 if frames is left else 1.00001e-3})
    assert Difference("settings", "lr", "0.001", "0.00100001") in diff.differences(left, right)
