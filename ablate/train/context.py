"""All that a process keeps between trials: data on the device, network and step of the variant at hand."""

from __future__ import annotations

import gc
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ablate.data.dataset import load_dataset
from ablate.study.trial import Trial, canonical
from ablate.train.batches import DeviceData
from ablate.train.device import prepare_process
from ablate.train.engine import CAPTURED_SETTINGS, Numbers, Step, install, make_step
from ablate.train.engine.config import Decisions
from ablate.train.network import Network


class Context:
    """The device, the execution config, and what one trial leaves for the next: decoded data and a compiled step.

    Nothing here carries numbers from trial to trial: a record is the same whichever trials came before it.
    """

    def __init__(
        self, device: str, decisions: Decisions, base: Path, fingerprints: Mapping[str, str] | None = None
    ) -> None:
        """Make the place for trials on `device`, whose data sets' relative paths start at `base`.

        `fingerprints` says, by the canonical JSON of a data set's settings, which data the run began with.
        """
        prepare_process(decisions.threads, decisions.deterministic)
        self.device = torch.device(device)
        self.decisions = decisions
        self._base, self._fingerprints = base, fingerprints or {}
        self._data: tuple[str, DeviceData] | None = None
        self._network: tuple[str, Network] | None = None
        self._step: tuple[str, Step] | None = None
        # Whether an epoch is read while the next one runs: a CPU has nothing to run meanwhile.
        self.ahead = self.device.type == "cuda"

    def arithmetic(self) -> dict[str, Any]:
        """Return how numbers are computed here, and how far they can be repeated, as every record says it.

        "bitwise" on any machine with this kind of processor, "same-machine" with the same model of GPU, driver and
        versions, or "none".
        """
        repeatable = "bitwise" if self.device.type == "cpu" else "same-machine"
        return {
            "precision": self.decisions.precision,
            "engine": self.decisions.engine,
            "threads": self.decisions.threads,
            "tf32": False,
            "repeatable": repeatable if self.decisions.deterministic else "none",
        }

    def data(self, settings: dict[str, Any]) -> DeviceData:
        """Return the data set of `settings` ("name" and its own), decoded and moved once.

        Raises `DataError` where it is not the one that the run began with.
        """
        key = canonical(settings)
        if self._data is None or self._data[0] != key:
            self._data = None  # the old one goes before the new one comes
            self.forget_network()
            rest = {name: value for name, value in settings.items() if name != "name"}
            expected = self._fingerprints.get(key)
            dataset = load_dataset(settings["name"], rest, base=self._base, expected=expected)
            self._data = (key, DeviceData(dataset, self.device, self.decisions.workers))
        return self._data[1]

    def network(self, trial: Trial) -> Network:
        """Return the network of the trial's variant, its parameters drawn for the trial's seed."""
        self.data(trial.data)  # other data drop the network, before it is looked for
        train = trial.train
        names = ("loss", "class_weights", "batch_size", "crop", "freeze", "aux")
        key = json.dumps([trial.model, trial.data, *map(train.get, names)], sort_keys=True)
        if self._network is None or self._network[0] != key:
            self.forget_network()
            if self.decisions.compiles:
                torch.compiler.reset()  # the steps of the variant before
            self._network = (key, self.fresh_network(trial))
        network = self._network[1]
        network.reset(trial.seed)
        return network

    def fresh_network(self, trial: Trial) -> Network:
        """Return a network of its own for the trial's variant, kept by the caller; its parameters are not set."""
        data = self.data(trial.data)
        network = Network(
            trial.model,
            data.dataset,
            trial.train["loss"],
            data.class_weights(trial.train["class_weights"]),
            device=self.device,
            precision=self.decisions.dtype,
            channels_last=self.decisions.channels_last,
            freeze=trial.train.get("freeze", ()),
            aux=trial.train.get("aux"),
        )
        return install(network, self.decisions)

    def step(self, trial: Trial, images: tuple[int, ...]) -> Step:
        """Return the trial's step, with a fresh optimizer, on the network that `network` gave last.

        `images` is the shape (B, H, W, C) of a batch. A captured step is kept for the trials that can use it again.
        """
        assert self._network is not None
        variant, network = self._network
        if not self.decisions.captures:
            return make_step(network, self.decisions, trial.train, images)
        key = json.dumps([variant, images, *map(trial.train.get, CAPTURED_SETTINGS)])
        if self._step is None or self._step[0] != key:
            self._step = None
            self._release()
            self._step = (key, make_step(network, self.decisions, trial.train, images))
        self._step[1].reset()
        return self._step[1]

    def numbers(self, network: Network) -> Numbers:
        """Return the way in which a trial's numbers come from the device."""
        return Numbers(self.device, network.model, ahead=self.ahead)

    def forget_network(self) -> None:
        """Drop the network and its step: for other data, or after an error that may have left it in pieces."""
        self._network = self._step = None
        self._release()

    def _release(self) -> None:
        """Give back a GPU's memory of what was dropped, before anything takes its place."""
        if self.device.type == "cuda":
            gc.collect()  # a network refers to itself by its methods
            torch.cuda.empty_cache()
