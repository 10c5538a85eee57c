"""Completion in a real bash, by the script that a user installs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, missing

CASES = {
    "ablate st": "status stop",
    "ablate plan unet-c": "unet-camvid unet-camvid-small",
    "ablate run studies/unet-street.yaml --only variant=no": "variant=noskip",
    "ablate run unet-ablation -o train.ep": "train.epochs= train.epochs=12",
    "ablate predict results/published/unet-ablation x --variant r": "residual",
}
# As readline calls it, with the words that are on the line.
SCRIPT = """
eval "$(_ABLATE_COMPLETE=source_bash ablate)"
complete -p ablate >&2
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _ablate_completion ablate
echo "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the command `ablate`, of this checkout."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "ablate").write_text(f"#!{sys.executable}\nfrom ablate.cli import main\nmain()\n")
    (folder / "ablate").chmod(0o755)
    return folder


@pytest.mark.parametrize("line", CASES)
def test_bash_completes_commands_studies_variants_and_keys(line: str, programs: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        missing("bash is not installed")
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": paths}
    done = subprocess.run(
        [bash, "-c", SCRIPT, "bash", *line.split()],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.split() == CASES[line].split(), done.stderr
    assert "_ablate_completion" in done.stderr
