"""The page of faults says what the tests inject, no more and no less."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reliability import FAULTS, INPUT, NOT_TESTED, PAGE, Injection, current, injections, page, untested


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == current(), "write it anew by: python -m tests.reliability"


def test_markers_are_read_from_the_source(tmp_path: Path) -> None:
    below = tmp_path / "tests" / "run"
    below.mkdir(parents=True)
    (below / "test_a.py").write_text(
        "import pytest\n\n"
        "@pytest.mark.slow\n@pytest.mark.fault(4, 'it ends')\n@pytest.mark.fault('D1', 'said')\ndef test_one(): ...\n\n"
        "class TestMany:\n    @pytest.mark.fault(5, 'goes on')\n    def test_two(self): ...\n\n\n"
        "def test_three(): ...\n",
        encoding="utf-8",
    )
    assert sorted(injections(tmp_path / "tests"), key=lambda one: str(one.row)) == [
        Injection(4, "it ends", "tests/run/test_a.py", "test_one"),
        Injection(5, "goes on", "tests/run/test_a.py", "test_two"),
        Injection("D1", "said", "tests/run/test_a.py", "test_one"),
    ]


def test_a_marker_without_a_literal_row_and_outcome_is_refused(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text("@pytest.mark.fault(ROW, 'x')\ndef test_one(): ...\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"test_a\.py:1: expected pytest\.mark\.fault\(row, 'outcome'\)"):
        injections(tmp_path)


def test_a_row_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no such row: tests/test_a\.py: test_one: 99"):
        page([Injection(99, "x", "tests/test_a.py", "test_one")], None)


def test_every_row_stands_once_and_without_a_test_it_says_so() -> None:
    found = [Injection(1, "a", "tests/test_a.py", "test_one"), Injection(1, "b|c", "tests/test_b.py", "test_two")]
    text = page(found, None)
    first = f"| 1 | {FAULTS[1]} | a ([test_one](../tests/test_a.py))<br>b\\|c ([test_two](../tests/test_b.py)) |"
    assert first in text.splitlines()
    assert f"| 2 | {FAULTS[2]} | {NOT_TESTED} |" in text.splitlines()
    assert text.count(NOT_TESTED) == len(FAULTS) + len(INPUT) - 1 == len(untested(found))


def test_the_last_soak_is_told_with_all_that_went_wrong() -> None:
    soak = {
        "trials": 10, "kills": 3, "disturbances": {"kill worker": 3, "suspend driver": 2}, "refused": 1, "lost": ["a"],
        "doubled": [], "unequal": ["b", "c"], "wrong": ["left running: python"], "time_ratio": 1.2345,
    }  # fmt: skip
    lines = page([], soak).splitlines()
    for line in ("| records lost | 1 |", "| records doubled | 0 |", "| records unequal | 2 |"):
        assert line in lines
    assert "| other disturbances | 2 |" in lines and "| anything else that should not happen | 1 |" in lines
    assert "| time, as a multiple of the undisturbed run's | 1.23 |" in lines
    assert [line for line in lines if line.startswith("- ")] == ["- left running: python"]
