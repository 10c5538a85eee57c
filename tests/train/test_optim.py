"""Schedules at known points, and that the optimizers take a learning rate as it is set."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from ablate.registry import OPTIMIZERS
from ablate.train.optim import rate_at, set_rate


def at(step: int, steps_per_epoch: int, **settings: Any) -> float:
    return rate_at(step, {"warmup_epochs": 0.0, "schedule": "constant", **settings}, steps_per_epoch)


def test_constant_is_constant() -> None:
    rates = [at(step, 5, lr=0.1, epochs=4) for step in range(20)]
    assert rates == [0.1] * 20


def test_cosine_begins_at_lr_passes_half_and_ends_near_zero() -> None:
    rates = [at(step, 10, lr=0.2, epochs=10, schedule="cosine") for step in range(100)]
    assert rates[0] == 0.2
    assert rates[50] == pytest.approx(0.1)
    assert rates[99] == pytest.approx(0.1 * (1 + math.cos(math.pi * 0.99)))


def test_poly_has_the_power_of_nine_tenths() -> None:
    assert at(50, 10, lr=1.0, epochs=10, schedule="poly") == pytest.approx(0.5**0.9)


def test_warm_up_rises_to_lr() -> None:
    rates = [at(step, 4, lr=1.0, epochs=3, warmup_epochs=1.0) for step in range(6)]
    assert rates == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(("name", "plain"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_maps_with_channels_last_are_stepped_as_by_torch(name: str, plain: type[torch.optim.Adam]) -> None:
    def layers() -> list[torch.nn.Parameter]:
        generator = torch.Generator().manual_seed(1)
        shapes = [(8, 5, 3, 3), (4, 8, 1, 1), (8,), (6, 5, 2, 2)]
        made = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
        for parameter in made[:2]:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        return made

    ours, theirs = layers(), layers()
    stepped = OPTIMIZERS.get(name)(ours, lr=0.1, weight_decay=0.01, momentum=0.0)
    reference = plain(theirs, lr=0.1, weight_decay=0.01, foreach=False)
    for seed in range(3):
        for mine, other in zip(ours, theirs, strict=True):
            other.grad = torch.empty_like(other).normal_(generator=torch.Generator().manual_seed(seed))
            mine.grad = other.grad.clone()
            assert mine.grad.stride() == mine.stride()
        stepped.step()
        reference.step()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)
        assert {name: value.shape for name, value in stepped.state[mine].items()} == {
            name: value.shape for name, value in reference.state[other].items()
        }


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_rate_that_is_set_is_the_rate_that_is_used(name: str) -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = OPTIMIZERS.get(name)([parameter], lr=0.5, weight_decay=0.0, momentum=0.0)
    set_rate(optimizer, 0.0)
    parameter.grad = torch.ones(3)
    optimizer.step()
    assert torch.equal(parameter.detach(), torch.ones(3))
    set_rate(optimizer, 0.25)
    parameter.grad = torch.ones(3)
    optimizer.step()
    expected = 0.75 if name == "sgd" else 1 - 0.25 * float(1 / (1 + 1e-8))
    assert parameter.detach()[0] == pytest.approx(expected, rel=1e-4)
