"""What the driver asks of whatever runs trials: one small interface, so that a cluster is one more file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ablate.study.trial import Trial

# Events are dicts with "event" and mostly "trial":
#   running   the trial has begun on a worker
#   epoch     an epoch's row of the curves
#   ended     with "record": the trial is published
#   failed    with "reason"; "pause": True where no other trial can fare better (a full disk)
#   interrupted  it left a checkpoint because it was asked to stop
#   profiled  with "profile"
Event = dict[str, Any]


class Executor(Protocol):
    """Runs trials somewhere and hands back events."""

    def free(self) -> int:
        """How many more trials could start now."""
        ...

    def start(self, pending: Sequence[Trial]) -> Trial:
        """Start one of `pending`, the one that suits a free lane best, and return it."""
        ...

    def events(self, timeout: float) -> list[Event]:
        """What happened since the last call; waits at most `timeout` seconds for the first event."""
        ...

    def stop(self, reason: str) -> None:
        """Ask every running trial to checkpoint and end."""
        ...

    def close(self) -> None:
        """End all workers at once; nothing of theirs is left running."""
        ...
