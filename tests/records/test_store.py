"""Records read back as written; what is no record is refused by name and put aside."""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from ablate.errors import ResultsError
from ablate.records.record import SCHEMA, Record, computed_by, computed_differently
from ablate.records.store import (
    PACKED,
    Results,
    publish_record,
    quarantine,
    read_json,
    read_lines,
    read_record,
    to_json,
)
from ablate.study.trial import Trial


def make(status: str = "complete", **more: Any) -> Record:
    return Record(
        key="k" * 64,
        study="s",
        variant="v",
        settings={"lr": 0.001},
        seed=0,
        model={"name": "unet"},
        data={"name": "street"},
        train={"epochs": 1},
        status=status,
        **more,
    )


def test_a_record_is_read_back_as_it_was_published(tmp_path: Path) -> None:
    folder = Results(tmp_path).trial("t")
    folder.path.mkdir(parents=True)
    record = make(metrics={"test_mean_iou": 0.1 + 0.2, "test_loss": None}, missing={"test_loss": "why"})
    assert publish_record(folder, record) is True
    assert read_record(folder.record) == record


@pytest.mark.fault(31, "the record that stands stays")
def test_a_finished_record_is_never_overwritten_a_failed_one_is(tmp_path: Path) -> None:
    folder = Results(tmp_path).trial("t")
    folder.path.mkdir(parents=True)
    publish_record(folder, make("failed", reason="killed"))
    assert publish_record(folder, make()) is True
    assert publish_record(folder, make("diverged")) is False
    found = read_record(folder.record)
    assert found is not None and found.status == "complete"


def test_not_a_number_cannot_be_stored() -> None:
    with pytest.raises(ValueError, match="JSON"):
        to_json({"loss": float("nan")})


def test_json_is_canonical() -> None:
    assert to_json({"b": [{"y": 1, "x": 2}], "a": 1}) == to_json({"a": 1, "b": [{"x": 2, "y": 1}]})
    assert json.loads(to_json({"b": [{"y": 1}], "a": {"c": "ä"}})) == {"a": {"c": "ä"}, "b": [{"y": 1}]}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "not a record"),
        (b'{"schema_version": 1}', "not a record: key"),
        (json.dumps({"schema_version": SCHEMA + 1}).encode(), "written by a newer version"),
    ],
)
@pytest.mark.fault("R2", "refused with its reason")
def test_what_is_no_record_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "trials" / "t" / "record.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(ResultsError, match=says):
        read_record(path)
    records, bad = Results(tmp_path).records()
    assert records == [] and list(bad) == [path]


def test_what_is_put_aside_keeps_its_content_and_the_reason(tmp_path: Path) -> None:
    for content in ("one", "two"):
        (tmp_path / "record.json").write_text(content)
        quarantine(tmp_path / "record.json", f"because {content}")
    assert (tmp_path / "record.json.bad").read_text() == "one"
    assert (tmp_path / "record.json.bad2").read_text() == "two"
    assert (tmp_path / "record.json.bad2.why").read_text() == "because two\n"


def test_a_torn_last_line_is_left_out_and_one_before_it_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "epochs.jsonl"
    path.write_text('{"epoch": 1}\n{"epo')
    assert read_lines(path) == [{"epoch": 1}]
    path.write_text('{"epoch"\n{"epoch": 2}\n')
    with pytest.raises(ResultsError, match="not valid JSON"):
        read_lines(path)
    assert read_lines(tmp_path / "none") == []


@pytest.mark.fault(31, "not replaced by a failure")
def test_a_finished_record_is_not_replaced_by_a_failed_one(tmp_path: Path) -> None:
    folder = Results(tmp_path).trial("t")
    folder.make()
    assert publish_record(folder, make()) is True
    before = folder.record.read_bytes()
    assert publish_record(folder, make("failed", reason="killed")) is False
    assert publish_record(folder, make("diverged")) is False
    assert folder.record.read_bytes() == before


def test_the_second_attempt_that_failed_replaces_the_first(tmp_path: Path) -> None:
    folder = Results(tmp_path).trial("t")
    folder.make()
    for reason in ("first", "second"):
        assert publish_record(folder, make("failed", reason=reason)) is True
    found = read_record(folder.record)
    assert found is not None and found.reason == "second"


@pytest.mark.fault(31, "of many that publish at once one does")
def test_of_many_that_publish_at_once_one_does(tmp_path: Path) -> None:
    folder = Results(tmp_path).trial("t")
    folder.make()
    publish_record(folder, make("failed", reason="an attempt before"))
    with ThreadPoolExecutor(8) as pool:
        published = list(pool.map(lambda seed: publish_record(folder, make(metrics={"seed": seed})), range(16)))
    assert published.count(True) == 1
    found = read_record(folder.record)
    assert found is not None and found.metrics["seed"] == published.index(True)


def test_a_record_carries_the_digests_of_its_files(tmp_path: Path) -> None:
    folder = Results(tmp_path).trial("t")
    folder.make()
    folder.steps.write_bytes(b"steps")
    folder.best.write_bytes(b"weights")
    publish_record(folder, make())
    found = read_record(folder.record)
    assert found is not None
    assert found.files == {"steps.f32": hashlib.sha256(b"steps").hexdigest()}
    assert found.provenance["weights"] == {"best.pt": hashlib.sha256(b"weights").hexdigest()}


def test_records_of_older_versions_without_digests_are_read(tmp_path: Path) -> None:
    document = make().model_dump(mode="json")
    del document["files"]
    (tmp_path / "record.json").write_text(json.dumps(document))
    found = read_record(tmp_path / "record.json")
    assert found is not None and found.files == {}


@pytest.mark.fault(3, "a record has its name only when all that it rests on is synced (traced, no power was cut)")
def test_the_record_appears_after_its_files_are_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the moment at which a power loss could leave the record, all that it rests on has been synced."""
    folder = Results(tmp_path).trial("t")
    folder.make()
    for path in (folder.epochs, folder.steps, folder.images, folder.predictions):
        path.write_bytes(b"data")
    trace: list[str] = []

    def fsync(descriptor: int) -> None:
        trace.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)

    def link(source: Path, target: Path) -> None:
        trace.append(f"link {target.name}")
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    publish_record(folder, make())
    published = trace.index("link record.json")
    assert {"epochs.jsonl", "steps.f32", "images.npz", "predictions.zip"} <= set(trace[:published])
    # The record's own content before its name, and its name last of all.
    assert trace[published - 1].startswith(".record.json.") and trace[published + 1 :] == ["t"]


def test_a_record_in_the_folder_of_another_trial_is_bad(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for name in ("v-seed0-kkkkkkkk", "v-seed0-00000000"):
        results.trial(name).make()
        publish_record(results.trial(name), make())
    records, bad = results.records()
    assert len(records) == 1
    assert {path.parent.name: reason.partition(": ")[2] for path, reason in bad.items()} == {
        "v-seed0-00000000": "the record of another trial"
    }


TYPED: dict[str, tuple[str, Any, str]] = {
    "a list": ("run.json", [], "damaged: Input should be a valid dictionary"),
    "a plan of text": ("run.json", {"plan": "all"}, r"damaged: plan: Input should be a valid list"),
    "a trial elsewhere": (
        "run.json",
        {"plan": [{"name": "../x", "key": "k", "variant": "v", "settings": {}, "seed": 0}]},
        r"damaged: plan\.0\.name: .*expected the name of a folder, got a path",
    ),
    "a name that moves the cursor": ("run.json", {"study": "a\x1b[2J"}, "damaged: study: .*a control character"),
    "a newer run.json": ("run.json", {"schema_version": SCHEMA + 1}, "written by a newer version"),
    "an index of numbers": ("index.json", {"names": [1]}, r"damaged: names\.0: Input should be a valid string"),
    "a colour of two": ("index.json", {"palette": [[1, 2]]}, r"damaged: palette\.0: "),
    "a profile of text": ("profile.json", {"variants": {"v": {"parameters": "x"}}}, r"damaged: variants\.v\.param"),
    "digests of numbers": ("data.json", {"files": {"a": 1}}, r"damaged: files\.a: "),
}


@pytest.mark.parametrize(("name", "document", "says"), TYPED.values(), ids=TYPED)
def test_documents_have_types(name: str, document: Any, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(json.dumps(document))
    with pytest.raises(ResultsError, match=says) as caught:
        read_json(tmp_path / name)
    assert len(str(caught.value).splitlines()) == 1 and str(caught.value).startswith(str(tmp_path / name))


@pytest.mark.fault(35, "control characters of a record's reason are escaped when it is read")
def test_no_text_of_a_file_moves_a_cursor(tmp_path: Path) -> None:
    document = make("failed", reason="x").model_dump(mode="json")
    document |= {"reason": "gone\x1b]0;title\x07", "missing": {"test_loss": "no\x9bm"}}
    (tmp_path / "record.json").write_text(json.dumps(document))
    found = read_record(tmp_path / "record.json")
    assert found is not None and found.reason == "gone\\x1b]0;title\\x07"
    assert found.missing == {"test_loss": "no\\x9bm"}


def test_what_computed_a_record_is_compared() -> None:
    one = {"versions": {"torch": "2.12"}, "machine": {"cpu": "A", "gpus": ["B"]}, "arithmetic": {"engine": "fused"}}
    assert computed_by(one | {"device": "cpu"}) == {"PyTorch": "2.12", "processor": "A", "engine": "fused"}
    assert computed_by(one | {"device": "cuda:0"})["processor"] == "B"
    assert computed_by({"versions": 3, "machine": {"cpu": None}}) == {}
    found = [{"PyTorch": "2.13", "engine": "fused"}, {}, {"PyTorch": "2.12", "engine": "fused"}]
    assert computed_differently(found) == ["PyTorch (2.12, 2.13)"] and computed_differently([]) == []


def test_a_trial_is_copied_by_known_names_and_no_link_is_followed(tmp_path: Path) -> None:
    source, target = Results(tmp_path / "a").trial("t"), Results(tmp_path / "b").trial("t")
    source.make()
    source.steps.write_bytes(b"steps")
    (source.path / "virus.sh").write_text("rm -r /")
    publish_record(source, make())
    target.copy_from(source)
    assert sorted(path.name for path in target.path.iterdir()) == ["record.json", "steps.f32"]
    assert read_record(target.record) == read_record(source.record)
    (tmp_path / "secret").write_text("mine")
    source.images.symlink_to(tmp_path / "secret")
    with pytest.raises(ResultsError, match=r"images\.npz: a symbolic link"):
        Results(tmp_path / "c").trial("t").copy_from(source)


def test_a_trial_becomes_a_record_without_the_place_of_its_data() -> None:
    trial = Trial("s", "v", {"lr": 1e-3}, 0, "main", {"name": "unet"}, {"name": "x", "root": "/home/me"}, {}, "k")
    record = Record.of(trial, "failed", reason="cannot reach postgresql://me:pw@host\x1b[2J", metrics={"attempts": 2.0})
    assert record.data == {"name": "x"} and record.metrics == {"attempts": 2.0} and record.resolution == "trained"
    assert record.reason == r"cannot reach postgresql://me:…@host\x1b[2J"


@pytest.mark.fault(34, "refused before it is unpacked")
@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("sparse", "more than trials can be"),
        ("many", "more than trials can be"),
        ("header", "a header of it is too large"),
        ("map", "a header of it is too large"),
        ("nested", "cannot be unpacked"),
        ("link", "links among them"),
    ],
)
def test_an_archive_of_a_stranger_takes_little_room_and_time(
    kind: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ablate.records.store.MOST_MEMBERS", 10)
    member = tarfile.TarInfo("trials/a")
    if kind == "sparse":
        member.type, member.pax_headers = tarfile.REGTYPE, {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(2**40)}
    elif kind == "map":  # of a sparse file, which stands in its content
        member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "1"}
        member.size = len(content := b"9999999\n" + b"0\n" * 2**20)
    elif kind == "link":
        member.type, member.linkname = tarfile.LNKTYPE, "../../etc/passwd"
    elif kind == "header":
        member.pax_headers = {"comment": "x" * 2**21}
    inner = tmp_path / "inner.tar"
    with tarfile.open(inner, "w:gz" if kind == "nested" else "w", format=tarfile.PAX_FORMAT) as archive:
        for _ in range(11 if kind == "many" else 1):
            archive.addfile(member, BytesIO(content) if kind == "map" else None)
    (tmp_path / PACKED).write_bytes(lzma.compress(inner.read_bytes(), preset=0))
    with pytest.raises(ResultsError, match=says):
        list(Results(tmp_path).folders())
