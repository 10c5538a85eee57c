"""`ablate status` and the dashboard on a real results folder."""

from __future__ import annotations

import http.client
import importlib.util
import io
import json
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

from ablate.records.paint import write_panel
from ablate.records.store import Results
from ablate.run.dashboard import PROMISE
from tests.conftest import missing
from tests.run.conftest import Command


def test_status_counts_trials_by_state(command: Command) -> None:
    assert command.run("--only", "variant=narrow").returncode == 0
    half = command("status")
    assert half.returncode == 1 and "tiny: 2 of 4 trials done" in half.stdout and "no run is going on" in half.stdout
    rows = [line for line in half.stdout.splitlines() if line.startswith("│")]
    assert any("narrow" in row and "2" in row for row in rows) and any("wide" in row and "2" in row for row in rows)
    assert command.run().returncode == 0
    assert command("status", "tiny").returncode == 0


def test_status_without_results_says_what_to_do(tmp_path: Path) -> None:
    done = Command(tmp_path)("status")
    assert done.returncode == 2 and done.stderr.strip() == (
        "ablate: no results yet; `ablate run study.yaml` makes some"
    )


def test_a_panel_has_a_row_an_image_and_four_columns(undisturbed: Command, tmp_path: Path) -> None:
    from PIL import Image

    name = next(iter(undisturbed.records()))
    path = write_panel(Results(undisturbed.results), name, tmp_path / "panel.png")
    assert path is not None and Image.open(path).size == (4 * 16, 5 * 12)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(port: int, path: str) -> bytes:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Accept-Encoding": "gzip"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return bytes(answer.read())


def answer_to(host: str, port: int) -> int:
    """The status of the dashboard's answer to a request for `host`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.putrequest("GET", "/api/meta", skip_host=True)
    connection.putheader("Host", host)
    connection.endheaders()
    return connection.getresponse().status


@pytest.mark.fault("R7", "it answers to `localhost` and loopback addresses only, whatever a page calls itself")
def test_the_dashboard_shows_the_study_with_artifacts(command: Command) -> None:
    if importlib.util.find_spec("optuna_dashboard") is None:
        missing("optuna-dashboard is not installed")
    assert command.run("--only", "variant=narrow").returncode == 0
    port = free_port()
    process = subprocess.Popen(
        command.arguments("dashboard", "tiny", "--port", str(port)),
        cwd=command.folder,
        env=command.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        limit = time.monotonic() + 60
        while True:
            try:
                get(port, "/api/meta")
                break
            except OSError:
                assert time.monotonic() < limit and process.poll() is None, "the dashboard did not come up"
                time.sleep(0.2)
        study = json.loads(get(port, "/api/studies"))["study_summaries"][0]
        detail = json.loads(get(port, f"/api/studies/{study['study_id']}?after=0"))
        trials = [trial for trial in detail["trials"] if trial["state"] == "Complete"]
        assert len(trials) == 2 and all(trial["artifacts"] for trial in trials)
        names = {artifact["filename"] for trial in trials for artifact in trial["artifacts"]}
        assert names == {"panel.png", "curves.png"}
        kept = list((command.results / "artifacts").iterdir())
        assert len(kept) == 4 and all(path.read_bytes().startswith(PROMISE) for path in kept)  # drawn by whom looks
        address = f"/artifacts/{study['study_id']}/{trials[0]['trial_id']}/"
        for artifact in trials[0]["artifacts"]:
            with Image.open(io.BytesIO(get(port, address + artifact["artifact_id"]))) as picture:
                assert picture.format == "PNG" and picture.width > 16
        assert sum(path.read_bytes().startswith(PROMISE) for path in kept) == 2
        for host, code in (("localhost", 200), (f"[::1]:{port}", 200), ("evil.example", 403), ("", 403)):
            assert answer_to(host, port) == code
        params = [{param["name"]: param["param_external_value"] for param in trial["params"]} for trial in trials]
        assert {param["variant"] for param in params} == {"narrow"}
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1"])
@pytest.mark.fault("R7", "refused without `--expose`; exit code 2")
def test_the_dashboard_refuses_other_addresses_without_the_flag(undisturbed: Command, host: str) -> None:
    done = undisturbed("dashboard", "tiny", "--host", host)
    assert done.returncode == 2 and "--expose" in done.stderr
