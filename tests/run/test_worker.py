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
from ablate.run.worker import _Server, classify
from ablate.train.recording import RecordingFailed, first_words
from tests.train.test_trial import make_study


@pytest.mark.fault(10, "`out of memory` is the reason")
def test_out_of_memory_is_named_and_ends_the_process() -> None:
    found = classify(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert found["reason"].startswith("out of memory: OutOfMemoryError: CUDA out of memory") and found["fresh_process"]


def test_out_of_memory_is_found_below_the_error_that_ended_a_recording() -> None:
    try:
        try:
            raise torch.OutOfMemoryError("CUDA out of memory")
        finally:
            raise RuntimeError("capture_end: the capture was invalidated")
    except RuntimeError as error:
        assert classify(error)["reason"] == "out of memory: OutOfMemoryError: CUDA out of memory"


def test_a_library_without_memory_is_out_of_memory_too() -> None:
    found = classify(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))
    assert found["reason"].startswith("out of memory: RuntimeError")


def test_a_device_in_error_needs_a_fresh_process() -> None:
    found = classify(torch.AcceleratorError("CUDA error: an illegal memory access was encountered"))
    assert found["fresh_process"] and not found["reason"].startswith("out of memory")


def test_a_step_that_cannot_be_recorded_says_why_and_needs_a_fresh_process() -> None:
    try:
        try:
            try:
                raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nCompile with ...")
            finally:
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
        except RuntimeError as error:
            raise RecordingFailed(f"cannot be recorded ({first_words(error)})") from error
    except RuntimeError as error:
        found = classify(error)
    assert found["fresh_process"]
    assert found["reason"] == (
        "RecordingFailed: cannot be recorded (CUDA error: operation not permitted when stream is capturing)"
    )


def test_other_errors_leave_the_process() -> None:
    assert classify(ValueError("no")) == {"event": "failed", "reason": "ValueError: no"}
    assert classify(OSError(errno.ENOSPC, "No space left"))["pause"]


def test_the_first_error_is_the_reason_although_the_device_answers_everything_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    study = make_study(tmp_path)
    server, said = object.__new__(_Server), []
    server.results, server.study, server.origin, server.device = Results(tmp_path / "out"), study, None, "cuda:0"
    server.channel = SimpleNamespace(send=said.append)  # type: ignore[assignment]
    server.bench = SimpleNamespace(arithmetic=dict, forget_network=broken)  # type: ignore[assignment]
    monkeypatch.setattr("ablate.train.trial.run_trial", broken)
    server.run({"trial": vars(study.trials()[0]), "provenance": {}})
    assert [event["event"] for event in said] == ["running", "failed"]
    assert said[1]["reason"].startswith("AcceleratorError: CUDA error: an illegal memory") and said[1]["fresh_process"]
