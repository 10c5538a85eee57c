"""A variant's network with its loss and its prediction, kept from trial to trial."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ablate.data.dataset import IGNORE, Dataset
from ablate.models.initialise import copy_weights
from ablate.registry import LOSSES, MODELS, OPTIMIZERS
from ablate.study.components import bound, create
from ablate.study.fields import name_of
from ablate.train.device import seed_initialisation
from ablate.train.losses import Loss
from ablate.train.optim import CAPTURABLE, gradient_norm


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
    ) -> None:
        self._settings = model
        self._channels = dataset.in_channels
        self.num_classes = dataset.num_classes
        self.class_names = dataset.classes
        self.device, self.precision = device, precision
        mean = torch.tensor(dataset.mean, dtype=torch.float32, device=device).view(1, -1, 1, 1)
        std = torch.tensor(dataset.std, dtype=torch.float32, device=device).view(1, -1, 1, 1)
        self.image_type = torch.uint8 if dataset.white == 255 else torch.uint16
        self._scale, self._shift = 1 / (dataset.white * std), -mean / std
        self.loss = Loss(bound(LOSSES, loss), self.num_classes, IGNORE, class_weights)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.model = self._fresh_model().to(device, memory_format=layout)  # type: ignore[call-overload]
        # Listed once: to walk through the modules for them costs a noticeable part of a short step.
        self._trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.criterion: Callable[[Tensor, Tensor], Tensor] = self.loss
        self.training_loss: Callable[[Tensor, Tensor], Tensor] = self.loss_of_batch
        self.predict: Callable[[Tensor, Tensor], tuple[Tensor, ...]] = self.prediction_of_batch

    def _fresh_model(self) -> nn.Module:
        model: nn.Module = create(MODELS, self._settings, in_channels=self._channels, num_classes=self.num_classes)
        return model

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

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits (B, C, H, W) of images uint8 (B, H, W, channels), in the study's precision."""
        inputs = self.inputs(images)
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16, cache_enabled=False
        ):
            logits: Tensor = self.model(inputs)
        return logits

    def loss_of_batch(self, images: Tensor, target: Tensor) -> Tensor:
        """Return the loss of images uint8 (B, H, W, channels) with targets uint8 (B, H, W), a scalar with its graph."""
        return self.criterion(self.logits(images), target)

    def prediction_of_batch(self, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the predicted classes uint8 (B, H, W) and each image's own loss (B,)."""
        logits = self.logits(images).float()
        return logits.argmax(1).to(torch.uint8), self.loss.of_each_image(logits, target)

    def optimizer(self, train: dict[str, Any]) -> torch.optim.Optimizer:
        """Return a fresh optimizer for the settings of a trial."""
        rate = train["lr"]
        if self.device.type == "cuda" and name_of(train["optimizer"]) in CAPTURABLE:
            # Whether captured or not, so that both round the rate alike.
            rate = torch.tensor(rate, dtype=torch.float32, device=self.device)
        optimizer: torch.optim.Optimizer = bound(OPTIMIZERS, train["optimizer"])(
            self.parameters(), lr=rate, weight_decay=train["weight_decay"], momentum=train["momentum"]
        )
        return optimizer

    def parameters(self) -> list[nn.Parameter]:
        """Return the parameters that are trained."""
        return self._trained


def learn(
    network: Network, optimizer: torch.optim.Optimizer, images: Tensor, target: Tensor, *, clip_norm: float | None
) -> Tensor:
    """Do one step of the optimizer at the rate that is set; loss and gradient norm before clipping, float32 (2,)."""
    loss = network.training_loss(images, target)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = gradient_norm(network.parameters())
    if clip_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(network.parameters(), clip_norm, norm)
    optimizer.step()
    return torch.stack([loss.detach().float(), norm.float()])
