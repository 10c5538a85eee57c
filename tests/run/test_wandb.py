"""W&B runs written offline, read back from their own files; never a prompt, never a key in the results."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ablate.records.store import Results
from ablate.run.wandb import CLOSE_SECONDS, WandbTracker, resolve_mode, strange_settings
from tests.run.conftest import STUDY, Command
from tests.run.test_optuna_mirror import study_in

ONE = STUDY.replace("{narrow: {}, wide: {width: 8}}", "{only: {}}").replace("track: {wandb: disabled}\n", "")


@pytest.mark.parametrize(
    ("setting", "variable", "mode"),
    [
        ("auto", None, "offline"),
        ("auto", "online", "online"),
        ("auto", "disabled", "disabled"),
        ("auto", "dryrun", "offline"),
        ("offline", "online", "offline"),
        ("disabled", "online", "disabled"),
        ("online", None, "online"),
    ],
)
def test_the_study_decides_then_the_variable_then_offline(
    monkeypatch: pytest.MonkeyPatch, setting: str, variable: str | None, mode: str
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    if variable:
        monkeypatch.setenv("WANDB_MODE", variable)
    assert resolve_mode(setting) == mode


def inspect(run: Path, *words: str) -> str:
    """What W&B itself reads in an offline run."""
    wandb = Path(sys.executable).with_name("wandb")
    done = subprocess.run([wandb, "leet", "inspect", "--json", *words, run], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.fault("R6", "found nowhere in the results folder")
def test_every_trial_is_a_run_with_settings_curves_metrics_and_panel(command: Command) -> None:
    command.study(ONE)
    done = command.run(WANDB_API_KEY="x" * 40, WANDB_MODE="offline")
    assert done.returncode == 0, done.stdout
    assert "wandb sync --yes" in done.stdout
    runs = sorted(command.results.glob("wandb/offline-run-*"))
    assert len(runs) == 2
    summaries = [json.loads(inspect(path, "--summary")) for path in runs]
    assert sorted(run["config"]["lr"] for run in summaries) == [0.001, 0.01]
    for path, run in zip(runs, summaries, strict=True):
        assert run["state"] == "finished" and run["exit_code"] == 0
        assert run["config"]["variant"] == "only" and run["config"]["model"]["name"] == "two_convolutions"
        assert run["summary"]["status"] == "complete"
        assert {"test/mean_iou", "test/loss", "val/mean_iou", "train/loss", "panel"} <= set(run["summary"])
        history = [line for line in inspect(path).splitlines() if '"type":"history"' in line]
        assert sum("val/mean_iou" in line for line in history) == 3
    planted = ("x" * 40).encode()
    found = [path for path in command.results.rglob("*") if path.is_file() and planted in path.read_bytes()]
    assert found == []


def test_disabled_writes_nothing(command: Command) -> None:
    command.study(ONE)
    assert command.run(WANDB_MODE="disabled").returncode == 0
    assert not (command.results / "wandb").exists()


@pytest.mark.fault(21, "a closed port: written offline, said, records equal")
def test_online_with_a_closed_port_goes_offline_at_once(command: Command, undisturbed: Command) -> None:
    command.study(STUDY.replace("wandb: disabled", "wandb: online"))
    no_proxy = {"http_proxy": "", "HTTP_PROXY": "", "all_proxy": "", "ALL_PROXY": ""}
    done = command.run(WANDB_API_KEY="y" * 40, WANDB_BASE_URL="http://127.0.0.1:9", **no_proxy)
    assert done.returncode == 0, done.stdout
    assert "W&B cannot be reached (127.0.0.1:9: ConnectionRefusedError" in done.stdout
    assert len(list(command.results.glob("wandb/offline-run-*"))) == 4
    assert command.records() == undisturbed.records()


@pytest.mark.fault(26, "W&B does not run git there, either")
def test_git_is_not_run_for_wandb(command: Command) -> None:
    command.study(ONE)
    programs = command.folder / "programs"
    programs.mkdir()
    (programs / "git").write_text(f"#!/bin/sh\ntouch {command.folder}/called\n")
    (programs / "git").chmod(0o755)
    (command.folder / ".git").mkdir()
    done = command.run(PATH=f"{programs}{os.pathsep}{os.environ['PATH']}")
    assert done.returncode == 0 and list(command.results.glob("wandb/offline-run-*")), done.stdout
    assert not (command.folder / "called").exists()


@pytest.mark.fault(21, "its process killed: the run completes, records equal")
def test_a_killed_process_of_wandb_disturbs_nothing(command: Command, undisturbed: Command) -> None:
    command.study(STUDY.replace("wandb: disabled", "wandb: offline"))
    process = command.start()
    killed: set[int] = set()
    limit = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < limit:
        for pid in set(cores_of_wandb(process.pid)) - killed:
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        time.sleep(0.05)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and killed, output
    assert "Traceback" not in output, output
    assert command.records() == undisturbed.records()


def cores_of_wandb(driver: int) -> list[int]:
    """The processes of W&B that the driver started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
            if name.startswith("wandb-core") and int(rest.split()[1]) == driver:
                found.append(int(entry.name))
    return found


@pytest.mark.fault(21, "a server that never answers is not waited for")
def test_a_server_that_never_answers_is_not_waited_for_at_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(CLOSE_SECONDS, "online", 0.2)
    monkeypatch.setenv("WANDB_API_KEY", "z" * 40)
    asked, answer = threading.Event(), threading.Event()

    def unreachable() -> None:
        asked.set()
        answer.wait(60)

    monkeypatch.setattr("ablate.run.wandb.unreachable", unreachable)
    tracker = WandbTracker(study_in(tmp_path, STUDY.replace("wandb: disabled", "wandb: online")), Results(tmp_path))
    assert asked.wait(10)
    assert tracker.close() == ["W&B did not finish in time; the records are complete without it"]
    answer.set()


def test_a_mode_that_is_none_is_said_and_written_offline(command: Command) -> None:
    command.study(ONE.replace("[1e-2, 1e-3]", "[1e-2]"))
    done = command.run(WANDB_MODE="nonsense")
    assert done.returncode == 0 and "WANDB_MODE=nonsense is not known" in done.stdout, done.stdout
    assert len(list(command.results.glob("wandb/offline-run-*"))) == 1


def test_online_without_a_key_never_asks(command: Command) -> None:
    command.study(ONE)
    done = command.run(WANDB_MODE="online", HOME=str(command.folder))
    assert done.returncode == 0 and "no W&B key on this machine" in done.stdout
    assert len(list(command.results.glob("wandb/offline-run-*"))) == 2


@pytest.mark.parametrize(
    ("said", "strange"),
    [
        ("entity = me\nproject = cells\nbase_url = https://api.wandb.ai", False),
        ("base_url = http://127.0.0.1:9", True),
        ("base_url = https://wandb.lab.example", False),
        ("base_url = https://wandb.other.example", False),
        ("x_files_dir = /tmp", True),
        ("no setting", True),
    ],
)
def test_settings_that_lie_in_the_working_folder_decide_no_place(
    said: str, strange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (home := tmp_path / "home").mkdir()
    (home / "settings").write_text("[default]\nbase_url = https://wandb.lab.example\n")  # of `wandb login --host`
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(home))
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.other.example/")
    assert strange_settings() == ""
    settings = tmp_path / "wandb" / "settings"
    settings.parent.mkdir()
    settings.write_text(f"[default]\n{said}\n")
    assert strange_settings() == ("wandb/settings" if strange else "")
    for name, value in {"WANDB_MODE": "offline", "WANDB_DISABLE_GIT": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("ablate.run.wandb.resolve_mode", lambda _: "offline")
    tracker = WandbTracker(study_in(tmp_path), Results(tmp_path / "results"))
    assert (tracker.mode == "disabled") == strange
    assert any("W&B is off: wandb/settings" in note for note in tracker.close()) == strange
