"""What a worker makes of an exception: the reason in the record, and whether its process can go on."""

from __future__ import annotations

import errno

import torch

from ablate.run.worker import classify
from ablate.train.recording import RecordingFailed, first_words


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
