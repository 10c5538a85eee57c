"""The device under a trial: its kind, what it computes quickly, and what fixes the bits of a process on it."""

from __future__ import annotations

import functools
import os
import platform
import resource
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ablate.data.rng import derive
from ablate.errors import DeviceError

# A processor that only has instructions for bfloat16, no matrix unit, has to show in a convolution that they pay: they
# must make up for the casts. Processors show 0.5 or 2, with the scatter of the measurement well within.
LEAST_GAIN = 1.3


def cores() -> int:
    """Return the number of CPU cores that this process may use (affinity respected)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device_names(asked: list[str] | str) -> list[str]:
    """Return the devices that a study asks for, all of one class: "auto" is the GPUs like the first, or the CPU.

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
    """Return what an execution config is kept by: the GPU's model, or the processor's kind and instructions."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{processor()} ({torch.backends.cpu.get_cpu_capability()}{', AMX' if has_amx() else ''})"


def processor() -> str:
    """Return the processor's model name."""
    return cpuinfo("model name") or platform.processor() or platform.machine()


def has_amx() -> bool:
    """Return whether the processor has AMX tiles, as the system reports it."""
    return "amx_tile" in cpuinfo("flags").split()


def cpuinfo(field: str) -> str:
    """Return a line of /proc/cpuinfo; empty where there is none."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as handle:
            return next((line.split(":", 1)[1].strip() for line in handle if line.startswith(field)), "")
    except OSError:
        return ""


def has_bfloat16(device: str) -> tuple[bool, str]:
    """Return whether `device` computes quicker in bfloat16 than in float32, and why."""
    if device.startswith("cuda"):
        capable = torch.cuda.get_device_capability(device) >= (8, 0)
        return capable, f"{torch.cuda.get_device_name(device)} {'has' if capable else 'lacks'} bfloat16 tensor cores"
    if has_amx():
        return True, "the processor computes bfloat16 in AMX tiles"
    if "avx512_bf16" not in cpuinfo("flags").split():
        return False, "the processor has no bfloat16 instructions: emulation would be slower than float32"
    gain = bfloat16_gain()
    return gain >= LEAST_GAIN, f"a convolution in bfloat16 (AVX-512) has {gain:.1f} × the speed of one in float32"


@functools.cache
def bfloat16_gain() -> float:
    """Return how many times as fast a convolution in bfloat16 is as one in float32, on one thread of this processor.

    A layer from the middle of a narrow U-Net, forward, the quickest of several runs: about a tenth of a second.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _convolution_seconds(torch.float32) / _convolution_seconds(torch.bfloat16)
    finally:
        torch.set_num_threads(threads)


@torch.no_grad()
def _convolution_seconds(dtype: torch.dtype) -> float:
    images, weight = torch.ones(4, 32, 48, 64, dtype=dtype), torch.ones(32, 32, 3, 3, dtype=dtype)
    images = images.contiguous(memory_format=torch.channels_last)
    seconds = []
    for _ in range(12):
        began = time.perf_counter()
        torch.nn.functional.conv2d(images, weight, padding=1)
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def prepare_process(threads: int, deterministic: bool) -> None:
    """Fix in this process what changes bits: CPU threads, deterministic kernels, TF32."""
    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = not deterministic
        # cuBLAS reads this when its handle is made, so it has to be there before the first matmul.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(deterministic)
        # Filling fresh memory guards against reading what was never written; built-in models do not.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def arithmetic(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """Return the context in which a network computes: autocast to `precision`, or none at float32."""
    reduced = precision != torch.float32
    # Without the cache, because a probe changes weights between two passes.
    return torch.autocast(device.type, precision if reduced else torch.bfloat16, enabled=reduced, cache_enabled=False)


def seed_initialisation(seed: int) -> None:
    """Seed the generators before a network's parameters are drawn: the same for every variant of one seed."""
    _seed(derive(seed, "initialisation"))


def seed_step(seed: int, step: int) -> None:
    """Seed what dropout and other layers draw from, by the position in the training alone.

    Nothing of a generator's state has to be saved, and a resumed trial draws what the undisturbed one drew.
    """
    _seed(derive(seed, "layers", step))


def _seed(value: int) -> None:
    """Do as `torch.manual_seed`, for the devices that this process uses.

    Where a kind of device is not awake, torch keeps a seed for it, with the stack it was called from: milliseconds for
    every step.
    """
    torch.default_generator.manual_seed(value)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(value)


def synchronise(device: torch.device) -> None:
    """Wait until a GPU is done with all that was queued; a CPU has nothing queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(device: torch.device) -> int:
    """Return bytes at the highest: of the device's allocator on CUDA, of the resident process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Readback:
    """Tensors on their way to the host, in the order of the work that was queued before.

    On a CPU they are there at once.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._event: torch.cuda.Event | None = None
        self._host = [tensor.detach() for tensor in tensors]
        if any(tensor.is_cuda for tensor in tensors):
            self._host = [
                torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor.detach(), non_blocking=True)
                for tensor in tensors
            ]
            # Waiting for it gives the core to others: another worker may need it.
            self._event = torch.cuda.Event(blocking=True)
            self._event.record()

    def ready(self) -> bool:
        """Return whether `wait` would return at once."""
        return self._event is None or self._event.query()

    def wait(self) -> list[Tensor]:
        """Return the tensors on the CPU."""
        if self._event is not None:
            self._event.synchronize()
        return self._host


class Clock:
    """Marks in the work of a device, and the seconds between two of them; on a CPU by the clock of the host."""

    def __init__(self, device: torch.device) -> None:
        self._on_device = device.type == "cuda"
        self._events: list[torch.cuda.Event] = []
        self._times: list[float] = []

    def mark(self) -> None:
        """Set a mark behind all work queued so far."""
        if self._on_device:
            event = torch.cuda.Event(enable_timing=True, blocking=True)
            event.record()
            self._events.append(event)
        else:
            self._times.append(time.monotonic())

    def seconds(self, first: int, last: int) -> float:
        """Return the seconds from one mark to another, by number; waits until the device has passed the later one."""
        if self._on_device:
            self._events[last].synchronize()
            return self._events[first].elapsed_time(self._events[last]) / 1000
        return self._times[last] - self._times[first]

    def since(self, first: int) -> float:
        """Return the seconds from a mark, by number, to the work queued so far; waits until that is done."""
        self.mark()
        passed = self.seconds(first, -1)
        (self._events if self._on_device else self._times).pop()
        return passed
