"""Errors print as one line a problem."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablate.errors import (
    AblateError,
    PluginError,
    Problem,
    StudyError,
    full_disk,
    is_full_disk,
    nearest,
    redacted,
    visible,
)


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (Problem("wrong", "a.b", "s.yaml", 3, "do x"), "s.yaml:3: a.b: wrong; do x"),
        (Problem("wrong", file="s.yaml"), "s.yaml: wrong"),
        (Problem("wrong", key="a"), "a: wrong"),
        (Problem("wrong", line=3), "wrong"),
        (Problem("two\nlines\r\nand\u2028more"), "two lines and more"),
    ],
)
def test_a_problem_is_one_line(problem: Problem, line: str) -> None:
    assert str(problem) == line


@pytest.mark.parametrize(
    ("number", "said"),
    [(28, "the disk is full ("), (122, "your quota of this disk is used up ("), (30, "the disk is read-only (")],
)
def test_a_full_disk_is_said_with_its_place_and_what_is_free(number: int, said: str, tmp_path: Path) -> None:
    for error, place in ((OSError(number, "x"), tmp_path), (OSError(number, "x", f"{tmp_path}/a/b"), tmp_path / "a")):
        (tmp_path / "a").mkdir(exist_ok=True)
        line = str(full_disk(error, tmp_path))
        assert is_full_disk(error) and line.startswith(f"{place}: {said}") and " free); " in line


def test_an_error_carries_all_its_problems() -> None:
    error = StudyError([Problem("first", key="a"), Problem("second", key="b")])
    assert str(error) == "a: first\nb: second"
    assert [problem.key for problem in error.problems] == ["a", "b"]
    assert (error.exit_code, isinstance(error, AblateError)) == (2, True)


def test_an_error_of_one_text_and_its_place() -> None:
    error = PluginError("broken", file="p.py", line=7, cure="mend it")
    assert error.problems == (Problem("broken", file="p.py", line=7, cure="mend it"),)


def test_the_nearest_choice_or_all_of_them() -> None:
    assert nearest("epoch", ["epochs", "lr"]) == "did you mean 'epochs'?"
    assert nearest("zzz", ["b", "a"]) == "choose from a, b"
    assert nearest("zzz", []) == ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü × …", "plain ü × …"),
        ("\x1b[2J\x1b[31mred\x07", r"\x1b[2J\x1b[31mred\x07"),
        ("right-to-left \u202e and \x9b31m", r"right-to-left \u202e and \x9b31m"),
        ("not UTF-8: \udcff", r"not UTF-8: \udcff"),
        ("[bold]text[/bold]", "[bold]text[/bold]"),
    ],
)
def test_control_characters_are_shown_escaped(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert str(Problem(text)) == shown
    shown.encode()


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("postgresql://me:pw@host/db", "postgresql://me:…@host/db"),
        ("cannot reach mysql+pymysql://me:p:w@host:3306/db now", "cannot reach mysql+pymysql://me:…@host:3306/db now"),
        ("postgresql://host/db?user=me&password=pw", "postgresql://host/db?user=me&password=…"),
        ("-o track.api_key=abc -o x=1", "-o track.api_key=… -o x=1"),
        ("WANDB_API_KEY=abc", "WANDB_API_KEY=…"),
        ("sqlite:///a@b/optuna.db", "sqlite:///a@b/optuna.db"),
        ("tokens=5, keyboard=7", "tokens=5, keyboard=7"),
    ],
)
def test_passwords_are_redacted(text: str, kept: str) -> None:
    assert redacted(text) == kept
    assert redacted(kept) == kept
