"""Random streams of a trial: every one is a pure function of the trial's seed and a coordinate, never of history.

Nothing of a generator's state has to be saved, and a resumed trial draws what the undisturbed one drew.
"""

from __future__ import annotations

import os

import numpy as np
import torch

from ablate.data.rng import derive, permutation


def seed_initialisation(seed: int) -> None:
    """Before a network's parameters are drawn. The same for every variant of one seed."""
    _seed(derive(seed, "initialisation"))


def seed_epoch(seed: int, epoch: int) -> None:
    """Before an epoch: the stream that dropout and other layers draw from."""
    _seed(derive(seed, "layers", epoch))


def _seed(value: int) -> None:
    """`torch.manual_seed` for the devices that this process uses.

    Where a kind of device is not awake, torch keeps a seed for it, with the stack it was called from: milliseconds for
    every step.
    """
    torch.default_generator.manual_seed(value)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(value)


def epoch_order(seed: int, epoch: int, images: int, batch_size: int) -> np.ndarray:
    """The order of the training images in `epoch` as int64 (steps, batch_size), the same for all variants of a seed.

    The incomplete last batch is left out (another one every epoch): batch statistics of very few images would
    make an outlier of a step. A split smaller than the batch gives one batch of what there is.
    """
    order = permutation(seed, epoch, images)
    size = min(batch_size, images)
    steps = images // size
    return order[: steps * size].reshape(steps, size)


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
