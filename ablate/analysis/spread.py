"""Work on many items by several forked processes, which share what the parent has in memory."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_PROCESSES = 8
# From so many trials on, several processes read and resample them sooner than one.
MANY_TRIALS = 500


def usable_cores() -> int:
    """How many processes are worth starting: the cores this process may use, or 1 where other threads run.

    A fork beside threads may inherit a lock that nobody opens.
    """
    if sys.platform != "linux" or threading.active_count() > 1:
        return 1
    return min(MOST_PROCESSES, len(os.sched_getaffinity(0)))


def leave_interrupts() -> None:
    """Ctrl-C is for the process that was started by hand: the others end with it, without a word of their own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def spread(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    least: int = 2,
    meanwhile: Callable[[], object] = lambda: None,
) -> list[Result]:
    """`work` of every item, in order; items and results travel between the processes, what `work` refers to does not.

    Fewer than `least` items are done here: starting processes takes a tenth of a second. `meanwhile` is called once,
    while others work. An error of `work` is raised here.
    """
    global _work
    processes = min(usable_cores(), len(items))
    if processes < 2 or len(items) < least:
        meanwhile()
        return [work(item) for item in items]
    _work = work
    # A few portions a process, so that all of them end at about the same time.
    portion = -(-len(items) // (4 * processes))
    with ProcessPoolExecutor(processes, mp_context=get_context("fork"), initializer=leave_interrupts) as pool:
        try:
            found = pool.map(_call, items, chunksize=portion)
            meanwhile()
            return list(found)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


# What the forked processes do: set before they start.
_work: Callable[[Any], Any]


def _call(item: Any) -> Any:
    return _work(item)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Without the collector of cycles: it goes through all that is read again and again, a tenth of a large report."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
