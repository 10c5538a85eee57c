"""Scalars by YAML 1.2, and the line of every key."""

from __future__ import annotations

from typing import Any

import pytest

from ablate.study.yamlfile import Refused, parse, parse_value, scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 100000.0),
        ("-.5", -0.5),
        ("1.", 1.0),
        ("+3", 3),
        ("0", 0),
        ("0x1F", 31),
        ("0o17", 15),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("off", "off"),
        ("Yes", "Yes"),
        ("0b11", "0b11"),
        ("2024-13-45", "2024-13-45"),
        ("1e", "1e"),
        ("inf", "inf"),
        ("1.2.3", "1.2.3"),
        ("12:34x", "12:34x"),
    ],
)
def test_an_unquoted_scalar(text: str, value: Any) -> None:
    read = scalar(text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("text", ["017", "-007", "1:30", "1_000", ".inf", "-.INF", ".NaN", "1e400", "9" * 41])
@pytest.mark.fault("S1", "refused, with what to write instead")
def test_an_ambiguous_or_infinite_scalar_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        scalar(text)


def test_quoted_scalars_are_text() -> None:
    assert parse("a: '1e-3'\nb: \"true\"\nc: |\n  17\n").value == {"a": "1e-3", "b": "true", "c": "17\n"}


def test_every_key_and_item_has_its_line() -> None:
    document = parse("a: 1\nb:\n  c:\n    - 1\n    - {d: 2,\n       e: 3}\n")
    assert document.value == {"a": 1, "b": {"c": [1, {"d": 2, "e": 3}]}}
    assert {path: line for path, line in document.lines.items() if path} == {
        ("a",): 1,
        ("b",): 2,
        ("b", "c"): 3,
        ("b", "c", 0): 4,
        ("b", "c", 1): 5,
        ("b", "c", 1, "d"): 5,
        ("b", "c", 1, "e"): 6,
    }
    assert document.findings == []


def test_of_two_equal_keys_the_first_is_kept() -> None:
    document = parse("a: 1\na: {b: 2}\nc: 3\n")
    assert document.value == {"a": 1, "c": 3}
    assert [(item.path, item.line) for item in document.findings] == [(("a",), 2)]


def test_a_value_of_the_command_line_is_read_alike() -> None:
    assert parse_value("[1e-3, no, '1']").value == [0.001, "no", "1"]
    with pytest.raises(Refused, match="expected valid YAML"):
        parse_value("[1")
    with pytest.raises(Refused, match=r"U\+0007"):
        parse_value("a\x07")
