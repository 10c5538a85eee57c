"""The parts that a U-Net is put together from: convolution blocks, skips, attention gates, and their hook points."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Norm = Literal["batch", "group", "instance", "none"]
Block = Literal["plain", "residual"]


def normalisation(kind: Norm, channels: int) -> nn.Module:
    """Return the normalisation of a feature map with `channels` channels; all kinds have a scale and shift per channel.

    `group` takes at most the 32 groups of Wu & He (2018, arXiv 1803.08494) and at least four channels in each,
    so that narrow models do not slip into instance normalisation.
    """
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "group":
        return nn.GroupNorm(math.gcd(max(1, channels // 4), 32), channels)
    if kind == "instance":
        return nn.InstanceNorm2d(channels, affine=True)
    return nn.Identity()


def norm_relu(norm: nn.Module, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
    """Return relu(norm(x) + shortcut), shapes (N, C, H, W)."""
    x = norm(x)
    return F.relu(x if shortcut is None else x + shortcut, inplace=True)


def skip_and_pool(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return x (N, C, H, W) itself, for the skip, and the maxima of its 2×2 windows (N, C, ⌈H/2⌉, ⌈W/2⌉)."""
    return x, F.max_pool2d(x, 2, ceil_mode=True)


def upsample_concat(up: nn.Module, coarse: Tensor, size: tuple[int, int], skip: Tensor | None = None) -> Tensor:
    """Return the skip (N, C', H, W), where there is one, and after it `up(coarse)` cut to `size`: (N, C' + C, H, W)."""
    x: Tensor = up(coarse)
    if x.shape[-2:] != size:
        x = x[:, :, : size[0], : size[1]]
    return x if skip is None else torch.cat([skip, x], 1)


class ConvBlock(nn.Module):
    """Two 3×3 convolutions, each with norm + ReLU: (N, in, H, W) -> (N, out, H, W).

    Convolutions have a bias only where no normalisation would cancel it (Ioffe & Szegedy 2015).
    """

    def __init__(self, in_channels: int, out_channels: int, norm: Norm) -> None:
        super().__init__()
        bias = norm == "none"
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias)
        self.norm1 = normalisation(norm, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=bias)
        self.norm2 = normalisation(norm, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output (N, out, H, W)."""
        return norm_relu(self.norm2, self.conv2(norm_relu(self.norm1, self.conv1(x))))


class ResidualBlock(ConvBlock):
    """A `ConvBlock` with a shortcut around both convolutions, added before the last ReLU (He et al. 2016).

    The shortcut is a 1×1 projection with normalisation where the channels change, else the identity.
    """

    def __init__(self, in_channels: int, out_channels: int, norm: Norm) -> None:
        super().__init__(in_channels, out_channels, norm)
        self.projection: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.projection = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, bias=norm == "none"), normalisation(norm, out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output (N, out, H, W)."""
        return norm_relu(self.norm2, self.conv2(norm_relu(self.norm1, self.conv1(x))), self.projection(x))


BLOCKS: dict[Block, type[ConvBlock]] = {"plain": ConvBlock, "residual": ResidualBlock}


class SkipConnection(nn.Identity):
    """Mark the place where a skip tensor leaves the encoder: computes nothing, but gives probes a place to hook.

    A model of one's own that passes its skip tensors through one of these, and keeps its encoder in a submodule
    named `encoder`, gets the gradient split of `ablate.train.probes.gradients.skip_share`.
    """


# σ(3) = 0.95: a gate starts open at every location, so that training begins from the network without gates.
OPEN = 3.0


class GateTap(nn.Identity):
    """Mark the place where the coefficients α (N, 1, H, W) in 0..1 leave a gate: a place for probes to hook.

    A gate of one's own that passes its α through one of these, held as its direct child, gets the gate measures
    of `ablate.train.probes.gates`.
    """


class AttentionGate(nn.Module):
    """Additive attention gate after Oktay et al. (2018, arXiv 1804.03999).

    α = σ(ψᵀ relu(W_x x + W_g g + b_g) + b_ψ), output α·x. As in the authors' code:

    - the gating signal g (N, C_g, ⌈H/2⌉, ⌈W/2⌉) comes from the next coarser scale;
    - all maps are linear without spatial support (1×1); W_x brings x (N, C, H, W) down to the grid of g by its
      stride of 2, and α goes back up to the grid of x by bilinear interpolation;
    - ψ has one output: one coefficient a pixel, shared by the channels;
    - and, a choice made here, gates start open: b_ψ is set so that α begins near one everywhere.

    Parameters: C·F + C_g·F + F + F + 1, with F = C/2 inner channels.
    """

    def __init__(self, channels: int, gate_channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 2)
        self.w_x = nn.Conv2d(channels, inner, 1, stride=2, bias=False)
        self.w_g = nn.Conv2d(gate_channels, inner, 1)
        self.psi = nn.Conv2d(inner, 1, 1)
        self.tap = GateTap()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Open the gate; the convolutions draw their own weights."""
        if self.psi.bias is not None:
            nn.init.constant_(self.psi.bias, OPEN)

    def forward(self, x: Tensor, g: Tensor) -> Tensor:
        """Return α·x (N, C, H, W)."""
        alpha = torch.sigmoid(self.psi(F.relu(self.w_x(x) + self.w_g(g), inplace=True)))
        height, width = x.shape[-2:]
        alpha = double(double(alpha, 2), 3)[:, :, :height, :width]
        return x * self.tap(alpha)


def double(x: Tensor, dim: int) -> Tensor:
    """Return x with twice its length along `dim`, by linear interpolation, edges repeated (`align_corners=False`).

    Written with slices because the backward pass of `interpolate` on CUDA is not deterministic.
    """
    n = x.shape[dim]
    before = torch.cat([x.narrow(dim, 0, 1), x.narrow(dim, 0, n - 1)], dim)
    after = torch.cat([x.narrow(dim, 1, n - 1), x.narrow(dim, n - 1, 1)], dim)
    return torch.stack([torch.lerp(x, before, 0.25), torch.lerp(x, after, 0.25)], dim + 1).flatten(dim, dim + 1)


@contextmanager
def detached_skips(model: nn.Module) -> Iterator[None]:
    """Run `model` with its skip tensors detached: same values, but no gradient flows back through a skip.

    Needs the eager module: a compiled one does not look for hooks that came later.
    """
    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, SkipConnection):
                stack.enter_context(module.register_forward_hook(lambda _module, _inputs, skip: skip.detach()))
        yield


@contextmanager
def hooked_gates(model: nn.Module, hook: Callable[[str, Tensor], Tensor | None]) -> Iterator[None]:
    """Run `model` with `hook(gate, alpha)` called on every gate's α; what it returns, if anything, replaces α.

    `gate` is the name that `gates(model)` gives. Needs the eager module, as `detached_skips` does.
    """
    with ExitStack() as stack:
        for name, gate in gates(model).items():
            tap = next(child for child in gate.children() if isinstance(child, GateTap))
            called = tap.register_forward_hook(lambda _module, _inputs, alpha, name=name: hook(name, alpha))
            stack.enter_context(called)
        yield


def gates(model: nn.Module) -> dict[str, nn.Module]:
    """Return the attention gates of a model by their module path: every module that directly holds a `GateTap`."""
    return {
        name: module
        for name, module in model.named_modules()
        if any(isinstance(child, GateTap) for child in module.children())
    }
