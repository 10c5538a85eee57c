"""Headroom of the learning rate against known answers, by either search."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ablate.data.dataset import IGNORE
from ablate.measure.stability import LEAST_HEADROOM, MOST_HEADROOM
from ablate.train.losses import Loss, cross_entropy
from ablate.train.probes.gradients import first_rise, lr_headroom

CURVATURE = 3.0


class Point(nn.Module):
    """One number x; the loss ½λx² of it."""

    def __init__(self, x: float = 2.0) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor([x]))

    def forward(self, _images: Tensor) -> Tensor:
        return self.x


def _parabola(x: Tensor, _target: Tensor) -> Tensor:
    return (CURVATURE / 2 * x**2).sum()


def _headroom(optimizer: Callable[[Any], torch.optim.Optimizer], **settings: Any) -> float:
    point = Point()
    return lr_headroom(point, optimizer(point.parameters()), _parabola, torch.zeros(1), torch.zeros(1), **settings)


@pytest.mark.parametrize("lr", [1e-2, 0.1, 1 / 3, 0.66, 0.7, 3.0])
def test_critical_rate_of_a_parabola_under_sgd_is_two_over_its_curvature(lr: float) -> None:
    assert lr * _headroom(lambda p: torch.optim.SGD(p, lr=lr)) == pytest.approx(2 / CURVATURE, rel=0.012)


def test_headroom_beyond_the_limits_is_censored() -> None:
    assert _headroom(lambda p: torch.optim.SGD(p, lr=1e-4)) == MOST_HEADROOM
    assert _headroom(lambda p: torch.optim.SGD(p, lr=100.0)) == LEAST_HEADROOM


def test_headroom_counts_the_optimizers_own_step() -> None:
    # At the first step Adam goes lr to the other side: back at the same loss after 2x / lr. AdamW decays besides.
    assert _headroom(lambda p: torch.optim.Adam(p, lr=0.1)) == pytest.approx(2 * 2 / 0.1, rel=0.012)
    adamw = _headroom(lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.5))
    assert adamw == pytest.approx(2 * 2 / (0.1 + 0.1 * 0.5 * 2), rel=0.012)
    clipped = _headroom(lambda p: torch.optim.SGD(p, lr=0.1), clip_norm=1.5)
    assert clipped == pytest.approx(2 * 2 / (0.1 * 1.5), rel=0.012)


def test_headroom_counts_the_momentum_gathered_so_far() -> None:
    point = Point()
    optimizer = torch.optim.SGD(point.parameters(), lr=0.01, momentum=0.9)
    _parabola(point(torch.zeros(1)), torch.zeros(1)).backward()
    optimizer.step()
    x = 2 - 0.01 * CURVATURE * 2
    step = 0.01 * (CURVATURE * x + 0.9 * CURVATURE * 2)
    headroom = lr_headroom(point, optimizer, _parabola, torch.zeros(1), torch.zeros(1))
    assert headroom == pytest.approx(2 * x / step, rel=0.012)


class Counting(torch.optim.SGD):
    """An optimizer with an attribute of its own, which torch's pickling drops."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, lr=lr)
        self.steps_taken = 0

    def step(self, closure: Any = None) -> Any:
        self.steps_taken += 1
        return super().step(closure)


class Wrapper:
    """An optimizer around another one, as a plugin may bring."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def step(self) -> None:
        self.inner.step()


def _scheduled(parameters: Any) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _epoch: 1.0)  # sets a `step` of the instance
    return optimizer


@pytest.mark.parametrize("made", [_scheduled, lambda p: Counting(p, lr=0.1), lambda p: Wrapper(Counting(p, lr=0.1))])
def test_headroom_of_an_optimizer_whose_step_is_wrapped_or_counts(made: Callable[[Any], Any]) -> None:
    point = Point()
    optimizer = made(point.parameters())
    headroom = lr_headroom(point, optimizer, _parabola, torch.zeros(1), torch.zeros(1))
    assert 0.1 * headroom == pytest.approx(2 / CURVATURE, rel=0.012)
    assert point.x.item() == 2.0
    assert vars(optimizer).get("steps_taken", 0) == 0


def test_headroom_of_a_loss_that_is_not_finite_is_nan() -> None:
    point = Point(math.inf)
    optimizer = torch.optim.SGD(point.parameters(), lr=0.1)
    assert math.isnan(lr_headroom(point, optimizer, _parabola, torch.zeros(1), torch.zeros(1)))


def test_a_loss_that_becomes_infinite_counts_as_raised() -> None:
    point = Point()
    optimizer = torch.optim.SGD(point.parameters(), lr=1.0)  # the step goes from 2 to 1

    def wall(x: Tensor, _target: Tensor) -> Tensor:
        return torch.where(x > -1, x, math.nan).sum()

    assert lr_headroom(point, optimizer, wall, torch.zeros(1), torch.zeros(1)) == pytest.approx(3, rel=0.012)


@pytest.mark.parametrize("edge", [2.0**-7, 2.0**-6, 0.1, 0.99, 1.0, 37.0, 255.0, 2.0**8, 2.0**9])
def test_the_quick_search_agrees_within_its_step_and_takes_nine_passes(edge: float) -> None:
    passes: list[float] = []

    def loss_at(multiple: float) -> float:
        passes.append(multiple)
        return float(multiple > edge)

    slow = first_rise(loss_at, quick=False)
    passes.clear()
    quick = first_rise(loss_at, quick=True)
    assert len(passes) <= 9
    assert quick == pytest.approx(slow, rel=2 ** (1 / 16) - 1)
    assert (quick in (LEAST_HEADROOM, MOST_HEADROOM)) == (slow in (LEAST_HEADROOM, MOST_HEADROOM))


def test_a_batch_in_which_nothing_counts_has_no_headroom() -> None:
    model = nn.Conv2d(3, 2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    target = torch.full((1, 4, 4), IGNORE, dtype=torch.uint8)
    assert math.isnan(lr_headroom(model, optimizer, Loss(cross_entropy, 2, IGNORE), torch.randn(1, 3, 4, 4), target))
