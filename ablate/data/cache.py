"""Decoded arrays kept on disk between runs and shared by all processes of a machine.

An entry is a folder of .npy files and a `meta.json` that holds the SHA-256 of each; it appears whole by one rename, is
opened memory-mapped and read-only, and is rebuilt where its bytes are not those that were written. Manifests say which
entry a list of source files (by size and times) had led to, so that unchanged files are not read again. Everything
here may be deleted at any time. The folder is `data` in `$ABLATE_CACHE`, else in `~/.cache/ablate`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
Allocate = Callable[[str, tuple[int, ...]], np.ndarray]
Build = Callable[[Allocate], dict[str, Any]]

# Larger entries are checked by the sizes of their files alone: reading them through would take longer than opening.
FULLY_CHECKED = 4 << 30


def home() -> Path:
    """The folder of all that is kept on this machine to save time, to be deleted at will; it need not exist yet."""
    named = os.environ.get("ABLATE_CACHE")
    try:
        return Path(named).expanduser() if named else Path.home() / ".cache" / "ablate"
    except RuntimeError:
        # A user id without an entry in passwd and without HOME, as containers run with: as a cache that cannot be
        # written.
        return Path(os.devnull) / "ablate"


def root() -> Path:
    """The folder of the decoded data; it need not exist yet."""
    return home() / "data"


def load(key: str) -> tuple[Arrays, dict[str, Any]] | None:
    """The arrays and the document stored as `key`, or None where there is no entry or it is damaged."""
    entry = root() / key
    try:
        meta = json.loads((entry / "meta.json").read_bytes())
        checked = sum(item["bytes"] for item in meta["arrays"].values()) <= FULLY_CHECKED
        arrays: Arrays = {}
        for name, item in meta["arrays"].items():
            path = entry / f"{name}.npy"
            if path.stat().st_size != item["bytes"] or (checked and _digest(path) != item["sha256"]):
                return None
            arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
        return arrays, meta["document"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def fill(key: str, build: Build) -> tuple[Arrays, dict[str, Any]]:
    """The arrays and the document of `key`; where there is no sound entry, made by `build` and stored.

    `build` is given a function that allocates a named uint8 array of a shape, fills what it allocates and returns a
    JSON document. Of several processes one builds and the others wait. Where the cache cannot be written (read-only,
    full), the arrays are in memory and a warning says so.
    """
    try:
        root().mkdir(parents=True, exist_ok=True)
        with _alone(key):
            found = load(key)
            if found is None:
                _store(key, build)
                found = load(key)
        if found is not None:
            return found
        reason = "what was written could not be read back"
    except _CacheTrouble as trouble:
        reason = str(trouble)
    except OSError as error:
        reason = str(error)
    warnings.warn(f"decoded data is kept in memory, not in {root()}: {reason}", stacklevel=2)
    arrays: Arrays = {}

    def allocate(name: str, shape: tuple[int, ...]) -> np.ndarray:
        arrays[name] = np.empty(shape, np.uint8)
        return arrays[name]

    document = build(allocate)
    return arrays, document


def recall(manifest: str) -> dict[str, Any] | None:
    """The document remembered for a manifest (a hex digest), or None."""
    try:
        document = json.loads((root() / "manifests" / f"{manifest}.json").read_bytes())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def remember(manifest: str, document: Mapping[str, Any]) -> None:
    """Remember a document for a manifest; without effect where the cache cannot be written."""
    path = root() / "manifests" / f"{manifest}.json"
    temporary = path.with_name(f".{manifest}.{os.getpid()}-{secrets.token_hex(4)}.part")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(document, sort_keys=True), encoding="utf-8")
        temporary.replace(path)


class _CacheTrouble(Exception):
    """The disk of the cache failed, as opposed to what `build` reads."""


def _store(key: str, build: Build) -> None:
    """Build the entry in a temporary folder beside its place and rename it there."""
    folder = root()
    for leftover in folder.glob(f".{key}.*.part"):  # of a process that was killed: the lock says that none is at work
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = folder / f".{key}.{os.getpid()}-{secrets.token_hex(4)}.part"
    maps: dict[str, np.memmap] = {}

    def allocate(name: str, shape: tuple[int, ...]) -> np.ndarray:
        path = temporary / f"{name}.npy"
        try:
            array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
            # The file is sparse until now; writing to a hole on a full disk would kill the process (SIGBUS).
            if hasattr(os, "posix_fallocate"):
                with path.open("r+b") as handle:
                    os.posix_fallocate(handle.fileno(), 0, path.stat().st_size)
        except OSError as error:
            raise _CacheTrouble(str(error)) from None
        maps[name] = array
        return array

    try:
        temporary.mkdir()
        document = build(allocate)
        items = {}
        for name, array in maps.items():
            array.flush()
            path = temporary / f"{name}.npy"
            items[name] = {"bytes": path.stat().st_size, "sha256": _digest(path)}
        text = json.dumps({"arrays": items, "document": document}, sort_keys=True)
        (temporary / "meta.json").write_text(text, encoding="utf-8")
        entry = folder / key
        if entry.exists():  # damaged, or it would have been loaded
            entry.rename(folder / f".{key}.{secrets.token_hex(4)}.damaged.part")
        temporary.rename(entry)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for leftover in folder.glob(f".{key}.*.damaged.part"):
            shutil.rmtree(leftover, ignore_errors=True)


@contextlib.contextmanager
def _alone(key: str) -> Iterator[None]:
    """Hold the lock of an entry, waiting for it; the kernel frees it when its holder dies."""
    descriptor = os.open(root() / f".{key}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
