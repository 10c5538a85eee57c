"""Real damage to a results folder: `ablate verify` names it, `--repair` puts it aside, and nothing is a traceback."""

from __future__ import annotations

import io
import json
import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablate.errors import ResultsError
from ablate.records.files import lock
from ablate.records.store import Results, TrialFolder
from ablate.run.verify import faults, print_verification
from benchmarks.publish import make_lean
from tests.planted import plant


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small planted study without damage."""
    path = tmp_path_factory.mktemp("whole") / "planted"
    return plant(path, variants=("unet", "noskip"), lrs=(1e-3, 3e-4), seeds=2, epochs=4, images=4)


@pytest.fixture
def results(whole: Path, tmp_path: Path) -> Results:
    """A copy of it, to be damaged."""
    shutil.copytree(whole, tmp_path / "planted")
    return Results(tmp_path / "planted")


def complete(results: Results) -> TrialFolder:
    return next(folder for folder in results.folders() if folder.images.exists())


def verified(results: Results, *, repair: bool = False) -> tuple[int, str]:
    said: list[str] = []
    code = print_verification(results.path, repair=repair, say=said.append)
    return code, "\n".join(said)


def edit(path: Path, **changes: Any) -> None:
    document = json.loads(path.read_bytes())
    for key, value in changes.items():
        inner = document
        *outer, last = key.split("__")
        for part in outer:
            inner = inner[part]
        inner[last] = value
    path.write_text(json.dumps(document))


def flip(path: Path, at: int | None = None) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 4
    path.write_bytes(data)


def other_counts(folder: TrialFolder) -> None:
    """Counts that are sound in themselves, and not those that the record was made with."""
    with np.load(folder.images) as arrays:
        changed = {name: arrays[name] + (name == "test") for name in arrays.files}
    buffer = io.BytesIO()
    np.savez(buffer, **changed)
    folder.images.write_bytes(buffer.getvalue())
    edit(folder.record, files={})


def test_a_sound_folder_has_no_faults(results: Results) -> None:
    assert verified(results) == (0, "8 trials checked: no damage found")


def test_a_trial_reused_under_another_name_is_no_fault(results: Results) -> None:
    edit(next(results.folders()).record, variant="named-otherwise-there")
    assert verified(results)[0] == 0


DAMAGE: dict[str, tuple[Callable[[TrialFolder], object], str, str]] = {
    "a bit of the curves": (lambda folder: flip(folder.epochs), "epochs.jsonl", "its SHA-256 is not the one"),
    "a bit of the steps": (lambda folder: flip(folder.steps), "steps.f32", "its SHA-256 is not the one"),
    "a bit of the counts": (lambda folder: flip(folder.images), "images.npz", "its SHA-256 is not the one"),
    "a bit of the predictions": (lambda folder: flip(folder.predictions), "predictions.zip", "its SHA-256"),
    "curves cut off": (lambda folder: os.truncate(folder.epochs, 30), "epochs.jsonl", "its SHA-256"),
    "counts deleted": (lambda folder: folder.images.unlink(), "images.npz", "missing, although"),
    "a score typed in": (
        lambda folder: edit(folder.record, metrics__test_mean_iou=0.99),
        "record.json",
        r"test_mean_iou is 0\.990000 in the record, and 0\.\d+ by the counts",
    ),
    "other counts, and no digests": (other_counts, "record.json", "test_mean_iou is"),
    "a seed typed in": (lambda folder: edit(folder.record, seed=7), "record.json", "its seed is not that of the plan"),
    "a setting typed in": (
        lambda folder: edit(folder.record, settings={"lr": 1.0}),
        "record.json",
        "its settings is not that of the plan",
    ),
    "the record of another trial": (
        lambda folder: edit(folder.record, key="0" * 64),
        "record.json",
        "the record of another trial",
    ),
    "a record of another type": (
        lambda folder: edit(folder.record, metrics=[1, 2]),
        "record.json",
        "not a record: metrics",
    ),
    "half a record": (lambda folder: os.truncate(folder.record, 300), "record.json", "not valid JSON"),
    "an unknown best epoch": (
        lambda folder: edit(folder.record, metrics__best_epoch=99),
        "epochs.jsonl",
        "its mIoU at the best epoch is not the record's",
    ),
}


@pytest.mark.parametrize(("damage", "file", "message"), DAMAGE.values(), ids=DAMAGE)
@pytest.mark.fault(33, "`ablate verify` names it; `--repair` puts the trial aside, and it runs again")
def test_damage_to_a_trial_is_named_and_put_aside(
    damage: Callable[[TrialFolder], object], file: str, message: str, results: Results
) -> None:
    folder = complete(results)
    damage(folder)
    found = list(faults(results))
    assert any(fault.file == folder.path / file for fault in found), found
    before = {path: path.read_bytes() for path in results.path.rglob("*") if path.is_file()}
    code, text = verified(results)
    assert code == 1 and re.search(message, text), text
    # Looking changes nothing.
    assert {path: path.read_bytes() for path in results.path.rglob("*") if path.is_file()} == before
    code, text = verified(results, repair=True)
    assert code == 0 and "moved to" in text
    # The trial has no record left, so the next run runs it again; all else is sound.
    assert not folder.record.exists()
    assert verified(results)[0] == 0


DOCUMENTS: dict[str, tuple[str, bytes]] = {
    "run.json of a list": ("run.json", b"[]"),
    "run.json with a plan of numbers": ("run.json", b'{"study": "s", "plan": [1]}'),
    "run.json with a trial outside": (
        "run.json",
        b'{"plan": [{"name": "../../x", "key": "k", "variant": "v", "settings": {}, "seed": 0}]}',
    ),
    "run.json cut off": ("run.json", b'{"study": "s", "pl'),
    "profile.json of text": ("profile.json", b'{"variants": {"unet": {"parameters": "many"}}}'),
    "index.json of numbers": ("test/index.json", b'{"names": [1, 2], "size": [3]}'),
    "no YAML": ("study.yaml", b"study: [\n"),
}


@pytest.mark.parametrize(("file", "content"), DOCUMENTS.values(), ids=DOCUMENTS)
@pytest.mark.fault(33, "damage to the other documents is one line")
def test_damage_to_a_document_is_one_line_and_put_aside(file: str, content: bytes, results: Results) -> None:
    path = results.path / file
    path.write_bytes(content)
    code, text = verified(results)
    assert code == 1
    assert text.splitlines()[0].startswith(f"{path}: ")
    assert verified(results, repair=True)[0] == 0 and not path.exists()


def test_what_may_be_deleted_to_save_room_is_no_fault(results: Results) -> None:
    for folder in results.folders():
        folder.predictions.unlink(missing_ok=True)
    for name in ("targets.zip", "images.zip"):
        (results.test / name).unlink()
    assert verified(results)[0] == 0


def test_damaged_targets_are_made_again_with_their_index(results: Results) -> None:
    flip(results.test / "targets.zip")
    code, text = verified(results, repair=True)
    assert code == 0 and "targets.zip.bad" in text and "index.json.bad" in text


def test_weights_that_are_damaged_are_put_aside_alone(results: Results) -> None:
    folder = complete(results)
    folder.best.write_bytes(b"weights")
    edit(folder.record, provenance={"weights": {"best.pt": "0" * 64}})
    assert verified(results, repair=True)[0] == 0
    assert folder.record.exists() and not folder.best.exists()


@pytest.mark.parametrize("note", [b"{", b'{"files": {}, "significant_bits": 8, "measures": {"rise": 1.0}}'])
def test_a_damaged_note_on_publishing_is_put_aside_alone(note: bytes, results: Results) -> None:
    folder = complete(results)
    folder.published.write_bytes(note)
    code, text = verified(results)
    assert code == 1 and "would be put aside: published.json" in text and "put aside: record.json" not in text
    assert verified(results, repair=True)[0] == 0
    assert folder.record.exists() and not folder.published.exists()
    assert verified(results)[0] == 0


def test_a_damaged_note_of_a_published_trial_is_put_aside_with_what_it_excused(results: Results) -> None:
    folder = complete(results)
    lean = make_lean(folder, results.path / "lean")
    shutil.rmtree(folder.path)
    lean.path.rename(folder.path)
    assert verified(results)[0] == 0
    edit(folder.published, measures={"tail_risk": -1.0})
    assert verified(results, repair=True)[0] == 0
    assert not folder.record.exists() and not folder.steps.exists()
    assert verified(results)[0] == 0


def test_a_folder_that_a_run_holds_is_not_repaired(results: Results) -> None:
    with lock(results.lock, "a run") as held:
        assert held
        with pytest.raises(ResultsError, match="a run holds this folder"):
            verified(results, repair=True)


def test_no_repair_goes_through_a_link(results: Results, tmp_path: Path) -> None:
    folder = complete(results)
    shutil.move(folder.path, tmp_path / "outside")
    folder.path.symlink_to(tmp_path / "outside")
    with pytest.raises(ResultsError, match="a symbolic link"):
        verified(results, repair=True)
    code, text = verified(results)
    assert code == 1 and "a symbolic link" in text


@pytest.mark.fault(33, "every random bit of the numbers is noticed by `ablate verify`")
def test_random_damage_to_the_numbers_is_noticed(results: Results) -> None:
    """Any bit of any file that a record rests on."""
    drawn = random.Random(0)
    folder = complete(results)
    for name in ("epochs.jsonl", "steps.f32", "images.npz", "predictions.zip"):
        path = folder.path / name
        sound = path.read_bytes()
        for _ in range(5):
            flip(path, drawn.randrange(len(sound)))
            assert verified(results)[0] == 1
            path.write_bytes(sound)
    assert verified(results)[0] == 0


def test_random_damage_to_the_documents_is_noticed_or_harmless(results: Results) -> None:
    """A flipped bit of a text may still be a text: then it is read, or refused in one line."""
    drawn = random.Random(1)
    folder = complete(results)
    for path in (results.run, results.profile, results.test / "index.json", results.study, folder.record):
        sound = path.read_bytes()
        for _ in range(10):
            flip(path, drawn.randrange(len(sound)))
            code, text = verified(results)
            assert (code == 0) == ("no damage found" in text)
            path.write_bytes(sound)
