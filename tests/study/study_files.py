"""A small study file that the tests of this folder change one line at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from ablate.errors import StudyError
from ablate.study.reader import read_study
from ablate.study.study import Study

GOOD = """\
study: small
data: {name: street, size: [32, 48], train: 8, val: 4, test: 4}
model: {name: unet, width: 4, depth: 2}
variants:
  unet: {}
  noskip: {skip: none}
grid: {lr: [1e-3, 3e-4]}
seeds: 2
train: {epochs: 2, batch_size: 4}
"""


def write(folder: Path, text: str | bytes = GOOD, name: str = "study.yaml") -> Path:
    """The study file `name` in `folder`."""
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def read(folder: Path, text: str = GOOD, overrides: Sequence[str] = (), *, check_components: bool = True) -> Study:
    """The study that `text` says, read from a file."""
    return read_study(write(folder, text), overrides, check_components=check_components)


def problems(folder: Path, text: str | bytes, overrides: Sequence[str] = ()) -> list[str]:
    """What the reader says about a broken study, a line a problem, without the folder in front."""
    path = write(folder, text)
    with pytest.raises(StudyError) as caught:
        read_study(path, overrides)
    lines = str(caught.value).split("\n")
    assert len(lines) == len(caught.value.problems), "a problem is one line"
    return [line.replace(f"{path}", "study.yaml") for line in lines]
