"""A variant's network with its training and evaluation step, eager or compiled, kept from trial to trial."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ablate.data.dataset import IGNORE, Dataset
from ablate.models.initialise import copy_weights
from ablate.registry import LOSSES, MODELS, OPTIMIZERS
from ablate.train.decisions import Decisions
from ablate.train.fused.install import fuse, fused_loss
from ablate.train.optimizers import RECORDABLE
from ablate.train.recording import Recorded, recorder
from ablate.train.seeding import seed_initialisation


def build_model(settings: dict[str, Any], *, in_channels: int, num_classes: int) -> nn.Module:
    """The model that `settings` ("name" and the factory's own) describe; the global generator draws its weights."""
    rest = {name: value for name, value in settings.items() if name != "name"}
    model: nn.Module = MODELS.get(settings["name"])(in_channels=in_channels, num_classes=num_classes, **rest)
    return model


class Network:
    """Model, loss and step of a variant on a device.

    The parameters are initialised again in place for every trial, so that a compiled step survives; the result
    is the same as that of a fresh network, because fresh ones are initialised in the same way.
    """

    def __init__(
        self,
        model: dict[str, Any],
        dataset: Dataset,
        loss: str,
        class_weights: Tensor | None,
        decisions: Decisions,
        device: torch.device,
    ) -> None:
        self._settings = model
        self._channels = dataset.in_channels
        self.num_classes = dataset.num_classes
        self.class_names = dataset.classes
        self.device = device
        self.decisions = decisions
        mean = torch.tensor(dataset.mean, dtype=torch.float32, device=device).view(1, -1, 1, 1)
        std = torch.tensor(dataset.std, dtype=torch.float32, device=device).view(1, -1, 1, 1)
        self.image_type = torch.uint8 if dataset.white == 255 else torch.uint16
        self._scale, self._shift = 1 / (dataset.white * std), -mean / std
        self.loss: functools.partial[Tensor] = functools.partial(
            LOSSES.get(loss), num_classes=self.num_classes, ignore_index=IGNORE, class_weights=class_weights
        )
        self.precision = torch.bfloat16 if decisions.precision == "bfloat16" else torch.float32
        layout = torch.channels_last if decisions.channels_last else torch.contiguous_format
        self.model = self._fresh_model().to(device, memory_format=layout)  # type: ignore[call-overload]
        # Listed once: to walk through the modules for them costs a noticeable part of a short step.
        self._trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self._criterion = self.loss
        if decisions.fuses:
            fuse(self.model)
            self._criterion = functools.partial(fused_loss(self.loss.func), **self.loss.keywords)
        self.training_loss: Callable[[Tensor, Tensor], Tensor] = self._training_loss
        self.predict: Callable[[Tensor, Tensor], tuple[Tensor, ...]] = self._predict
        if decisions.compiles:
            self.training_loss = torch.compile(self._training_loss, dynamic=False)
            self.predict = torch.compile(self._predict, dynamic=False)
        if decisions.records:
            self.predict = Recorded(self.predict, recorder(device))

    def _fresh_model(self) -> nn.Module:
        return build_model(self._settings, in_channels=self._channels, num_classes=self.num_classes)

    def reset(self, seed: int) -> None:
        """Set all parameters to those that a fresh model has under `seed`, in place, whatever was computed before."""
        seed_initialisation(seed)
        # Built and copied, not drawn again: a constructor may set weights after its layers have drawn theirs.
        copy_weights(self._fresh_model(), self.model)
        self.model.zero_grad(set_to_none=True)

    def inputs(self, images: Tensor) -> Tensor:
        """Normalised float32 (B, channels, H, W) of images uint8 (B, H, W, channels)."""
        # Channels come last in memory already: the permutation is a view.
        return images.permute(0, 3, 1, 2).float() * self._scale + self._shift

    def logits(self, images: Tensor) -> Tensor:
        """Logits (B, C, H, W) of images uint8 (B, H, W, channels), in the study's precision."""
        inputs = self.inputs(images)
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16, cache_enabled=False
        ):
            logits: Tensor = self.model(inputs)
        return logits

    def _training_loss(self, images: Tensor, target: Tensor) -> Tensor:
        return self._criterion(self.logits(images), target)

    def _predict(self, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.logits(images).float()
        # Each image by itself, so that an image's loss does not depend on the batch it came in.
        losses = [self.loss(logits[i : i + 1], target[i : i + 1]) for i in range(logits.shape[0])]
        return logits.argmax(1).to(torch.uint8), torch.stack(losses)

    def optimizer(self, train: dict[str, Any]) -> torch.optim.Optimizer:
        """A fresh optimizer for the settings of a trial."""
        rate = train["lr"]
        if self.device.type == "cuda" and train["optimizer"] in RECORDABLE:
            # Whether recorded or not, so that both round the rate alike.
            rate = torch.tensor(rate, dtype=torch.float32, device=self.device)
        optimizer: torch.optim.Optimizer = OPTIMIZERS.get(train["optimizer"])(
            self.parameters(), lr=rate, weight_decay=train["weight_decay"], momentum=train["momentum"]
        )
        return optimizer

    def parameters(self) -> list[nn.Parameter]:
        """The parameters that are trained."""
        return self._trained


def learn(
    network: Network,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    target: Tensor,
    *,
    clip_norm: float | None,
) -> Tensor:
    """One step of the optimizer at the rate that is set; loss and gradient norm before clipping, float32 (2,)."""
    loss = network.training_loss(images, target)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = gradient_norm(network.parameters())
    if clip_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(network.parameters(), clip_norm, norm)
    optimizer.step()
    return torch.stack([loss.detach().float(), norm.float()])


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """L2 norm of all gradients together, a scalar on the device."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return torch.nn.utils.get_total_norm(gradients, foreach=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate; a tensor rate keeps its place in memory, as a captured graph needs."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
