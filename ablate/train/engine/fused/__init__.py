"""The fused kernels as differentiable functions on a CPU, and the modules that take the place of a network's own."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ablate.models.layers import ConvBlock, ResidualBlock, norm_relu, skip_and_pool, upsample_concat
from ablate.models.unet import Decoder, UNet
from ablate.train import losses
from ablate.train.engine.fused.library import SUFFIXES, call


def fused_norm_relu(norm: nn.Module, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
    """Return `norm_relu(norm, x, shortcut)` in one pass, where `norm` is a batch norm and the maps are known here.

    x, shortcut (N, C, H, W) of one type, bfloat16 or float32; computed in float32 and rounded once.
    """
    alike = shortcut is None or (shortcut.dtype, shortcut.shape, shortcut.device) == (x.dtype, x.shape, x.device)
    if not (alike and _is_known(norm, x)):
        return norm_relu(norm, x, shortcut)
    return _norm(cast(nn.BatchNorm2d, norm), x, shortcut, True)


def fused_norm(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Return `norm(x)`, its statistics in one pass and the rest in another; x as for `fused_norm_relu`."""
    if not _is_known(norm, x):
        return nn.BatchNorm2d.forward(norm, x)
    return _norm(norm, x, None, False)


def _norm(norm: nn.BatchNorm2d, x: Tensor, shortcut: Tensor | None, rectified: bool) -> Tensor:
    if norm.training:
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.add_(1)
    result: Tensor = _Norm.apply(
        _channels_last(x),
        None if shortcut is None else _channels_last(shortcut),
        norm.weight,
        norm.bias,
        norm.running_mean,
        norm.running_var,
        norm.momentum,
        norm.eps,
        rectified,
        norm.training,
    )
    return result


def fused_skip_and_pool(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return `skip_and_pool(x)`; its backward pass adds the skip's gradient to that of the maxima as it writes it."""
    if not _is_map(x):
        return skip_and_pool(x)
    skip, maxima = _SkipAndPool.apply(_channels_last(x))
    return skip, maxima


def fused_upsample_concat(up: nn.Module, coarse: Tensor, size: tuple[int, int], skip: Tensor | None = None) -> Tensor:
    """Return `upsample_concat(up, coarse, size, skip)`, one product of matrices written to its place beside the skip.

    Where `up` is a transposed convolution of 2 × 2 with stride 2 and the maps are of one type known here.
    """
    halved = (-(-size[0] // 2), -(-size[1] // 2))
    alike = _is_map(coarse) and coarse.dtype == _precision(coarse) and coarse.shape[-2:] == halved
    if not alike or not _doubles(up) or not (skip is None or (_is_map(skip) and skip.dtype == coarse.dtype)):
        return upsample_concat(up, coarse, size, skip)
    layer = cast(nn.ConvTranspose2d, up)
    beside = None if skip is None else _channels_last(skip)
    result: Tensor = _UpsampleConcat.apply(_channels_last(coarse), beside, layer.weight, layer.bias, size)
    return result


def fused_cross_entropy(
    logits: Tensor, target: Tensor, *, num_classes: int, ignore_index: int, class_weights: Tensor | None = None
) -> Tensor:
    """Return `losses.cross_entropy` with its gradient in the same pass; shapes and meaning as there."""
    known = _is_map(logits) and target.dtype == torch.uint8 and logits.requires_grad
    if not known or logits.shape[1] > 255:
        return losses.cross_entropy(
            logits, target, num_classes=num_classes, ignore_index=ignore_index, class_weights=class_weights
        )
    loss: Tensor = _CrossEntropy.apply(_channels_last(logits), target.contiguous(), ignore_index, class_weights)
    return loss


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        shortcut: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_variance: Tensor,
        momentum: float,
        epsilon: float,
        rectified: bool,
        training: bool,
    ) -> Tensor:
        channels = x.shape[1]
        y = torch.empty_like(x)
        used = torch.empty(4 * channels)
        call(
            "norm", x.dtype, x, shortcut, y, x.numel() // channels, channels, weight, bias, running_mean,
            running_variance, momentum, epsilon, int(rectified), int(training), used,
        )  # fmt: skip
        ctx.save_for_backward(x, used, *([] if shortcut is None else [y]))
        ctx.rectified, ctx.training = rectified, training
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, used, *output = ctx.saved_tensors
        channels = x.shape[1]
        gradient = _channels_last(gradient)
        if output:
            masked = torch.empty_like(x)
            call("rectifier_backward", x.dtype, gradient, output[0], masked, x.numel())
            gradient = masked
        dx, d_weight, d_bias = torch.empty_like(x), torch.empty(channels), torch.empty(channels)
        call(
            "norm_backward", x.dtype, gradient, x, dx, x.numel() // channels, channels, used, d_weight, d_bias,
            int(ctx.rectified and not output), int(ctx.training),
        )  # fmt: skip
        return dx, gradient if output else None, d_weight, d_bias, None, None, None, None, None, None


class _SkipAndPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        images, channels, height, width = x.shape
        maxima = _empty((images, channels, -(-height // 2), -(-width // 2)), x.dtype)
        places = _empty(tuple(maxima.shape), torch.uint8)
        call("pool", x.dtype, x, maxima, places, images, height, width, channels)
        ctx.save_for_backward(places)
        ctx.shape = x.shape
        ctx.set_materialize_grads(False)
        return x, maxima

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, through_skip: Tensor | None, through_pool: Tensor | None) -> Tensor | None:
        if through_pool is None:
            return through_skip
        (places,) = ctx.saved_tensors
        images, channels, height, width = ctx.shape
        dx = _empty(tuple(ctx.shape), through_pool.dtype)
        skip = None if through_skip is None else _channels_last(through_skip)
        call("pool_backward", dx.dtype, _channels_last(through_pool), places, skip, dx, images, height, width, channels)
        return dx


class _UpsampleConcat(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, coarse: Tensor, skip: Tensor | None, weight: Tensor, bias: Tensor, size: tuple[int, int]
    ) -> Tensor:
        (images, _, *_), (inner, channels, *_) = coarse.shape, weight.shape
        beside = 0 if skip is None else skip.shape[1]
        rows = coarse.permute(0, 2, 3, 1).reshape(-1, inner)
        # (C_in, 2 · 2 · C): a coarse pixel's window is a row of the product.
        matrix = weight.permute(0, 2, 3, 1).reshape(inner, 4 * channels).to(coarse.dtype)
        y = _empty((images, beside + channels, *size), coarse.dtype)
        call("join", y.dtype, skip, rows @ matrix, bias, y, images, *size, beside, channels)
        ctx.save_for_backward(rows, matrix)
        ctx.shapes = coarse.shape, None if skip is None else skip.shape, weight.shape
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, matrix = ctx.saved_tensors
        coarse, skip, (inner, channels, *_) = ctx.shapes
        gradient = _channels_last(gradient)
        images, joined, *size = gradient.shape
        d_skip = None if skip is None else _empty(skip, gradient.dtype)
        parts, d_bias = gradient.new_empty(len(rows), 4 * channels), torch.empty(channels)
        call(
            "join_backward", gradient.dtype, gradient, d_skip, parts, d_bias, images, *size, joined - channels, channels
        )
        d_coarse = (parts @ matrix.t()).view(images, *coarse[2:], inner).permute(0, 3, 1, 2)
        d_weight = (rows.t() @ parts).view(inner, 2, 2, channels).permute(0, 3, 1, 2).float()
        return d_coarse, d_skip, d_weight, d_bias, None


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, ignore: int, weights: Tensor | None) -> Tensor:
        classes = logits.shape[1]
        gradient, loss = torch.empty_like(logits), torch.empty(())
        call("cross_entropy", logits.dtype, logits, target, gradient, target.numel(), classes, ignore, weights, loss)
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        # Alone it is the whole loss, and the factor one.
        return gradient if float(outer) == 1.0 else gradient * outer.to(gradient.dtype), None, None, None


def _is_known(norm: nn.Module, x: Tensor) -> bool:
    """Return whether `norm` is a batch norm and x a map of the kinds that its kernel computes."""
    # With one value a channel the plain norm says what is wrong.
    return (
        isinstance(norm, nn.BatchNorm2d) and norm.affine and norm.track_running_stats and norm.momentum is not None
        and norm.weight.dtype == torch.float32 and _is_map(x)
        and not (norm.training and x.numel() <= x.shape[1])
    )  # fmt: skip


def _doubles(up: nn.Module) -> bool:
    return (
        type(up) is nn.ConvTranspose2d and up.kernel_size == up.stride == (2, 2) and up.padding == (0, 0)
        and up.output_padding == (0, 0) and up.dilation == (1, 1) and up.groups == 1 and up.bias is not None
        and up.weight.dtype == torch.float32
    )  # fmt: skip


def _precision(x: Tensor) -> torch.dtype:
    """Return the type in which products are computed now."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


def _is_map(x: Tensor) -> bool:
    return x.dim() == 4 and x.device.type == "cpu" and x.dtype in SUFFIXES and x.numel() > 0


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, memory_format=torch.channels_last)


# -- modules -----------------------------------------------------------------------------------------------------------


class FusedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm where nothing is known of what comes next, such as a ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised map (N, C, H, W)."""
        return fused_norm(self, x)


class FusedConvBlock(ConvBlock):
    """A `ConvBlock` whose norms and ReLUs are one pass each."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output (N, out, H, W)."""
        return fused_norm_relu(self.norm2, self.conv2(fused_norm_relu(self.norm1, self.conv1(x))))


class FusedResidualBlock(ResidualBlock):
    """A `ResidualBlock` whose norms, shortcut and ReLUs are one pass each."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output (N, out, H, W)."""
        inner = self.conv2(fused_norm_relu(self.norm1, self.conv1(x)))
        return fused_norm_relu(self.norm2, inner, self.projection(x))


class FusedDecoder(Decoder):
    """A `Decoder` that writes the upsampled map straight to its place beside the skip."""

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Return the level's output (N, C, H, W)."""
        skip = self.gated_skip(coarse, fine)
        return self.block(fused_upsample_concat(self.up, coarse, (fine.shape[-2], fine.shape[-1]), skip))


class FusedUNet(UNet):
    """A `UNet` whose pooling adds the gradient of the skip to its own."""

    def encode(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the feature maps of all levels, the finest first, and what the pooling leaves of the coarsest."""
        features = []
        for block in self.encoder:
            feature, x = fused_skip_and_pool(block(x))
            features.append(feature)
        return features, x


FUSED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm2d: FusedBatchNorm2d,
    ConvBlock: FusedConvBlock,
    ResidualBlock: FusedResidualBlock,
    Decoder: FusedDecoder,
    UNet: FusedUNet,
}


def fuse(model: nn.Module) -> None:
    """Replace every module of `model` that is known here by its fused form; all others stay as they are.

    A module is known by its very class: a subclass may compute something else. It keeps its place, parameters, hooks
    and names: only its class changes.
    """
    for module in list(model.modules()):
        form = FUSED.get(type(module))
        if form is not None:
            module.__class__ = form


def fused_loss(loss: losses.LossFunction) -> losses.LossFunction:
    """Return the fused form of a loss for training, or the loss itself where there is none."""
    return fused_cross_entropy if loss is losses.cross_entropy else loss
