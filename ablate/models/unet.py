"""The U-Net, put together by switches: what its skips do, what its blocks are, how wide and how deep it is."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PlainSerializer
from torch import Tensor, nn

from ablate.errors import StudyError
from ablate.models.layers import BLOCKS, AttentionGate, Block, Norm, SkipConnection, skip_and_pool, upsample_concat

Skip = Literal["concat", "none", "attention"]
# A whole number, or a fraction of one for a network that is matched in size; 8 stays 8, in the trials' keys too.
Width = Annotated[
    float,
    Field(ge=1, le=4096),
    AfterValidator(lambda width: int(width) if width == int(width) else width),
    PlainSerializer(lambda width: width),
]


def unet(
    *,
    in_channels: int,
    num_classes: int,
    width: Width = 64,
    depth: Annotated[int, Field(ge=1, le=10)] = 4,
    skip: Skip = "concat",
    block: Block = "plain",
    norm: Norm = "batch",
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    gate_finest: bool = False,
) -> UNet:
    """Build a U-Net (Ronneberger et al. 2015), same padding: (N, in_channels, H, W) -> logits (N, num_classes, H, W).

    - `width`: channels at full resolution, doubled by each of the `depth` poolings. Of a fraction each level has the
      nearest whole number, with group normalisation the nearest multiple of 8.
    - `skip`: how an encoder feature map reaches the decoder: `concat` beside the upsampled one, `none` not at all,
      `attention` through an additive gate (Oktay et al. 2018) and then beside it. As in its code the finest skip
      is not gated; `gate_finest` gates it too.
    - `block`: `plain`, or `residual` with a shortcut around each pair of convolutions (He et al. 2016).
    - `norm`: batch, group or instance normalisation, or none (the convolutions have a bias then).
    - `dropout`: share of the coarsest features that are dropped in training, at the end of the contracting path.

    Switches compose: `skip="attention", block="residual"` needs no code of its own.
    Raises `StudyError` where the switches leave no skip to gate.
    """
    if skip == "attention" and depth == 1 and not gate_finest:
        raise StudyError(
            "skip: attention with depth: 1 has no gate, because the finest skip is not gated",
            key="model.depth",
            cure="take depth 2 or more, or gate_finest: true",
        )
    return UNet(
        in_channels, num_classes, width, depth, skip=skip, block=block, norm=norm, dropout=dropout,
        gate_finest=gate_finest,
    )  # fmt: skip


def poolings(size: tuple[int, int]) -> int:
    """Return how many poolings leave one pixel of an image of `size` (H, W); a further one pools nothing."""
    return (max(size) - 1).bit_length()


class Decoder(nn.Module):
    """One level of the decoder: (N, C', ⌈H/2⌉, ⌈W/2⌉) and the encoder's (N, C, H, W) -> (N, C, H, W).

    C' (`coarse`) is 2C but for a fractional width.
    """

    def __init__(self, channels: int, coarse: int, *, skip: Skip, gated: bool, block: Block, norm: Norm) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(coarse, channels, 2, stride=2)
        self.skip = None if skip == "none" else SkipConnection()
        self.gate = AttentionGate(channels, coarse) if gated else None
        self.block = BLOCKS[block](channels if skip == "none" else 2 * channels, channels, norm)

    def gated_skip(self, coarse: Tensor, fine: Tensor) -> Tensor | None:
        """Return what the encoder's map `fine` passes on to this level; None without a skip."""
        skip = None
        if self.skip is not None:
            skip = self.skip(fine)
            if self.gate is not None:
                skip = self.gate(skip, coarse)
        return skip

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Return the level's output (N, C, H, W)."""
        return self.block(
            upsample_concat(self.up, coarse, (fine.shape[-2], fine.shape[-1]), self.gated_skip(coarse, fine))
        )


class UNet(nn.Module):
    """The network that `unet` describes. `encoder` and `decoder` are indexed by level, 0 at full resolution.

    Any height and width will do. Where a size is odd, pooling takes the incomplete window at the end as well, and
    the decoder cuts its output to the size of its level. So no pixel is dropped and none is invented, at the cost of
    the pixels that there are: rounding down instead would hide the last rows from every coarser level (at 360×480
    the last eight), which only the skips could make good, and the comparison with a net without skips would measure it.
    """

    def __init__(
        self, in_channels: int, num_classes: int, width: float, depth: int, *, skip: Skip, block: Block, norm: Norm,
        dropout: float, gate_finest: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        step = 8 if norm == "group" and width != int(width) else 1
        *widths, coarsest = (max(step, step * round(width * 2**level / step)) for level in range(depth + 1))
        make = BLOCKS[block]
        self.encoder = nn.ModuleList(make(a, b, norm) for a, b in zip([in_channels, *widths], widths, strict=False))
        self.bottleneck = make(widths[-1], coarsest, norm)
        self.dropout = nn.Dropout(dropout) if dropout else None
        self.decoder = nn.ModuleList(
            Decoder(
                channels,
                coarse,
                skip=skip,
                gated=skip == "attention" and (level > 0 or gate_finest),
                block=block,
                norm=norm,
            )
            for level, (channels, coarse) in enumerate(pairwise([*widths, coarsest]))
        )
        self.head = nn.Conv2d(widths[0], num_classes, 1)

    def encode(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the feature maps of all levels, the finest first, and what the pooling leaves of the coarsest."""
        features = []
        for block in self.encoder:
            feature, x = skip_and_pool(block(x))
            features.append(feature)
        return features, x

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes, H, W)."""
        features, x = self.encode(x)
        x = self.bottleneck(x)
        if self.dropout is not None:
            x = self.dropout(x)
        for decoder in reversed(self.decoder):
            x = decoder(x, features.pop())
        return self.head(x)
