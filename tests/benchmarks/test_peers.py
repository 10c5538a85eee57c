"""Every peer trains the same study: an epoch on sixteen images, by its own main function."""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, missing

STUDY = """
study: small
data: {name: street, size: [32, 48], train: 16, val: 4, test: 4}
model: {name: unet, width: 4, depth: 2}
variants: {unet: {}}
grid: {lr: [1e-3]}
seeds: 1
train: {epochs: 1, batch_size: 8}
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(STUDY, encoding="utf-8")
    return path


def needs(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        missing(f"{package} is not installed (benchmarks/requirements.txt)")


def check_result(out: Path) -> None:
    (trial,) = json.loads(out.read_text())["trials"]
    assert (trial["variant"], trial["lr"], trial["seed"], trial["best_epoch"]) == ("unet", 1e-3, 0, 1)
    # Two steps from a fresh initialisation leave the loss near that of eleven equal classes, for everybody alike.
    (loss,) = trial["train_loss"]
    assert loss == pytest.approx(math.log(11), abs=0.3)
    assert 0 < trial["val_mean_iou"] < 0.3
    assert 0 < trial["test_mean_iou"] < 0.3


@pytest.mark.parametrize(
    ("peer", "package"), [("plain", "torch"), ("expert", "torch"), ("lightning_optuna", "lightning")]
)
def test_a_peer_trains_an_epoch(
    peer: str, package: str, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs(package)
    out = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", [peer, "--study", str(study), "--out", str(out)])
    importlib.import_module(f"benchmarks.peers.{peer}").main()
    check_result(out)


def test_ray_trains_an_epoch(study: Path, tmp_path: Path) -> None:
    needs("ray")
    if os.environ.get("ABLATE_TEST_ALL") != "1":
        pytest.skip("Ray takes longer to start than all other tests here; ABLATE_TEST_ALL=1 runs it")
    out = tmp_path / "out.json"
    # In a process of its own, whose end takes all that Ray has started with it.
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.peers.ray_tune", "--study", str(study), "--out", str(out)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    check_result(out)
