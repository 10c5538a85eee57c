"""What surrounds a run changes under it: the clock, the data, a dashboard, the terminal."""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import termios
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import missing
from tests.soak.command import Command, tiny_study
from tests.soak.compare import compare

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

STUDY = tiny_study(20, epochs=10)
CLOCK = """\
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

/* Seconds that the clock of the day is ahead, in a file that the test changes while the study runs. */
static long ahead(void) {
    static long *shared = 0;
    if (!shared) {
        int file = open(getenv("CLOCK_AHEAD"), O_RDONLY);
        shared = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
    }
    return *shared;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *) = 0;
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(clock, now);
    if (clock == CLOCK_REALTIME) now->tv_sec += ahead();
    return code;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec found;
    int code = clock_gettime(CLOCK_REALTIME, &found);
    (void)zone;
    now->tv_sec = found.tv_sec;
    now->tv_usec = found.tv_nsec / 1000;
    return code;
}

time_t time(time_t *kept) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (kept) *kept = now.tv_sec;
    return now.tv_sec;
}
"""
DAY = 86400


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The study of this module, run without any disturbance."""
    command = Command(tmp_path_factory.mktemp("surroundings") / "undisturbed", STUDY)
    command.run()
    return command


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    """Compile a clock that can be set, to be loaded before the system's own."""
    if shutil.which("cc") is None:
        missing("there is no C compiler")
    source, library = tmp_path / "clock.c", tmp_path / "clock.so"
    source.write_text(CLOCK, encoding="utf-8")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return library


@pytest.mark.fault(15, "the records are those of the undisturbed run; nothing runs again, no duration is negative")
def test_a_clock_that_is_set_by_a_day_changes_nothing(tmp_path: Path, clock: Path, undisturbed: Command) -> None:
    ahead = tmp_path / "ahead"
    ahead.write_bytes((0).to_bytes(8, "little", signed=True))
    command = Command(tmp_path / "study", STUDY)
    command.environment = {"LD_PRELOAD": str(clock), "CLOCK_AHEAD": str(ahead)}
    with ahead.open("r+b") as handle, mmap.mmap(handle.fileno(), 8) as shared:
        process = command.start()
        command.wait_for_training()
        # In the middle of the study a day forwards, and then two backwards.
        for after, seconds in ((2, DAY), (10, -DAY)):
            while command.finished() < after and process.poll() is None:
                time.sleep(0.01)
            shared[:8] = seconds.to_bytes(8, "little", signed=True)
        assert process.wait(timeout=120) == 0, command.said(0)
        shown = subprocess.run(
            [sys.executable, "-c", "import time; print(time.time())"],
            env=command.surroundings(), capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert abs(float(shown.stdout) - (time.time() - DAY)) < 600, "the clock was never set"
        assert compare(undisturbed.results, command.results).is_clean
        for path in command.results.glob("trials/*/record.json"):
            timing = json.loads(path.read_bytes())["timing"]
            assert all(value is None or value >= 0 for value in timing.values()), timing
        before = {path: path.stat().st_mtime_ns for path in command.results.glob("trials/*/*")}
        assert command.run_to_exit() == 0
        assert {path: path.stat().st_mtime_ns for path in command.results.glob("trials/*/*")} == before


def images(root: Path, count: int = 12) -> None:
    """Write `count` noisy images with masks of two labels."""
    drawn = np.random.default_rng(0)
    for part in ("image", "label"):
        (root / part).mkdir(parents=True)
    for index in range(count):
        mask = (drawn.random((12, 16)) > 0.5).astype(np.uint8)
        Image.fromarray(drawn.integers(0, 256, (12, 16), dtype=np.uint8)).save(root / "image" / f"{index:02d}.png")
        Image.fromarray(mask * 255).save(root / "label" / f"{index:02d}.png")


@pytest.mark.fault(20, "refused with the number and names of the changed files and the cure; exit code 2")
def test_changed_data_are_refused_by_name(tmp_path: Path) -> None:
    folder = (
        "{name: folder, root: cells, images: image/*.png, masks: label/*.png, classes: {a: 0, b: 255}, size: [12, 16]}"
    )
    study = tiny_study(10).replace("{name: tiny, size: [8, 12], train: 4, val: 2, test: 2}", folder)
    command = Command(tmp_path / "study", study)
    images(command.folder / "cells")
    command.run()
    before = {path: path.read_bytes() for path in command.results.glob("trials/*/*") if path.is_file()}
    changed = command.folder / "cells" / "image" / "03.png"
    pixels = np.asarray(Image.open(changed)).copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(changed)
    assert command.run_to_exit() == 2
    reading, line = command.said(-1).splitlines()
    assert reading == "soak: reading the data and trying the device"
    assert "the data changed" in line and "03.png" in line and "--out" in line and "1 file" in line
    assert {path: path.read_bytes() for path in before} == before
    shutil.copy(command.folder / "cells" / "image" / "04.png", command.folder / "cells" / "image" / "05.png")
    assert command.run_to_exit() == 2


@pytest.mark.fault(22, "the records are those of a run that nobody looks at")
def test_a_dashboard_on_a_running_study_does_not_disturb_it(tmp_path: Path, undisturbed: Command) -> None:
    if not Path(sys.executable).with_name("optuna-dashboard").exists():
        missing("optuna-dashboard is not installed")
    command = Command(tmp_path / "study", STUDY)
    process = command.start()
    command.wait_for_training()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    dashboard = subprocess.Popen(
        [sys.executable, "-m", "ablate.cli", "dashboard", str(command.results), "--port", str(port)],
        cwd=command.folder, env=command.surroundings(), stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT,
    )  # fmt: skip
    seen: list[int] = []
    try:
        limit = time.monotonic() + 120
        while (process.poll() is None or not seen) and time.monotonic() < limit:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies", timeout=5) as answer:
                    seen.append(len(json.loads(answer.read())["study_summaries"]))
            except OSError:
                time.sleep(0.05)
        assert process.wait(timeout=60) == 0, command.said(0)
        assert seen and set(seen) == {1}
    finally:
        dashboard.terminate()
        dashboard.wait(timeout=30)
        command.end()
    assert compare(undisturbed.results, command.results).is_clean


def in_a_terminal(command: Command) -> tuple[subprocess.Popen[bytes], int]:
    """Start the command as the foreground job of a terminal of its own; the process and the other end."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command.words(), cwd=command.folder, env={**command.surroundings(), "TERM": "xterm"},
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(theirs)
    os.set_blocking(ours, False)
    return process, ours


def read_until_it_ends(process: subprocess.Popen[bytes], terminal: int, seconds: float) -> str:
    """Return what appeared on the terminal until the command ended, reading all the while as a terminal does."""
    limit, shown = time.monotonic() + seconds, ""
    while process.poll() is None:
        assert time.monotonic() < limit, shown
        shown += shown_on(terminal)
        time.sleep(0.02)
    return shown + shown_on(terminal)


@pytest.mark.fault(
    6, "in a terminal, once: a checkpoint and exit code 130; twice: at once; no process left, no traceback"
)
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_in_a_terminal(tmp_path: Path, times: int, undisturbed: Command) -> None:
    study, rows = STUDY, 1
    if times == 2:  # a network that no stop reaches: at its 40th step it sleeps for ten minutes
        study, rows = tiny_study(20, epochs=100), 19
        study = study.replace("wide: {width: 3}", "wide: {name: misbehaving, act: sleep, at: 40}")
        study = study.replace("two_convolutions, width: 2", "two_convolutions")
    command = Command(tmp_path / "study", study)
    process, terminal = in_a_terminal(command)
    try:
        limit = time.monotonic() + 120
        while max(map(rows_of, command.results.glob("trials/wide*/epochs.jsonl")), default=0) < rows:
            assert process.poll() is None and time.monotonic() < limit, shown_on(terminal)
            shown_on(terminal)
            time.sleep(0.02)
        time.sleep(0.5)
        for _ in range(times):
            os.write(terminal, b"\x03")
            time.sleep(1)
        shown = read_until_it_ends(process, terminal, seconds=15 if times == 2 else 60)
        assert process.returncode == 130 and "Traceback" not in shown, shown
        assert not command.left_over(), shown
    finally:
        command.end()
        os.close(terminal)
    if times == 1:
        assert command.run_to_exit() == 0
        assert compare(undisturbed.results, command.results).is_clean


@pytest.mark.fault(30, "a terminal that closes while SIGHUP is ignored (`nohup`): the run completes, equal")
def test_a_terminal_that_goes_away_does_not_end_a_run_that_ignores_it(tmp_path: Path, undisturbed: Command) -> None:
    command = Command(tmp_path / "study", STUDY)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process, terminal = in_a_terminal(command)
    finally:
        signal.signal(signal.SIGHUP, before)
    limit = time.monotonic() + 120
    while not any(command.results.glob("trials/*/epochs.jsonl")):
        assert process.poll() is None and time.monotonic() < limit, shown_on(terminal)
        shown_on(terminal)
        time.sleep(0.02)
    os.close(terminal)
    try:
        assert process.wait(timeout=120) == 0
        assert not command.left_over()
    finally:
        command.end()
    assert compare(undisturbed.results, command.results).is_clean


def rows_of(path: Path) -> int:
    """Return the number of rows of a trial's curves."""
    return path.read_bytes().count(b"\n")


def shown_on(terminal: int) -> str:
    """Return what came to a terminal since it was last asked, so that nobody waits for its reader."""
    try:
        return os.read(terminal, 65536).decode(errors="replace")
    except (BlockingIOError, OSError):
        return ""
