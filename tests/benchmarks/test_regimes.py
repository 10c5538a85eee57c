"""The simulated error rates: every regime gives rows, and the published page has them with rates like these."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import regimes

PAGE = Path(regimes.__file__).parent / "results" / "regimes.md"


def rows(text: str) -> dict[str, tuple[float, float]]:
    """Rates in % of the usual method and of ours, by regime."""
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    return {row[0]: (float(row[2]), float(row[4])) for row in table[2:]}


def test_the_page_has_what_the_command_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regimes, "fewer", lambda draws: draws)  # so that few are drawn in every row
    regimes.main(["--draws", "40", "--out", str(tmp_path)])
    written, page = rows((tmp_path / "regimes.md").read_text(encoding="utf-8")), rows(PAGE.read_text(encoding="utf-8"))
    assert set(written) == set(page)
    for regime, rates in written.items():
        share = np.array(page[regime]) / 100
        error = 100 * 4 * np.sqrt(np.maximum(0.02, share * (1 - share)) / 40)
        assert (np.abs(np.subtract(rates, page[regime])) <= error).all(), (regime, rates, page[regime])


def test_holm_rejects_any_where_its_first_step_does() -> None:
    assert regimes.holm_any(np.array([[0.02, 0.9], [0.03, 0.03]])) == 0.5
