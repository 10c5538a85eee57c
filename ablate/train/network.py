"""A variant's network with its loss and its prediction, kept from trial to trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ablate.data.dataset import IGNORE, Dataset
from ablate.errors import StudyError
from ablate.models import copy_weights, outputs
from ablate.registry import LOSSES, MODELS
from ablate.study.components import bound, create
from ablate.train.device import arithmetic, seed_initialisation
from ablate.train.losses import Loss, LossFunction, cross_entropy, multilabel_loss
from ablate.train.optim import check_patterns, covered


class Network:
    """Model, loss and prediction of a variant on a device.

    The parameters are initialised again in place for every trial, so that a compiled step survives; the result
    is the same as that of a fresh network, because fresh ones are initialised in the same way.

    `criterion`, `training_loss` and `predict` are what is called for a step and for a batch of an evaluation; an
    engine may replace them, and modules of `model`, by others that compute the same.
    """

    def __init__(
        self,
        model: dict[str, Any],
        dataset: Dataset,
        loss: str | dict[str, Any],
        class_weights: Tensor | None,
        *,
        device: torch.device,
        precision: torch.dtype = torch.float32,
        channels_last: bool = True,
        freeze: Sequence[str] = (),
        aux: float | Sequence[float] | None = None,
    ) -> None:
        """Make the network; raises `StudyError` for a pattern of `freeze` that fits no parameter, or all of them.

        `aux` weighs the loss of the model's auxiliary outputs: one number for all, or one each.
        """
        self._settings = model
        self._channels = dataset.in_channels
        self.num_classes = dataset.num_classes
        self.class_names = dataset.classes
        self.device, self.precision = device, precision
        mean = torch.tensor(dataset.mean, dtype=torch.float32, device=device).view(1, -1, 1, 1)
        std = torch.tensor(dataset.std, dtype=torch.float32, device=device).view(1, -1, 1, 1)
        self.image_type = torch.uint8 if dataset.white == 255 else torch.uint16
        self._scale, self._shift = 1 / (dataset.white * std), -mean / std
        self.multilabel = dataset.multilabel
        function, common = bound(LOSSES, loss), cross_entropy
        if self.multilabel:
            function, common = multilabel_loss(function), multilabel_loss(common)
        self.loss = Loss(function, self.num_classes, IGNORE, class_weights, self.multilabel)
        # What trials of different losses are compared by; None where it is the loss itself.
        self.cross_entropy = None if function is common else replace(self.loss, function=common)
        self._aux = aux
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.model = self._fresh_model().to(device, memory_format=layout)  # type: ignore[call-overload]
        sizes = {"parameters": sum(value.numel() for value in self.model.parameters() if value.requires_grad)}
        self._freeze(freeze)
        # Listed once: to walk through the modules for them costs a noticeable part of a short step.
        self._trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        trained = sum(value.numel() for value in self._trained)
        self.sizes: dict[str, float | None] = sizes | ({"trained_parameters": trained} if freeze else {})
        self.criterion: Callable[[Tensor, Tensor], Tensor] = self.loss
        self.training_loss: Callable[[Tensor, Tensor], Tensor] = self.loss_of_batch
        self.predict: Callable[[Tensor, Tensor], tuple[Tensor, ...]] = self.prediction_of_batch

    def _fresh_model(self) -> nn.Module:
        model: nn.Module = create(MODELS, self._settings, in_channels=self._channels, num_classes=self.num_classes)
        return model

    def _freeze(self, patterns: Sequence[str]) -> None:
        """Take the parameters that `patterns` cover out of training; norms among them keep their statistics."""
        check_patterns(patterns, self.model, "train.freeze")
        for name, parameter in self.model.named_parameters():
            if any(covered(pattern, name) for pattern in patterns):
                parameter.requires_grad_(False)
        if patterns and not any(parameter.requires_grad for parameter in self.model.parameters()):
            raise StudyError("expected parameters left to train, got all of them frozen", key="train.freeze")
        for name, module in self.model.named_modules():
            if any(covered(pattern, name) for pattern in patterns):
                module.eval()
                module.train = partial(_unchanged, module)

    def reset(self, seed: int) -> None:
        """Set all parameters to those that a fresh model has under `seed`, in place, whatever was computed before."""
        seed_initialisation(seed)
        # Built and copied, not drawn again: a constructor may set weights after its layers have drawn theirs.
        copy_weights(self._fresh_model(), self.model)
        self.model.zero_grad(set_to_none=True)

    def inputs(self, images: Tensor) -> Tensor:
        """Return the normalised float32 (B, channels, H, W) of images uint8 (B, H, W, channels)."""
        # Channels come last in memory already: the permutation is a view.
        return images.permute(0, 3, 1, 2).float() * self._scale + self._shift

    def outputs(self, images: Tensor) -> list[Tensor]:
        """Return what the model gives for images uint8 (B, H, W, channels): logits, and auxiliary ones behind them."""
        inputs = self.inputs(images)
        with arithmetic(self.device, self.precision):
            return outputs(self.model(inputs))

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits (B, C, H, W) of images uint8 (B, H, W, channels), in the study's precision."""
        return self.outputs(images)[0]

    def loss_of_batch(self, images: Tensor, target: Tensor) -> Tensor:
        """Return the loss of images uint8 (B, H, W, channels) with targets uint8 (B, H, W), a scalar with its graph."""
        return self.loss_of_outputs(self.outputs(images), target, self.criterion)

    def loss_of_outputs(self, given: Any, target: Tensor, criterion: LossFunction | None = None) -> Tensor:
        """Return the loss of what the model gave, auxiliary outputs (weighted, at the target's size) added."""
        criterion = criterion or self.loss
        main, *others = outputs(given)
        loss = criterion(main, target)
        for weight, logits in zip(self.aux_weights(len(others)), others, strict=True):
            if weight:
                loss = loss + weight * criterion(upsampled(logits.float(), target.shape[-2:]), target)
        return loss

    def aux_weights(self, count: int) -> Sequence[float]:
        """Return the weights of `count` auxiliary outputs; raises `StudyError` where the study has another number."""
        if not count:
            return ()
        weights = [self._aux] * count if isinstance(self._aux, int | float) else self._aux or ()
        if len(weights) != count:
            got = "none" if self._aux is None else str(self._aux)
            message = f"expected the weights of the model's {count} auxiliary outputs, got {got}"
            raise StudyError(message, key="train.aux", cure="write aux: 0.4, the same for each; 0 leaves them out")
        return weights

    def prediction_of_batch(self, images: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        """Return the predicted labels uint8 (B, H, W), each image's loss (B,), and its cross entropy if another."""
        logits = self.logits(images).float()
        losses = [loss.of_each_image(logits, target) for loss in (self.loss, self.cross_entropy) if loss is not None]
        return predicted(logits, multilabel=self.multilabel), *losses

    def parameters(self) -> list[nn.Parameter]:
        """Return the parameters that are trained."""
        return self._trained


def _unchanged(module: nn.Module, _mode: bool = True) -> nn.Module:
    """Stand for the `train` of a frozen module, which stays in evaluation mode."""
    return module


def predicted(logits: Tensor, *, multilabel: bool) -> Tensor:
    """Return the labels uint8 (N, H, W) of logits (N, C, H, W): the likeliest class of each pixel.

    `multilabel`: the sum of 2^class over the classes whose sigmoid is above one half.
    """
    if not multilabel:
        return logits.argmax(1).to(torch.uint8)
    classes = torch.arange(logits.shape[1], device=logits.device).view(1, -1, 1, 1)
    return ((logits > 0).long() << classes).sum(1).to(torch.uint8)


def upsampled(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Return logits (N, C, h, w) at another size (H, W): bilinear, pixel centres aligned."""
    if tuple(logits.shape[2:]) == tuple(size):
        return logits
    return torch.nn.functional.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)


def learn(
    network: Network, optimizer: torch.optim.Optimizer, images: Tensor, target: Tensor, train: Mapping[str, Any]
) -> Tensor:
    """Do one step of the optimizer at the rate that is set; loss and gradient norm before clipping, float32 (2,).

    The gradient is clipped to the norm `train["clip_norm"]`. More than `train["batch_size"]` images pass in parts of
    that size, whose gradients add up to that of all of them together where the loss is a mean over pixels: each part
    weighs as the pixels that count in it.
    """
    optimizer.zero_grad(set_to_none=True)
    batch_size = train.get("batch_size") or len(images)
    if len(images) <= batch_size:
        loss = network.training_loss(images, target)
        loss.backward()
    else:
        parts = list(zip(images.split(batch_size), target.split(batch_size), strict=True))
        weights = torch.stack([network.loss.weight(masks) for _, masks in parts])
        shares = weights / weights.sum().clamp_min(1e-12)
        loss = torch.zeros((), device=images.device)
        for share, (some, masks) in zip(shares, parts, strict=True):
            part = network.training_loss(some, masks).float() * share
            part.backward()
            loss = loss + part.detach()
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
    if train["clip_norm"] is not None:
        torch.nn.utils.clip_grads_with_norm_(network.parameters(), train["clip_norm"], norm)
    optimizer.step()
    return torch.stack([loss.detach().float(), norm.float()])
