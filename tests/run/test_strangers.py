"""Files of a stranger beside a study: none of them is taken for a module or a plugin, by any process of a run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.run.conftest import PLUGIN, STUDY, Command

# Of the standard library, of the libraries that are used, and of `ablate` itself; two that a user may well have.
NAMES = (
    "json", "multiprocessing", "selectors", "socket", "torch", "numpy", "optuna", "filelock", "ablate", "wandb",
    "profile", "types",
)  # fmt: skip


def plant(folder: Path) -> Path:
    """Put modules and an installed plugin of that folder beside a study; the file that each writes when imported."""
    trace = folder / "imported"
    for name in (*NAMES, "evil"):
        (folder / f"{name}.py").write_text(f"open({str(trace)!r}, 'a').write({name!r})\nraise SystemExit\n")
    distribution = folder / "evil-1.0.dist-info"
    distribution.mkdir()
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    (distribution / "entry_points.txt").write_text("[ablate.plugins]\nevil = evil\n")
    return trace


@pytest.mark.fault(25, "imported by no process of a run; records equal")
def test_nothing_beside_a_study_is_imported(command: Command, undisturbed: Command) -> None:
    trace = plant(command.folder)
    program = Path(sys.executable).with_name("ablate")
    environment = {name: value for name, value in command.environment().items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [program, "run", "study.yaml", "--plugin", str(PLUGIN)],
        cwd=command.folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert not trace.exists(), trace.read_text()
    assert done.returncode == 0, done.stdout + done.stderr
    assert command.records() == undisturbed.records()


def test_a_study_brings_its_own_plugins_where_they_are_trusted(command: Command, undisturbed: Command) -> None:
    shutil.copy(PLUGIN, command.folder / "parts.py")
    command.study(STUDY + "plugins: [parts.py]\n")
    config = {"XDG_CONFIG_HOME": str(command.folder / "config")}
    refused = command("run", "study.yaml", **config)
    assert refused.returncode == 2
    assert "ablate trust study.yaml" in refused.stderr
    assert command("trust", "study.yaml", **config).returncode == 0
    done = command("run", "study.yaml", **config)
    assert done.returncode == 0, done.stdout + done.stderr
    assert command.records() == undisturbed.records()


def test_a_script_of_ones_own_needs_no_guard_and_its_folder_is_no_place_for_modules(command: Command) -> None:
    command.study(STUDY.replace("[1e-2, 1e-3]", "[1e-2]"))
    (command.folder / "began").write_text("")
    script = command.folder / "own.py"
    script.write_text(
        "from pathlib import Path\n"
        "with open('began', 'a') as file:\n    file.write('once ')\n"
        "from ablate.plugins import Plugins, load_plugins\n"
        f"files = (Path({str(PLUGIN)!r}),)\n"
        "plugins = Plugins(files, tuple(load_plugins(files)))\n"
        "from ablate.run.command import run_study\n"
        "from ablate.study.reader import read_study\n"
        "raise SystemExit(run_study(read_study('study.yaml'), Path('results/tiny'), plugins=plugins))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=command.folder,
        env=command.environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (command.folder / "began").read_text() == "once " and len(command.records()) == 2
