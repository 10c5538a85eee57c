"""One way to work on many items by several processes."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from typing import TypeVar

from ablate.errors import UNPACKED

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_WORKERS = 8


def parallel_map(
    function: Callable[[Item], Result], items: Sequence[Item], *, workers: int | None = None
) -> list[Result]:
    """Return `function` of every item, in order, worked out by several processes.

    `function`, the items and the results travel between processes: each must be what `pickle` can pack. `workers` is
    at most how many processes work; None: the cores that this one may use, eight at most. With one, with fewer than
    two items, and inside such a process itself everything is done here. What `function` raises is raised here.
    """
    count = min(workers or usable_cores(), len(items))
    if count < 2 or parent_process() is not None:
        return [function(item) for item in items]
    # A fork starts at once, but may inherit a lock that nobody opens where other threads run.
    forks = sys.platform == "linux" and threading.active_count() == 1
    context = get_context("fork" if forks else "spawn")
    # A few portions a process, so that all of them end at about the same time.
    portion = -(-len(items) // (4 * count))
    try:
        pool = ProcessPoolExecutor(count, mp_context=context, initializer=_begin, initargs=(UNPACKED,))
    except (OSError, ImportError, NotImplementedError):
        return [function(item) for item in items]  # no shared memory, and so no locks between processes
    with pool:
        try:
            return list(pool.map(function, items, chunksize=portion))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def usable_cores() -> int:
    """Return how many processes are worth starting: the cores that this process may use, at most `MOST_WORKERS`."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(MOST_WORKERS, cores)


def _begin(unpacked: dict[str, str]) -> None:
    """Leave Ctrl-C to the process that was started by hand, and name files of archives in messages as it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    UNPACKED.update(unpacked)
