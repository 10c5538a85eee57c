"""What is wrong with a folder of images, gathered so that one line tells a kind of fault, its count and three names."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ablate.errors import DataError, Problem

SHOWN = 3


@dataclass
class Findings:
    """Faults by kind, in the order in which they were found."""

    _kinds: dict[tuple[str, str, str, str], list[str]] = field(default_factory=dict)
    _plain: list[Problem] = field(default_factory=list)

    def add(self, name: str, fault: str, *, noun: str = "image", key: str = "data", cure: str = "") -> None:
        """One thing (an image, a mask) called `name` that has `fault`, a phrase such as "without a mask"."""
        self._kinds.setdefault((noun, fault, key, cure), []).append(name)

    def say(self, message: str, *, key: str = "data", cure: str = "") -> None:
        """A fault that is not about single files."""
        self._plain.append(Problem(message, key=key, cure=cure))

    def __bool__(self) -> bool:
        return bool(self._kinds or self._plain)

    def problems(self) -> list[Problem]:
        """One problem for each kind: "12 images without a mask: a, b, c and 9 more"."""
        found = list(self._plain)
        for (noun, fault, key, cure), names in self._kinds.items():
            many = noun if len(names) == 1 else f"{noun}s"
            found.append(Problem(f"{len(names):,} {many} {fault}: {first_names(names)}", key=key, cure=cure))
        return found

    def stop(self) -> None:
        """Raise `DataError` with all that was found, where anything was."""
        if self:
            raise DataError(self.problems())


def first_names(names: list[str]) -> str:
    """The first three, and how many more there are."""
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest:,} more" if rest > 0 else "")


def existing_root(root: str, base: Path, *, cure: str = "") -> Path:
    """The folder `root`, relative to `base`; `DataError` with the nearest folder that exists where it does not."""
    path = (base / Path(root).expanduser()).absolute()
    if path.is_dir():
        return path
    if path.exists():
        raise DataError(f"expected a folder, got the file {path}", key="data.root", cure=cure)
    near = next(parent for parent in path.parents if parent.is_dir())
    raise DataError(f"there is no folder {path} (the nearest that exists is {near})", key="data.root", cure=cure)
