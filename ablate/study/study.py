"""A study as it is run: its variants, and the trials that they, the grid and the seeds make."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ablate.errors import AblateError, Problem, StudyError
from ablate.study.claims import DETAIL, split_of
from ablate.study.problems import Places
from ablate.study.spec import MAX_EPOCHS, StudySpec, SubsetSpec, TrainSpec
from ablate.study.trial import Trial, canonical, derived_seed, trial_key, with_folder, without_folder

MODEL_AXIS = "model."


@dataclass(frozen=True)
class Variant:
    """One variant of a study: its whole model, its own settings of training and data, its factor levels."""

    name: str
    model: dict[str, Any]
    train: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    control: bool = False
    levels: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Study:
    """A study with all names resolved and all defaults filled in (`spec` too). Made by `reader.read_study`.

    `data_identity` is what the key knows of the data: its settings without locations, with its version. Relative paths
    start at `base`, the folder of the study file.
    `places` knows the line of every key, for errors that are found later.
    """

    spec: StudySpec
    path: Path
    variants: dict[str, Variant]
    baseline: str
    data: dict[str, Any]
    data_identity: dict[str, Any]
    origin: Study | None = None
    places: Places | None = field(default=None, compare=False, repr=False)
    base: Path = field(default=Path(), compare=False)

    @property
    def name(self) -> str:
        """The study's name, also that of its results folder."""
        return self.spec.study

    def __repr__(self) -> str:
        trials = f"{self.spec.search.trials} searched settings" if self.spec.search else f"{len(self.trials())} trials"
        return f"<Study {self.name}: variants {', '.join(self.variants)}; {trials} in the first phase>"

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of every variant that is no control."""
        seeds = self.spec.seeds
        return tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)

    @contextlib.contextmanager
    def located(self) -> Iterator[None]:
        """Give the errors that are raised within, about a key such as "data.root", the file and line of that key."""
        try:
            yield
        except AblateError as error:
            if self.places is None:
                raise
            raise type(error)(map(self.places.locate, error.problems)) from None

    def seeds_of(self, variant: str) -> tuple[int, ...]:
        """Return the seeds of a variant; a control's are derived from its name, so that they are not its original's."""
        return self._own(variant, self.seeds)

    def again_seeds(self, variant: str) -> tuple[int, ...]:
        """Return the seeds that `screen` adds at a variant's best settings: the numbers after its first ones."""
        screen = self.spec.screen
        return self._own(variant, range(screen.seeds, screen.seeds + screen.more)) if screen is not None else ()

    def _own(self, variant: str, seeds: Iterable[int]) -> tuple[int, ...]:
        control = self.variants[variant].control
        return tuple(derived_seed("control", variant, seed) if control else seed for seed in seeds)

    def confirm_seeds(self, variant: str) -> tuple[int, ...]:
        """Return the seeds for `confirm`, as many as it may take; none took part in choosing.

        They do not depend on the study's own seeds.
        """
        wanted = self.spec.confirm.planned_looks[-1] if self.spec.confirm else 0
        names = ["confirm", *([variant] if self.variants[variant].control else [])]
        return tuple(derived_seed(*names, number) for number in range(wanted))

    def settings(self) -> Iterator[dict[str, Any]]:
        """Yield every combination of the levels, in the order of the file; one empty setting where there is no grid."""
        axes = self.spec.grid
        for levels in itertools.product(*axes.values()):
            yield dict(zip(axes, levels, strict=True))

    def trials(self) -> list[Trial]:
        """Return the plan: every variant at every setting with every seed, less what is excluded, in a fixed order.

        A study with `search` has none: its settings come from a sampler, and `trial` makes a trial of each.
        """
        if self.spec.search is not None:
            return []
        return [
            trial
            for name in self.variants
            for settings in self.settings()
            if not self.excludes(name, settings)
            for trial in self.cell(name, settings, self.seeds_of(name))
        ]

    def representatives(self) -> list[Trial]:
        """Return one trial of each variant, at the first setting and seed: what a profile measures."""
        first = next(self.settings())
        return [self.trial(name, first, self.seeds_of(name)[0]) for name in self.variants]

    def excludes(self, variant: str, settings: Mapping[str, Any]) -> bool:
        """Return whether the study's `exclude` leaves this cell out."""
        cell = {"variant": variant, **self.variants[variant].levels, **settings}
        return any(
            all(key in cell and canonical(cell[key]) == canonical(value) for key, value in rule.items())
            for rule in self.spec.exclude
        )

    def trial(self, variant: str, settings: Mapping[str, Any], seed: int, role: str = "main") -> Trial:
        """Return a trial at any setting, planned or not: what a search, an extended grid or `confirm` runs.

        Raises `StudyError` for a setting that is no field of train.
        """
        return self.cell(variant, settings, (seed,), role)[0]

    def cell(
        self, variant: str, settings: Mapping[str, Any], seeds: tuple[int, ...], role: str = "main"
    ) -> list[Trial]:
        """Return the trials of one variant at one setting, one a seed; they share their dicts, which nobody changes."""
        chosen = self.variants[variant]
        settings = self._in_order(settings)
        train = self.train_settings(chosen, settings)
        own = {axis.removeprefix(MODEL_AXIS): level for axis, level in settings.items() if axis.startswith(MODEL_AXIS)}
        model, data = with_folder(chosen.model | own, self.base), self.data_of(variant)
        control = variant if chosen.control else None
        identity = subset(self.data_identity | chosen.data)
        trials = []
        for seed in seeds:
            key = trial_key(seed, model=without_folder(model), data=identity, train=train, control=control)
            parent = self.origin.trial(variant, settings, seed, role).key if self.origin else None
            trials.append(Trial(self.name, variant, settings, seed, role, model, data, train, key, parent))
        return trials

    def data_of(self, variant: str) -> dict[str, Any]:
        """Return the name and the settings of the data that a variant is trained on."""
        return subset(self.data | self.variants[variant].data)

    def _in_order(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return a setting with its axes in the file's order, whatever kept it: a trial's name follows that order."""
        axes = [*self.spec.grid, *(self.spec.search.space if self.spec.search else ())]
        return {axis: settings[axis] for axis in dict.fromkeys([*axes, *settings]) if axis in settings}

    def train_settings(self, variant: Variant, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return a complete `TrainSpec` as JSON values: the study's, under the variant's own, under the setting's."""
        merged = self.spec.train.model_dump(mode="json")
        for key, value in variant.train.items():
            assign(merged, key, value)
        for axis, value in settings.items():
            if not axis.startswith(MODEL_AXIS):
                assign(merged, axis, value)
        return TrainSpec.model_validate(merged).model_dump(mode="json")

    def extended(self, factor: float) -> Study:
        """Return the same study with `factor` times the epochs; its trials name the shorter ones as their `parent`.

        Raises `StudyError` where a schedule is not constant (it has made its own plateau), where epochs are an axis
        of the grid, or where `factor` adds no epoch.
        """
        problems: list[Problem] = []

        def find(key: str, message: str, cure: str) -> None:
            problems.append(Problem(message, key=key, file=str(self.path), cure=cure))

        if self.spec.search is not None:
            find("search", "expected a grid, got a search", "extend a study that lists the settings which it found")
        if "epochs" in self.spec.grid:
            find("grid.epochs", "expected epochs outside the grid, got an axis of it", "add a level to it")
        schedules = {
            self.train_settings(variant, settings)["schedule"]
            for variant in self.variants.values()
            for settings in self.settings()
        } - {"constant"}
        if schedules:
            message = f"expected a constant schedule, got {', '.join(sorted(schedules))}"
            find("train.schedule", message, "a schedule that has ended cannot go on; set train.epochs instead")
        epochs = [self.train_settings(variant, {})["epochs"] for variant in self.variants.values()]
        if not (math.isfinite(factor) and round(min(epochs) * factor) > min(epochs)):
            find("--extend", f"expected a factor that adds epochs, got {factor}", "write --extend 2")
        elif round(max(epochs) * factor) > MAX_EPOCHS:
            find("--extend", f"expected at most {MAX_EPOCHS:,} epochs in the end, got more", "write --extend 2")
        if problems:
            raise StudyError(problems)
        train = self.spec.train.model_copy(update={"epochs": round(self.spec.train.epochs * factor)})
        variants = {
            name: dataclasses.replace(variant, train=_longer(variant.train, factor))
            for name, variant in self.variants.items()
        }
        specs = {
            name: variant.model_copy(update={"train": _longer(variant.train, factor)})
            for name, variant in self.spec.variants.items()
        }
        spec = self.spec.model_copy(update={"train": train, "variants": specs})
        return dataclasses.replace(self, spec=spec, variants=variants, origin=self)

    def check_data(self, num_classes: int, size: tuple[int, int], *, multilabel: bool = False) -> None:
        """Raise `StudyError` for settings that the data contradict: class weights, crops of `size`, claims' metrics."""
        findings: dict[str, Problem] = {}
        for index, claim in enumerate(self.spec.claims if multilabel else []):
            if split_of(claim.metric)[1] in (*DETAIL, "pixel_accuracy"):
                message = f"'{claim.metric}' is of maps in which a pixel bears one class; here it may bear several"
                key = f"claims[{index}].metric"
                findings[key] = Problem(message, key=key, cure="claim mean_iou, dice, iou/<class> or dice/<class>")

        def check(train: Mapping[str, Any], key: str) -> None:
            weights, crop = train.get("class_weights"), train.get("crop")
            if isinstance(weights, list | tuple) and len(weights) != num_classes:
                message = f"expected {num_classes} weights, one a class, got {len(weights)}"
                findings.setdefault(message, Problem(message, key=f"{key}class_weights"))
            if crop is not None and (crop[0] > size[0] or crop[1] > size[1]):
                message = f"expected a crop within the images of {size[0]} × {size[1]}, got {crop[0]} × {crop[1]}"
                findings.setdefault(message, Problem(message, key=f"{key}crop"))

        check(self.spec.train.model_dump(mode="json"), "train.")
        for name, variant in self.variants.items():
            check(variant.train, f"variants.{name}.train.")
        for axis, levels in self.spec.grid.items():
            for level in levels:
                check({axis: level}, "grid.")
        for axis, space in (self.spec.search.space if self.spec.search else {}).items():
            for level in space.choices or []:
                check({axis: level}, "search.space.")
        if findings:
            raise StudyError(findings.values())

    def differences(self, variant: str) -> dict[str, tuple[Any, Any]]:
        """Return the fields of the model, of training ("train.<field>") and of the data ("data.<field>") that differ.

        Each with the baseline's value and the variant's own; a setting that one of them does not have is None there.
        """
        ours, theirs = (self._flat(name) for name in (self.baseline, variant))
        fields = dict.fromkeys([*ours, *theirs])
        found = {field: (ours.get(field), theirs.get(field)) for field in fields}
        if None in found.get("data.steps", ()):
            del found["data.steps"]  # all images have none to count: that it is a part of them is the difference
        return {field: pair for field, pair in found.items() if canonical(pair[0]) != canonical(pair[1])}

    def confounds(self, variant: str) -> list[str]:
        """Return the fields of training and data in which a variant differs and that the study declares no factor."""
        return undeclared(self.differences(variant), self.spec.factors)

    def _flat(self, name: str) -> dict[str, Any]:
        variant = self.variants[name]
        data = {"fraction": 1.0, **self.data_of(name)}
        return flat(variant.model) | flat({"train": self.train_settings(variant, {}), "data": data})


def assign(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set a field, or by a dotted key a field inside one.

    A mapping is merged into the mapping that stands there; a component, which has a name, replaces it.
    """
    head, _, rest = key.partition(".")
    if rest:
        assign(tree.setdefault(head, {}), rest, value)
    elif isinstance(value, dict) and isinstance(tree.get(head), dict) and not {"name"} & {*value, *tree[head]}:
        for inner, item in value.items():
            assign(tree[head], inner, item)
    else:
        tree[head] = value


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted field; a component's name stands at its own field, its settings below."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            rest = {inner: item for inner, item in value.items() if inner != "name"}
            found |= {prefix + key: value["name"]} if "name" in value else {}
            found |= flat(rest, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def undeclared(fields: Iterable[str], factors: Iterable[str]) -> list[str]:
    """Return those of dotted `fields` of training and data that are no factor, nor a part of one."""
    outside = [field for field in fields if field.startswith(("train.", "data."))]
    declared = [*factors, *(["data.steps"] if "data.fraction" in factors else [])]
    return [field for field in outside if not any(f"{field}.".startswith(f"{factor}.") for factor in declared)]


def subset(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of data, with those of a `SubsetSpec` only where a part is taken and both of them then."""
    rest = {key: value for key, value in data.items() if key not in SubsetSpec.model_fields}
    taken = {key: value for key, value in data.items() if key in SubsetSpec.model_fields}
    return rest | (SubsetSpec(**taken).model_dump() if taken.get("fraction", 1) < 1 else {})


def _longer(train: dict[str, Any], factor: float) -> dict[str, Any]:
    return train | {"epochs": round(train["epochs"] * factor)} if "epochs" in train else dict(train)
