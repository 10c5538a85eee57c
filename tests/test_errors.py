"""Errors print as one line a problem."""

from __future__ import annotations

import pytest

from ablate.errors import AblateError, PluginError, Problem, StudyError, nearest


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
