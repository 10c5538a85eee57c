"""The machine's measured matrix-product rate: what training rates are a share of. `python -m benchmarks.matmul`."""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from benchmarks.common import default_device

SIZE = {"cpu": 2048, "cuda": 8192}


def matmul_rate(dtype: torch.dtype, *, seconds: float = 2.0, size: int | None = None) -> list[float]:
    """TFLOP/s of square products of `dtype`, one value a product, over about `seconds` after a warm-up.

    On the GPU where there is one and the benchmark is to use it, else on all threads that torch uses. At least three
    products.
    """
    device = default_device()
    size = size or SIZE[device.type]
    left = torch.randn(size, size, device=device).to(dtype)
    right = torch.randn(size, size, device=device).to(dtype)
    result = left @ right
    rates: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(rates) < 3:
        if device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        torch.mm(left, right, out=result)
        if device.type == "cuda":
            torch.cuda.synchronize()
        rates.append(2 * size**3 / (time.perf_counter() - began) / 1e12)
    return rates


def main() -> None:
    """Print the rates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--size", type=int, help="rows of the square matrices")
    arguments = parser.parse_args()
    for dtype in (torch.float32, torch.bfloat16):
        rates = matmul_rate(dtype, seconds=arguments.seconds, size=arguments.size)
        name = str(dtype).removeprefix("torch.")
        print(
            f"{name}: median {statistics.median(rates):.3g} TFLOP/s, best {max(rates):.3g} "
            f"({len(rates)} products, {torch.get_num_threads()} threads)"
        )


if __name__ == "__main__":
    main()
