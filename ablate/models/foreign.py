"""Networks of other libraries by name, without code of one's own: `monai/attention_unet`, `transformers/segformer`."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import os
import re
import typing
from collections.abc import Callable
from inspect import Parameter, Signature
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo
from torch import Tensor, nn
from torch.nn import functional

from ablate.errors import StudyError, install_cure, nearest

Channels = Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(min_length=2, max_length=10)]
Share = Annotated[float, Field(ge=0, lt=1)]


def imported(module: str, what: str, key: str) -> ModuleType:
    """Import a module of a library that need not be installed, for `what` the study names at `key`.

    Here and not above, as this takes seconds. Raises `StudyError` that says how the library is installed.
    """
    library = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        message = f"this {what} is of the library {library}, which is not installed"
        raise StudyError(message, key=key, cure=install_cure(library)) from None


def _monai(name: str, **settings: Any) -> nn.Module:
    """Return a network of `monai.networks.nets` for images."""
    nets = imported("monai.networks.nets", "network", "model.name")
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


# --- Hugging Face transformers ---------------------------------------------------------------------------------------

# Layers of a backbone that the plain model of its kind, and so a file of weights, has not.
_OF_MAPS = ("hidden_states_norms.", "fpn")
# Fields of a configuration that the data decide, and those of losses and heads that are not trained here.
_NO_SETTINGS = re.compile(r"num_channels|.*auxiliary.*|.*loss_ignore_index")


def transformers() -> dict[str, Callable[..., nn.Module]]:
    """Return, by its name, a factory of every network that transformers registers for semantic segmentation."""
    library = imported("transformers", "network", "model.name")
    library.logging.set_verbosity_error()
    library.logging.disable_progress_bar()
    return {kind.model_type: _factory(library, kind) for kind in library.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING}


class Upsampled(nn.Module):
    """A network of transformers whose logits have the size of the images."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, C, H, W) of images (N, channels, H, W), bilinearly enlarged."""
        logits = self.model(pixel_values=images).logits
        return functional.interpolate(logits, size=images.shape[2:], mode="bilinear", align_corners=False)


def _factory(library: ModuleType, kind: Any) -> Callable[..., nn.Module]:
    """Return the factory of a network, of which the fields of the configuration class `kind` are the settings."""
    known = {field.name for field in dataclasses.fields(kind)}
    fields = _own_fields(library, kind)

    def build(*, in_channels: int, num_classes: int, weights: str | None = None, **settings: Any) -> nn.Module:
        given = {name: value for name, value in settings.items() if value != takes[name].default}
        decided = {"num_channels": in_channels, "use_auxiliary_head": False}.items()
        try:
            config = kind(num_labels=num_classes, **given, **{name: value for name, value in decided if name in known})
            if (backbone := getattr(config, "backbone_config", None)) is not None:
                backbone.num_channels = in_channels
            network = library.AutoModelForSemanticSegmentation.from_config(config)
        except (MemoryError, RuntimeError):  # of the machine, not of the settings
            raise
        except Exception as error:  # the library raises whatever the first line that cannot go on does
            raise _unfit(kind, error) from None
        if weights is not None:
            _load_encoder(network, weights.partition("#")[0])
        return Upsampled(network)

    hints: dict[str, Any] = {"in_channels": int, "num_classes": int, "weights": Weights | None}
    for name, field in fields.items():
        hints[name] = dict[str, Any] | None if dict in typing.get_args(field.type) else field.type
    if "backbone_config" in fields:
        hints["backbone_config"] = Backbone | None
    defaults = {name: field.default for name, field in fields.items()}
    takes = {name: Parameter(name, Parameter.KEYWORD_ONLY, default=defaults.get(name)) for name in hints}
    build.__doc__ = f"Build the network of transformers that {kind.__name__} describes."
    build.__annotations__, build.__signature__ = hints, Signature([*takes.values()])  # type: ignore[attr-defined]
    return build


def _unfit(kind: Any, error: Exception) -> StudyError:
    """Return the error about settings with which a network of the configuration class `kind` cannot be built."""
    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    cure = f"give lists one value a stage, and see {kind.__name__} in the documentation of transformers"
    return StudyError(f"these settings of {kind.__name__} do not go together ({reason})", key="model", cure=cure)


def _own_fields(library: ModuleType, kind: Any) -> dict[str, Any]:
    """Return by name the fields of a configuration class that are settings of a study."""
    common = {field.name for field in dataclasses.fields(library.PreTrainedConfig)}
    fields = [field for field in dataclasses.fields(kind) if field.name not in common]
    return {field.name.lstrip("_"): field for field in fields if not _NO_SETTINGS.fullmatch(field.name)}


def _checked_backbone(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a backbone; raise `ValueError` for a kind and for settings that transformers has not."""
    library = importlib.import_module("transformers")
    kinds = {kind.model_type: kind for kind in library.MODEL_FOR_BACKBONE_MAPPING if "timm" not in kind.model_type}
    name = str(settings.get("model_type"))
    if name not in kinds:
        raise ValueError(f"expected the model_type of a backbone, got '{name}'; {nearest(name, kinds)}")
    known = {*_own_fields(library, kinds[name]), "model_type", "out_features", "out_indices"}
    if unknown := sorted(set(settings) - known):
        raise ValueError(f"expected settings of '{name}', got '{unknown[0]}'; {nearest(unknown[0], known)}")
    if not {"out_features", "out_indices"} & set(settings):
        raise ValueError("expected stages to go on from; add out_features: [stage1, stage2, stage3, stage4]")
    return settings


def _with_digest(folder: str, about: ValidationInfo) -> str:
    """Return a folder of weights with the SHA-256 of its files behind a #, so that other weights make other trials.

    A relative one starts at the `base` of the context, the folder of the study file. Raises `ValueError` where there
    are none, or others than those of a digest that stands there already.
    """
    given, _, wanted = folder.partition("#")
    home = os.path.expanduser(given)  # noqa: PTH111 (Path.expanduser raises for an unknown user)
    place = ((about.context or {}).get("base") or Path()) / home
    files = [(path, path.stat()) for path in sorted(place.glob("*.safetensors"))]
    if not files:
        raise ValueError(f"expected a folder with weights (.safetensors), got '{place}'; nothing is downloaded")
    if (place / "adapter_config.json").exists():
        raise ValueError(f"expected the weights of a network, got those of an adapter in '{place}'; merge them first")
    found = _digest(tuple((path.absolute(), state.st_size, state.st_mtime_ns) for path, state in files))
    if wanted not in ("", found):
        raise ValueError(f"expected in '{place}' the weights of SHA-256 {wanted}, got {found}; put them back")
    return f"{given}#{found}"


@functools.lru_cache
def _digest(files: tuple[tuple[Path, int, int], ...]) -> str:
    """Return the SHA-256 of files, each given with its size and time, so that it is read again only when it changed."""
    digest = hashlib.sha256()
    for path, *_ in files:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()[:16]


Weights = Annotated[str, AfterValidator(_with_digest)]
Backbone = Annotated[dict[str, Any], AfterValidator(_checked_backbone)]


def _load_encoder(network: Any, folder: str) -> None:
    """Load the weights of a network's encoder; raises `StudyError` where one is missing or has another shape.

    What a backbone adds to the plain model of its kind, the norms and scales of the maps it gives away, may be missing.
    """
    encoder = getattr(network, "backbone", network.base_model)
    safe = {"local_files_only": True, "use_safetensors": True, "ignore_mismatched_sizes": True}
    loaded, found = type(encoder).from_pretrained(
        folder, config=encoder.config, dtype=network.dtype, output_loading_info=True, **safe
    )
    needed = {name for name in encoder.state_dict() if not name.startswith(_OF_MAPS)}
    absent = {*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])}
    if unfit := sorted(absent & needed):
        fit = f"{len(needed) - len(unfit)} of the encoder's {len(needed)} tensors, not {unfit[0]}"
        cure = "write the settings that they were made with"
        raise StudyError(f"the weights in '{folder}' fit {fit}", key="model.weights", cure=cure)
    kept = {name: value for name, value in loaded.state_dict().items() if name not in absent}
    encoder.load_state_dict(kept, strict=False)
