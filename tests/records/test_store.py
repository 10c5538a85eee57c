"""Records read back as written; what is no record is refused by name and put aside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ablate.errors import ResultsError
from ablate.records.record import SCHEMA, Record
from ablate.records.store import Results, publish_record, quarantine, read_lines, read_record, to_json


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
