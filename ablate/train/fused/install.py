"""Fused kernels put in the place of what a model and its loss compute pass by pass."""

from __future__ import annotations

import functools
from collections.abc import Callable

from torch import Tensor, nn

from ablate.models.blocks import ConvBlock
from ablate.models.unet import Decoder, UNet
from ablate.train import losses
from ablate.train.fused import functions

Loss = Callable[..., Tensor]


def fuse(model: nn.Module) -> None:
    """Have every block and norm of `model` that is known here compute in fused kernels; others stay as they are."""
    for module in model.modules():
        if isinstance(module, ConvBlock):
            module.rectify = functions.norm_rectified
        if isinstance(module, UNet):
            module.pool = functions.pooled_with_skip
        if isinstance(module, Decoder):
            module.raise_to = functions.raised_beside
        if type(module) is nn.BatchNorm2d:
            # Where nothing is known of what comes next, such as a rectifier.
            module.forward = functools.partial(functions.batch_norm, module)  # type: ignore[method-assign]


def fused_loss(loss: Loss) -> Loss:
    """The fused form of a loss for training, or the loss itself where there is none."""
    return functions.cross_entropy if loss is losses.cross_entropy else loss
