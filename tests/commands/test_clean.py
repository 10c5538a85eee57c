"""Cleaning deletes what can go, in a results folder only, and never through a link."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablate.commands.clean import clean, spare
from ablate.errors import ResultsError
from ablate.records.files import lock
from ablate.records.store import Results
from ablate.run.verify import print_verification


def test_states_go_and_weights_stay_unless_asked(trained: Results) -> None:
    first, *others = trained.folders()
    first.last.write_bytes(b"x" * 1000)
    (first.path / "checkpoint.pt").write_bytes(b"x" * 500)
    others[0].record.unlink()  # a trial that goes on
    (others[0].path / "checkpoint.pt").write_bytes(b"y" * 500)
    assert clean(trained) == 1500
    assert first.best.exists() and not first.last.exists() and others[0].checkpoints()
    done = (first, *others[1:])
    weights = sum(path.stat().st_size for folder in done for path in (folder.best, folder.card))
    assert clean(trained, weights=True) == weights
    assert not first.best.exists() and others[0].best.exists()
    assert list(spare(trained, weights=True)) == []
    assert print_verification(trained.path, repair=False, say=lambda _: None) == 0


def test_only_a_marked_folder_without_links_and_without_a_run(trained: Results, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="not a results folder"):
        clean(Results(tmp_path))
    with lock(trained.lock), pytest.raises(ResultsError, match="a run holds this folder"):
        clean(trained)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "last.pt").write_bytes(b"mine")
    (trained.trials / "link-seed0-00000000").symlink_to(outside)
    with pytest.raises(ResultsError, match="a symbolic link"):
        clean(trained)
    assert (outside / "last.pt").exists()
