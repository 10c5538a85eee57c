"""From a device to host memory without waiting: numbers that are asked for now and read when they have arrived."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor


class Readback:
    """Tensors on their way to the host, in the order of the work that was queued before.

    On a CPU they are there at once.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._event: torch.cuda.Event | None = None
        self._host = [tensor.detach() for tensor in tensors]
        if any(tensor.is_cuda for tensor in tensors):
            self._host = [
                torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor.detach(), non_blocking=True)
                for tensor in tensors
            ]
            # Waiting for it gives the core to others: another lane may need it.
            self._event = torch.cuda.Event(blocking=True)
            self._event.record()

    def ready(self) -> bool:
        """Whether `wait` would return at once."""
        return self._event is None or self._event.query()

    def wait(self) -> list[Tensor]:
        """The tensors on the CPU."""
        if self._event is not None:
            self._event.synchronize()
        return self._host


class Clock:
    """Marks in the work of a device, and the seconds between two of them; on a CPU by the clock of the host."""

    def __init__(self, device: torch.device) -> None:
        self._on_device = device.type == "cuda"
        self._events: list[torch.cuda.Event] = []
        self._times: list[float] = []

    def mark(self) -> None:
        """Set a mark behind all work queued so far."""
        if self._on_device:
            event = torch.cuda.Event(enable_timing=True, blocking=True)
            event.record()
            self._events.append(event)
        else:
            self._times.append(time.monotonic())

    def seconds(self, first: int, last: int) -> float:
        """Seconds from one mark to another, by their numbers; waits until the device has passed the later one."""
        if self._on_device:
            self._events[last].synchronize()
            return self._events[first].elapsed_time(self._events[last]) / 1000
        return self._times[last] - self._times[first]
