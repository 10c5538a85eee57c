"""The execution config of a study on a class of device: how its numbers are computed, decided once, with reasons.

It changes bits, so it never follows from what happens to be left to do: a resumed study takes it from its `run.json`.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ablate.errors import DeviceError
from ablate.study.components import name_of
from ablate.study.spec import StudySpec
from ablate.train.device import cores, device_class, has_bfloat16
from ablate.train.engine.fused.library import NoKernels, library
from ablate.train.losses import ON_THE_HOST
from ablate.train.optim import CAPTURABLE

# Compiling pays only where its fixed cost is small against the training it speeds up. Rough figures on purpose,
# and from arithmetic instead of a stopwatch: the same study on the same machine always decides the same.
# Those of a CPU are of narrow U-Nets (8 to 16 channels) on one core; bfloat16 is computed in AMX tiles there.
COMPILE_SECONDS = 60.0
COMPILE_GAIN = {"bfloat16": 0.06, "float32": 0.07}
CPU_FLOPS_PER_CORE = {"bfloat16": 60e9, "float32": 25e9}
# Of a GPU (a U-Net at 360×480 on an H200, docs/gpu.md): seconds to compile and capture a variant, and seconds that a
# compiled graph saves for each FLOP of training: 3.3e-15 at 32 channels, 1.0e-15 at 64; here their geometric mean.
GPU_COMPILE_SECONDS = 40.0
GPU_COMPILE_SAVES = 1.8e-15
# Engines that capture the whole step as a CUDA graph.
CAPTURING = ("graph", "compiled_graph")
# The engine that computes what lies between the convolutions in fused kernels, on a CPU.
FUSED = "fused"


@dataclass(frozen=True)
class Decisions:
    """The execution config: how every trial of a study is computed on one class of device."""

    device: str
    precision: str
    channels_last: bool
    engine: str
    threads: int
    workers: int
    deterministic: bool
    reasons: dict[str, str]

    @property
    def dtype(self) -> torch.dtype:
        """The type in which the network computes."""
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32

    @property
    def compiles(self) -> bool:
        """True where forward pass and loss are compiled."""
        return self.engine in ("compiled", "compiled_graph")

    @property
    def fuses(self) -> bool:
        """True where norms, ReLUs, pooling and the loss are computed in fused kernels."""
        return self.engine == FUSED

    @property
    def captures(self) -> bool:
        """True where the whole step is captured as a CUDA graph."""
        return self.engine in CAPTURING

    @property
    def keeps_steps(self) -> bool:
        """True where a variant's step is costly to make, so that a worker does well to stay with its variant."""
        return self.compiles or self.captures

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Return it as `run.json` keeps it: name -> {value, why}."""
        values = asdict(self)
        reasons = values.pop("reasons")
        return {name: {"value": value, "why": reasons.get(name, "")} for name, value in values.items()}

    @classmethod
    def from_json(cls, document: dict[str, dict[str, Any]]) -> Decisions:
        """Read what `to_json` gave; earlier versions called the workers lanes."""
        document = {{"lanes": "workers"}.get(name, name): entry for name, entry in document.items()}
        values = {name: entry["value"] for name, entry in document.items()}
        return cls(**values, reasons={name: entry["why"] for name, entry in document.items()})


def decide(spec: StudySpec, *, trials: int, device: str, train_flops: float, variants: int) -> Decisions:
    """Decide how the study `spec` is computed on `device`.

    `trials` is the number of trials planned, `train_flops` the floating-point operations of training all of them;
    both come from the whole plan, not from what is pending, so that a resumed study decides the same.

    Raises `DeviceError` where the study asks for an engine that the device does not have.
    """
    reasons: dict[str, str] = {}
    on_cuda = device.startswith("cuda")
    if spec.train.precision == "auto":
        has, reasons["precision"] = has_bfloat16(device)
        precision = "bfloat16" if has else "float32"
    else:
        precision = spec.train.precision
        reasons["precision"] = "the study says so"
    reasons["channels_last"] = "convolutions with few channels are faster on this layout, in both precisions"
    if spec.run.engine in CAPTURING and not on_cuda:
        raise DeviceError(
            f"'{spec.run.engine}' captures CUDA graphs, and this study runs on a CPU",
            key="run.engine",
            cure="take auto, eager or compiled",
        )
    if spec.run.engine == FUSED:
        check_fused(on_cuda)
    workers, threads = _workers(spec, trials=trials, on_cuda=on_cuda, reasons=reasons)
    engine: str = spec.run.engine
    if engine != "auto":
        reasons["engine"] = "the study says so"
    elif on_cuda:
        engine, reasons["engine"] = _gpu_engine(spec, train_flops=train_flops, variants=variants)
    else:
        engine, reasons["engine"] = _cpu_engine(
            precision, train_flops=train_flops, variants=variants, workers=workers, threads=threads
        )
    reasons["deterministic"] = "run.deterministic" if on_cuda else "a CPU with a fixed number of threads always is"
    reasons["device"] = "run.devices"
    return Decisions(
        device=device_class(device),
        precision=precision,
        channels_last=True,
        engine=engine,
        threads=threads,
        workers=workers,
        deterministic=spec.run.deterministic or not on_cuda,
        reasons=reasons,
    )


def _workers(spec: StudySpec, *, trials: int, on_cuda: bool, reasons: dict[str, str]) -> tuple[int, int]:
    available = cores()
    limit = os.environ.get("OMP_NUM_THREADS", "")
    if spec.run.workers != "auto":
        workers = spec.run.workers
        reasons["workers"] = "the study says so"
    elif on_cuda:
        workers, reasons["workers"] = 1, "one trial at a time on each GPU"
    else:
        workers = max(1, min(available, trials))
        reasons["workers"] = f"{available} cores, {trials} trials: one trial a core beats one trial on all cores"
    if spec.run.threads != "auto":
        threads = spec.run.threads
        reasons["threads"] = "the study says so"
    elif limit.isdigit() and int(limit) > 0:
        threads = int(limit)
        reasons["threads"] = "OMP_NUM_THREADS"
    else:
        threads = max(1, available // workers)
        reasons["threads"] = f"{available} cores shared by {workers} workers"
    return workers, threads


def _gpu_engine(spec: StudySpec, *, train_flops: float, variants: int) -> tuple[str, str]:
    """Choose a graph; a compiled one where the plan is long enough to repay compiling every variant."""
    settings = [spec.train.model_dump(), *(variant.train for variant in spec.variants.values())]

    def named(key: str) -> set[str]:
        said = [*(each[key] for each in settings if key in each), *spec.grid.get(key, [])]
        return set(map(name_of, said))

    others = (named("optimizer") - set(CAPTURABLE)) | (named("loss") & set(ON_THE_HOST))
    if others:
        return "eager", f"the step of {', '.join(sorted(others))} is not known to be capturable"
    saved, cost = train_flops * GPU_COMPILE_SAVES, GPU_COMPILE_SECONDS * variants
    why = f"{train_flops / 1e15:.3g} PFLOP of training: compiling would save about {saved:.0f} s and cost {cost:.0f} s"
    return "compiled_graph" if saved > cost else "graph", f"a step is one launch; {why}"


def check_fused(on_cuda: bool, cure: str = "take auto or eager") -> None:
    """Raise `DeviceError` where fused kernels are asked for and cannot be had."""
    reason = "they are for a CPU, and this study runs on a GPU" if on_cuda else _lack_of_kernels()
    if reason is not None:
        raise DeviceError(f"no fused kernels: {reason}", key="run.engine", cure=cure)


def _lack_of_kernels() -> str | None:
    """Return why this machine has no fused kernels, or None where it has them."""
    try:
        library()
    except NoKernels as error:
        return str(error)
    return None


def _cpu_engine(precision: str, *, train_flops: float, variants: int, workers: int, threads: int) -> tuple[str, str]:
    lack = "they are for workers of one thread" if threads > 1 else _lack_of_kernels()
    if lack is None:
        return (FUSED, "norms, ReLUs, pooling and cross entropy in one pass each, by kernels compiled for this machine")
    without = f"no fused kernels ({lack}); "
    if shutil.which("c++") is None and shutil.which("g++") is None:
        return "eager", without + "no C++ compiler on this machine"
    seconds = train_flops / (CPU_FLOPS_PER_CORE[precision] * cores())
    gain = COMPILE_GAIN[precision]
    saved, cost = seconds * gain / (1 + gain), COMPILE_SECONDS * variants / workers
    why = f"{train_flops / 1e12:.3g} TFLOP of training: compiling would save about {saved:.0f} s and cost {cost:.0f} s"
    return "compiled" if saved > cost else "eager", without + why
