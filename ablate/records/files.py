"""Durable files: what is written is there whole or not at all, whatever is killed, and no write follows a link."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from ablate.errors import ResultsError, is_full_disk

TEMPORARY = ".part"
# The most bytes of a file that is read whole, and of one of weights: a sparse file of terabytes is sent in a kilobyte.
MOST_BYTES, MOST_WEIGHTS = 2**32, 2**36
_FLAGS = {
    "rb": os.O_RDONLY,
    "wb": os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    "ab": os.O_WRONLY | os.O_CREAT | os.O_APPEND,
    "r+b": os.O_RDWR | os.O_CREAT,
}
# ".<name>.<pid>-<random>.part": who wrote it can be seen from its name.
_LEFTOVER = re.compile(rf"\..*\.(\d+)-[0-9a-f]{{8}}{re.escape(TEMPORARY)}")


def refuse_link(path: Path) -> None:
    """Raise `ResultsError` where `path` is a symbolic link: a write through it would land outside of the folder."""
    if path.is_symlink():
        raise ResultsError(
            "a symbolic link, which is never written through", file=str(path), cure="put a real file or folder there"
        )


# W&B's own folder in a results folder: it has links to its newest run.
_NOT_OURS = "wandb"


def refuse_links(folder: Path) -> None:
    """Raise `ResultsError` for the first symbolic link anywhere inside `folder` (which may itself be one)."""
    waiting = [str(folder)] if folder.exists() else []
    while waiting:
        try:
            entries = sorted(os.scandir(waiting.pop()), key=lambda entry: entry.name)
        except FileNotFoundError:  # gone meanwhile
            continue
        for entry in entries:
            if entry.is_symlink():
                refuse_link(Path(entry.path))
            if entry.is_dir(follow_symlinks=False) and entry.name != _NOT_OURS:
                waiting.append(entry.path)


def make_folder(path: Path) -> Path:
    """Make a folder with its parents where it is not there; raises `ResultsError` where it is a link."""
    refuse_link(path)
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def placed(path: Path) -> Iterator[None]:
    """Have an `OSError` of the block say what was written; of a disk that is full the system does not."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextlib.contextmanager
def writing(path: Path | str, cure: str = "choose another with --out") -> Iterator[None]:
    """Turn what keeps the block from writing to a user's file or folder into a `ResultsError` with the cure.

    Not a full disk, of which the command line says how much room is left.
    """
    try:
        with placed(Path(path)):
            yield
    except OSError as error:
        if is_full_disk(error) and error.errno != errno.EROFS:
            raise
        raise ResultsError(f"cannot be written ({error.strerror})", file=str(path), cure=cure) from None


def open_own(path: Path, mode: str) -> IO[bytes]:
    """Open a file in the mode "rb", "wb", "ab" or "r+b" (which makes a missing file, too).

    Raises `ResultsError` for a link and for what is no regular file.
    """
    try:
        return _open(path, _FLAGS[mode] | os.O_NOFOLLOW, mode)
    except OSError as error:
        if error.errno == errno.ELOOP:
            refuse_link(path)
        raise


def read_file(path: Path, most: int = MOST_BYTES) -> bytes:
    """Return the content of a regular file.

    Raises OSError as `open` does, and `ResultsError` for a pipe or a device, and for a file of more than `most` bytes.
    """
    with _open(path, os.O_RDONLY, "rb", most) as handle:
        try:
            return handle.read()
        except MemoryError:
            raise ResultsError("larger than the memory", file=str(path)) from None


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file's content as hex digits; raises as `read_file` does."""
    with _open(path, os.O_RDONLY, "rb", MOST_WEIGHTS) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()  # type: ignore[arg-type] # it is a buffered reader


def _open(path: Path, flags: int, mode: str, most: int | None = None) -> IO[bytes]:
    # Not blocking, so that a pipe in the place of a file is refused and not waited for.
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    found = os.fstat(descriptor)
    regular = stat.S_ISREG(found.st_mode)
    if regular and (most is None or found.st_size <= most):
        return os.fdopen(descriptor, mode)
    os.close(descriptor)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    large = f"expected at most {most:,} bytes, got {found.st_size:,}"
    raise ResultsError(large if regular else "not a regular file", file=str(path))


def append(path: Path, data: bytes) -> None:
    """Append `data` to a stream such as a curve; it is durable after `sync`."""
    with open_own(path, "ab") as handle:
        handle.write(data)


def cut(path: Path, size: int) -> None:
    """Cut a stream back to its first `size` bytes; an empty one is made where there is none."""
    with open_own(path, "r+b") as handle:
        handle.truncate(size)


def sync(path: Path) -> None:
    """Make the content of a file durable; nothing where there is no file."""
    with contextlib.suppress(FileNotFoundError), open_own(path, "rb") as handle:
        os.fsync(handle.fileno())


def write_atomic(path: Path, data: bytes, *, lasting: bool = True) -> None:
    """Write `data` to `path`: after a crash at any moment the old content or the new is there, never a mixture."""
    with durable(path, lasting=lasting) as handle:
        handle.write(data)


@contextlib.contextmanager
def durable(path: Path, *, lasting: bool = True) -> Iterator[IO[bytes]]:
    """Open a new file that takes the place of `path` when the block has ended well: whole, and on the disk.

    Same-folder temporary file, fsync, replace, fsync of the folder: the file system then keeps the order. What can be
    made again at any time need not be `lasting`: nobody waits for the disk, and only a crash of the whole machine may
    leave it empty.
    """
    refuse_link(path)
    with _temporary(path) as temporary:
        with temporary.open("xb") as handle:
            yield handle
            if lasting:
                handle.flush()
                os.fsync(handle.fileno())
        temporary.replace(path)
    if lasting:
        sync_folder(path.parent)


def publish_once(path: Path, data: bytes) -> bool:
    """Write as `write_atomic`, but leave an existing file as it is; True where this call published it."""
    refuse_link(path)
    with _temporary(path) as temporary:
        with temporary.open("xb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:  # a file system without hard links
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP):
                raise
            if path.exists():
                return False
            temporary.replace(path)
    sync_folder(path.parent)
    return True


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Give the path of a temporary file beside `path`, which is gone at the end whatever happens."""
    # Of a long name the end is left out: the whole has to be a name, too.
    temporary = path.with_name(f".{path.name[:200]}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY}")
    try:
        with placed(path):
            yield temporary
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> None:
    """Remove the temporary files that killed writers left in `folder`.

    To be called under the folder's lock. A file of another process that lives is in flight and stays.
    """
    for path in folder.glob(f".*{TEMPORARY}"):
        found = _LEFTOVER.fullmatch(path.name)
        if found and not path.is_dir() and (int(found[1]) == os.getpid() or not _lives(int(found[1]))):
            path.unlink(missing_ok=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder, less those that go away meanwhile; links as such."""
    total = 0
    for file in [path, *path.rglob("*")]:
        with contextlib.suppress(FileNotFoundError):
            state = file.lstat()
            total += 0 if stat.S_ISDIR(state.st_mode) else state.st_size
    return total


def sha256(data: bytes) -> str:
    """Return the SHA-256 of `data` as hex digits."""
    return hashlib.sha256(data).hexdigest()


@contextlib.contextmanager
def lock(path: Path, note: str = "", *, timeout: float = 0) -> Iterator[bool]:
    """Hold the lock file at `path`; yields False where another process still holds it after `timeout` seconds.

    The kernel frees it when its holder dies, and no clock is asked. `note` (such as pid and host) is written into the
    file for whoever is refused. Raises `ResultsError` where `path` is a link.
    """
    refuse_link(path)
    held = FileLock(path, timeout=timeout)
    try:
        held.acquire()
    except Timeout:
        yield False
        return
    try:
        if note:
            with open_own(path, "r+b") as handle:
                handle.truncate(0)
                handle.write(note.encode())
        yield True
    finally:
        held.release()
