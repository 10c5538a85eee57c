"""What the machine can compute with: devices, cores, the processor's kind, whether bfloat16 pays on it."""

from __future__ import annotations

import functools
import os
import platform
import time
from pathlib import Path

import torch

from ablate.errors import DeviceError

# A processor that only has instructions for bfloat16, no matrix unit, has to show in a convolution that they pay: they
# must make up for the casts. Processors show 0.5 or 2, with the scatter of the measurement well within.
LEAST_GAIN = 1.3


def cores() -> int:
    """CPU cores that this process may use (affinity respected)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device_names(asked: list[str] | str) -> list[str]:
    """The devices of a study that asks for "auto" or for a list, all of one class: "auto" is the GPUs like the first.

    Raises `DeviceError` for one that is not there, naming those that are, and for devices of different classes.
    """
    present = [f"cuda:{index}" for index in range(torch.cuda.device_count())] + ["cpu"]
    if asked == "auto":
        gpus = present[:-1]
        return [name for name in gpus if device_class(name) == device_class(gpus[0])] or ["cpu"]
    names = list(dict.fromkeys("cuda:0" if name == "cuda" else name for name in asked))
    for name in names:
        if name not in present:
            raise DeviceError(
                f"device '{name}' is not there", key="run.devices", cure=f"this machine has {', '.join(present)}"
            )
    classes = list(dict.fromkeys(device_class(name) for name in names))
    if len(classes) > 1:
        raise DeviceError(
            f"the devices differ ({'; '.join(classes)}), and their numbers do not belong in one table",
            key="run.devices",
            cure="name devices of one kind",
        )
    return names


def device_class(device: str) -> str:
    """What decisions are kept by: the model of the GPU, or the processor's kind and vector instructions."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{processor()} ({torch.backends.cpu.get_cpu_capability()}{', AMX' if has_amx() else ''})"


def processor() -> str:
    """The processor's model name."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as handle:
            for line in handle:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def has_amx() -> bool:
    """Whether the processor has AMX tiles and the system lets this process use them."""
    return bool(torch.cpu._is_amx_tile_supported())


def has_bfloat16(device: str) -> tuple[bool, str]:
    """Whether `device` computes quicker in bfloat16 than in float32, and why."""
    if device.startswith("cuda"):
        capable = torch.cuda.get_device_capability(device) >= (8, 0)
        return capable, f"{torch.cuda.get_device_name(device)} {'has' if capable else 'lacks'} bfloat16 tensor cores"
    if has_amx():
        return True, "the processor computes bfloat16 in AMX tiles"
    if not torch.cpu._is_avx512_bf16_supported():
        return False, "the processor has no bfloat16 instructions: emulation would be slower than float32"
    gain = bfloat16_gain()
    return gain >= LEAST_GAIN, f"a convolution in bfloat16 (AVX-512) has {gain:.1f} × the speed of one in float32"


@functools.cache
def bfloat16_gain() -> float:
    """How many times as fast this processor computes a convolution in bfloat16 as in float32, on one thread.

    A layer from the middle of a narrow U-Net, forward, the quickest of several runs: about a tenth of a second.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _convolution_seconds(torch.float32) / _convolution_seconds(torch.bfloat16)
    finally:
        torch.set_num_threads(threads)


@torch.no_grad()
def _convolution_seconds(dtype: torch.dtype, *, runs: int = 12) -> float:
    images, weight = torch.ones(4, 32, 48, 64, dtype=dtype), torch.ones(32, 32, 3, 3, dtype=dtype)
    images = images.contiguous(memory_format=torch.channels_last)
    seconds = []
    for _ in range(runs):
        began = time.perf_counter()
        torch.nn.functional.conv2d(images, weight, padding=1)
        seconds.append(time.perf_counter() - began)
    return min(seconds)
