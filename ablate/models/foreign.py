"""Networks of MONAI by name, without code of one's own: `model: {name: monai/attention_unet}` (extra `monai`)."""

from __future__ import annotations

import importlib
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import nn

from ablate.errors import StudyError

Channels = Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(min_length=2, max_length=10)]
Share = Annotated[float, Field(ge=0, lt=1)]


def _monai(name: str, **settings: Any) -> nn.Module:
    """Return a network of `monai.networks.nets` for images."""
    try:
        nets = importlib.import_module("monai.networks.nets")  # only here: the import takes seconds
    except ModuleNotFoundError:
        cure = 'pip install "ablate-bench[monai]"'
        raise StudyError("this network is MONAI's, which is not installed", key="model.name", cure=cure) from None
    network: nn.Module = getattr(nets, name)(spatial_dims=2, **settings)
    return network


def attention_unet(
    *,
    in_channels: int,
    num_classes: int,
    channels: Channels = (16, 32, 64, 128),
    dropout: Share = 0.0,
) -> nn.Module:
    """Build MONAI's AttentionUnet (Oktay et al. 2018); sizes are multiples of 2^(levels - 1)."""
    strides = [2] * (len(channels) - 1)
    ends = {"in_channels": in_channels, "out_channels": num_classes}
    return _monai("AttentionUnet", **ends, channels=channels, strides=strides, dropout=dropout)


def unet(
    *,
    in_channels: int,
    num_classes: int,
    channels: Channels = (16, 32, 64, 128),
    num_res_units: Annotated[int, Field(ge=0, le=10)] = 0,
    norm: Literal["batch", "instance"] = "instance",
    dropout: Share = 0.0,
) -> nn.Module:
    """Build MONAI's UNet (Kerfoot et al. 2018); sizes are multiples of 2^(levels - 1)."""
    strides = [2] * (len(channels) - 1)
    ends = {"in_channels": in_channels, "out_channels": num_classes, "strides": strides}
    return _monai("UNet", **ends, channels=channels, num_res_units=num_res_units, norm=norm, dropout=dropout)


def basic_unet(
    *,
    in_channels: int,
    num_classes: int,
    features: Annotated[tuple[int, ...], Field(min_length=6, max_length=6)] = (32, 32, 64, 128, 256, 32),
    dropout: Share = 0.0,
) -> nn.Module:
    """Build MONAI's BasicUNet; sizes are at least 16."""
    ends = {"in_channels": in_channels, "out_channels": num_classes}
    return _monai("BasicUNet", **ends, features=features, dropout=dropout)


def segresnet(
    *,
    in_channels: int,
    num_classes: int,
    init_filters: Annotated[int, Field(ge=8, multiple_of=8)] = 16,
    dropout: Share | None = None,
) -> nn.Module:
    """Build MONAI's SegResNet (Myronenko 2018) without its autoencoder; sizes are multiples of 8."""
    ends = {"in_channels": in_channels, "out_channels": num_classes}
    return _monai("SegResNet", **ends, init_filters=init_filters, dropout_prob=dropout)
