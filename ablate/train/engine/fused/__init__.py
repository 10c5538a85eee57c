"""The modules that compute in fused kernels, and how they take the place of a network's own."""

from __future__ import annotations

from torch import Tensor, nn

from ablate.models.layers import ConvBlock, ResidualBlock
from ablate.models.unet import Decoder, UNet
from ablate.train import losses
from ablate.train.engine.fused.functions import (
    fused_cross_entropy,
    fused_norm,
    fused_norm_relu,
    fused_skip_and_pool,
    fused_upsample_concat,
)


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
