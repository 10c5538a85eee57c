"""The parts that a U-Net is put together from: normalisation, convolution blocks, the skip connection's hook point."""

from __future__ import annotations

import math
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
