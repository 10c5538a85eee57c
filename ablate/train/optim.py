"""Optimizers by name, in the fused form where the device has one; learning rates, by step and by group; averages."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ablate.errors import Problem, StudyError, nearest
from ablate.registry import OPTIMIZERS
from ablate.study.components import bound, name_of

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


def make_optimizer(model: nn.Module, train: Mapping[str, Any]) -> torch.optim.Optimizer:
    """Return a fresh optimizer of the parameters that are trained, by a trial's settings of training.

    Raises `StudyError` for a pattern of `lr_scale` that fits no parameter.
    """
    trained = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    device = trained[0][1].device if trained else torch.device("cpu")
    # A tensor whether captured or not, so that both round the rate alike.
    tensor = device.type == "cuda" and name_of(train["optimizer"]) in CAPTURABLE

    def rate(factor: float) -> float | Tensor:
        own: float = train["lr"] * factor
        return torch.tensor(own, dtype=torch.float32, device=device) if tensor else own

    parameters: list[Any] = [value for _, value in trained]
    if train.get("lr_scale"):
        check_patterns(train["lr_scale"], model, "train.lr_scale")
        parameters = groups(trained, train["lr_scale"], rate)
    make = bound(OPTIMIZERS, train["optimizer"])
    optimizer: torch.optim.Optimizer = make(
        parameters, lr=rate(1.0), weight_decay=train["weight_decay"], momentum=train["momentum"]
    )
    return optimizer


def rate_at(step: int, train: Mapping[str, Any], steps_per_epoch: int) -> float:
    """Return the learning rate of `step` (0-based, over the whole training), by a trial's settings of training.

    'constant'; 'cosine' to zero (Loshchilov & Hutter, 2017); 'poly' (1 - t)^0.9 (as in DeepLab). A linear
    warm-up over `warmup_epochs` comes before, and the schedule runs over what is left.
    """
    lr: float = train["lr"]
    warmup = round(train["warmup_epochs"] * steps_per_epoch)
    if step < warmup:
        return lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, train["epochs"] * steps_per_epoch - warmup)
    if train["schedule"] == "cosine":
        return lr * 0.5 * (1 + math.cos(math.pi * progress))
    if train["schedule"] == "poly":
        return float(lr * (1 - progress) ** 0.9)
    return lr


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate, times the "lr_scale" of a group that has one.

    A rate that is a tensor keeps its place in memory, as a captured graph needs.
    """
    for group in optimizer.param_groups:
        own = rate * group.get("lr_scale", 1.0)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(own)
        else:
            group["lr"] = own


def covered(pattern: str, name: str) -> bool:
    """Return whether a pattern with wildcards (`encoder`, `*.bias`) is the name of a parameter or of what it is in."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def check_patterns(patterns: Iterable[str], model: nn.Module, key: str) -> None:
    """Raise `StudyError` about the setting `key` for patterns that cover no parameter of `model`."""
    names = [name for name, _ in model.named_parameters()]
    places = {".".join(name.split(".")[:depth]) for name in names for depth in range(1, name.count(".") + 2)}
    problems = []
    for pattern in patterns:
        if not any(covered(pattern, name) for name in names):
            cure = nearest(pattern, places)
            if not cure.startswith("did you mean"):
                cure = nearest(pattern, {name.split(".")[0] for name in names})
            message = f"expected a pattern of names of parameters, got '{pattern}', which fits none of the model"
            problems.append(Problem(message, key=key, cure=cure))
    if problems:
        raise StudyError(problems)


def groups(
    named: Iterable[tuple[str, nn.Parameter]], scales: Mapping[str, float], rate: Callable[[float], float | Tensor]
) -> list[dict[str, Any]]:
    """Return parameter groups of an optimizer, one for each factor that `scales` (pattern to factor) gives to a rate.

    The last pattern that covers a parameter decides. `rate(factor)` is the group's learning rate to begin with.
    """
    found: dict[float, list[nn.Parameter]] = {}
    for name, parameter in named:
        factor = ([1.0] + [scale for pattern, scale in scales.items() if covered(pattern, name)])[-1]
        found.setdefault(factor, []).append(parameter)
    return [{"params": own, "lr": rate(factor), "lr_scale": factor} for factor, own in found.items()]


class Average:
    """The exponential moving average of a model's parameters and buffers over the steps of training.

    The decay of step n (from 0) is the least of the given one and (1 + n) / (10 + n), so that a short training is not
    the average of its first, random weights (as TensorFlow's ExponentialMovingAverage does). Whole numbers, such as the
    count of batches, are taken over.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model, self._decay = model, decay
        self.weights: dict[str, Tensor] = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the model's weights after `step` (from 0)."""
        decay = min(self._decay, (1 + step) / (10 + step))
        live = self._model.state_dict()
        floats = [name for name, value in self.weights.items() if value.is_floating_point()]
        get_ema_multi_avg_fn(decay)([self.weights[name] for name in floats], [live[name] for name in floats], step)
        for name in self.weights.keys() - set(floats):
            self.weights[name].copy_(live[name])

    @torch.no_grad()
    def load(self, saved: Mapping[str, Tensor]) -> None:
        """Take over the average of a checkpoint."""
        for name, value in self.weights.items():
            value.copy_(saved[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Have the model compute with the average while this is open."""
        live = {name: value.detach().clone() for name, value in self._model.state_dict().items()}
        self._model.load_state_dict(self.weights)
        try:
            yield
        finally:
            self._model.load_state_dict(live)
