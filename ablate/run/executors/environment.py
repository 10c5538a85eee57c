"""The environment that a worker process gets."""

from __future__ import annotations

import os

# Activations are allocated and freed by the hundred in every step. Large pages, and memory that is kept instead of
# given back and faulted in again, make a step on a CPU about a twentieth quicker (glibc; others do not look).
MALLOC = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=1073741824"


def worker_environment(device: str, threads: int) -> dict[str, str]:
    """The environment of a process that works on `device` alone, as its first and only one."""
    environment = dict(os.environ)
    # OpenMP reads its number of threads once, when the process starts.
    environment["OMP_NUM_THREADS"] = environment["MKL_NUM_THREADS"] = str(threads)
    environment["PYTHONUNBUFFERED"] = "1"
    environment.setdefault("GLIBC_TUNABLES", MALLOC)
    # What a worker needs not know it cannot leak into a record or a log.
    environment.pop("WANDB_API_KEY", None)
    if device.startswith("cuda"):
        # The worker sees one device: the one among those that this process may use.
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        index = int(device.partition(":")[2] or 0)
        # By number or by name (GPU-..., MIG-...), as they are given.
        environment["CUDA_VISIBLE_DEVICES"] = visible.split(",")[index].strip() if visible else str(index)
        environment.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return environment
