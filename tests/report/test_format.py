"""Numbers and names as people write them."""

from __future__ import annotations

from typing import Any

import pytest

from ablate.report.format import (
    count_text,
    number,
    percent,
    percent_interval,
    percent_spread,
    rate_text,
    short_names,
    shorten,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.6214, "62.1"), (-0.0613, "−6.1"), (-0.0004, "0.0"), (0.0, "0.0"), (float("nan"), "–"), (None, "–")],
)
def test_percent(value: Any, text: str) -> None:
    assert percent(value) == text


def test_percent_with_sign() -> None:
    assert percent(0.031, sign=True) == "+3.1"
    assert percent(0.0001, sign=True) == "0.0"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1.00"),
        (210.4, "210"),
        (0.0123, "0.0123"),
        (1.2e-5, "1.20e−5"),
        (float("inf"), "∞"),
        (float("nan"), "–"),
        (0.0, "0.00"),
        (-3.5, "−3.50"),
    ],
)
def test_number(value: Any, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(("value", "text"), [(3e-4, "3e-4"), (1e-3, "1e-3"), (0.1, "0.1"), (2.5e-5, "2.5e-5")])
def test_rate_text(value: Any, text: str) -> None:
    assert rate_text(value) == text


@pytest.mark.parametrize(("value", "text"), [(31_038_348, "31 M"), (486_000, "486 k"), (253.8e9, "254 G"), (12, "12")])
def test_count_text(value: Any, text: str) -> None:
    assert count_text(value) == text


def test_shorten_keeps_both_ends_and_one_line() -> None:
    assert shorten("short") == "short"
    assert shorten("a\nb\tc\x00") == "a b c"
    long = shorten("encoder.0.block.projection.weight", 20)
    assert len(long) == 20
    assert long.startswith("encoder.0.")
    assert long.endswith("weight")


def test_short_names_keep_what_tells_them_apart() -> None:
    names = ["unet", "residual-blocks-in-encoder-only", "residual-blocks-in-decoder-only", "x" * 40, "x" * 41]
    short = short_names(names, 22)
    assert list(short) == names
    assert short["unet"] == "unet"
    assert short[names[1]].endswith("…encoder-only")
    assert short[names[2]].endswith("…decoder-only")
    assert len(set(short.values())) == len(names)
    assert all(len(text) <= 22 for text in short.values())


def test_intervals_and_spreads_of_fractions() -> None:
    assert percent_interval(-0.02, 0.005) == "[−2.0, +0.5]"
    assert percent_interval(float("nan"), 0.1) == ""
    assert percent_spread(0.621, 0.607, 0.635) == "62.1 ± 1.4"
    assert percent_spread(0.621, float("nan"), float("nan")) == "62.1"
