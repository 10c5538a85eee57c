"""Optimizers by name, in the fused form where the device has one, and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

# Take a learning rate that is a tensor, decide nothing on the host, and begin with a state of zeros: what a recorded
# training step needs of its optimizer.
RECORDABLE = ("adam", "adamw", "sgd")


class _InMemoryOrder(torch.optim.Adam):
    """Adam that hands its kernel, on a CPU, maps with channels last as what they are in memory: plain rows.

    The kernel computes value by value and the result is the same, bit for bit; but it copies every gradient that is
    not contiguous, which takes as long as its own work. Where torch has no such method the override does nothing.
    """

    def _init_group(self, group: dict[str, Any], *lists: Any) -> Any:
        found = super()._init_group(group, *lists)
        full = [one for one in lists if one]
        for place, together in enumerate(zip(*full, strict=True)):
            if all(_is_channels_last(tensor) for tensor in together if tensor.dim()):
                for one in full:
                    if one[place].dim():
                        one[place] = one[place].permute(0, 2, 3, 1)
        return found


class _AdamW(_InMemoryOrder, torch.optim.AdamW):
    """The same with weight decay decoupled."""


def _is_channels_last(tensor: Tensor) -> bool:
    return (
        tensor.device.type == "cpu" and tensor.dim() == 4 and not tensor.is_contiguous()
        and tensor.is_contiguous(memory_format=torch.channels_last)
    )  # fmt: skip


def adam(
    parameters: Iterable[nn.Parameter], *, lr: float | Tensor, weight_decay: float, momentum: float
) -> torch.optim.Optimizer:
    """Adam (Kingma & Ba, 2015); `weight_decay` is L2 added to the gradient. `momentum` is not used."""
    return _InMemoryOrder(parameters, lr=lr, weight_decay=weight_decay, fused=True)


def adamw(
    parameters: Iterable[nn.Parameter], *, lr: float | Tensor, weight_decay: float, momentum: float
) -> torch.optim.Optimizer:
    """AdamW: weight decay decoupled from the gradient (Loshchilov & Hutter, 2019). `momentum` is not used."""
    return _AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=True)


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
