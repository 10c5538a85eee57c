"""The members of a zip that is in memory: what `zipfile` reads, in a fraction of its time for the many small ones."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from functools import cached_property

# The end of the central directory, an entry of it, and the two lengths in the head of a member (APPNOTE 4.3).
_END = struct.Struct("<4s4H2LH")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LENGTHS = struct.Struct("<2H")
_LENGTHS_AT, _HEAD = 26, 30
_UTF8 = 0x800


class Members(Mapping[str, bytes]):
    """The content of every member of a zip by its name, read when asked for.

    An archive as Python and numpy write it (one part, no comment, no password, stored or deflated) is read here; any
    other, and a member that is damaged, is left to `zipfile`. Raises `zipfile.BadZipFile` for what is damaged, the
    whole when it is made and a member when it is asked for.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._entries = _entries(data)
        self._names = tuple(self._entries if self._entries is not None else self._archive.namelist())

    def __getitem__(self, name: str) -> bytes:
        content = None
        if self._entries is not None:
            content = _content(self._data, self._entries[name])
        return self._archive.read(name) if content is None else content

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    @cached_property
    def _archive(self) -> zipfile.ZipFile:
        return zipfile.ZipFile(io.BytesIO(self._data))


def _entries(data: bytes) -> dict[str, tuple[int, ...]] | None:
    """Method, checksum, both sizes and place of every member by its name; None for an unusual archive."""
    end = len(data) - _END.size
    if end < 0:
        return None
    mark, disk, first_disk, here, count, size, at, comment = _END.unpack_from(data, end)
    if mark != b"PK\5\6" or disk or first_disk or here != count or comment or at + size != end:
        return None
    found: dict[str, tuple[int, ...]] = {}
    for _ in range(count):
        if at + _ENTRY.size > end:
            return None
        mark, _, _, flags, method, _, _, checksum, packed, unpacked, name, extra, comment, *_, start = (
            _ENTRY.unpack_from(data, at)
        )
        # Of the flags only "the name is UTF-8" is usual; extra fields may hold the sizes of an archive beyond 4 GB.
        if mark != b"PK\1\2" or flags & ~_UTF8 or method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or extra:
            return None
        text = data[at + _ENTRY.size : at + _ENTRY.size + name]
        found[text.decode("utf-8" if flags & _UTF8 else "cp437")] = (method, checksum, packed, unpacked, start)
        at += _ENTRY.size + name + comment
    return found if at == end else None


def _content(data: bytes, entry: tuple[int, ...]) -> bytes | None:
    """A member, None where it is not what its entry says."""
    method, checksum, packed, unpacked, start = entry
    if data[start : start + 4] != b"PK\3\4" or start + _HEAD > len(data):
        return None
    start += _HEAD + sum(_LENGTHS.unpack_from(data, start + _LENGTHS_AT))
    content = data[start : start + packed]
    if method == zipfile.ZIP_DEFLATED:
        try:
            content = zlib.decompress(content, -zlib.MAX_WBITS)
        except zlib.error:
            return None
    return content if len(content) == unpacked and zlib.crc32(content) == checksum else None
