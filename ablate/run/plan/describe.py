"""The work of a study, before it is done: its trials, and what of each variant differs from the baseline."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ablate.data.dataset import Dataset, first_names
from ablate.errors import AblateError
from ablate.models import compare_trees, forward_flops, module_tree, on_meta, parameters
from ablate.models.unet import poolings
from ablate.registry import MODELS
from ablate.run.plan.reach import Phase, deciding_seeds, later_phases, reach_lines
from ablate.study.components import create
from ablate.study.spec import SpaceSpec
from ablate.study.study import Study, Variant
from ablate.study.trial import Trial, canonical, level_text, number_text, with_folder
from ablate.wording import count_of


@dataclass(frozen=True)
class VariantPlan:
    """A variant beside the baseline."""

    name: str
    model: dict[str, Any]
    control: bool
    differs: dict[str, tuple[Any, Any]]
    parameters: int
    forward_flops: int
    train_images: int | None
    replaced: Mapping[str, list[str]]
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return it as `run.json` holds it; modules as lines of `ablate.models.module_tree`."""
        return {
            "model": self.model,
            "differs": {name: list(pair) for name, pair in self.differs.items()},
            "parameters": self.parameters,
            "forward_flops": self.forward_flops,
            "train_images": self.train_images,
            "modules": {"added": self.added, "removed": self.removed},
            "control": self.control,
        }


@dataclass(frozen=True)
class Shape:
    """The part of a data set that decides the shape of the networks and the length of the work.

    `images` counts those of an epoch by split; `distinct` the training images, each once.
    """

    in_channels: int
    num_classes: int
    size: tuple[int, int]
    images: Mapping[str, int]
    distinct: int | None = None

    @classmethod
    def of(cls, dataset: Dataset) -> Shape:
        """Return the shape of a data set."""
        images = {name: len(split) for name, split in dataset.splits.items()}
        distinct = len(set(dataset.splits["train"].names))
        return cls(dataset.in_channels, dataset.num_classes, dataset.size, images, distinct)


@dataclass(frozen=True)
class PlanReport:
    """The plan of a study as plain data.

    `train_flops` are those of `trials` (or of the search), `later_flops` the least and the most of the later phases.
    """

    study: str
    baseline: str
    axes: dict[str, list[Any]]
    seeds: list[int]
    trials: list[Trial]
    variants: list[VariantPlan]
    searched: int
    space: dict[str, str]
    later: list[Phase]
    reach: list[str]
    notes: list[str]
    shape: Shape
    train_flops: int
    later_flops: tuple[int, int]

    @property
    def runs(self) -> tuple[int, int]:
        """The number of trials run in all, at least and at most."""
        first = self.searched or len(self.trials)
        least, most = zip((first, first), *(phase.total for phase in self.later), strict=True)
        return sum(least), sum(most)


def describe(study: Study, shape: Shape, own: Mapping[str, Shape] | None = None) -> PlanReport:
    """Return the plan of `study` on data of this `shape`; `own` are the shapes of variants with data of their own.

    A model's contract is checked by `ablate.run.plan.dry`, before. Raises `StudyError` for settings no network can be
    built from.
    """
    variants = list(describe_variants(study, shape, own or {}).values())
    trials = study.trials()
    later = later_phases(study)
    search = study.spec.search
    first, more = _train_flops(study, trials, later, variants, shape)
    return PlanReport(
        study=study.name,
        baseline=study.baseline,
        axes={name: list(levels) for name, levels in study.spec.grid.items()},
        seeds=list(study.seeds),
        trials=trials,
        variants=variants,
        searched=search.trials * len(study.variants) * len(study.seeds) if search else 0,
        space={name: _range(space) for name, space in search.space.items()} if search else {},
        later=later,
        reach=reach_lines(study),
        notes=_notes(study, variants, {name: (own or {}).get(name, shape) for name in study.variants}),
        shape=shape,
        train_flops=first,
        later_flops=more,
    )


def _range(space: SpaceSpec) -> str:
    """Return where a search looks for one setting, in words."""
    if space.choices is not None:
        return f"one of {', '.join(level_text(choice) for choice in space.choices)}"
    assert space.low is not None and space.high is not None
    return f"from {number_text(space.low)} to {number_text(space.high)}{' (log)' * space.log}"


def describe_variants(study: Study, shape: Shape, own: Mapping[str, Shape]) -> dict[str, VariantPlan]:
    """Return every variant with its differences, parameters, FLOPs of one image and modules, by its name."""
    # The baseline first, whatever the order of the file: the others are compared with its tree.
    names = sorted(study.variants, key=lambda name: name != study.baseline)
    plans: dict[str, VariantPlan] = {}
    trees: dict[str, list[str]] = {}
    for name in names:
        plans[name], trees[name] = _build_one(study, study.variants[name], own.get(name, shape))
    for name in names[1:]:
        added, removed = compare_trees(trees[study.baseline], trees[name])
        plans[name] = dataclasses.replace(plans[name], added=added, removed=removed)
    return {name: plans[name] for name in study.variants}


def _build_one(study: Study, variant: Variant, shape: Shape) -> tuple[VariantPlan, list[str]]:
    """Return a variant with what its network says, and that network's module tree."""

    def factory() -> nn.Module:
        model = with_folder(variant.model, study.base)
        with study.located(), _named(variant.name):
            return create(MODELS, model, in_channels=shape.in_channels, num_classes=shape.num_classes)

    def built(device: torch.device) -> nn.Module:
        with device:
            return factory()

    model = on_meta(built)
    plan = VariantPlan(
        variant.name,
        variant.model,
        variant.control,
        study.differences(variant.name),
        parameters=parameters(model),
        forward_flops=forward_flops(factory, shape.size, shape.in_channels),
        train_images=shape.distinct,
        replaced=getattr(model, "replaced", {}),
    )
    return plan, module_tree(model)


@contextlib.contextmanager
def _named(variant: str) -> Iterator[None]:
    """Say of which variant an error is that a factory raised without knowing."""
    try:
        yield
    except AblateError as error:
        named = [dataclasses.replace(item, message=f"variant '{variant}': {item.message}") for item in error.problems]
        raise type(error)(named) from None


def _train_flops(
    study: Study, trials: list[Trial], later: list[Phase], variants: list[VariantPlan], shape: Shape
) -> tuple[int, tuple[int, int]]:
    """Return the FLOPs of the first trials, and the least and the most of the later phases.

    Forward and backward (twice a forward) over train, forward over val, once over test. A trial that is not known yet
    counts as one of its variant at the first setting.
    """
    flops = {item.name: item.forward_flops for item in variants}
    train, val, test = (shape.images.get(split, 0) for split in ("train", "val", "test"))

    def cost(trial: Trial) -> int:
        return flops[trial.variant] * (trial.train["epochs"] * (3 * train + val) + test)

    one = {trial.variant: cost(trial) for trial in study.representatives()}
    search = study.spec.search
    first = search.trials * len(study.seeds) * sum(one.values()) if search else sum(map(cost, trials))
    least = sum(one[name] * runs[0] for phase in later for name, runs in phase.runs.items())
    most = sum(one[name] * runs[1] for phase in later for name, runs in phase.runs.items())
    return first, (least, most)


def idle_poolings(study: Study, shapes: Mapping[str, Shape]) -> list[str]:
    """Return which U-Nets of a study pool further when one pixel is left, by the `shapes` of the variants' data.

    torch computes them: such a level convolves a single pixel, and the deeper network is none in effect.
    """
    found: dict[tuple[int, int], dict[str, None]] = {}
    for trial in study.trials() or study.representatives():
        if trial.model["name"] == "unet":
            most = poolings(trial.train["crop"] or shapes[trial.variant].size)
            if trial.model["depth"] > most:
                found.setdefault((trial.model["depth"], most), {})[trial.variant] = None
    return [
        f"depth {depth} of {first_names(list(names))}: {most} poolings leave one pixel, further ones pool nothing; "
        f"take depth {most} at most, or larger images"
        for (depth, most), names in found.items()
    ]


def _notes(study: Study, variants: list[VariantPlan], shapes: Mapping[str, Shape]) -> list[str]:
    """Return what a reader of the results would object to, before the machine time is spent."""
    notes = idle_poolings(study, shapes)
    sizes = {item.name: {"parameters": item.parameters, "flops": item.forward_flops} for item in variants}
    for item in variants:
        spec = study.spec.variants.get(item.name)
        if spec is not None and spec.match is not None and (own := sizes[item.name][spec.match.by]):
            match, value = spec.match, level_text(item.model[spec.match.setting])
            target = sizes[match.to][match.by] or own
            off = f"{own / target - 1:+.1%} from the {target:,} of {match.to}"
            notes.append(f"{item.name} has {match.setting} {value}, which gives {own:,} {match.by}, {off}")
        for pattern, names in item.replaced.items():
            rule = item.model["replace"][pattern]
            done = (
                rule if rule == "removed" else f"replaced by {'its input' if rule == 'identity' else f'input {rule}'}"
            )
            said = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
            notes.append(f"{item.name}: '{pattern}' matches {count_of(len(names), 'layer')}, {done}: {said}")
        if fields := study.confounds(item.name):
            said = ", ".join(sorted(fields))
            notes.append(f"{item.name} also differs in {said}: a declared confound, shown in every table")
        written = study.spec.model.settings
        other = item.model["name"] != study.spec.model.name
        if other and (dropped := sorted(key for key in written if key not in item.model)):
            notes.append(f"{item.name} is another model and takes no {', '.join(dropped)}")
    if study.spec.measure.native:
        notes.append("the test split is scored at the masks' own size; val, which chooses, at the size trained at")
    screen, confirm = study.spec.screen, study.spec.confirm
    seeds = deciding_seeds(study)[-1]
    if screen is not None and confirm is None:
        notes.append("screen without confirm chooses settings and decides nothing (add confirm: {seeds: 6})")
    elif seeds == 1:
        notes.append("one seed: no interval and no decision can be given")
    elif seeds < 5:
        notes.append(f"{seeds} seeds: intervals are wide below 5 (see `ablate plan --power` after a pilot)")
    if screen is not None and len({canonical(trial.settings) for trial in study.trials()}) == 1:
        notes.append("one setting: there is nothing to screen (write seeds: 1 beside confirm)")
    if "lr" not in study.spec.grid and study.spec.search is None and len(study.variants) > 1:
        notes.append("one learning rate for all variants: a difference may be the rate's (add lr to the grid)")
    return notes
