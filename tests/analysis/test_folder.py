"""What is read of a results folder before pandas is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from planted import plant

from ablate.analysis.load import read_folder

LIGHT = """
import sys
from ablate.analysis.load import read_folder
folder = read_folder(sys.argv[1])
print(len(folder.rows), [name for name in ("pandas", "scipy", "torch", "optuna", "matplotlib") if name in sys.modules])
"""


def test_reading_needs_nothing_that_takes_long_to_import(tmp_path: Path) -> None:
    path = plant(tmp_path / "study", seeds=1, epochs=2, images=2, classes=4)
    read = subprocess.run([sys.executable, "-c", LIGHT, str(path)], capture_output=True, text=True, check=True)
    assert read.stdout.split(maxsplit=1) == [str(len(read_folder(path).rows)), "[]\n"]


def test_meanwhile_is_called_once_however_small_the_study(tmp_path: Path) -> None:
    calls: list[int] = []
    read_folder(plant(tmp_path / "study", seeds=1, epochs=2, images=2, classes=4), meanwhile=lambda: calls.append(1))
    assert calls == [1]
