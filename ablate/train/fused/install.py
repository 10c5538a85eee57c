"""Fused kernels put in the place of what a model and its loss compute pass by pass."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from ablate.models.blocks import ConvBlock
from ablate.models.unet import Decoder, UNet
from ablate.train import losses
from ablate.train.fused import functions

Loss = Callable[..., Tensor]


def fuse(model: nn.Module) -> None:
    """Have every block of `model` that is known here compute in fused kernels; others stay as they are."""
    for module in model.modules():
        if isinstance(module, ConvBlock):
            module.rectify = functions.norm_rectified
        if isinstance(module, UNet):
            module.pool = functions.pooled_with_skip
        if isinstance(module, Decoder):
            module.raise_to = functions.raised_beside


def fused_loss(loss: Loss) -> Loss:
    """The fused form of a loss for training, or the loss itself where there is none."""
    return functions.cross_entropy if loss is losses.cross_entropy else loss
