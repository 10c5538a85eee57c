"""The room for a longer step of the optimizer: the distance of the learning rate from the edge of stability."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ablate.measure.stability import LEAST_HEADROOM, MOST_HEADROOM
from ablate.train.probes.gradients import Loss, arithmetic, untouched

# Bisections of an octave: the answer is within 2^(1/64), about one per cent.
BISECTIONS = 6
# The quick search's: within 2^(1/32), about two per cent.
QUICK_BISECTIONS = 4


def lr_headroom(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_fn: Loss,
    images: Tensor,
    target: Tensor,
    *,
    clip_norm: float | None = None,
    precision: torch.dtype = torch.float32,
) -> float:
    """Return how many times longer the optimizer's next step could be before it raises the loss of its own batch.

    The smallest m with loss(θ + m·Δθ) > loss(θ), Δθ being the step that `optimizer` would take on this batch with
    its present state and rate (and `clip_norm`): the octave from 2⁻⁶ to 2⁸ is found, then bisected. About 1 is
    the edge of stability (critical sharpness, arXiv 2601.16979). An answer of 2⁻⁶ or 2⁸ is censored: that or beyond.
    A loss that is not finite counts as raised; NaN where it is not finite already at θ, or where the batch has no
    gradient at all.

    On a CPU in float32 whatever the training's precision, because steps this short vanish in the rounding of
    bfloat16, and by doubling from below: up to 22 passes. On a GPU in `precision`, and by bisection of the octaves,
    which takes a loss that has risen to stay so and meets rounding at its last steps only: 9 passes.
    Training mode with the batch's own statistics, and the same dropout mask throughout.
    """
    quick = images.is_cuda
    precision = precision if quick else torch.float32
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    start = [p.detach().clone() for p in parameters]
    with untouched(model) as replay, _untouched_optimizer(optimizer):
        model.train()

        def loss_here() -> Tensor:
            replay()
            with arithmetic(images.device, precision):
                return loss_fn(model(images), target)

        with torch.enable_grad():
            gradients = torch.autograd.grad(loss_here(), parameters, allow_unused=True)
        if not any(bool(gradient.any()) for gradient in gradients if gradient is not None):
            return math.nan
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, clip_norm)
        optimizer.step()
        with torch.no_grad():
            step = [p - origin for p, origin in zip(parameters, start, strict=True)]

            def loss_at(multiple: float) -> float:
                for parameter, origin, change in zip(parameters, start, step, strict=True):
                    parameter.copy_(origin).add_(change, alpha=multiple)
                return float(loss_here())

            return first_rise(loss_at, quick=quick)


def first_rise(loss_at: Callable[[float], float], *, quick: bool) -> float:
    """Return the smallest multiple at which `loss_at` exceeds its value at 0, within the limits of `lr_headroom`.

    `quick` bisects the octaves instead of trying them from below, and stops a bisection or two earlier.
    """
    reference = loss_at(0.0)
    if not math.isfinite(reference):
        return math.nan

    def raised(multiple: float) -> bool:
        return not loss_at(multiple) <= reference

    octaves = [LEAST_HEADROOM * 2**index for index in range(round(math.log2(MOST_HEADROOM / LEAST_HEADROOM)) + 1)]
    if quick:
        place = bisect.bisect_left(octaves, True, key=raised)
    else:
        place = next((index for index, octave in enumerate(octaves) if raised(octave)), len(octaves))
    if place == len(octaves):
        return MOST_HEADROOM
    if place == 0:
        return LEAST_HEADROOM
    low, high = octaves[place - 1], octaves[place]
    for _ in range(QUICK_BISECTIONS if quick else BISECTIONS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if raised(middle) else (middle, high)
    return math.sqrt(low * high)


@contextmanager
def _untouched_optimizer(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Put back, at the end, an optimizer's state and settings; tensors keep their place in memory."""

    def saved(values: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
        return {key: (value, value.clone() if isinstance(value, Tensor) else value) for key, value in values.items()}

    def restore(values: dict[str, Any], old: dict[str, tuple[Any, Any]]) -> None:
        values.clear()
        for key, (value, content) in old.items():
            values[key] = value.copy_(content) if isinstance(value, Tensor) else value

    states = {parameter: saved(state) for parameter, state in optimizer.state.items()}
    groups = [saved(group) for group in optimizer.param_groups]
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter in list(optimizer.state):
                if parameter in states:
                    restore(optimizer.state[parameter], states[parameter])
                else:
                    del optimizer.state[parameter]
            for group, old in zip(optimizer.param_groups, groups, strict=True):
                restore(group, old)
