"""Gradients, updates and the room for longer ones, of the live model, measured without a bit of it being disturbed."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ablate.measure.stability import LEAST_HEADROOM, MOST_HEADROOM
from ablate.models.layers import SkipConnection, detached_skips
from ablate.train.device import arithmetic

Loss = Callable[[Tensor, Tensor], Tensor]
# Bisections of an octave: the answer is within 2^(1/64), about one per cent.
BISECTIONS = 6
# The quick search's: within 2^(1/32), about two per cent.
QUICK_BISECTIONS = 4


def weight_layers(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights that multiply features (two dimensions or more), by the path of their layer."""
    return {name.removesuffix(".weight"): p for name, p in model.named_parameters() if p.ndim >= 2}


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Copy the weights of every layer, to be handed to `update_ratios` later."""
    return {name: parameter.detach().clone() for name, parameter in weight_layers(model).items()}


@torch.no_grad()
def update_ratios(before: dict[str, Tensor], model: nn.Module) -> dict[str, float]:
    """Return ‖W − W_before‖ / ‖W_before‖ for each weight layer, since `before = weights(model)`.

    Raw gradient norms cannot be compared between layers: normalisation makes them depend on the scale of the weights,
    and Adam rescales them. NaN for a layer that was zero.
    """
    changes = {name: parameter - before[name] for name, parameter in weight_layers(model).items()}
    if not changes:
        return {}
    old = _norms(before[name] for name in changes)
    ratios = torch.where(old > 0, _norms(changes.values()) / old, math.nan)
    return dict(zip(changes, ratios.tolist(), strict=True))


def skip_share(
    model: nn.Module, loss_fn: Loss, images: Tensor, target: Tensor, *, precision: torch.dtype = torch.float32
) -> dict[str, float]:
    """Return the share of each encoder layer's gradient that comes through the skips, on one batch in training mode.

    φ = ‖g_skip‖ / (‖g_skip‖ + ‖g_deep‖), where g is the gradient as it is, g_deep the one with all skip tensors
    detached, and g_skip = g − g_deep: an exact split, because gradients add over paths. 0 without skips, 1 where no
    gradient comes through the coarser levels, NaN where there is no gradient at all.

    `images` float (N, C, H, W) as the model takes them; `loss_fn(logits, target)` a scalar. Encoder layers are the
    weight layers within a submodule named `encoder`; a model without one gives an empty answer.
    """
    layers = {name: p for name, p in weight_layers(model).items() if "encoder" in name.split(".") and p.requires_grad}
    if not layers:
        return {}
    skips = any(isinstance(module, SkipConnection) for module in model.modules())
    with untouched(model) as replay:
        model.train()
        gradients = []
        for paths in (nullcontext(), detached_skips(model)) if skips else (nullcontext(),):
            replay()
            with paths, torch.enable_grad(), arithmetic(images.device, precision):
                loss = loss_fn(model(images), target)
            gradients.append(torch.autograd.grad(loss, list(layers.values()), materialize_grads=True))
    through_skips = [g - deep for g, deep in zip(gradients[0], gradients[-1], strict=True)]
    skip, deep = _norms(through_skips), _norms(gradients[-1])
    return dict(zip(layers, (skip / (skip + deep)).tolist(), strict=True))


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
        # By the optimizer itself: a copy of one whose `step` is wrapped, as torch's schedulers do, would move the
        # parameters of the original.
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
def untouched(model: nn.Module) -> Iterator[Callable[[], None]]:
    """Put back, at the end, the parameters, gradients, buffers and modes of `model` and the random generators.

    Yields a function that sets the generators to where they were, so that each pass draws the same dropout masks.
    Tensors are restored in place: those who hold them, such as a captured graph, see no change.
    """
    modes = [(module, module.training) for module in model.modules()]
    parameters = [(p, p.detach().clone(), p.grad) for p in model.parameters()]
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False, remove_duplicate=False)
    ]
    devices = {parameter.device for parameter, _, _ in parameters if parameter.is_cuda}
    with torch.random.fork_rng(devices=devices):
        cpu_state = torch.get_rng_state()
        cuda_states = {device: torch.cuda.get_rng_state(device) for device in devices}

        def replay() -> None:
            torch.set_rng_state(cpu_state)
            for device, state in cuda_states.items():
                torch.cuda.set_rng_state(state, device)

        try:
            yield replay
        finally:
            with torch.no_grad():
                for parameter, value, gradient in parameters:
                    parameter.copy_(value)
                    parameter.grad = gradient
                for module, name, buffer, saved in buffers:
                    setattr(module, name, buffer)
                    buffer.copy_(saved)
            for module, mode in modes:
                module.training = mode


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
    own = saved(vars(optimizer))  # such as a plugin's count of its steps
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
            restore(vars(optimizer), own)


def _norms(tensors: Iterable[Tensor]) -> Tensor:
    """L2 norms as one float64 tensor, so that a caller waits for the device once."""
    return torch.stack([torch.linalg.vector_norm(tensor, dtype=torch.float64) for tensor in tensors])
