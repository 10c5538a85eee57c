"""Trials on a GPU in real worker processes: several on one GPU, several GPUs, out of memory, the defaults."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ablate.records.store import Results
from tests.conftest import ROOT
from tests.train.test_cuda import STUDY
from tests.train.test_loop import content

# As in `tests/train/test_cuda.py`: never a failure where there is no GPU.
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def ablate_run(folder: Path, text: str, out: str, *more: str) -> subprocess.CompletedProcess[str]:
    path = folder / "study.yaml"
    path.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "ablate.cli", "run", str(path), "--no-profile", "--out", str(folder / out), *more]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths, "WANDB_MODE": "disabled"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_workers_on_one_gpu_give_the_records_of_trials_that_ran_alone(tmp_path: Path) -> None:
    text = STUDY.replace("OPTIONS ", "") + "run: {devices: [cuda:0], engine: graph, workers: LANES, keep: last}\n"
    for workers in ("2", "1"):
        done = ablate_run(tmp_path, text.replace("LANES", workers), workers)
        assert done.returncode == 0, done.stderr
    folders = list(Results(tmp_path / "1").folders())
    assert len(folders) == 8
    for folder in folders:
        assert content(Results(tmp_path / "2").trial(folder.path.name)) == content(folder)
    pids = {json.loads(folder.record.read_bytes())["provenance"]["pid"] for folder in Results(tmp_path / "2").folders()}
    assert len(pids) == 2
    arithmetic = json.loads(folders[0].record.read_bytes())["provenance"]["arithmetic"]
    assert arithmetic["repeatable"] == "same-machine" and arithmetic["tf32"] is False


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")
def test_several_gpus_give_the_records_of_one(tmp_path: Path) -> None:
    text = STUDY.replace("OPTIONS ", "") + "run: {devices: DEVICES, engine: graph, workers: 1, keep: last}\n"
    for devices in ("[cuda:0]", "auto"):
        done = ablate_run(tmp_path, text.replace("DEVICES", devices), devices.strip("[]"))
        assert done.returncode == 0, done.stderr
    for folder in Results(tmp_path / "auto").folders():
        assert content(folder) == content(Results(tmp_path / "cuda:0").trial(folder.path.name))


HUNGRY = """\
import torch
import ablate
from ablate.models.unet import unet

@ablate.register_model("hungry")
def hungry(*, in_channels: int, num_classes: int) -> torch.nn.Module:
    "A U-Net in a process that may take little memory."
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(3e8 / total)
    return unet(in_channels=in_channels, num_classes=num_classes, width=32)
"""


@pytest.mark.parametrize("engine", ["eager", "graph"])
def test_out_of_memory_is_a_record_and_never_a_smaller_batch(tmp_path: Path, engine: str) -> None:
    plugin = tmp_path / "hungry.py"
    plugin.write_text(HUNGRY, encoding="utf-8")
    text = (
        "study: hungry\ndata: {name: street, size: [256, 384], train: 16, val: 2, test: 2}\nmodel: {name: hungry}\n"
        "variants: {only: {}}\ngrid: {lr: [1e-3]}\nseeds: 1\ntrain: {epochs: 1, batch_size: 16}\n"
        f"run: {{devices: [cuda:0], engine: {engine}, attempts: 1}}\n"
    )
    done = ablate_run(tmp_path, text, "out", "--plugin", str(plugin))
    assert done.returncode == 1, done.stderr
    (folder,) = Results(tmp_path / "out").folders()
    record = json.loads(folder.record.read_bytes())
    assert record["status"] == "failed" and record["reason"].startswith("out of memory")
    assert record["train"]["batch_size"] == 16


def test_a_graph_is_the_default_and_its_reason_is_kept(tmp_path: Path) -> None:
    text = STUDY.replace("OPTIONS ", "") + "run: {devices: [cuda:0]}\n"
    done = ablate_run(tmp_path, text, "out")
    assert done.returncode == 0, done.stderr
    decided = Results(tmp_path / "out").read_run()["decisions"]
    assert decided["engine"]["value"] == "graph" and "compiling would save about 0 s" in decided["engine"]["why"]
    assert decided["workers"]["value"] == 1 and decided["deterministic"]["value"] is True
