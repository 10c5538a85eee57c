"""The environment of a worker: the one device that it sees."""

from __future__ import annotations

import os

import pytest

from ablate.run.executor import worker_environment


def test_a_worker_sees_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert worker_environment("cuda:1", 4)["CUDA_VISIBLE_DEVICES"] == "1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    found = worker_environment("cuda:1", 4)
    assert (found["CUDA_VISIBLE_DEVICES"], found["CUBLAS_WORKSPACE_CONFIG"]) == ("5", ":4096:8")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-5a1b, MIG-77c2")
    assert worker_environment("cuda:1", 4)["CUDA_VISIBLE_DEVICES"] == "MIG-77c2"
    assert worker_environment("cpu", 4).get("CUDA_VISIBLE_DEVICES") == os.environ["CUDA_VISIBLE_DEVICES"]
