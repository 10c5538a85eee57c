"""Optimizers by name, in the fused form where the device has one, and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

Decay = Annotated[float, Field(ge=0, lt=1)]
# Take a learning rate that is a tensor, decide nothing on the host, and begin with a state of zeros: what a captured
# training step needs of its optimizer.
CAPTURABLE = ("adam", "adamw", "sgd")


def adam(
    parameters: Iterable[nn.Parameter],
    *,
    lr: float | Tensor,
    weight_decay: float,
    momentum: float,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    eps: Annotated[float, Field(gt=0)] = 1e-8,
) -> torch.optim.Optimizer:
    """Make Adam (Kingma & Ba, 2015); `weight_decay` is L2 added to the gradient. `momentum` is not used."""
    del momentum
    return torch.optim.Adam(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=True)


def adamw(
    parameters: Iterable[nn.Parameter],
    *,
    lr: float | Tensor,
    weight_decay: float,
    momentum: float,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    eps: Annotated[float, Field(gt=0)] = 1e-8,
) -> torch.optim.Optimizer:
    """Make AdamW: weight decay decoupled from the gradient (Loshchilov & Hutter, 2019). `momentum` is not used."""
    del momentum
    return torch.optim.AdamW(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=True)


def sgd(
    parameters: Iterable[nn.Parameter],
    *,
    lr: float | Tensor,
    weight_decay: float,
    momentum: float,
    nesterov: bool = False,
) -> torch.optim.Optimizer:
    """Make stochastic gradient descent with (heavy-ball or Nesterov's) momentum."""
    return torch.optim.SGD(
        parameters, lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov, fused=True
    )


def rate_at(
    step: int, *, lr: float, steps_per_epoch: int, epochs: int, schedule: str = "constant", warmup_epochs: float = 0.0
) -> float:
    """Return the learning rate of `step` (0-based, over the whole training).

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


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate; a tensor rate keeps its place in memory, as a captured graph needs."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return the L2 norm of all gradients together, a scalar on the device."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return torch.nn.utils.get_total_norm(gradients, foreach=True)
