"""Completion in a real bash, zsh and fish, by the script that each has installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.conftest import ROOT, missing

CASES = {
    "ablate st": "status stop",
    "ablate plan unet-c": "unet-camvid unet-camvid-small",
    "ablate run studies/unet-street.yaml --only variant=no": "variant=noskip",
    "ablate run unet-ablation -o train.ep": "train.epochs= train.epochs=12",
    "ablate predict results/published/unet-ablation x --variant r": "residual",
}
# Each gets the words of the line and prints what may stand in place of the last.
SCRIPTS = {
    # As readline calls it, with the words that are on the line.
    "bash": """
        source ~/.bashrc; complete -p ablate >&2
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _ablate_completion ablate
        echo "${COMPREPLY[@]}"
    """,
    # Typed in a terminal of its own, where the key inserts all that fits. The function that is installed registers
    # another when it is called first and completes nothing yet: README has ~/.zshrc call it.
    "zsh": r"""
        cat >> ~/.zshrc <<'END'
_ablate
insert_all() { compstate[insert]=all }
answer() { comppostfuncs=(insert_all); zle complete-word; print -r -- "$BUFFER" > ~/answer; exit }
zle -N answer; bindkey '^I' answer
END
        zmodload zsh/zpty; zpty terminal zsh -i; zpty -w -n terminal "$*"$'\t'
        while zpty -r terminal shown; do print -rn -- "$shown" >&2; done
        words=($(<~/answer)); print -r -- ${words[$#,-1]}
    """,
    "fish": r"""complete -C "$argv[2..]" | string replace -r '\t.*' '' """,
}


Ask = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module", params=SCRIPTS)
def shell(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """A shell that runs a script, in a home where it has the completion of this checkout's `ablate` installed."""
    program = shutil.which(request.param)
    if program is None:
        missing(f"{request.param} is not installed (apt-get install {request.param})")
    home = tmp_path_factory.mktemp("home")
    (home / "ablate").write_text(f"#!{sys.executable}\nfrom ablate.cli import main\nmain()\n")
    (home / "ablate").chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "ZDOTDIR" and "XDG_" not in name}
    environment |= {"HOME": str(home), "PATH": f"{home}{os.pathsep}{os.environ['PATH']}"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])

    def ask(script: str, *words: str) -> subprocess.CompletedProcess[str]:
        command = [program, "-c", script, program, *words]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)

    installed = ask("ablate --install-completion; true")
    assert f"{request.param} completion installed" in installed.stdout, installed.stderr
    return lambda *words: ask(SCRIPTS[request.param], *words)


@pytest.mark.parametrize("line", CASES)
def test_a_shell_completes_commands_studies_variants_and_keys(shell: Ask, line: str) -> None:
    done = shell(*line.split())
    assert done.stdout.split() == CASES[line].split(), done.stderr
