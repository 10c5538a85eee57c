"""Errors that carry the file, the line, the key and the cure, and print as one clear line each."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ablate.wording import size_text


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, where it is wrong, and what would mend it.

    It prints as ``file:line: key: message; cure``; parts that are unknown are left out.
    """

    message: str
    key: str = ""
    file: str = ""
    line: int | None = None
    cure: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.file and self.line else self.file
        head = [part for part in (place, self.key) if part]
        text = ": ".join([*head, self.message])
        text = f"{text}; {self.cure}" if self.cure else text
        # One problem is one line whatever a user's own text contains.
        return visible(redacted(" ".join(in_place(text).splitlines())))


class AblateError(Exception):
    """Base of every error that is the user's to mend: printed without a traceback, exit code 2."""

    exit_code = 2

    def __init__(self, problems: Problem | str | Iterable[Problem], **place: object) -> None:
        if isinstance(problems, str):
            problems = Problem(problems, **place)  # type: ignore[arg-type]
        if isinstance(problems, Problem):
            problems = [problems]
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class StudyError(AblateError):
    """The study file, or an override of it, does not say a study."""


class DataError(AblateError):
    """The images, masks or splits that a study names cannot be used as they are."""


class PluginError(AblateError):
    """A plugin cannot be imported, or what it registers does not keep its contract."""


class ResultsError(AblateError):
    """A results folder cannot be read or written as it is."""


class DeviceError(AblateError):
    """A device that the study asks for is not there."""


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return the cure "did you mean X" for a mistyped word, or the list of choices where none is near."""
    import difflib

    known = sorted({str(choice) for choice in choices})
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"choose from {', '.join(known)}" if known else ""


def install_cure(extra: str) -> str:
    """Return the command that installs the packages of one of this package's extras: pip install 'ray>=2.40'."""
    import shlex
    from importlib import metadata

    try:
        needs = metadata.requires("ablate-bench") or []
    except metadata.PackageNotFoundError:  # run from a checkout that is not installed
        needs = []
    asked = [need.partition(";")[0].strip() for need in needs if f'extra == "{extra}"' in need.replace("'", '"')]
    return shlex.join(["pip", "install", *(asked or [f".[{extra}]"])])


# Folders that an archive was unpacked to out of sight, each with the archive; `parallel_map` hands it on.
UNPACKED: dict[str, str] = {}


def note_unpacked(folder: object, archive: object) -> None:
    """Have messages name the `archive`, which the user knows, in place of the `folder` that it was unpacked to."""
    UNPACKED[f"{folder}/"] = f"{archive}: "


def in_place(text: str) -> str:
    """Return `text` with the files of unpacked archives named within these: "trials.tar.xz: trials/a/record.json"."""
    for folder, archive in UNPACKED.items():
        text = text.replace(folder, archive)
    return text


def visible(text: str) -> str:
    """Return `text` with its control characters and lone surrogates escaped: no text of a stranger moves a cursor."""
    return "".join(
        sign if sign.isprintable() or sign in "\n\t" else sign.encode("unicode_escape").decode() for sign in text
    )


# user:password@ in a URL; password=, ?token= and their kin in one, or on a command line.
_IN_URL = re.compile(r"(?<=://)([^\s/@:]*):[^\s/]*@")
_AS_SETTING = re.compile(
    r"(?i)(?<![a-z])((?:api[_-]?key|private[_-]?key|token|secret|password|passwd|pwd|credentials?)=)[^\s&;,}\"'…]+"
)


def redacted(text: str) -> str:
    """Return `text` with `…` in the place of passwords: those of URLs, and values of keys named like a secret."""
    return _AS_SETTING.sub(r"\1…", _IN_URL.sub(r"\1:…@", text))


# What an error says that has no place to write to, and what mends it.
FULL_DISK = {
    errno.ENOSPC: ("the disk is full", "make room there"),
    errno.EDQUOT: ("your quota of this disk is used up", "make room there, or ask for a larger one"),
    errno.EFBIG: ("a file may not become larger", "raise the limit (ulimit -f)"),
    errno.EROFS: ("the disk is read-only", "have it made writable"),
}


def is_full_disk(error: BaseException) -> bool:
    """Return whether `error` says that a file could not be written for want of space, quota or leave."""
    return isinstance(error, OSError) and error.errno in FULL_DISK


def full_disk(error: BaseException, folder: object) -> Problem:
    """Return what is to be said of an error for which `is_full_disk` holds: where, how much is free, and the cure.

    The place is that of the file which the error names, or else the `folder` that was written to.
    """
    assert isinstance(error, OSError) and error.errno is not None
    message, cure = FULL_DISK[error.errno]
    place = str(folder) if error.filename is None else str(Path(os.fsdecode(error.filename)).parent)
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(place).free
        message += f" ({size_text(free) if free >= 1e6 else 'less than 1 MB'} free)"
    return Problem(message, file=place, cure=cure)
