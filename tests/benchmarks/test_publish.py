"""A published folder: its packed trials read like any others, cannot be changed, and no archive leads out of them."""

from __future__ import annotations

import io
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ablate.analysis.frames import load_results
from ablate.commands.predict import best_trial
from ablate.errors import ResultsError
from ablate.measure.stability import roughness, spike_steps
from ablate.records.files import make_folder, size_of
from ablate.records.images import read_arrays
from ablate.records.store import PACKED, Results, to_json
from ablate.report.build import build_report
from ablate.run.merge import merge
from ablate.run.setup import writable
from ablate.run.status import status_document
from ablate.run.verify import print_verification
from benchmarks.publish import RESULTS, pack, publish
from tests.planted import plant


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A planted study and the same published, to be read only."""
    folder = tmp_path_factory.mktemp("both")
    size, lrs = (16, 24), (1e-3,)
    path = plant(folder / "own", variants=("unet", "noskip"), lrs=lrs, seeds=2, epochs=3, images=4, size=size)
    for trial in Results(path).folders():
        trial.best.write_bytes(b"weights")
    make_folder(folder / "published" / "trials")  # of an earlier one, whose place it takes
    publish(path, folder / "published")
    return path, folder / "published"


def test_a_published_folder_holds_the_same_results_in_one_archive(both: tuple[Path, Path], tmp_path: Path) -> None:
    path, published = both[0], Results(both[1])
    assert not (published.path / "trials").exists()
    found, own = load_results(published.path), load_results(path)
    pd.testing.assert_frame_equal(found.trials.drop(columns="folder"), own.trials.drop(columns="folder"))
    pd.testing.assert_frame_equal(found.epochs, own.epochs)
    pd.testing.assert_frame_equal(found.images, own.images)
    assert print_verification(published.path, repair=False) == 0
    pack(Results(path), tmp_path / PACKED)
    assert (tmp_path / PACKED).read_bytes() == (published.path / PACKED).read_bytes()
    for change in (lambda: writable(published.path), lambda: print_verification(published.path, repair=True)):
        with pytest.raises(ResultsError, match="packed; unpack it first, in that folder: tar xf"):
            change()


def test_steps_are_rounded_and_what_is_measured_of_them_is_not(tmp_path: Path) -> None:
    path = plant(
        tmp_path / "own", variants=("unet", "noskip"), lrs=(1e-3,), seeds=2, epochs=20, images=4, size=(16, 24)
    )
    pack(Results(path), make_folder(tmp_path / "published") / PACKED)
    published = list(Results(tmp_path / "published").folders())
    for own, lean in zip(Results(path).folders(), published, strict=True):
        steps, fewer = (np.fromfile(folder.steps, dtype="<f4").reshape(-1, 2) for folder in (own, lean))
        np.testing.assert_allclose(fewer, steps, rtol=2.0**-8)
        assert spike_steps(fewer).tolist() == spike_steps(steps).tolist()
        bits = lean.note()["significant_bits"]
        assert not (fewer.view(np.uint32) & (2 ** (24 - bits) - 1)).any() and bits < 12
        assert lean.note()["measures"]["roughness"] == roughness(steps[:, 0]).value
        assert roughness(fewer[:, 0]) != roughness(steps[:, 0])
        for name in ("val", "test", "test_loss") if own.images.exists() else ():
            counts, same = (read_arrays(folder.images, [name])[name] for folder in (own, lean))
            np.testing.assert_array_equal(same, counts, strict=True)
    # Packed again, they stay as they are.
    pack(Results(tmp_path / "published"), make_folder(tmp_path / "again") / PACKED)
    assert (tmp_path / "again" / PACKED).read_bytes() == (tmp_path / "published" / PACKED).read_bytes()


def test_damage_to_what_was_rounded_is_named_within_the_archive(tmp_path: Path) -> None:
    path = plant(tmp_path / "own", variants=("unet",), lrs=(1e-3,), seeds=1, epochs=20, images=4, size=(16, 24))
    pack(Results(path), make_folder(tmp_path / "first") / PACKED)
    trial = next(Results(tmp_path / "first").folders())
    own = next(Results(path).folders())
    note, whole = trial.note(), {file: file.read_bytes() for file in trial.path.iterdir()}

    def forge(**changes: object) -> None:
        trial.published.write_bytes(to_json(note | changes))

    def change_curves() -> None:
        trial.epochs.write_bytes(trial.epochs.read_bytes().replace(b"train_loss", b"train_lost", 1))
        forge(files=note["files"] | trial.digests(("epochs.jsonl",)))

    def leave_steps() -> None:
        trial.steps.write_bytes(own.steps.read_bytes())
        forge(files=note["files"] | trial.digests(("steps.f32",)))

    for said, damage in {
        r"published\.json: rise is 9": lambda: forge(measures={"rise": 9.0}),
        r"published\.json: roughness is 999": lambda: forge(measures={"roughness": 999.0}),
        r"published\.json: tail_risk is 0 in it": lambda: forge(measures={"tail_risk": 0.0}),
        r"published\.json: excess_variation is 99": lambda: forge(measures={"excess_variation": 99.0}),
        r"published\.json: spike_score is 0.9": lambda: forge(measures={"spike_score": 0.9}),
        r"published\.json: damaged: measures.spike_rate": lambda: forge(measures={"spike_rate": 999.0}),
        r"published\.json: damaged: measures.val_rise": lambda: forge(measures={"val_rise": 1.0}),
        r"published\.json: damaged: measures:": lambda: forge(measures=1),
        r"published\.json: damaged: significant_bits": lambda: forge(significant_bits=1),
        r"published\.json: damaged: files.epochs\.jsonl": change_curves,
        r"steps\.f32: it has more than the \d+ significant bits": leave_steps,
        r"steps\.f32: its SHA-256 is not": lambda: trial.steps.write_bytes(trial.steps.read_bytes()[:-1] + b"x"),
    }.items():
        damage()
        shutil.rmtree(tmp_path / "second", ignore_errors=True)
        shutil.copytree(path, tmp_path / "second", ignore=shutil.ignore_patterns("trials"))
        with tarfile.open(tmp_path / "second" / PACKED, "w:xz", preset=0) as archive:
            archive.add(trial.path.parent, "trials")
        lines: list[str] = []
        assert print_verification(tmp_path / "second", repair=False, say=lines.append) == 1
        assert any(re.search(rf"second/trials\.tar\.xz: trials/{trial.name}/{said}", line) for line in lines), lines
        assert load_results(tmp_path / "second").trials["test_mean_iou"].notna().all()
        # Published anew, it would be hidden.
        with pytest.raises(ResultsError, match=trial.name):
            pack(Results(tmp_path / "second"), tmp_path / PACKED)
        for file, content in whole.items():
            file.write_bytes(content)


@pytest.mark.parametrize("name", ["epochs.jsonl", "steps.f32", "images.npz"])
def test_a_damaged_trial_is_not_published(both: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    shutil.copytree(both[0], tmp_path / "own")
    file = next(folder.path / name for folder in Results(tmp_path / "own").folders() if folder.images.exists())
    file.write_bytes(file.read_bytes()[:-2] + b" \n")
    with pytest.raises(ResultsError, match=re.escape(f"{file.parent.name}/{name}: its SHA-256 is not")):
        pack(Results(tmp_path / "own"), tmp_path / PACKED)
    assert not (tmp_path / PACKED).exists()


def test_what_is_published_stays_where_nothing_can_take_its_place(tmp_path: Path) -> None:
    published = tmp_path / "published"
    published.mkdir()
    (published / "report.html").write_text("the one that was")
    with pytest.raises(ResultsError):
        publish(tmp_path / "absent", published)
    assert [path.name for path in tmp_path.rglob("*")] == ["published", "report.html"]


def test_a_published_page_is_not_written_over(both: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(both[1], tmp_path / "published")
    page = (tmp_path / "published" / "report.html").read_bytes()
    with pytest.raises(ResultsError, match=r"made with predictions that were not published.*--out"):
        build_report(tmp_path / "published")
    assert (tmp_path / "published" / "report.html").read_bytes() == page
    assert build_report(tmp_path / "published", only=["tables"], out=tmp_path / "elsewhere")
    with pytest.raises(ResultsError, match="a published folder holds no networks"):
        best_trial(Results(tmp_path / "published"), None)
    # Unpacked only in part, as by a tar that was stopped.
    (tmp_path / "published" / "trials").mkdir()
    with pytest.raises(ResultsError, match="packed and unpacked; delete trials"):
        list(Results(tmp_path / "published").folders())


def test_messages_name_the_archive_and_the_trial_in_it(
    both: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, published = (shutil.copytree(both[0], tmp_path / name) for name in ("own", "published"))
    torn, swapped, counts, *_ = (folder.path for folder in Results(own).folders())
    (torn / "record.json").write_text("{")
    (swapped / "record.json").write_bytes((counts / "record.json").read_bytes())
    (counts / "images.npz").write_bytes(b"nothing")
    with tarfile.open(published / PACKED, "w:xz", preset=0) as archive:
        archive.add(own / "trials", "trials")
    shutil.rmtree(published / "trials")
    assert print_verification(published, repair=False) == 1
    frames = load_results(published)
    said = [*capsys.readouterr().out.splitlines(), *frames.unreadable.values(), *frames.trials["reason"]]
    status = status_document(published)["unreadable"]
    said += [f"{place}: {reason}" for place, reason in status.items()]
    for trial, file in ((torn, "record.json"), (swapped, "record.json"), (counts, "images.npz")):
        found = [text for text in said if f"{published / PACKED}: trials/{trial.name}/{file}: " in text]
        assert len(found) > 1, said
    assert list(status) == [name.replace("own/", "published/") for name in status_document(own)["unreadable"]]
    assert len(status) == 2 and not any("ablate-" in text for text in said)


def test_the_fuller_copy_of_a_trial_is_merged(both: tuple[Path, Path], tmp_path: Path) -> None:
    path, published = both
    (tmp_path / "1" / ".probe-merge" / "trials" / "half").mkdir(parents=True)  # of a merge that was killed
    (tmp_path / "1" / "trials").mkdir()
    for number, sides in enumerate([both, both[::-1]]):
        merge(*sides, tmp_path / str(number), mixed_devices=False)
        assert all(folder.best.exists() for folder in Results(tmp_path / str(number)).folders())
        assert not any(folder.published.exists() for folder in Results(tmp_path / str(number)).folders())
        assert not (tmp_path / str(number) / ".probe-merge").exists()
    merge(published, published, tmp_path / "lean", mixed_devices=False)
    assert print_verification(tmp_path / "lean", repair=False) == 0
    found, own = load_results(tmp_path / "lean").trials, load_results(path).trials
    pd.testing.assert_frame_equal(found.drop(columns="folder"), own.drop(columns="folder"))


@pytest.mark.parametrize(
    "folder", sorted(path for path in (RESULTS / "published").iterdir() if path.is_dir()), ids=lambda path: path.name
)
def test_what_is_committed_is_small_and_whole(folder: Path) -> None:
    assert size_of(folder) < 3.1e6
    assert size_of(folder / "report.html") < 2e6
    assert print_verification(folder, repair=False) == 0


def test_an_archive_larger_than_trials_can_be_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ablate.records.store.MOST_UNPACKED", 2**21)
    with tarfile.open(tmp_path / PACKED, "w:xz") as archive:
        member = tarfile.TarInfo("trials/small")
        member.pax_headers = {"comment": "x" * 2**22}  # nothing but a header
        archive.addfile(member)
    with pytest.raises(ResultsError, match="holds more than trials can be"):
        list(Results(tmp_path).folders())


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
