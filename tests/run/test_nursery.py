"""The nursery with real processes: workers forked, ended, killed, and what is left when either side dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ablate.run.executors.environment import worker_environment
from ablate.run.executors.nursery import UNSEEN, Forked, Nursery
from tests.run.conftest import PLUGIN, ROOT, Command

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks as Linux does")


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)
    made = Nursery()
    yield made
    made.close()
    os.environ.pop("PYTHONPATH")
    if before is not None:
        os.environ["PYTHONPATH"] = before


def ready(nursery: Nursery, command: Command, errors: Path) -> Forked:
    arguments = ["--results", str(command.results), "--base", str(command.folder), "--device", "cpu"]
    with errors.open("wb") as handle:
        worker = nursery.fork([*arguments, "--plugin", str(PLUGIN)], worker_environment("cpu", 1), handle.fileno())
    assert worker is not None and worker.stdout is not None
    assert json.loads(worker.stdout.readline()) == {"event": "ready", "pid": worker.pid}, errors.read_text()
    return worker


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_a_worker_serves_until_it_is_told_to_quit(nursery: Nursery, undisturbed: Command, tmp_path: Path) -> None:
    first, second = (ready(nursery, undisturbed, tmp_path / name) for name in ("first", "second"))
    assert first.pid != second.pid and os.getpgid(first.pid) == first.pid
    assert first.stdin is not None and second.stdin is not None
    # One's pipe is not held open by the other.
    first.stdin.close()
    assert first.wait() == 0
    assert is_there(second.pid)
    second.stdin.write('{"op": "quit"}\n')
    second.stdin.flush()
    assert second.wait() == 0


def test_a_killed_worker_has_its_signal_for_a_code(nursery: Nursery, undisturbed: Command, tmp_path: Path) -> None:
    worker = ready(nursery, undisturbed, tmp_path / "errors")
    os.killpg(worker.pid, signal.SIGKILL)
    assert worker.wait() == -signal.SIGKILL
    assert worker.stdout is not None and worker.stdout.read() == ""


def test_a_worker_that_cannot_begin_says_why(nursery: Nursery, tmp_path: Path) -> None:
    with (tmp_path / "errors").open("wb") as handle:
        worker = nursery.fork(
            ["--results", str(tmp_path / "nothing"), "--base", str(tmp_path), "--device", "cpu"],
            worker_environment("cpu", 1), handle.fileno(),
        )  # fmt: skip
    assert worker is not None and worker.stdout is not None
    assert json.loads(worker.stdout.readline())["event"] == "broken"
    assert worker.wait() == 0


def test_without_the_nursery_nothing_is_forked_and_nobody_waits(undisturbed: Command, tmp_path: Path) -> None:
    lost = Nursery()
    worker = ready(lost, undisturbed, tmp_path / "errors")
    os.kill(lost._process.pid, signal.SIGKILL)
    assert worker.wait() == UNSEEN
    with (tmp_path / "more").open("wb") as handle:
        assert lost.fork([], worker_environment("cpu", 1), handle.fileno()) is None
    lost.close()
    os.killpg(worker.pid, signal.SIGKILL)


def test_a_dead_driver_leaves_neither_nursery_nor_workers(undisturbed: Command, tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(
        "import pathlib, sys, time\n"
        "from tests.run.conftest import Command\n"
        "from tests.run.test_nursery import ready\n"
        "from ablate.run.executors.nursery import Nursery\n"
        "command = Command.__new__(Command)\n"
        f"command.folder, command.results = pathlib.Path({str(undisturbed.folder)!r}), "
        f"pathlib.Path({str(undisturbed.results)!r})\n"
        "nursery = Nursery()\n"
        f"worker = ready(nursery, command, pathlib.Path({str(tmp_path)!r}) / 'errors')\n"
        "print(nursery._process.pid, worker.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    driver = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert driver.stdout is not None
    pids = [int(word) for word in driver.stdout.readline().split()]
    assert len(pids) == 2 and all(is_there(pid) for pid in pids)
    driver.kill()
    driver.wait()
    limit = time.monotonic() + 10
    while any(is_there(pid) for pid in pids):
        assert time.monotonic() < limit, "they outlived their driver"
        time.sleep(0.05)
