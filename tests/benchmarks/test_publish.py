"""A published folder: its packed trials read like any others, cannot be changed, and no archive leads out of them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pandas as pd
import pytest

from ablate.analysis.frames import load_results
from ablate.errors import ResultsError
from ablate.records.store import PACKED, Results
from ablate.run.setup import writable
from ablate.run.verify import print_verification
from benchmarks.publish import publish
from tests.planted import plant


def test_a_published_folder_holds_the_same_results_in_one_archive(tmp_path: Path) -> None:
    path = plant(tmp_path / "own", variants=("unet", "noskip"), lrs=(1e-3,), seeds=2, epochs=3, images=4, size=(16, 24))
    publish(path, tmp_path / "published")
    published = Results(tmp_path / "published")
    assert not (published.path / "trials").exists()
    found, own = load_results(published.path), load_results(path)
    pd.testing.assert_frame_equal(found.trials.drop(columns="folder"), own.trials.drop(columns="folder"))
    pd.testing.assert_frame_equal(found.epochs, own.epochs)
    assert print_verification(published.path, repair=False) == 0
    before = (published.path / PACKED).read_bytes()
    publish(path, published.path)
    assert (published.path / PACKED).read_bytes() == before
    for change in (lambda: writable(published.path), lambda: print_verification(published.path, repair=True)):
        with pytest.raises(ResultsError, match="packed; unpack it first: tar xf"):
            change()


@pytest.mark.parametrize("name", ["../outside", "link", "torn"])
def test_an_archive_that_is_none_of_trials_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    packed = tmp_path / "results" / PACKED
    packed.parent.mkdir()
    with tarfile.open(packed, "w:xz") as archive:
        member = tarfile.TarInfo(name)
        member.type = tarfile.SYMTYPE if name == "link" else tarfile.REGTYPE
        member.linkname, member.size = "/etc" if name == "link" else "", 0 if name == "link" else 1
        archive.addfile(member, io.BytesIO(b"x"))
    if name == "torn":
        packed.write_bytes(packed.read_bytes()[:40])
    with pytest.raises(ResultsError, match=PACKED) as refused:
        list(Results(packed.parent).folders())
    assert "\n" not in str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results"]
