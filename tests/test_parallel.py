"""Work in several processes gives what one process gives, in order, and its errors."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from ablate import parallel
from ablate.errors import UNPACKED, in_place
from ablate.parallel import parallel_map
from tests.conftest import missing


def square(item: int) -> tuple[int, int]:
    return item**2, os.getpid()


def inverse(item: int) -> int:
    return 1 // item


def nested(item: int) -> list[tuple[int, int]]:
    return parallel_map(square, [item, item + 1], workers=2)


@pytest.fixture
def another_thread() -> Iterator[None]:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    yield
    done.set()
    thread.join()


def check_squares() -> None:
    found = parallel_map(square, range(50), workers=3)
    assert [value for value, _ in found] == [item**2 for item in range(50)]
    assert os.getpid() not in {process for _, process in found}


def test_results_come_in_order_and_from_other_processes() -> None:
    check_squares()


@pytest.mark.usefixtures("another_thread")
def test_beside_other_threads_nothing_is_forked_and_the_results_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    # Such a process knows of unpacked archives what it is told.
    monkeypatch.setitem(UNPACKED, "/tmp/x/", "trials.tar.xz: ")
    found = parallel_map(in_place, [f"/tmp/x/{item}" for item in range(50)], workers=2)
    assert found == [f"trials.tar.xz: {item}" for item in range(50)]


@pytest.mark.parametrize(("items", "workers"), [(range(50), 1), ([7], None), ([], None)])
def test_little_work_is_done_here(items: range | list[int], workers: int | None) -> None:
    assert parallel_map(square, items, workers=workers) == [(item**2, os.getpid()) for item in items]


def test_processes_start_none_of_their_own() -> None:
    found = parallel_map(nested, [1, 5], workers=2)
    assert [[value for value, _ in pair] for pair in found] == [[1, 4], [25, 36]]
    assert all(len({process for _, process in pair}) == 1 for pair in found)


def test_an_error_is_raised_where_it_was_asked_for() -> None:
    with pytest.raises(ZeroDivisionError):
        parallel_map(inverse, [2, 1, 0], workers=2)


def test_there_are_never_more_processes_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(64)), raising=False)
    assert parallel.usable_cores() == parallel.MOST_WORKERS


def test_without_shared_memory_everything_is_done_here() -> None:
    script = "from ablate.parallel import parallel_map; print(parallel_map(abs, [-1, -2, -3], workers=2))"
    mount = "mount -t tmpfs -o ro tmpfs /dev/shm && exec"
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "sh", "-c", f"{mount} true"]).returncode:
        missing("/dev/shm cannot be taken away here (not root?)")
    words = ["unshare", "-m", "sh", "-c", f'{mount} "$0" -c "$1"', sys.executable, script]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == "[1, 2, 3]\n"
