"""The probes at tiny sizes on the CPU: that every figure is there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import probes
from benchmarks.probes import render


def test_the_script_writes_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["probes", "--device", "cpu", "--tiny", "--name", "here", "--out", str(tmp_path)])
    probes.main()
    document = json.loads((tmp_path / "here.json").read_text())
    assert [row["engine"] for row in document["engines"]] == ["eager"]
    (row,) = document["engines"]
    assert row["images_per_s"] > 0 and row["error"] is None
    assert row["tflops"] == pytest.approx(probes.step_flops(probes.TINY, 4) * row["images_per_s"] / 2 / 1e12)
    assert [row["workers"] for row in document["workers"]] == [1, 2] and document["workers"][1]["images_per_s"] > 0
    assert set(document["rates"]) == {"bfloat16_matmul_tflops", "float32_matmul_tflops", "copy_gb_per_s"}
    text = (tmp_path / "here.md").read_text()
    # A second run finds all its parts, so its figures are those of the first.
    probes.main()
    assert json.loads((tmp_path / "here.json").read_text()) == document
    assert text == render(document) and "## Workers with the fastest engine" in text
