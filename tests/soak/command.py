"""A study in a folder of its own, and the command that runs it, as a user would call it again and again."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.soak.processes import MARK, Process, fork_servers, marked, send, workers

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "tests" / "tiny_plugin.py"

# Trials of about 50 ms that write a checkpoint after every epoch; every seed is one trial of each cell.
TINY = """\
study: soak
data: {{name: tiny, size: [8, 12], train: 4, val: 2, test: 2}}
model: {{name: two_convolutions, width: 2}}
variants: {{narrow: {{}}, wide: {{width: 3}}}}
grid: {{lr: [1e-2, 3e-3, 1e-3, 3e-4, 1e-4]}}
seeds: {seeds}
train: {{epochs: {epochs}, batch_size: 2}}
measure: {{gradients: 0, gates: false, profile: false}}
run: {{devices: [cpu], workers: 2, threads: 1, checkpoint_every: 0, attempts: {attempts}}}
track: {{wandb: disabled}}
"""
CELLS = 10


def tiny_study(trials: int, *, epochs: int = 3, attempts: int = 99) -> str:
    """Return a study file of `trials` tiny trials, a multiple of ten."""
    if trials % CELLS:
        raise ValueError(f"{trials} is not a multiple of {CELLS}")
    return TINY.format(seeds=trials // CELLS, epochs=epochs, attempts=attempts)


class Command:
    """`ablate run study.yaml` in `folder`, which may be started as often as it takes."""

    def __init__(
        self, folder: Path, study: str, *, plugins: tuple[Path, ...] = (PLUGIN,), logs: Path | None = None
    ) -> None:
        self.folder, self._beside = folder, logs or folder.parent
        self.results = folder / "results" / "soak"
        self.mark = secrets.token_hex(8)
        self.plugins = plugins
        self.environment: dict[str, str] = {}
        self.logs: list[Path] = []
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "study.yaml").write_text(study, encoding="utf-8")

    def words(self) -> list[str]:
        """Return the command line."""
        plugins = [word for plugin in self.plugins for word in ("--plugin", str(plugin))]
        return [sys.executable, "-m", "ablate.cli", "run", "study.yaml", *plugins]

    def surroundings(self) -> dict[str, str]:
        """Return the environment of the command, with the mark of this study."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "ABLATE"))}
        return {**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "200", MARK: self.mark, **self.environment}

    def start(self) -> subprocess.Popen[bytes]:
        """Start the command in a process group of its own; what it says goes to a file of its own."""
        # Beside the folder: its own disk may be full.
        self.logs.append(self._beside / f"{self.folder.name}-{len(self.logs):03d}.txt")
        with self.logs[-1].open("wb") as log:
            return subprocess.Popen(
                self.words(),
                cwd=self.folder,
                env=self.surroundings(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run_to_exit(self, seconds: float = 300.0) -> int:
        """Run until the command ends by itself and return its exit code."""
        process = self.start()
        try:
            return process.wait(timeout=seconds)
        finally:
            self.end()

    def run(self, seconds: float = 900.0) -> float:
        """Run to the end without any disturbance and return the seconds it took; AssertionError where it failed."""
        began = time.monotonic()
        assert self.run_to_exit(seconds) == 0, self.said(-1)
        return time.monotonic() - began

    def said(self, index: int) -> str:
        """Return what a start of the command wrote, by its index."""
        return self.logs[index].read_text(encoding="utf-8", errors="replace")

    def finished(self) -> int:
        """Return the number of trials that have a record."""
        return sum((folder / "record.json").exists() for folder in self.results.glob("trials/*"))

    def processes(self) -> list[Process]:
        """Return every process of this study that is alive."""
        return marked(self.mark)

    def wait_for_training(self, seconds: float = 120.0) -> None:
        """Return once a trial has written a row of its curves; AssertionError where none does in time."""
        limit = time.monotonic() + seconds
        while not any(path.stat().st_size for path in self.results.glob("trials/*/epochs.jsonl")):
            assert time.monotonic() < limit, "no trial began"
            time.sleep(0.02)

    def workers(self, driver: int) -> list[int]:
        """Return the workers of `driver`."""
        return workers(driver, self.processes())

    def fork_servers(self, driver: int) -> list[int]:
        """Return the fork servers of `driver`."""
        return fork_servers(driver, self.processes())

    def pull_the_plug(self) -> int:
        """Kill every process of the study at once, as a power failure does; return how many there were."""
        killed = 0
        # A process that was being started while the first round went on is met by the next.
        while pids := [process.pid for process in self.processes()]:
            killed += send(pids, signal.SIGKILL)
            time.sleep(0.01)
        return killed

    def left_over(self, seconds: float = 5.0) -> list[Process]:
        """Return the processes that are still there `seconds` after the driver has gone."""
        limit = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < limit:
            time.sleep(0.05)
        return left

    def end(self) -> None:
        """Leave nothing of the study running."""
        self.pull_the_plug()
