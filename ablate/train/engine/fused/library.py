"""The fused kernels as a shared library: compiled once a machine by its C compiler and kept in the cache."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import secrets
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ablate.data.cache import home
from ablate.train.device import cpuinfo

MAIN = Path(__file__).with_name("kernels.c")
SOURCES = tuple(sorted(Path(__file__).parent.glob("*.[ch]")))
# No contraction and no reordering: results follow from the source alone, not from the compiler.
FLAGS = ("-std=c11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared")
# The instructions of this processor, in the words that gcc and clang take on it; the first that compiles.
TARGETS = ("-march=native", "-mcpu=native", None)
SUFFIXES = {torch.bfloat16: "bf16", torch.float32: "f32"}

_P, _I, _D = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
_SIGNATURES: dict[str, list[Any]] = {
    "norm": [_P, _P, _P, _I, _I, _P, _P, _P, _P, _D, _D, ctypes.c_int, ctypes.c_int, _P],
    "norm_backward": [_P, _P, _P, _I, _I, _P, _P, _P, ctypes.c_int, ctypes.c_int],
    "rectifier_backward": [_P, _P, _P, _I],
    "pool": [_P, _P, _P, _I, _I, _I, _I],
    "pool_backward": [_P, _P, _P, _P, _I, _I, _I, _I],
    "join": [_P, _P, _P, _P, _I, _I, _I, _I, _I],
    "join_backward": [_P, _P, _P, _P, _I, _I, _I, _I, _I],
    "cross_entropy": [_P, _P, _P, _I, _I, _I, _P, _P],
}


# Bytes of the digest at the end of a library that is kept.
SEAL = 32


class NoKernels(Exception):
    """The kernels cannot be had on this machine; the message says why in a few words."""


def call(name: str, dtype: torch.dtype, *arguments: Tensor | int | float | None) -> None:
    """Call the kernel `name` for feature maps of `dtype`; a tensor stands for the address of its memory.

    Raises `NoKernels`, `MemoryError`, or `ValueError` where a target is neither a class nor ignored.
    """
    values = [argument.data_ptr() if isinstance(argument, Tensor) else argument for argument in arguments]
    code = getattr(library(), f"{name}_{SUFFIXES[dtype]}")(*values)
    if code == 1:
        raise MemoryError(f"no memory for the kernel {name}")
    if code:
        raise ValueError("a target is neither a class nor ignored")


@functools.cache
def library() -> ctypes.CDLL:
    """Return the library of this machine, compiled where the cache has none. Raises `NoKernels`."""
    compiler = _compiler()
    name = f"{_digest(compiler)}.so"
    try:
        path = _folder(name) / name
        if not _is_trusted(path):
            _compile(compiler, path)
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        raise NoKernels(f"the compiled kernels cannot be kept or loaded ({error})") from error
    for name, arguments in _SIGNATURES.items():
        for suffix in SUFFIXES.values():
            kernel = getattr(loaded, f"{name}_{suffix}")
            kernel.argtypes, kernel.restype = arguments, ctypes.c_int
    return loaded


def _folder(name: str) -> Path:
    """Return the cache's folder of libraries; a private one of this process where that cannot be used.

    A cache is for speed only: the engine that was decided does not depend on it.
    """
    with contextlib.suppress(OSError):
        folder = home() / "kernels"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _is_ours(folder) and (os.access(folder, os.W_OK) or (folder / name).exists()):
            return folder
    private = Path(tempfile.mkdtemp(prefix="ablate-kernels-"))
    atexit.register(shutil.rmtree, private, ignore_errors=True)
    return private


def _is_ours(path: Path) -> bool:
    """Return whether `path` belongs to this user and nobody else may write to it: it is code that will be run."""
    about = path.stat(follow_symlinks=False)
    return about.st_uid == os.getuid() and not about.st_mode & 0o022


def _is_trusted(path: Path) -> bool:
    """Return whether the library at `path` is ours and whole: a truncated one would end the process without a word."""
    try:
        data = path.read_bytes() if _is_ours(path) else b""
    except OSError:
        return False
    return len(data) > SEAL and hashlib.sha256(data[:-SEAL]).digest() == data[-SEAL:]


def _compiler() -> list[str]:
    """Return the command of the C compiler: `$CC`, which may have options, or the first that is found."""
    named = shlex.split(os.environ.get("CC", ""))
    for command in [named] if named else [["cc"], ["gcc"], ["clang"]]:
        found = shutil.which(command[0])
        if found:
            return [found, *command[1:]]
    raise NoKernels(f"no C compiler on this machine{f' by the name {named[0]}' if named else ''}")


def _digest(compiler: list[str]) -> str:
    """Return what decides the machine code: sources, flags, the compiler's version, the processor's instructions."""
    version = subprocess.run([*compiler, "--version"], capture_output=True, check=False).stdout
    parts = [*(source.read_bytes() for source in SOURCES), repr((FLAGS, TARGETS, compiler[1:])).encode(), version]
    instructions = cpuinfo("flags") or cpuinfo("Features") or platform.processor()
    parts += [platform.machine().encode(), instructions.encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]


def _compile(compiler: list[str], path: Path) -> None:
    # Of several processes each compiles for itself, and the last rename wins: they are all the same.
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        for target in TARGETS:
            options = [*FLAGS, *([target] if target else [])]
            done = subprocess.run(
                [*compiler, *options, "-o", str(draft), str(MAIN), "-lm"], capture_output=True, text=True, check=False
            )
            if done.returncode == 0:
                # Sealed by the digest of its content, behind which a loader does not look.
                code = draft.read_bytes()
                with draft.open("ab") as handle:
                    handle.write(hashlib.sha256(code).digest())
                    handle.flush()
                    os.fsync(handle.fileno())
                draft.chmod(0o700)
                draft.replace(path)
                return
        words = " ".join(done.stderr.split())
        raise NoKernels(f"{Path(compiler[0]).name} does not compile the kernels: {words[:200]}")
    finally:
        draft.unlink(missing_ok=True)
