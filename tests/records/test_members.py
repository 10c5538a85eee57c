"""Members of a zip: what `zipfile` gives, and its errors for what is damaged or not there."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from ablate.records.members import Members


def archive(kind: int = zipfile.ZIP_DEFLATED, **members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as made:
        for name, content in members.items():
            made.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_are_those_that_were_written(kind, monkeypatch):
    data = archive(kind, a=b"1" * 1000, ä=b"", b=b"23")
    monkeypatch.setattr(zipfile.ZipFile, "__init__", None)  # a usual archive is not left to zipfile
    assert dict(Members(data)) == {"a": b"1" * 1000, "ä": b"", "b": b"23"}
    assert list(Members(data)) == ["a", "ä", "b"]


def test_what_numpy_writes_is_read(monkeypatch):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, val=np.arange(6), test=np.ones((2, 3)))
    with zipfile.ZipFile(buffer) as made:
        expected = {name: made.read(name) for name in made.namelist()}
    monkeypatch.setattr(zipfile.ZipFile, "__init__", None)
    assert dict(Members(buffer.getvalue())) == expected


def test_an_unusual_archive_is_read_too():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_BZIP2) as made:
        made.writestr("a", b"x" * 100)
        made.comment = b"a comment"
    assert dict(Members(buffer.getvalue())) == {"a": b"x" * 100}
    assert dict(Members(b"before" + archive(a=b"1"))) == {"a": b"1"}


def test_a_name_that_is_not_there_is_said():
    with pytest.raises(KeyError, match="'c'"):
        Members(archive(a=b"1"))["c"]


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_whatever_byte_is_wrong_the_answer_is_that_of_zipfile(kind):
    data = archive(kind, a=b"some text, some text", b=b"more")
    for place in range(len(data)):
        broken = data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :]
        try:
            with zipfile.ZipFile(io.BytesIO(broken)) as made:
                expected = {name: made.read(name) for name in ("a", "b")}
        except Exception:
            expected = None
        try:
            members = Members(broken)
            found = {name: members[name] for name in ("a", "b")}
        except Exception:
            found = None
        # zipfile looks at a few things more, such as the name beside each member: none of them changes a content.
        assert found == expected or (expected is None and found == {"a": b"some text, some text", "b": b"more"})


@pytest.mark.parametrize("length", [0, 3, 21, 22, 50, 100])
def test_a_file_cut_short_is_damaged(length):
    with pytest.raises(zipfile.BadZipFile):
        Members(archive(a=b"1" * 30, b=b"2" * 30)[:length])
