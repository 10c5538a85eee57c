"""Probes of the live model: when a trial is probed, and where the answers go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ablate.data.rng import derive
from ablate.models.layers import gates as attention_gates
from ablate.models.layers import hooked_gates
from ablate.records.images import panel_indices
from ablate.records.store import finite
from ablate.study.spec import MeasureSpec
from ablate.train.batches import DeviceSplit
from ablate.train.network import Network
from ablate.train.probes.gates import gate_ablation, gate_statistics
from ablate.train.probes.gradients import lr_headroom, skip_share, update_ratios, weights

Layers = dict[str, dict[str, list[float | None]]]


def points(count: int, epochs: int) -> set[int]:
    """Return the epochs (1-based) that are probed: `count` of them, evenly spread from the first to the last."""
    return {int(epoch) for epoch in np.linspace(1, epochs, min(count, epochs)).round()} if count else set()


class Probes:
    """Probes of one trial. `layers` holds measure -> layer -> one value for each probed epoch.

    Every probe puts back what it touched: a study with probes trains to the same bits as one without.
    """

    def __init__(self, network: Network, measure: MeasureSpec, train: Mapping[str, Any]) -> None:
        self._network, self._gates, self._clip_norm = network, measure.gates, train["clip_norm"]
        self._gradients = points(measure.gradients, train["epochs"])
        self._headroom = points(measure.lr_headroom, train["epochs"])
        self._before: dict[str, Tensor] | None = None
        self.layers: Layers = {}

    def due(self, epoch: int) -> bool:
        """Return whether the first step of `epoch` is probed."""
        return epoch in self._gradients or epoch in self._headroom

    def before(self, epoch: int, optimizer: torch.optim.Optimizer, images: Tensor, target: Tensor) -> None:
        """Measure ahead of a probed step, on the step's own batch."""
        model, loss, precision = self._network.model, self._network.loss_of_outputs, self._network.precision
        inputs = self._network.inputs(images)
        if epoch in self._headroom:
            clip = self._clip_norm
            headroom = lr_headroom(model, optimizer, loss, inputs, target, clip_norm=clip, precision=precision)
            self._add("lr_headroom", {"all": headroom})
        if epoch in self._gradients:
            self._add("skip_share", skip_share(model, loss, inputs, target, precision=precision))
            self._before = weights(model)

    def after(self) -> None:
        """Measure behind a probed step."""
        if self._before is not None:
            self._add("update_ratio", update_ratios(self._before, self._network.model))
            self._before = None

    def finish(self, split: DeviceSplit, batch_size: int, seed: int) -> dict[str, np.ndarray]:
        """Measure what the attention gates look at, where there are any, with the best epoch's weights.

        Returns every gate's α on the images that panels show: gate -> float16 (images, h, w).
        """
        network, model, precision = self._network, self._network.model, self._network.precision
        if not self._gates or not attention_gates(model):
            return {}

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            for images, masks, real in split.in_order(batch_size):
                yield network.inputs(images[:real]), masks[:real]

        names, several = network.class_names, network.multilabel
        if not several:  # each class against the others: pixels may not be in both
            drawn = derive(seed, "gates")
            for measure, values in gate_statistics(model, batches, names, seed=drawn, precision=precision).items():
                self._add(measure, values)
        self._add("gate_ablation", gate_ablation(model, batches, len(names), multilabel=several, precision=precision))
        alphas: dict[str, Tensor] = {}
        model.eval()
        images, _ = split.take(np.array(panel_indices(len(split))))
        with torch.no_grad(), hooked_gates(model, alphas.__setitem__):
            network.logits(images)
        return {gate: alpha.float().mean(1).cpu().numpy().astype(np.float16) for gate, alpha in alphas.items()}

    def _add(self, measure: str, values: Mapping[str, Any]) -> None:
        rows = self.layers.setdefault(measure, {})
        for layer, value in values.items():
            rows.setdefault(layer, []).append(finite(value))
