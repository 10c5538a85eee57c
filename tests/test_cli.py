"""The command line under what is not a study or a results folder: one line each, exit 2, no traceback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from ablate.cli import main
from ablate.commands.given import results_of, study_file
from tests.planted import plant

ABLATE = Path(sys.executable).with_name("ablate")
GOOD = "study: small\ndata: {name: street, size: [32, 48], train: 8, val: 4, test: 4}\ntrain: {epochs: 2}\n"


def ablate(folder: Path, *words: str | bytes) -> subprocess.CompletedProcess[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "ABLATE"))}
    return subprocess.run(
        [os.fsencode(ABLATE), *map(os.fsencode, words)], cwd=folder, env=environment, capture_output=True, timeout=250
    )


def refused(done: subprocess.CompletedProcess[bytes]) -> str:
    """The one line of a refusal."""
    text = done.stderr.decode()  # strictly UTF-8, whatever the names are
    assert done.returncode == 2 and "Traceback" not in text, text
    (line,) = text.splitlines()
    assert line.startswith("ablate: ") and line.isprintable()
    return line.removeprefix("ablate: ")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "study.yaml").write_text(GOOD)
    return tmp_path


def test_names_that_are_not_utf8(folder: Path) -> None:
    assert refused(ablate(folder, "plan", b"caf\xe9.yaml")) == (
        r"caf\udce9.yaml: no such study file; choose from study.yaml"
    )
    assert refused(ablate(folder, "status", b"caf\xe9")).startswith(r"caf\udce9: no results here")


def test_names_over_255_bytes(folder: Path) -> None:
    name = "n" * 300
    assert "File name too long" in refused(ablate(folder, "plan", name))
    assert "File name too long" in refused(ablate(folder, "status", name))


def test_extending_beyond_all_bounds(folder: Path) -> None:
    line = refused(ablate(folder, "run", "study.yaml", "--extend", "1e30"))
    assert line == "study.yaml: --extend: expected at most 100,000 epochs in the end, got more; write --extend 2"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("run study.yaml --extend much", "--extend: expected a number, got 'much'; write --extend 2"),
        ("run study.yaml --extend=", "--extend: expected a number, got an empty text; write --extend 2"),
        ("run study.yaml --exted 2", "no such option: --exted; did you mean '--extend'?"),
        ("run study.yaml --extend", "option '--extend' requires an argument; "),
        ("run study.yaml --detach=3", "option '--detach' does not take a value; "),
        ("profile study.yaml --seconds x", "--seconds: expected a number, got 'x'; write --seconds 60"),
        ("dashboard --port 99999", "--port: expected a number <= 65535, got '99999'; write --port 8080"),
        ("dashboard --port a", "--port: expected an integer, got 'a'; write --port 8080"),
        ("plan", "missing argument 'study'; "),
        ("statsu", "no such command 'statsu'; did you mean 'status'?"),
        ("compare p results/p", "results/p: both sides are this folder; name another one to compare it with"),
        ("init images --out /proc/s.yaml", "/proc/s.yaml: cannot be written (No such file or directory); choose "),
        ("data study.yaml --out /proc/s.png", "/proc/s.png: cannot be written (No such file or directory); choose "),
        ("data study.yaml --out s.foo", "s.foo: no picture has such an ending; write one in .png"),
        ("check sub/far.yaml", "sub/far.yaml:2: data.root: there is no folder /"),
    ],
)
def test_a_bad_option_or_place_is_one_line_with_its_cure(
    words: str, said: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    for kind in ("images/image", "images/label"):
        (folder / kind).mkdir(parents=True)
        for name in range(4):
            Image.new("L", (16, 16), name if kind.endswith("image") else 255 * (name % 2)).save(f"{kind}/{name}.png")
    (folder / "results/p").mkdir(parents=True)
    (folder / "results/p/run.json").write_text("{}")
    (folder / "sub").mkdir()
    (folder / "sub/far.yaml").write_text("study: far\ndata: {name: camvid, root: ../nowhere}\n")
    monkeypatch.setattr(sys, "argv", ["ablate", *words.split()])
    with pytest.raises(SystemExit) as end:
        main()
    (line,) = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and line.startswith(f"ablate: {said}") and "/../" not in line, line


@pytest.mark.parametrize("seconds", ["nan", "inf", "0", "1e30"])
def test_a_profile_of_no_length(seconds: str, folder: Path) -> None:
    line = refused(ablate(folder, "profile", "study.yaml", "--seconds", seconds))
    assert line.startswith("--seconds: expected seconds of a day at most, got ")


def test_every_command_names_a_damaged_document_in_one_line(folder: Path) -> None:
    path = plant(folder / "results" / "p", variants=("unet", "noskip"), lrs=(1e-3,), seeds=2, epochs=2, images=2)
    (path / "run.json").write_text(json.dumps({"study": "p", "plan": [{"name": "../../x"}]}))
    shutil.copytree(path, path.with_name("q"))
    for words in (("status", "p"), ("report", "p"), ("compare", "p", "q")):
        line = refused(ablate(folder, *words))
        assert line.startswith("results/p/run.json: damaged: plan.0.name: "), line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read(folder: Path) -> None:
    (folder / "study.yaml").chmod(0)
    assert "cannot be read (Permission denied)" in refused(ablate(folder, "plan", "study.yaml"))
    (folder / "results").mkdir(mode=0)
    assert "Permission denied" in refused(ablate(folder, "status"))


def test_verify_names_damage_and_repairs_it(folder: Path) -> None:
    path = plant(folder / "results" / "p", variants=("unet", "noskip"), lrs=(1e-3,), seeds=1, epochs=2, images=2)
    assert ablate(folder, "verify", "p").returncode == 0
    record = next(path.glob("trials/*/record.json"))
    record.write_text("{}")
    done = ablate(folder, "verify", "p")
    assert done.returncode == 1 and b"not a record" in done.stdout and record.exists()
    assert ablate(folder, "verify", "p", "--repair").returncode == 0 and not record.exists()
    assert ablate(folder, "verify", "p").returncode == 0


def test_a_run_that_is_refused_leaves_no_folder(folder: Path) -> None:
    (folder / "bad.yaml").write_text("study: bad\ndata: {name: camvid, root: nowhere}\n")
    assert refused(ablate(folder, "run", "bad.yaml")).startswith("bad.yaml:2: data.root: there is no folder")
    assert sorted(path.name for path in folder.iterdir()) == ["bad.yaml", "study.yaml"]


def test_a_study_is_found_by_its_name_and_its_folder_and_its_results_from_anywhere(folder: Path) -> None:
    plant(folder / "project" / "results" / "p", variants=("unet",), lrs=(1e-3,), seeds=1, epochs=2, images=2, name="p")
    (folder / "project" / "p.yaml").write_text(GOOD.replace("study: small", "study: p"))
    for given in ("project", "project/p.yaml", "project/results/p"):
        done = ablate(folder, "status", given, "--json")
        assert done.returncode == 0 and json.loads(done.stdout)["states"] == {"unet": {"complete": 1}}, done.stderr
    assert refused(ablate(folder, "status", "study.yaml")) == (
        "study.yaml: the study 'small' has no results yet; ablate run study.yaml"
    )
    plant(folder / "results" / "tried", variants=("unet",), lrs=(1e-3,), seeds=1, epochs=2, images=2, name="small")
    assert "name results/tried, or run study.yaml without --out" in refused(ablate(folder, "status", "study.yaml"))
    assert refused(ablate(folder / "project" / "results", "plan", ".")).startswith(".: no study files here")
    # A results folder without its study file goes on by itself, wherever it was copied to.
    (folder / "project" / "results" / "p").rename(folder / "copy")
    (folder / "project" / "p.yaml").unlink()
    assert results_of(study_file(folder / "copy"), "p") == folder / "copy"


def test_the_package_is_a_command(folder: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "ablate", "--version"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip()
