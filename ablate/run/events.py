"""The typed events of a run: from the workers to the driver, and from the driver to its listeners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

from ablate.errors import Problem, full_disk, is_full_disk
from ablate.records.record import Record
from ablate.study.trial import Trial

# -- from a worker to the driver; trials go by their names --------------------------------------------------


@dataclass(frozen=True)
class Running:
    """The trial has begun in the process `pid`, a child of `parent` (the fork server)."""

    trial: str
    pid: int
    parent: int


@dataclass(frozen=True)
class Progress:
    """The trial took steps since its last event."""

    trial: str


@dataclass(frozen=True)
class Epoch:
    """A row of the curves: losses in nats, mIoU a fraction; None where it is not finite. Listeners get it, too."""

    trial: str
    epoch: int
    lr: float
    train_loss: float | None
    val_loss: float | None
    val_mean_iou: float | None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Epoch:
        """Return the event that a row of the training's own describes; what else the row holds is left out."""
        return cls(**{field.name: row[field.name] for field in fields(cls)})


@dataclass(frozen=True)
class Finished:
    """The trial's record is published."""

    trial: str
    record: Record


@dataclass(frozen=True)
class Stopped:
    """The trial left a checkpoint and ended because it was asked to."""

    trial: str
    reason: str


@dataclass(frozen=True)
class Failed:
    """The machine failed the trial (or, without one, the worker).

    `fresh_process`: the process cannot go on; `pause`: no other trial can fare better, as on a full disk; `problems`:
    what the user has to mend first, as where the data are not those that the run began with.
    """

    trial: str | None
    reason: str
    traceback: str = ""
    fresh_process: bool = False
    pause: bool = False
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class Said:
    """A line for the terminal."""

    text: str


@dataclass(frozen=True)
class Profiled:
    """The variants were measured; the document of `profile.json`."""

    profile: dict[str, Any]


WorkerEvent = Running | Progress | Epoch | Finished | Stopped | Failed | Said | Profiled

# -- from the driver to its listeners -----------------------------------------------------------------------


@dataclass(frozen=True)
class Planned:
    """The run's trials, the records (by key) that stand and what is left to run; again when phases add trials."""

    plan: Sequence[Trial]
    records: Mapping[str, Record]
    pending: Sequence[Trial]


@dataclass(frozen=True)
class Begun:
    """The trial was given to a worker."""

    trial: Trial


@dataclass(frozen=True)
class Ended:
    """The trial has its record."""

    trial: Trial
    record: Record


@dataclass(frozen=True)
class Dropped:
    """The trial was interrupted, or is tried again: it has no record yet."""

    trial: Trial


Event = Planned | Begun | Epoch | Ended | Dropped


class Listener(Protocol):
    """Something that follows a run: the Optuna mirror, the terminal, W&B.

    What it raises never ends the run: the driver notes the error and goes on without it.
    """

    title: str

    def on(self, event: Event) -> None:
        """Take in an event."""
        ...

    def close(self) -> list[str]:
        """End, and return what is worth a line on the terminal."""
        ...


def one_line(error: BaseException, folder: object = ".") -> str:
    """Return an exception in one line of at most 500 characters: "ValueError: no such thing".

    Of a full disk is said where it is and how much is free; `folder` is where was written if the error does not say it.
    """
    if is_full_disk(error):
        return str(full_disk(error, folder))
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500] if text else type(error).__name__
