"""Before the first trial: what a results folder is, what is never written to or run, and what is kept in `run.json`."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablate.data.dataset import Dataset, Split
from ablate.errors import DataError, ResultsError
from ablate.plugins import PluginFile, Plugins, load_plugins
from ablate.records.files import lock
from ablate.records.store import Results
from ablate.run import manifest, setup
from ablate.run.manifest import check_plugins, command_line, git_state, plugin_digests
from ablate.run.plan.describe import describe_variants
from ablate.run.setup import writable
from ablate.study.reader import read_study
from ablate.study.study import Study
from tests.planted import plant
from tests.run.conftest import PLUGIN, STUDY, Command
from tests.study.study_files import GOOD, read


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# -- what is a results folder ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "made",
    [
        {"study.yaml": "study: mine\n"},
        {"notes.txt": "mine"},
        {"run.json": "{}"},
        {"run.json": '{"command": "another program"}', "trials/a": "mine"},
        {"trials/mine/record.json": "{}"},
        {".lock": "mine", "study.yaml": "study: mine\n"},
    ],
    ids=lambda made: " ".join(made),
)
@pytest.mark.fault(27, "refused; nothing in it is changed")
def test_a_folder_that_holds_something_else_is_refused_and_stays(made: dict[str, str], tmp_path: Path) -> None:
    for name, text in made.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    before = names(tmp_path)
    with pytest.raises(ResultsError, match="neither empty nor a results folder of ablate; choose another folder"):
        writable(tmp_path)
    assert names(tmp_path) == before
    assert all((tmp_path / name).read_text() == text for name, text in made.items())


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResultsError, match="not a folder"):
        writable(tmp_path / "file")


def test_an_empty_folder_and_what_a_run_without_a_trial_left_are_taken(tmp_path: Path) -> None:
    results = writable(tmp_path / "new" / "one")
    with lock(results.lock, "a run that ends at once"):
        pass
    assert names(results.path) == [".lock", "trials"]
    writable(results.path)


@pytest.mark.fault(27, "the results of another study are refused")
def test_the_results_of_another_study_are_refused(tmp_path: Path) -> None:
    path = plant(tmp_path / "planted", variants=("unet",), lrs=(1e-3,), seeds=1, epochs=2, images=2)
    before = names(path)
    with pytest.raises(ResultsError, match="the results of the study 'planted', not of 'small'; choose another folder"):
        writable(path, read(tmp_path))
    assert names(path) == before
    assert writable(path).path == path


def test_a_folder_of_an_older_version_is_read_by_its_study_yaml(tmp_path: Path) -> None:
    results = Results(plant(tmp_path / "planted", variants=("unet",), lrs=(1e-3,), seeds=1, epochs=2, images=2))
    content = results.study.read_bytes()
    assert results.study == results.path / "study.yaml" and writable(results.path).study == results.study
    # What is resolved anew lies beside it, and is what counts from then on.
    results.resolved.write_bytes(content)
    assert results.study == results.resolved


@pytest.mark.fault(28, "refused by name")
def test_a_link_anywhere_inside_is_refused_by_name(tmp_path: Path) -> None:
    path = plant(tmp_path / "planted", variants=("unet",), lrs=(1e-3,), seeds=1, epochs=2, images=2)
    trial = next(Results(path).folders())
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for link in (
        path / ".lock",
        path / "tables",
        path / "figures",
        trial.steps,
        trial.path / "checkpoint.pt",
        path / "report.html",
    ):
        kept = link.read_bytes() if link.exists() else None
        link.unlink(missing_ok=True)
        link.symlink_to(precious)
        with pytest.raises(ResultsError, match=f"{link.name}: a symbolic link, which is never written through"):
            writable(path)
        link.unlink()
        if kept is not None:
            link.write_bytes(kept)
    assert precious.read_text() == "mine"
    writable(path)


@pytest.mark.faults
@pytest.mark.fault(27, "refused in one line; exit code 2")
def test_the_command_refuses_folders_that_are_not_its_own(command: Command) -> None:
    mine = (command.folder / "study.yaml").read_bytes()
    done = command.run("--out", ".")
    assert done.returncode == 2
    assert done.stderr == (
        "ablate: .: neither empty nor a results folder of ablate; choose another folder with --out\n"
    )
    assert [path.name for path in command.folder.iterdir()] == ["study.yaml"]
    assert (command.folder / "study.yaml").read_bytes() == mine


# -- git ---------------------------------------------------------------------------------------------------------------


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.mark.fault(26, "the commit is read; nothing of the folder is run")
def test_the_commit_is_read_and_nothing_of_the_folder_is_run(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    git(repository, "init", "-q", "-b", "main")
    (repository / "a.txt").write_text("a")
    git(repository, "add", "a.txt")
    git(repository, "commit", "-q", "-m", "first")
    commit = git(repository, "rev-parse", "HEAD")
    marker = tmp_path / "ran"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {marker}\n")
    program.chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(program))
    git(repository, "config", "filter.evil.clean", str(program))
    (repository / ".gitattributes").write_text("* filter=evil\n")
    (repository / "below").mkdir()
    assert git_state(repository / "below") == {"commit": commit}
    assert not marker.exists()
    git(repository, "config", "--unset", "core.fsmonitor")
    git(repository, "pack-refs", "--all")
    assert not (repository / ".git" / "refs" / "heads" / "main").exists()
    assert git_state(repository) == {"commit": commit}
    git(repository, "worktree", "add", "-q", str(tmp_path / "tree"), "-b", "other")
    assert git_state(tmp_path / "tree") == {"commit": commit}
    git(repository, "checkout", "-q", "--detach")
    assert git_state(repository) == {"commit": commit}


@pytest.mark.parametrize("head", ["ref: ../../secret", "ref: refs/heads/none", "garbage", ""])
def test_a_broken_checkout_has_no_commit(head: str, tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text(head)
    assert git_state(tmp_path) == {}


# -- plugins -----------------------------------------------------------------------------------------------------------


def known(folder: Path, **plugins: str) -> Results:
    results = Results(folder)
    entries = [{"file": name, "sha256": digest} for name, digest in plugins.items()]
    results.run.write_text(json.dumps({"study": "s", "plugins": entries}))
    return results


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"a": "1"}, None),
        ({"renamed": "1"}, None),
        ({}, None),
        ({"a": "1", "b": "2"}, None),
        ({"a": "2"}, "the plugin 'a' changed since trials here were run"),
        ({"renamed": "2"}, "the plugin 'a' was renamed and changed, or replaced, since"),
        ({"a": "2", "copy": "1"}, None),
    ],
)
@pytest.mark.fault(18, "a renamed plugin is noticed, too")
def test_the_set_of_plugins_is_what_is_compared(now: dict[str, str], said: str | None, tmp_path: Path) -> None:
    results = known(tmp_path, a="1")
    if said is None:
        assert check_plugins(results, now, allow_change=False) is False
        return
    with pytest.raises(ResultsError, match=said):
        check_plugins(results, now, allow_change=False)
    assert check_plugins(results, now, allow_change=True) is True


def test_plugins_of_one_file_name_are_told_apart() -> None:
    loaded = [PluginFile("/x/one/nets.py", "1"), PluginFile("/x/two/nets.py", "2"), PluginFile("/x/data.py", "3")]
    assert plugin_digests(loaded) == {"one/nets.py": "1", "two/nets.py": "2", "data.py": "3"}


# -- run.json ----------------------------------------------------------------------------------------------------------


def dataset() -> Dataset:
    def split(count: int) -> Split:
        masks = np.tile(np.arange(2, dtype=np.uint8), (count, 4, 2))
        return Split(np.zeros((count, 4, 4, 3), np.uint8), masks, tuple(f"i{number}" for number in range(count)))

    parts = {name: split(2) for name in ("train", "val", "test")}
    return Dataset("tiny", ("a", "b"), ((0, 0, 0), (255, 255, 255)), parts, "f" * 64)


def test_an_image_whose_name_no_json_can_hold_is_refused(tmp_path: Path) -> None:
    named = dataclasses.replace(dataset(), files={"caf\udce9.png": "0" * 64})
    with pytest.raises(DataError, match=r"caf\\udce9\.png: its name is not UTF-8; rename the file"):
        manifest.check_data(Results(tmp_path), named)
    manifest.check_data(Results(tmp_path), dataset())


class NoDecisions:
    """In the place of an execution config: only its JSON is asked for."""

    def to_json(self) -> dict[str, Any]:
        return {}


def test_the_id_is_made_once_and_a_plugin_that_is_not_loaded_stays_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["ablate", "run", "-o", "run.storage=postgresql://me:hunter2@host/db"])
    study, results = read(tmp_path, GOOD), writable(tmp_path / "results")
    config: Any = NoDecisions()

    def written(**plugins: str) -> dict[str, Any]:
        manifest.write_run(results, study, study.trials(), dataset(), config, {}, plugins, {})
        return results.read_run()

    first, second = written(a="1"), written(b="2")
    assert len(first["id"]) == 16 and first["id"] == second["id"]
    assert [item["file"] for item in second["plugins"]] == ["a", "b"]
    assert "hunter2" not in results.run.read_text() and "me:…@host" in first["command"]


@pytest.mark.parametrize(
    ("word", "kept"),
    [
        ("run.storage=postgresql://me:pw@host/db", "'run.storage=postgresql://me:…@host/db'"),
        ("run.storage=mysql://host/db?password=pw&ssl=1", "'run.storage=mysql://host/db?password=…&ssl=1'"),
        ("WANDB_API_KEY=pw", "'WANDB_API_KEY=…'"),
        ("train.epochs=3", "train.epochs=3"),
        ("a\x1b[31mb", r"'a\x1b[31mb'"),
        ("name-\udcff", r"'name-\udcff'"),
    ],
)
def test_the_typed_command_is_kept_without_secrets(word: str, kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["ablate", "run", word])
    assert command_line() == f"ablate run {kept}"
    command_line().encode()


@pytest.mark.faults
@pytest.mark.fault(28, "no command follows them")
def test_links_in_a_results_folder_lead_no_command_outside(command: Command) -> None:
    assert command.run().returncode == 0
    outside = command.folder / "outside"
    outside.mkdir()
    (outside / "precious").write_text("mine")
    trial = next(Results(command.results).folders())
    trial.steps.unlink()
    trial.steps.symlink_to(outside / "precious")
    trial.record.unlink()
    for words in (("run", "study.yaml"), ("retry", "study.yaml"), ("profile", "study.yaml")):
        done = command(*words, "--plugin", str(PLUGIN))
        assert done.returncode == 2
        assert "steps.f32: a symbolic link, which is never written through; put a real file" in done.stderr
    trial.steps.unlink()
    (command.results / "tables").symlink_to(outside)
    done = command("report", "tiny")
    assert done.returncode == 2 and "tables: a symbolic link, which is never written through" in done.stderr
    assert [path.name for path in outside.iterdir()] == ["precious"]
    assert (outside / "precious").read_text() == "mine"
    (command.results / "tables").unlink()
    assert command.run().returncode == 0 and len(command.records()) == 4


# -- what a run that goes on need not do again -------------------------------------------------------------------------


def test_variants_are_described_again_only_where_something_changed(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins = Plugins((PLUGIN,), tuple(load_plugins([PLUGIN])))
    built: list[str] = []

    def describe(study: Study, *shapes: Any) -> dict[str, Any]:
        built.append(study.name)
        return describe_variants(study, *shapes)

    monkeypatch.setattr(setup, "describe_variants", describe)

    def prepared(text: str = STUDY) -> dict[str, Any]:
        command.study(text)
        study = read_study(command.folder / "study.yaml")
        setup.prepare(study, writable(command.results, study), plugins=plugins, allow_code_change=False)
        variants: dict[str, Any] = json.loads(command.results.joinpath("run.json").read_bytes())["variants"]
        return variants

    first = prepared()
    assert prepared() == first and len(built) == 1
    # A variant's settings, the baseline, the versions that counted.
    assert prepared(STUDY.replace("width: 8", "width: 7"))["wide"]["parameters"] < first["wide"]["parameters"]
    assert prepared(STUDY + "baseline: wide\n")["narrow"]["differs"] == {"width": [8, 4]}
    monkeypatch.setattr(manifest, "versions", lambda: {"torch": "another"})
    prepared(STUDY + "baseline: wide\n")
    assert len(built) == 4
