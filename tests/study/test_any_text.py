"""Whatever a study file holds: a study, or clean problems, each one printable line that names the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ablate.errors import StudyError
from ablate.study.overrides import apply_overrides
from ablate.study.reader import dump_study, known_keys, read_study
from ablate.study.study import Study
from tests.study.study_files import GOOD

QUICK = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
WORDS = st.sampled_from([*known_keys(()), *known_keys(("train",)), "lr", "unet", "street", "name", "&a", "*a", "!!x"])
SCALARS: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6)
    | WORDS
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def study_or_problems(read: Callable[[], Study], file: str) -> Study | None:
    """The study; None where there are problems, all of which are clean."""
    try:
        return read()
    except StudyError as error:
        lines = str(error).split("\n")
    assert len(lines) <= 101
    assert all(line.isprintable() and line.startswith((file, "-o ")) for line in lines), lines
    return None


def read_text(folder: Path, text: str | bytes, overrides: tuple[str, ...] = ()) -> Study | None:
    path = folder / "study.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    return study_or_problems(lambda: read_study(path, overrides), str(path))


@QUICK
@given(data=st.binary(max_size=300))
def test_any_bytes(data: bytes, tmp_path: Path) -> None:
    assert read_text(tmp_path, data) is None


@QUICK
@given(text=st.text(st.sampled_from(list("abc:{}[],-#&*!|>'\"%@` \n\t01.eE_~?\x85\u2028\U0001f600")), max_size=60))
def test_any_marks_of_yaml(text: str, tmp_path: Path) -> None:
    assert read_text(tmp_path, text) is None


@QUICK
@given(
    start=st.integers(0, len(GOOD)), length=st.integers(0, 12), put=st.text(max_size=6) | WORDS.map(lambda word: word)
)
def test_a_good_file_with_a_piece_replaced(start: int, length: int, put: str, tmp_path: Path) -> None:
    study = read_text(tmp_path, GOOD[:start] + put + GOOD[start + length :])
    if study is not None:
        # What is a study can be written out and read again as the same trials.
        again = read_text(tmp_path, dump_study(study))
        assert again is not None
        assert [trial.key for trial in again.trials()] == [trial.key for trial in study.trials()]


@QUICK
@given(key=st.sampled_from(sorted(known_keys(()))), value=VALUES)
def test_a_good_file_with_any_value_at_a_key(key: str, value: Any, tmp_path: Path) -> None:
    lines = [line for line in GOOD.splitlines() if not line.startswith((f"{key}:", "  "))]
    if key != "variants":
        lines = [line if line != "variants:" else "variants: {unet: {}, noskip: {skip: none}}" for line in lines]
    read_text(tmp_path, "\n".join([*lines, f"{key}: {json.dumps(value)}"]) + "\n")


@QUICK
@given(
    path=st.lists(WORDS | st.text(max_size=3), min_size=1, max_size=3),
    value=VALUES.map(json.dumps) | st.text(max_size=8),
)
def test_any_override(path: list[str], value: str, tmp_path: Path) -> None:
    read_text(tmp_path, GOOD, (f"{'.'.join(path)}={value}",))


@QUICK
@given(words=st.lists(st.text(max_size=12), max_size=3))
def test_overrides_change_nothing_of_what_they_are_given(words: list[str]) -> None:
    values: dict[str, Any] = {"train": {"epochs": 1}, "variants": {"unet": None}}
    before = json.dumps(values)
    apply_overrides(values, words)
    assert json.dumps(values) == before
