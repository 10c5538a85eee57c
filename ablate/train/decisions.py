"""The numerical decisions of a study on a class of device: taken once, with a reason, and kept for every trial.

They change bits, so they never follow from what happens to be left to do: a resumed study takes them from its
`run.json`.
"""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ablate.errors import DeviceError
from ablate.study.schema import StudySpec
from ablate.train.engines import Choice

# Compiling pays only where its fixed cost is small against the training it speeds up. Rough figures on purpose,
# and from arithmetic instead of a stopwatch: the same study on the same machine always decides the same.
# They are those of narrow U-Nets (8 to 16 channels) on one core; bfloat16 is computed in AMX tiles there.
COMPILE_SECONDS = 60.0
COMPILE_GAIN = {"bfloat16": 0.06, "float32": 0.07}
CPU_FLOPS_PER_CORE = {"bfloat16": 60e9, "float32": 25e9}


# Engines that record the whole step as a CUDA graph.
RECORDING = ("graph", "compiled_graph")


@dataclass(frozen=True)
class Decisions:
    """How every trial of a study is computed on one class of device."""

    device: str
    precision: str
    channels_last: bool
    engine: str
    threads: int
    lanes: int
    deterministic: bool
    reasons: dict[str, str]

    @property
    def compiles(self) -> bool:
        """Whether forward pass and loss are compiled."""
        return self.engine in ("compiled", "compiled_graph")

    @property
    def records(self) -> bool:
        """Whether the whole step is recorded as a CUDA graph."""
        return self.engine in RECORDING

    def to_json(self) -> dict[str, dict[str, Any]]:
        """As `run.json` keeps it: name -> {value, why}."""
        values = asdict(self)
        reasons = values.pop("reasons")
        return {name: {"value": value, "why": reasons.get(name, "")} for name, value in values.items()}

    @classmethod
    def from_json(cls, document: dict[str, dict[str, Any]]) -> Decisions:
        """The inverse of `to_json`."""
        values = {name: entry["value"] for name, entry in document.items()}
        return cls(**values, reasons={name: entry["why"] for name, entry in document.items()})


NOT_PROBED = Choice("eager", 1, dict.fromkeys(("engine", "lanes"), "nothing was probed"))


def cores() -> int:
    """CPU cores that this process may use (affinity respected)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device_names(spec: StudySpec) -> list[str]:
    """The devices of a study; raises `DeviceError` for one that is not there, naming those that are."""
    present = [f"cuda:{index}" for index in range(torch.cuda.device_count())] + ["cpu"]
    asked = spec.run.devices
    if asked == "auto":
        return present[:-1] or ["cpu"]
    names = ["cuda:0" if name == "cuda" else name for name in asked]
    for name in names:
        if name not in present:
            raise DeviceError(
                f"device '{name}' is not there", key="run.devices", cure=f"this machine has {', '.join(present)}"
            )
    return names


def device_class(device: str) -> str:
    """What decisions are kept by: the model of the GPU, or the processor's kind and vector instructions."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{processor()} ({torch.backends.cpu.get_cpu_capability()}{', AMX' if _has_amx() else ''})"


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


def _has_amx() -> bool:
    return bool(torch.cpu._is_amx_tile_supported())


def _has_bfloat16(device: str) -> tuple[bool, str]:
    if device.startswith("cuda"):
        capable = torch.cuda.get_device_capability(device) >= (8, 0)
        return capable, f"{torch.cuda.get_device_name(device)} {'has' if capable else 'lacks'} bfloat16 tensor cores"
    if _has_amx():
        return True, "the processor computes bfloat16 in AMX tiles"
    if torch.cpu._is_avx512_bf16_supported():
        return True, "the processor has AVX-512 bfloat16 instructions"
    return False, "the processor has no bfloat16 instructions: emulation would be slower than float32"


def decide(
    spec: StudySpec,
    *,
    trials: int,
    device: str,
    train_flops: float,
    variants: int,
    gpu: Choice = NOT_PROBED,
) -> Decisions:
    """Take every decision for `device`; on a GPU engine and lanes are those of `gpu`, where the study leaves them open.

    Raises `DeviceError` where the study asks for a CUDA graph on a CPU.

    `trials` is the number of trials planned, `train_flops` the floating-point operations of training all of them;
    both come from the whole plan, not from what is pending, so that a resumed study decides the same.
    """
    reasons: dict[str, str] = {}
    on_cuda = device.startswith("cuda")
    if spec.train.precision == "auto":
        has, reasons["precision"] = _has_bfloat16(device)
        precision = "bfloat16" if has else "float32"
    else:
        precision = spec.train.precision
        reasons["precision"] = "the study says so"
    reasons["channels_last"] = "convolutions with few channels are faster on this layout, in both precisions"
    if spec.run.engine in RECORDING and not on_cuda:
        raise DeviceError(
            f"'{spec.run.engine}' records CUDA graphs, and this study runs on a CPU",
            key="run.engine",
            cure="take auto, eager or compiled",
        )
    lanes, threads = _lanes(spec, trials=trials, gpu=gpu if on_cuda else None, reasons=reasons)
    engine: str = spec.run.engine
    if engine != "auto":
        reasons["engine"] = "the study says so"
    elif on_cuda:
        engine, reasons["engine"] = gpu.engine, gpu.reasons["engine"]
    else:
        engine, reasons["engine"] = _cpu_engine(precision, train_flops=train_flops, variants=variants, lanes=lanes)
    reasons["deterministic"] = "run.deterministic" if on_cuda else "a CPU with a fixed number of threads always is"
    reasons["device"] = "run.devices"
    return Decisions(
        device=device_class(device),
        precision=precision,
        channels_last=True,
        engine=engine,
        threads=threads,
        lanes=lanes,
        deterministic=spec.run.deterministic or not on_cuda,
        reasons=reasons,
    )


def _lanes(spec: StudySpec, *, trials: int, gpu: Choice | None, reasons: dict[str, str]) -> tuple[int, int]:
    available = cores()
    limit = os.environ.get("OMP_NUM_THREADS", "")
    if spec.run.lanes != "auto":
        lanes = spec.run.lanes
        reasons["lanes"] = "the study says so"
    elif gpu is not None:
        lanes, reasons["lanes"] = gpu.lanes, gpu.reasons["lanes"]
    else:
        lanes = max(1, min(available, trials))
        reasons["lanes"] = f"{available} cores, {trials} trials: one trial a core beats one trial on all cores"
    if spec.run.threads != "auto":
        threads = spec.run.threads
        reasons["threads"] = "the study says so"
    elif limit.isdigit() and int(limit) > 0:
        threads = int(limit)
        reasons["threads"] = "OMP_NUM_THREADS"
    else:
        threads = max(1, available // lanes)
        reasons["threads"] = f"{available} cores shared by {lanes} lanes"
    return lanes, threads


def _cpu_engine(precision: str, *, train_flops: float, variants: int, lanes: int) -> tuple[str, str]:
    if shutil.which("c++") is None and shutil.which("g++") is None:
        return "eager", "no C++ compiler on this machine"
    seconds = train_flops / (CPU_FLOPS_PER_CORE[precision] * cores())
    gain = COMPILE_GAIN[precision]
    saved, cost = seconds * gain / (1 + gain), COMPILE_SECONDS * variants / lanes
    why = f"{train_flops / 1e12:.3g} TFLOP of training: compiling would save about {saved:.0f} s and cost {cost:.0f} s"
    return "compiled" if saved > cost else "eager", why
