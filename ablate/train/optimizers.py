"""Optimizers by name, in the fused form where the device has one, and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

# Take a learning rate that is a tensor, decide nothing on the host, and begin with a state of zeros: what a recorded
# training step needs of its optimizer.
RECORDABLE = ("adam", "adamw", "sgd")


def adam(
    parameters: Iterable[nn.Parameter], *, lr: float | Tensor, weight_decay: float, momentum: float
) -> torch.optim.Optimizer:
    """Adam (Kingma & Ba, 2015); `weight_decay` is L2 added to the gradient. `momentum` is not used."""
    return torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay, fused=True)


def adamw(
    parameters: Iterable[nn.Parameter], *, lr: float | Tensor, weight_decay: float, momentum: float
) -> torch.optim.Optimizer:
    """AdamW: weight decay decoupled from the gradient (Loshchilov & Hutter, 2019). `momentum` is not used."""
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=True)


def sgd(
    parameters: Iterable[nn.Parameter], *, lr: float | Tensor, weight_decay: float, momentum: float
) -> torch.optim.Optimizer:
    """Stochastic gradient descent with (heavy-ball) momentum."""
    return torch.optim.SGD(parameters, lr=lr, weight_decay=weight_decay, momentum=momentum, fused=True)


def rate_at(
    step: int, *, lr: float, steps_per_epoch: int, epochs: int, schedule: str = "constant", warmup_epochs: float = 0.0
) -> float:
    """Learning rate of `step` (0-based, over the whole training).

    'constant'; 'cosine' to zero (Loshchilov & Hutter, 2017); 'poly' (1 - t)^0.9 (as in DeepLab). A linear
    warm-up over `warmup_epochs` comes before, and the schedule runs over what is left.
    """
    warmup = round(warmup_epochs * steps_per_epoch)
    if step < warmup:
        return lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, epochs * steps_per_epoch - warmup)
    if schedule == "cosine":
        return lr * 0.5 * (1 + math.cos(math.pi * progress))
    if schedule == "poly":
        return float(lr * (1 - progress) ** 0.9)
    return lr
