"""The simulation behind the coverage figures of the methods page: it runs, and the published results have its rows."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import coverage

PAGE = Path(coverage.__file__).parent / "results" / "coverage.md"


def rows(text: str) -> dict[tuple[str, ...], list[float]]:
    """Rows of Markdown tables whose last cells are shares: their leading cells -> the shares."""
    found = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        shares = [cell for cell in cells if re.fullmatch(r"[01]\.\d{2,3}", cell)]
        if len(shares) >= 2 and cells[-len(shares) :] == shares:
            found[tuple(cells[: -len(shares)])] = [float(share) for share in shares]
    return found


def test_the_page_has_what_the_command_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["coverage", "--draws", "60"])
    coverage.main()
    tables, _, last = capsys.readouterr().out.partition("| seeds | percentile bootstrap")
    published, _, _ = PAGE.read_text(encoding="utf-8").partition("| seeds | percentile bootstrap")
    printed, page = rows(tables), rows(published)
    assert len(printed) == 8 + 4 + 3
    assert len(rows(last)) == 2
    for key, shares in printed.items():
        # 60 data sets against 1,000: three Monte-Carlo errors of the smaller.
        error = 3 * np.sqrt(np.maximum(0.05 * 0.95, np.multiply(page[key], 1 - np.array(page[key]))) / 60) + 0.01
        assert (np.abs(np.subtract(shares, page[key])) <= error).all(), (key, shares, page[key])
