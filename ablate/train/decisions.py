"""The numerical decisions of a study on a class of device: taken once, with a reason, and kept for every trial.

They change bits, so they never follow from what happens to be left to do: a resumed study takes them from its
`run.json`.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass
from typing import Any

from ablate.errors import DeviceError
from ablate.study.spec import StudySpec
from ablate.train.engines import Choice
from ablate.train.fused.library import NoKernels, library
from ablate.train.hardware import cores, device_class, has_bfloat16

# Compiling pays only where its fixed cost is small against the training it speeds up. Rough figures on purpose,
# and from arithmetic instead of a stopwatch: the same study on the same machine always decides the same.
# They are those of narrow U-Nets (8 to 16 channels) on one core; bfloat16 is computed in AMX tiles there.
COMPILE_SECONDS = 60.0
COMPILE_GAIN = {"bfloat16": 0.06, "float32": 0.07}
CPU_FLOPS_PER_CORE = {"bfloat16": 60e9, "float32": 25e9}


# Engines that record the whole step as a CUDA graph.
RECORDING = ("graph", "compiled_graph")
# The engine that computes what lies between the convolutions in fused kernels, on a CPU.
FUSED = "fused"


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
    def fuses(self) -> bool:
        """Whether norms, rectifiers, pooling and the loss are computed in fused kernels."""
        return self.engine == FUSED

    @property
    def records(self) -> bool:
        """Whether the whole step is recorded as a CUDA graph."""
        return self.engine in RECORDING

    @property
    def keeps_steps(self) -> bool:
        """Whether a variant's step is costly to make, so that a worker does well to stay with its variant."""
        return self.compiles or self.records

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

    Raises `DeviceError` where the study asks for an engine that the device does not have.

    `trials` is the number of trials planned, `train_flops` the floating-point operations of training all of them;
    both come from the whole plan, not from what is pending, so that a resumed study decides the same.
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
    if spec.run.engine in RECORDING and not on_cuda:
        raise DeviceError(
            f"'{spec.run.engine}' records CUDA graphs, and this study runs on a CPU",
            key="run.engine",
            cure="take auto, eager or compiled",
        )
    if spec.run.engine == FUSED:
        check_fused(on_cuda)
    lanes, threads = _lanes(spec, trials=trials, gpu=gpu if on_cuda else None, reasons=reasons)
    engine: str = spec.run.engine
    if engine != "auto":
        reasons["engine"] = "the study says so"
    elif on_cuda:
        engine, reasons["engine"] = gpu.engine, gpu.reasons["engine"]
    else:
        engine, reasons["engine"] = _cpu_engine(
            precision, train_flops=train_flops, variants=variants, lanes=lanes, threads=threads
        )
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


def check_fused(on_cuda: bool, cure: str = "take auto or eager") -> None:
    """Raise `DeviceError` where fused kernels are asked for and cannot be had."""
    reason = "they are for a CPU, and this study runs on a GPU" if on_cuda else _lack_of_kernels()
    if reason is not None:
        raise DeviceError(f"no fused kernels: {reason}", key="run.engine", cure=cure)


def _lack_of_kernels() -> str | None:
    """Why this machine has no fused kernels, or None where it has them."""
    try:
        library()
    except NoKernels as error:
        return str(error)
    return None


def _cpu_engine(precision: str, *, train_flops: float, variants: int, lanes: int, threads: int) -> tuple[str, str]:
    lack = "they are for lanes of one thread" if threads > 1 else _lack_of_kernels()
    if lack is None:
        return (
            FUSED,
            "norms, rectifiers, pooling and cross entropy in one pass each, by kernels compiled for this machine",
        )
    without = f"no fused kernels ({lack}); "
    if shutil.which("c++") is None and shutil.which("g++") is None:
        return "eager", without + "no C++ compiler on this machine"
    seconds = train_flops / (CPU_FLOPS_PER_CORE[precision] * cores())
    gain = COMPILE_GAIN[precision]
    saved, cost = seconds * gain / (1 + gain), COMPILE_SECONDS * variants / lanes
    why = f"{train_flops / 1e12:.3g} TFLOP of training: compiling would save about {saved:.0f} s and cost {cost:.0f} s"
    return "compiled" if saved > cost else "eager", without + why
