"""Work recorded once and replayed, as a CUDA graph where there is CUDA.

A replay reads and writes the memory that the recording saw. So inputs are copied into fixed buffers, the learning
rate is a tensor, and parameters and optimizer state are only ever set in place: then one recording serves every
trial of its variant.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Work = Callable[[], tuple[Tensor, ...]]
# Runs the work a few times, records it, and gives what replays it and the tensors that every replay writes.
Recorder = Callable[[Work], tuple[Callable[[], None], tuple[Tensor, ...]]]


class RecordingFailed(RuntimeError):
    """The work could not be recorded; the process is better not used any more."""


# Before a recording: libraries choose their kernels, the optimizer makes its state, a compiled step is compiled.
WARM_UPS = 3


def record_on_cuda(work: Work) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
    """Record `work` as a CUDA graph on the current device. It must not wait for the device.

    Raises `RecordingFailed` where it does, or where memory runs out meanwhile; errors of the warm-up as they are.
    """
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UPS):
            work()
    current = torch.cuda.current_stream()
    current.wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            outputs = work()
    except RuntimeError as error:
        # Ending a broken recording fails too, before the context has put the stream back.
        torch.cuda.set_stream(current)
        raise RecordingFailed(f"cannot be recorded as a CUDA graph ({first_words(error)})") from error
    return graph.replay, outputs


def first_words(error: BaseException) -> str:
    """The first line of the exception that all others came of."""
    while (earlier := error.__cause__ or error.__context__) is not None:
        error = earlier
    return (str(error).splitlines() or [type(error).__name__])[0]


def record_by_call(work: Work) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
    """What `record_on_cuda` does, where there is no CUDA: a replay is a call whose results are written in place."""
    for _ in range(WARM_UPS):
        work()
    outputs = work()

    def replay() -> None:
        for place, value in zip(outputs, work(), strict=True):
            place.copy_(value)

    return replay, outputs


def recorder(device: torch.device) -> Recorder:
    """The recorder for a device."""
    return record_on_cuda if device.type == "cuda" else record_by_call


class Recorded:
    """A function of tensors of fixed shapes, recorded at its first call.

    What a call returns is overwritten by the next one.
    """

    def __init__(self, function: Callable[..., tuple[Tensor, ...]], record: Recorder) -> None:
        self._function, self._record = function, record
        self._inputs: list[Tensor] = []
        self._replay: Callable[[], None] | None = None
        self._outputs: tuple[Tensor, ...] = ()

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        if self._replay is None:
            self._inputs = [value.clone() for value in inputs]
            self._replay, self._outputs = self._record(lambda: self._function(*self._inputs))
        for place, value in zip(self._inputs, inputs, strict=True):
            if place.shape != value.shape:
                # copy_ would broadcast, and the replay would compute something else.
                raise ValueError(f"recorded for {tuple(place.shape)}, called with {tuple(value.shape)}")
            place.copy_(value, non_blocking=True)
        self._replay()
        return self._outputs
