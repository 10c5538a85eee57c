"""Studies of tiny trials, run by the real command in processes of their own."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import missing

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "tests" / "tiny_plugin.py"
STUDY = """\
study: tiny
data: {name: tiny}
model: {name: two_convolutions}
variants: {narrow: {}, wide: {width: 8}}
grid: {lr: [1e-2, 1e-3]}
seeds: 1
train: {epochs: 3, batch_size: 4}
measure: {gradients: 0, profile: false}
run: {checkpoint_every: 0, workers: 1, threads: 1, keep: last}
track: {wandb: disabled}
"""


def wait_for(condition: Callable[[], bool], what: str = "it", seconds: float = 90.0) -> None:
    """Return once the condition holds; AssertionError where it does not in time."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, f"{what} within {seconds:g} s"
        time.sleep(0.02)


class Command:
    """`ablate` as a user calls it, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results = folder / "results" / "tiny"
        self.study()

    def study(self, text: str = STUDY) -> None:
        """Write the study file."""
        (self.folder / "study.yaml").write_text(text, encoding="utf-8")

    def arguments(self, *words: str) -> list[str]:
        """The command line."""
        return [sys.executable, "-m", "ablate.cli", *words]

    def environment(self, **more: str) -> dict[str, str]:
        """The environment of a command."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "ABLATE"))}
        paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        return {**kept, "PYTHONPATH": paths, "COLUMNS": "200", **more}

    def __call__(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run to the end."""
        return subprocess.run(
            self.arguments(*words),
            cwd=self.folder,
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            timeout=240,
            stdin=subprocess.DEVNULL,
        )

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """`ablate run study.yaml` with the tiny plugin."""
        return self("run", "study.yaml", "--plugin", str(PLUGIN), *words, **environment)

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        """As `run`, left running."""
        return subprocess.Popen(
            self.arguments("run", "study.yaml", "--plugin", str(PLUGIN), *words),
            cwd=self.folder,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            stdin=subprocess.DEVNULL,
        )

    def records(self) -> dict[str, dict[str, Any]]:
        """Trial name -> record, without what two runs of one trial may differ in."""
        found = {}
        for path in sorted((self.results / "trials").glob("*/record.json")):
            record = json.loads(path.read_bytes())
            del record["timing"], record["provenance"]
            found[path.parent.name] = record
        return found

    def provenance(self) -> dict[str, dict[str, Any]]:
        """Trial name -> provenance."""
        paths = sorted((self.results / "trials").glob("*/record.json"))
        return {path.parent.name: json.loads(path.read_bytes())["provenance"] for path in paths}


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """A fresh folder with a study of four tiny trials."""
    return Command(tmp_path)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The study of `command`, run once without any disturbance."""
    made = Command(tmp_path_factory.mktemp("undisturbed"))
    done = made.run()
    assert done.returncode == 0, done.stdout + done.stderr
    return made


@pytest.fixture
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of 1.5 MB, or of so many KB as a test asks for."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={getattr(request, 'param', 1500)}k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        missing("a file system cannot be mounted here (not root?)")
    yield folder
    # What serves a command, such as W&B's process, may take a moment longer to end than the command itself.
    deadline = time.monotonic() + 30
    while subprocess.run(["umount", str(folder)], capture_output=True).returncode:
        assert time.monotonic() < deadline, "a process of the run still holds the disk"
        time.sleep(0.2)


MakeStudy = Callable[[str], None]


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a fresh database of a PostgreSQL that runs for the tests."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs and shutil.which("initdb") is None:
        missing("PostgreSQL is not installed")
    if importlib.util.find_spec("psycopg") is None:
        missing("psycopg is not installed")
    directory = programs[-1] if programs else Path(str(shutil.which("initdb"))).parent
    # PostgreSQL refuses to run as root.
    become = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="ablate-postgresql-") as folder:
        if become:
            shutil.chown(folder, "postgres", "postgres")
        data = f"{folder}/data"

        def call(*words: str) -> None:
            done = subprocess.run([*become, *words], capture_output=True, text=True, cwd=folder, check=False)
            assert done.returncode == 0, done.stdout + done.stderr

        call(str(directory / "initdb"), "-D", data, "-A", "trust", "-U", "ablate", "--no-sync")
        options = f"-p {port} -k {folder} -h 127.0.0.1"
        call(str(directory / "pg_ctl"), "-D", data, "-w", "-t", "120", "-l", f"{folder}/log", "-o", options, "start")
        try:
            yield f"postgresql+psycopg://ablate@127.0.0.1:{port}/postgres"
        finally:
            call(str(directory / "pg_ctl"), "-D", data, "-w", "-m", "immediate", "stop")
