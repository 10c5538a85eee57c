"""What a worker makes of an exception: the reason in the record, and whether its process can go on."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import tests.tiny_plugin  # noqa: F401  (registers the tiny components)
from ablate.records.store import Results
from ablate.run.events import Failed, Running
from ablate.run.worker import Assignment, DriverSide, Run, Server, classify
from ablate.train.engine.cuda_graph import CaptureFailed, first_words
from tests.train.test_loop import make_study


@pytest.mark.fault(10, "`out of memory` is the reason")
def test_out_of_memory_is_named_and_ends_the_process() -> None:
    found = classify(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert found.reason.startswith("out of memory: OutOfMemoryError: CUDA out of memory") and found.fresh_process


def test_out_of_memory_is_found_below_the_error_that_ended_a_recording() -> None:
    try:
        try:
            raise torch.OutOfMemoryError("CUDA out of memory")
        finally:
            raise RuntimeError("capture_end: the capture was invalidated")
    except RuntimeError as error:
        found = classify(error)
    assert found.reason == "out of memory: OutOfMemoryError: CUDA out of memory"


def test_a_library_without_memory_is_out_of_memory_too() -> None:
    found = classify(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))
    assert found.reason.startswith("out of memory: RuntimeError")


def test_a_device_in_error_needs_a_fresh_process() -> None:
    found = classify(torch.AcceleratorError("CUDA error: an illegal memory access was encountered"))
    assert found.fresh_process and not found.reason.startswith("out of memory")


def test_a_step_that_cannot_be_recorded_says_why_and_needs_a_fresh_process() -> None:
    try:
        try:
            try:
                raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nCompile with ...")
            finally:
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
        except RuntimeError as error:
            raise CaptureFailed(f"cannot be recorded ({first_words(error)})") from error
    except RuntimeError as error:
        found = classify(error)
    assert found.fresh_process
    assert found.reason == (
        "CaptureFailed: cannot be recorded (CUDA error: operation not permitted when stream is capturing)"
    )


def test_other_errors_leave_the_process() -> None:
    found = classify(ValueError("no"), "trial")
    assert found == Failed("trial", "ValueError: no", "ValueError: no\n")
    assert classify(OSError(errno.ENOSPC, "No space left")).pause


@pytest.mark.fault(10, "on a CPU, too")
def test_a_cpu_without_memory_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator") as raised:
        torch.empty(2**55)
    found = classify(raised.value)
    assert found.reason.startswith("out of memory: RuntimeError") and found.fresh_process


def test_the_first_error_is_the_reason_although_the_device_answers_everything_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    study = make_study(tmp_path)
    said: list[Any] = []
    server = object.__new__(Server)
    server.results, server.study, server.origin = Results(tmp_path / "out"), study, None
    server.assignment = Assignment(tmp_path / "out", tmp_path, device="cuda:0")
    server.driver = DriverSide()
    monkeypatch.setattr(server.driver, "send", said.append)
    server.bench = SimpleNamespace(arithmetic=dict, forget_network=broken)  # type: ignore[assignment]
    monkeypatch.setattr("ablate.train.loop.run_trial", broken)
    trial = study.trials()[0]
    server.run(Run(trial, trial.name))
    assert [type(event) for event in said] == [Running, Failed]
    assert said[1].reason.startswith("AcceleratorError: CUDA error: an illegal memory") and said[1].fresh_process
