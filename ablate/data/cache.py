"""Decoded arrays kept on disk between runs and shared by all processes of a machine.

An entry is a folder of .npy files and a `meta.json` that holds the SHA-256 of each; it appears whole by one rename, is
opened memory-mapped and read-only, and is rebuilt where its bytes are not those that were written. Manifests say which
entry a list of source files (by size and times) had led to, so that unchanged files are not read again. Everything
here may be deleted at any time. The folder is `data` in `$ABLATE_CACHE`, else in `~/.cache/ablate`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

Arrays = dict[str, np.ndarray]

# Larger entries are checked by the sizes of their files alone: reading them through would take longer than opening.
FULLY_CHECKED = 4 << 30


class Allocate:
    """A function that gives arrays to be filled, in `arrays` by name: files of a folder, or in memory without one."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self.arrays: Arrays = {}

    def __call__(self, name: str, shape: tuple[int, ...], dtype: type[np.integer] = np.uint8) -> np.ndarray:
        """Return the array of a name, a shape and a type. Raises `OSError` where the disk has no room for it."""
        if self._folder is None:
            self.arrays[name] = np.empty(shape, dtype)
            return self.arrays[name]
        path = self._folder / f"{name}.npy"
        self.arrays[name] = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        # The file is sparse until now; writing to a hole on a full disk would kill the process (SIGBUS).
        if hasattr(os, "posix_fallocate"):
            with path.open("r+b") as handle:
                os.posix_fallocate(handle.fileno(), 0, path.stat().st_size)
        return self.arrays[name]


Build = Callable[[Allocate], dict[str, Any]]


def home() -> Path:
    """Return the folder of all that is kept on this machine to save time, to be deleted at will.

    It need not exist yet. Raises `OSError` where neither `ABLATE_CACHE` nor a home folder says where it could be.
    """
    named = os.environ.get("ABLATE_CACHE")
    try:
        return Path(named).expanduser() if named else Path.home() / ".cache" / "ablate"
    except RuntimeError:  # a user without an entry in the password file, as in containers
        raise OSError("there is no home folder; set ABLATE_CACHE to a folder that can be written") from None


def root() -> Path:
    """Return the folder of the decoded data; it need not exist yet."""
    return home() / "data"


def load(key: str) -> tuple[Arrays, dict[str, Any]] | None:
    """Return the arrays and the document stored as `key`, or None where there is no entry or it is damaged."""
    try:
        entry = root() / key
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
    """Return the arrays and the document of `key`; where there is no sound entry, have `build` make and store it.

    `build` fills what it allocates and returns a JSON document. Of several processes one builds and the others wait.
    Where the cache cannot be written (read-only, full), the arrays are in memory and a warning says so.
    """
    try:
        root().mkdir(parents=True, exist_ok=True)
        with FileLock(root() / f".{key}.lock"):
            found = load(key)
            if found is None:
                _store(key, build)
                found = load(key)
        if found is not None:
            return found
        reason = "what was written could not be read back"
    except OSError as error:
        reason = str(error)
    warnings.warn(f"decoded data is kept in memory, not on the disk: {reason}", stacklevel=2)
    allocate = Allocate()
    document = build(allocate)
    return allocate.arrays, document


def recall(manifest: str) -> dict[str, Any] | None:
    """Return the document remembered for a manifest (a hex digest), or None."""
    try:
        document = json.loads((root() / "manifests" / f"{manifest}.json").read_bytes())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def remember(manifest: str, document: Mapping[str, Any]) -> None:
    """Remember a document for a manifest; without effect where the cache cannot be written."""
    with contextlib.suppress(OSError):
        path = root() / "manifests" / f"{manifest}.json"
        temporary = path.with_name(f".{manifest}.{os.getpid()}-{secrets.token_hex(4)}.part")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(document, sort_keys=True), encoding="utf-8")
        temporary.replace(path)


def _store(key: str, build: Build) -> None:
    """Build the entry in a temporary folder beside its place and rename it there; its lock is held."""
    entry, temporary = root() / key, root() / f".{key}.{os.getpid()}-{secrets.token_hex(4)}.part"
    damaged = temporary.with_suffix(".damaged.part")
    for leftover in root().glob(f".{key}.*part"):  # of a process that was killed: the lock says that none is at work
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        temporary.mkdir()
        allocate = Allocate(temporary)
        document = build(allocate)
        items = {}
        for name, array in allocate.arrays.items():
            array.flush()  # type: ignore[attr-defined]
            path = temporary / f"{name}.npy"
            items[name] = {"bytes": path.stat().st_size, "sha256": _digest(path)}
        text = json.dumps({"arrays": items, "document": document}, sort_keys=True)
        (temporary / "meta.json").write_text(text, encoding="utf-8")
        if entry.exists():  # damaged, or it would have been loaded
            entry.rename(damaged)
        temporary.rename(entry)
    finally:
        for leftover in (temporary, damaged):
            shutil.rmtree(leftover, ignore_errors=True)


def _digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
