"""One dry pass of every variant before a trial begins: what would fail there is said in one line, at its place.

On the CPU, with the study's own first images, batch size, crop, weights, loss and optimizer: a pass in evaluation mode
and two steps of training, the second of them as that of another trial in the same process. Where the arithmetic of
that is more than `MOST_FLOPS`, a built-in network passes on the meta device, which knows shapes and computes nothing,
and a plugin's passes with two images of the real size. What depends on a GPU, on later batches or on the values of
trained weights a dry pass cannot know.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ablate.data.augment import Augmenter
from ablate.data.dataset import IGNORE, Dataset, first_names, load_dataset
from ablate.errors import AblateError, PluginError, Problem, StudyError
from ablate.models import forward_flops
from ablate.models.unet import poolings
from ablate.plugins import check_model, check_outputs, kept_random_states, reported
from ablate.registry import DATASETS, LOSSES, MODELS, OPTIMIZERS, Registry
from ablate.run.plan.measured import measures_that_raise
from ablate.study.components import bound, name_of, settings_of, signature
from ablate.study.problems import excerpt
from ablate.study.study import MODEL_AXIS, Study
from ablate.study.trial import Trial, canonical
from ablate.train.batches import DeviceSplit
from ablate.train.device import has_bfloat16
from ablate.train.losses import Loss, multilabel_loss
from ablate.train.network import Network
from ablate.train.optim import make_optimizer, set_rate

# Of all networks together: some seconds of a CPU.
MOST_FLOPS = 60e9
# Images of a batch where a plugin's network is too large for the real one.
FEW = 2
# What `torch` says where a norm has a single value to work with.
ONE_VALUE = "Expected more than 1"
CPU = torch.device("cpu")
CALLS = {
    "loss": "(logits, target, *, num_classes, ignore_index, class_weights)",
    "optimizer": "(parameters, *, lr, weight_decay, momentum)",
}


def load_data(study: Study, *, again: bool = False) -> Dataset:
    """Return the study's data set; with `again` a plugin's is made twice, as each worker makes it anew.

    Raises `DataError` for data that cannot be used, or are others the second time; `StudyError` for settings of
    training that they contradict.
    """
    name, settings = study.data["name"], {key: value for key, value in study.data.items() if key != "name"}
    with study.located():
        dataset = load_dataset(name, settings, base=study.base)
        if again and DATASETS.source(name) != "ablate":
            load_dataset(name, settings, base=study.base, expected=dataset.fingerprint)
        study.check_data(dataset.num_classes, dataset.size, multilabel=dataset.multilabel)
    return dataset


def own_data(study: Study, dataset: Dataset) -> dict[str, Dataset]:
    """Return the data set of every variant, the study's own `dataset` where it has no settings of its own.

    Raises `StudyError` where val or test are not those of all variants, and for two variants with one training set.
    """
    made = {canonical(study.data): dataset}
    for name in study.variants:
        settings = study.data_of(name)
        key = f"variants.{name}.data" if name in study.spec.variants and not study.variants[name].levels else "factors"
        if canonical(settings) in made:
            continue
        with study.located():
            rest = {field: value for field, value in settings.items() if field != "name"}
            other = load_dataset(settings["name"], rest, base=study.base)
            twin = next((known for known in made.values() if known.fingerprint == other.fingerprint), None)
            if twin is not None:
                count = len(set(other.splits["train"].names))
                message = f"variant '{name}': expected training images of its own, got the {count} of another variant"
                raise StudyError(message, key=key, cure="take fractions that are further apart")
            _check_scored(study, name, key, dataset, other)
        made[canonical(settings)] = other
    return {name: made[canonical(study.data_of(name))] for name in study.variants}


def _check_scored(study: Study, name: str, key: str, dataset: Dataset, other: Dataset) -> None:
    """Raise `StudyError` where a variant's data would be chosen or scored by other images than all variants share."""
    if dataset.size != other.size and not study.spec.measure.native:
        message = f"variant '{name}': images of another size are scored at another size"
        raise StudyError(message, key=key, cure="write measure: {native: true}, to score at the masks' own")
    same = dataset.classes == other.classes
    for split in ("val", "test"):
        ours, theirs = dataset.splits[split], other.splits[split]
        same = same and ours.names == theirs.names
        if same and dataset.size == other.size:
            same = np.array_equal(ours.masks, theirs.masks)
    if same and dataset.size != other.size:
        pairs = zip(dataset.native_test_masks(), other.native_test_masks(), strict=True)
        same = all(np.array_equal(left, right) for left, right in pairs)
    if not same:
        message = f"variant '{name}': its data have other val or test images, so that its score compares with no other"
        raise StudyError(message, key=key, cure="let the variants differ in what is trained on alone")


def dry_pass(study: Study, dataset: Dataset, device: str = "cpu", own: Mapping[str, Dataset] | None = None) -> None:
    """Pass a batch of `dataset`, or of a variant's `own`, through every network, loss and optimizer, on the CPU.

    Measures of plugins are tried, too. Raises `StudyError` or `PluginError` with one problem for each that fails.
    `device` is where the trials will run; their precision is taken over where it is a CPU, too.
    """
    trials = study.trials() or study.representatives()
    own = own_data(study, dataset) if own is None else own
    passes = _Passes(study, own, _precision(study, device), len({canonical(trial.model) for trial in trials}))
    found: dict[str, tuple[AblateError, dict[str, None]]] = {}
    done: set[str] = set()
    for trial in trials:
        for check, parts in passes.checks(trial).items():
            key = f"{check.__name__} {canonical(parts)}"
            if key in done:
                continue
            done.add(key)
            try:
                with kept_random_states(), study.located():
                    passes.use(trial)
                    check(trial)
            except AblateError as error:
                of = found.setdefault(str(error), (error, {}))[1]
                of |= {_named(trial): None} if check == passes.network else {}
            except (MemoryError, torch.OutOfMemoryError):
                continue  # the machine's fault: another may have it
    if raising := measures_that_raise(study, dataset):
        found.setdefault("measures", (PluginError(raising), {}))
    if found:
        raise type(next(iter(found.values()))[0])(
            replace(problem, message=": ".join([*([first_names([*of])] if of else []), problem.message]))
            for error, of in found.values()
            for problem in error.problems
        )


def _named(trial: Trial) -> str:
    """Return the variant of a trial, with the settings of its model that are not the model's defaults."""
    defaults = signature(MODELS, trial.model["name"]).defaults()
    own = [
        f"{key}: {excerpt(value if isinstance(value, str) else json.dumps(value))}"
        for key, value in settings_of(trial.model).items()
        if value != defaults.get(key)
    ]
    return f"variant '{trial.variant}'" + f" ({', '.join(own)})" * bool(own)


def _precision(study: Study, device: str) -> torch.dtype:
    if device.startswith("cuda"):  # what a CPU cannot compute in 16 bits a GPU may
        return torch.float32
    wanted = study.spec.train.precision
    return torch.bfloat16 if wanted == "bfloat16" or (wanted == "auto" and has_bfloat16(device)[0]) else torch.float32


class _Passes:
    """The checks of a trial's parts, each on the first batch that it would see."""

    dataset: Dataset
    splits: dict[str, DeviceSplit]

    def __init__(self, study: Study, own: Mapping[str, Dataset], precision: torch.dtype, networks: int) -> None:
        self.study, self.own, self.precision = study, own, precision
        self.most_flops = MOST_FLOPS / networks

    def use(self, trial: Trial) -> None:
        """Take the data of a trial's variant for its checks."""
        self.dataset = self.own[trial.variant]
        splits = self.dataset.splits.items()
        self.splits = {name: DeviceSplit(split, CPU, resident=True) for name, split in splits}

    def checks(self, trial: Trial) -> dict[Callable[[Trial], None], list[Any]]:
        """Return the checks of a trial, each with all that its outcome depends on."""
        train = trial.train
        data = self.own[trial.variant]
        batch = [min(train["batch_size"], len(data.splits["train"])), train["crop"], data.size]
        return {
            self.augmentation: [*batch, train["augment"]],
            self.network: [trial.model, *batch, train.get("freeze"), train.get("aux")],
            self.loss: [train["loss"], train["class_weights"], *batch],
            self.optimizer: [
                trial.model,
                *map(train.get, ("optimizer", "weight_decay", "momentum", "freeze", "lr_scale")),
            ],
        }

    def augmentation(self, trial: Trial) -> None:
        """Augment the trial's first batch."""
        samples = np.arange(min(trial.train["batch_size"], len(self.splits["train"])))
        augment = Augmenter(trial.train["augment"], trial.train["crop"], self.dataset.size)
        augment(*self.splits["train"].take(samples), seed=trial.seed, epoch=1, samples=samples)

    def _batch(self, trial: Trial) -> tuple[Tensor, Tensor]:
        """Return images and masks of the number and size of the trial's batches: the corners of the first ones."""
        split = self.splits["train"]
        images, masks = split.take(np.arange(min(trial.train["batch_size"], len(split))))
        height, width = trial.train["crop"] or self.dataset.size
        return images[:, :height, :width], masks[:, :height, :width]

    def network(self, trial: Trial) -> None:
        """Pass the trial's network in evaluation mode and twice, the second time set anew, in training mode."""
        name = trial.model["name"]
        own = MODELS.source(name) == "ablate"
        with self._said(MODELS, name, "model", trial):
            if not own:
                check_model(
                    trial.model,
                    in_channels=self.dataset.in_channels,
                    num_classes=self.dataset.num_classes,
                    size=self.dataset.size,
                )
            images, _ = self._batch(trial)
            network = self._made(trial)
            scored, _, _ = next(self.splits["val"].in_order(trial.train["batch_size"]))
            model: nn.Module = network.model
            dtype = self.precision
            if not self._is_light(network, images, scored):
                if own:
                    model, dtype = copy.deepcopy(model).to("meta"), torch.float32
                else:
                    images, scored = images[:FEW], scored[:FEW]
            network.reset(trial.seed)
            model.eval()
            with torch.no_grad():
                self._outputs(name, model, network.inputs(scored), dtype)
            for seed in (trial.seed, trial.seed + 1):
                network.reset(seed)
                model.train()
                given = self._outputs(name, model, network.inputs(images), dtype)
                network.aux_weights(len(given) - 1)
                torch.stack([logits.float().square().mean() for logits in given]).sum().backward()

    def _outputs(self, name: str, model: nn.Module, inputs: Tensor, dtype: torch.dtype) -> list[Tensor]:
        device = next(model.parameters()).device
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16, cache_enabled=False):
            given = model(inputs.to(device))
        mode = "training" if model.training else "evaluation"
        return check_outputs(name, given, inputs, self.dataset.num_classes, mode)

    def _made(self, trial: Trial) -> Network:
        freeze, aux = trial.train.get("freeze", ()), trial.train.get("aux")
        return Network(
            trial.model,
            self.dataset,
            "cross_entropy",
            None,
            device=CPU,
            precision=self.precision,
            freeze=freeze,
            aux=aux,
        )

    def _is_light(self, network: Network, images: Tensor, scored: Tensor) -> bool:
        """Return whether the real batch passes in little time."""
        height, width = images.shape[1:3]
        try:
            one = forward_flops(network.model, (height, width), self.dataset.in_channels)
        except Exception:  # what is wrong is said by the passes themselves
            return False
        evaluated = one / (height * width) * scored[..., 0].numel()
        return 2 * 3 * one * len(images) + evaluated <= self.most_flops

    def loss(self, trial: Trial) -> None:
        """Have the trial's loss judge noise: a scalar that depends on the logits, also of a single image."""
        name, classes = name_of(trial.train["loss"]), self.dataset.num_classes
        _, masks = self._batch(trial)
        weights = trial.train["class_weights"]
        if weights == "balanced":
            weights = [1.0] * classes
        of_classes = None if weights is None else torch.tensor(weights).float()
        shape = (len(masks), classes, *masks.shape[1:])
        with self._said(LOSSES, name, "train.loss", trial):
            function = bound(LOSSES, trial.train["loss"])
            function = multilabel_loss(function) if self.dataset.multilabel else function
            loss = Loss(function, classes, IGNORE, of_classes, self.dataset.multilabel)
            logits = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(self.precision).requires_grad_()
            value = loss(logits, masks)
            if value.dim() or not value.is_floating_point():
                got = f"{value.dtype} {tuple(value.shape)}"
                raise LOSSES.broken(name, f"expected one floating-point number for the batch, got {got}")
            gradient = None
            if value.requires_grad:
                (gradient,) = torch.autograd.grad(value, logits, allow_unused=True)
            if gradient is None:
                raise LOSSES.broken(name, "expected a loss that depends on the logits, got one without their gradient")
            with torch.no_grad():
                loss.of_each_image(logits.float(), masks)

    def optimizer(self, trial: Trial) -> None:
        """Have the trial's optimizer take two steps, and take over its own state."""
        name = name_of(trial.train["optimizer"])
        try:
            with kept_random_states():
                network = self._made(trial)
        except Exception:
            return  # said already, by the check of the network
        with self._said(OPTIMIZERS, name, "train.optimizer", trial):
            optimizer = make_optimizer(network.model, trial.train)
            if not isinstance(optimizer, torch.optim.Optimizer):
                raise OPTIMIZERS.broken(name, f"expected a torch.optim.Optimizer, got a {type(optimizer).__name__}")
            for _ in range(2):
                for parameter in network.parameters():
                    parameter.grad = torch.full_like(parameter, 1e-3)
                set_rate(optimizer, trial.train["lr"])
                optimizer.step()
            optimizer.load_state_dict(optimizer.state_dict())

    @contextmanager
    def _said(self, registry: Registry, name: str, key: str, trial: Trial) -> Iterator[None]:
        """Say what fails within at the plugin's line, or at the study's where the component is built in."""
        try:
            if registry.source(name) == "ablate":
                yield
                return
            with reported(registry, name, calls=CALLS.get(registry.kind, "")):
                yield
        except AblateError as error:
            raise type(error)(map(partial(self._place, trial), error.problems)) from None
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise self._problem(error, key, trial) from error

    def _place(self, trial: Trial, problem: Problem) -> Problem:
        """Say of a setting of the model that fails, and of a pattern of layers, where it is written."""
        head, _, rest = problem.key.partition(".")
        if head not in ("model", "replace"):
            return problem
        return replace(problem, key=self._key(trial, rest if head == "model" else head))

    def _key(self, trial: Trial, setting: str = "") -> str:
        """Return the key of the study file at which a trial's model is written, or that setting of it."""
        spec = self.study.spec.variants.get(trial.variant)
        own = spec.difference if spec is not None else {}
        if f"{MODEL_AXIS}{setting}" in trial.settings:
            return f"grid.{MODEL_AXIS}{setting}"
        if setting in self.study.variants[trial.variant].levels:
            return f"factors.{setting}"
        if setting in own or (own and not setting):
            return f"variants.{trial.variant}.{setting}".removesuffix(".")
        return f"model.{setting}".removesuffix(".")

    def _problem(self, error: Exception, key: str, trial: Trial) -> StudyError:
        text = " ".join(str(error).split())
        if ONE_VALUE not in text:
            of, key = ("", self._key(trial)) if key == "model" else (f"variant '{trial.variant}': ", key)
            return StudyError(f"{of}{type(error).__name__}: {text}", key=key)
        height, width = size = trial.train["crop"] or self.dataset.size
        batch = trial.train["batch_size"]
        message = (
            f"at {height} × {width} with batch_size {batch} a norm of the coarsest level is left with one value, "
            "which it cannot normalise"
        )
        depth = poolings(size) - 1 if trial.model["name"] == "unet" else trial.model.get("depth", 0) - 1
        depths = [f"depth {depth}"] if "depth" in trial.model and depth > 0 else []
        norms = ["batch_size 2"] if batch == 1 and trial.model.get("norm") != "instance" else []
        cure = " or ".join([*depths, "larger images", *norms])
        return StudyError(message, key=self._key(trial, "depth" if depths else ""), cure=f"take {cure}")
