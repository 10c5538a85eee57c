"""The fused kernels as a shared library: compiled once a machine by its C compiler and kept in the cache."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ablate.data.cache import home

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
    path = home() / "kernels" / f"{_digest(compiler)}.so"
    try:
        loaded = _load(path) if path.exists() else None
        if loaded is None:
            _compile(compiler, path)
            loaded = ctypes.CDLL(str(path))
    except OSError as error:
        raise NoKernels(f"the compiled kernels cannot be kept or loaded ({error})") from error
    for name, arguments in _SIGNATURES.items():
        for suffix in SUFFIXES.values():
            kernel = getattr(loaded, f"{name}_{suffix}")
            kernel.argtypes, kernel.restype = arguments, ctypes.c_int
    return loaded


def _load(path: Path) -> ctypes.CDLL | None:
    """Return what is kept at `path`, or None where it is damaged."""
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        return None


def _compiler() -> str:
    named = os.environ.get("CC")
    for name in [named] if named else ["cc", "gcc", "clang"]:
        found = shutil.which(name)
        if found:
            return found
    raise NoKernels(f"no C compiler on this machine{f' by the name {named}' if named else ''}")


def _digest(compiler: str) -> str:
    """Return what decides the machine code: sources, flags, the compiler's version, the processor's instructions."""
    version = subprocess.run([compiler, "--version"], capture_output=True, check=False).stdout
    parts = [*(source.read_bytes() for source in SOURCES), repr((FLAGS, TARGETS)).encode(), version]
    parts += [platform.machine().encode(), _instructions()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]


def _instructions() -> bytes:
    try:
        with Path("/proc/cpuinfo").open("rb") as handle:
            return next((line for line in handle if line.startswith((b"flags", b"Features"))), b"")
    except OSError:
        return platform.processor().encode()


def _compile(compiler: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Of several processes each compiles for itself, and the last rename wins: they are all the same.
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        for target in TARGETS:
            options = [*FLAGS, *([target] if target else [])]
            done = subprocess.run(
                [compiler, *options, "-o", str(draft), str(MAIN), "-lm"],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode == 0:
                draft.replace(path)
                return
        words = " ".join(done.stderr.split())
        raise NoKernels(f"{Path(compiler).name} does not compile the kernels: {words[:200]}")
    finally:
        draft.unlink(missing_ok=True)
