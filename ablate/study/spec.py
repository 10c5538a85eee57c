"""The typed study: what a study file may say, with its defaults. Free of torch, so that a report can read it."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    Tag,
    field_validator,
    model_serializer,
    model_validator,
)

from ablate.study.machine import RunSpec, Spec, TrackSpec

MAX_EPOCHS = 100_000
MAX_SEEDS = 1000
# Training settings that are in a trial's key only where they are used.
LATER_SETTINGS = ("ema", "accumulate", "lr_scale", "freeze", "aux")
Scalar = bool | int | float | str | None
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]


class Component(BaseModel):
    """A registered component by name; its other keys are the settings that its factory takes."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str = Field(description="Name under which the component is registered.")

    @property
    def settings(self) -> dict[str, Any]:
        """The keys besides the name."""
        return dict(self.model_extra or {})

    def __str__(self) -> str:
        said = ", ".join(f"{key} {value}" for key, value in self.settings.items())
        return f"{self.name} ({said})" if said else self.name


def _form(value: Any) -> str:
    """Tell a component with settings, a mapping with a name, from what else may stand in its place."""
    return "component" if isinstance(value, Component) or (isinstance(value, dict) and "name" in value) else "plain"


# A registered component by its name alone, or with settings: adamw, or {name: adamw, betas: [0.9, 0.99]}.
Named = Annotated[Annotated[str, Tag("plain")] | Annotated[Component, Tag("component")], Discriminator(_form)]


class AugmentSpec(Spec):
    """Paired augmentation of a training image and its mask, drawn anew for each sample and epoch."""

    flip: bool = Field(True, description="Mirror left-right with probability one half.")
    scale: tuple[PositiveFloat, PositiveFloat] = Field((1.0, 1.0), description="Range of a random zoom factor.")
    brightness: NonNegativeFloat = Field(0.0, description="Largest relative change of brightness.")
    contrast: NonNegativeFloat = Field(0.0, description="Largest relative change of contrast.")

    @field_validator("scale")
    @classmethod
    def _smaller_first(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if scale[0] > scale[1]:
            raise ValueError(f"expected the smaller factor first, got [{scale[0]:g}, {scale[1]:g}]")
        return scale


class TrainSpec(Spec):
    """The training of one trial. Every field may be an axis of the grid."""

    epochs: PositiveInt = Field(12, description="Passes over the training split.", le=MAX_EPOCHS)
    batch_size: PositiveInt = Field(8, description="Images a step.", le=65_536)
    lr: PositiveFloat = Field(3e-4, description="Learning rate.", le=1e3)
    optimizer: Named = Field("adam", description="Registered optimizer: a name, or {name: ..., its settings}.")
    weight_decay: NonNegativeFloat = Field(0.0, description="Weight decay of the optimizer.")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="Momentum of sgd.")
    schedule: Literal["constant", "cosine", "poly"] = Field("constant", description="Learning-rate schedule.")
    warmup_epochs: NonNegativeFloat = Field(0.0, description="Linear warm-up from zero, in epochs.")
    loss: Named = Field("cross_entropy", description="Registered loss: a name, or {name: ..., its settings}.")
    class_weights: Literal["balanced"] | list[NonNegativeFloat] | None = Field(
        None, description="Weights of the classes in the loss: 'balanced' (median frequency), a list, or none."
    )
    clip_norm: PositiveFloat | None = Field(None, description="Clip the gradient to this norm.")
    crop: tuple[PositiveInt, PositiveInt] | None = Field(None, description="Train on random crops (height, width).")
    augment: Annotated[
        Annotated[AugmentSpec, Tag("plain")] | Annotated[Component, Tag("component")], Discriminator(_form)
    ] = Field(default_factory=AugmentSpec, description="The built-in augmentation, or a registered one by name.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Arithmetic of the network; 'auto' takes bfloat16 where the device computes it in hardware."
    )
    ema: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="Average the weights over the steps with this decay; the average is what is scored and kept."
    )
    accumulate: PositiveInt = Field(
        1, description="Batches whose gradients are added up before a step of the optimizer.", le=65_536
    )
    lr_scale: dict[str, PositiveFloat] = Field(
        default_factory=dict, description="Pattern of parameter names to the factor of their learning rate."
    )
    freeze: list[str] = Field(default_factory=list, description="Patterns of parameter names that are not trained.")
    aux: NonNegativeFloat | list[NonNegativeFloat] | None = Field(
        None, description="Weight of the loss of each auxiliary output of the model: one for all, or a list."
    )

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what later versions added and the study does not use: keys and records stay as they were."""
        values: dict[str, Any] = dump(self)
        off = {name: type(self).model_fields[name].get_default(call_default_factory=True) for name in LATER_SETTINGS}
        return {name: value for name, value in values.items() if name not in off or value != off[name]}


class SubsetSpec(Spec):
    """The part of the training split that is trained on; keys of `data`, whatever the data set."""

    fraction: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="Share of the training images; a smaller share is part of every larger one."
    )
    steps: Literal["equal", "epochs"] = Field(
        "equal", description="With a fraction: as many steps as with all images, or as many epochs (fewer steps)."
    )


class MeasureSpec(Spec):
    """Measures besides the curves, and how they are taken."""

    native: bool = Field(False, description="Score the test split at the masks' own size, not at the size trained at.")
    profile: bool = Field(True, description="End the run with each variant alone on the device (throughput).")
    profile_seconds: PositiveFloat = Field(30.0, description="Most time the closing profile may take.")
    lr_headroom: NonNegativeInt = Field(0, description="Points of training at which lr headroom is probed.")
    gradients: NonNegativeInt = Field(
        3, description="Points of training at which update ratios and the gradient split by path are probed."
    )
    gates: bool = Field(True, description="Measure attention gates on the test split where a model has any.")
    rope: PositiveFloat = Field(0.005, description="Differences of mIoU below this count as none (a fraction).")
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = Field(0.95, description="Level of the intervals.")
    resamples: Annotated[int, Field(ge=100, le=100_000)] = Field(2000, description="Bootstrap replicates.")
    block: PositiveInt | Literal["auto"] = Field(
        "auto", description="Images in a block where images come in few sequences; 'auto' takes it from the data."
    )


class SpaceSpec(Spec):
    """The room in which the sampler looks for one setting: a range, or a list of choices."""

    low: int | float | None = Field(None, description="Smallest value.")
    high: int | float | None = Field(None, description="Largest value.")
    log: bool = Field(False, description="Sample uniformly in the logarithm.")
    choices: list[Any] | None = Field(None, description="The values to choose from, instead of a range.")

    @model_validator(mode="after")
    def _one_of_both(self) -> SpaceSpec:
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log or len(self.choices) < 2:
                raise ValueError("expected either low and high or at least two choices, got something else")
        elif self.low is None or self.high is None or not self.low < self.high:
            raise ValueError("expected low < high, or choices, got something else")
        elif self.log and self.low <= 0:
            raise ValueError("expected low > 0 for a logarithmic range, got a smaller one")
        return self


class SearchSpec(Spec):
    """A search by an Optuna sampler instead of a grid, with the same budget for every variant."""

    trials: PositiveInt = Field(16, description="Settings tried for each variant.")
    sampler: Literal["random", "tpe", "qmc"] = "tpe"
    space: dict[str, SpaceSpec] = Field(description="Field of train to {low, high, log} or {choices: [...]}.")
    seed: Seed = 0

    def identity(self) -> dict[str, Any]:
        """Return all that decides the proposals of a search, which is all of it but its budget."""
        return self.model_dump(mode="json", exclude={"trials"})


class PruneSpec(Spec):
    """Early stopping of hopeless trials by Optuna. Refused by this version: every trial is trained to its end."""

    pruner: Literal["median", "hyperband"] = "median"
    warmup_epochs: PositiveInt = 5


class ScreenSpec(Spec):
    """The first of two phases: few seeds at every setting, and more at each variant's best, to choose its setting."""

    seeds: PositiveInt = Field(1, description="Seeds at every setting.", le=MAX_SEEDS)
    again: NonNegativeInt = Field(2, description="Best settings of each variant, by val, that get more seeds.")
    more: PositiveInt = Field(1, description="Seeds more at each of these.", le=MAX_SEEDS)

    @model_validator(mode="after")
    def _something_to_choose(self) -> ScreenSpec:
        if self.again == 1:
            raise ValueError("expected again of 0 or at least 2, got 1: nothing is left to choose; write again: 2")
        return self


class ConfirmSpec(Spec):
    """The chosen settings with seeds that took no part in choosing: the primary decision.

    Either as many `seeds` for each variant, or `until: decided` at given `looks`.
    """

    seeds: Annotated[int, Field(ge=1, le=MAX_SEEDS)] | None = Field(None, description="Fresh seeds; 5 by default.")
    until: Literal["decided"] | None = Field(None, description="Go on where a contrast is open, instead of seeds.")
    looks: Annotated[list[Annotated[int, Field(ge=2, le=MAX_SEEDS)]], Field(min_length=1, max_length=20)] | None = (
        Field(None, description="Fresh seeds of a variant after which its contrast is judged.")
    )
    at_most: PositiveInt | None = Field(None, description="The last look that is taken; default the last one.")
    futility: Annotated[float, Field(ge=0, lt=0.5)] | None = Field(
        None, description="Stop where the chance of a decision at the last look falls below this; default 0.02."
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, values: Any) -> Any:
        """Fill in what is not said, so that a study that is written out says it."""
        if not isinstance(values, dict):
            return values
        if values.get("until") is None:
            return values if values.keys() & {"seeds", "looks", "at_most", "futility"} else {**values, "seeds": 5}
        looks = values.get("looks")
        last = {"at_most": looks[-1]} if isinstance(looks, list) and looks and isinstance(looks[-1], int) else {}
        return {"futility": 0.02, **last, **{key: value for key, value in values.items() if value is not None}}

    @model_validator(mode="after")
    def _one_form(self) -> ConfirmSpec:
        if self.until is None:
            for name in ("looks", "at_most", "futility"):
                if getattr(self, name) is not None:
                    raise ValueError(f"expected until: decided beside {name}, got none; write until: decided")
            if self.seeds is None:
                raise ValueError("expected seeds, or until: decided with looks, got neither; write seeds: 5")
            return self
        if self.seeds is not None:
            raise ValueError("expected either seeds or until: decided, got both; remove one of the two")
        if self.looks is None:
            raise ValueError("expected looks beside until: decided, got none; write looks: [4, 8, 12, 16]")
        if any(after <= before for before, after in pairwise(self.looks)):
            raise ValueError(f"expected looks that rise, got {self.looks}")
        if self.at_most not in self.looks:
            raise ValueError(f"expected at_most to be one of the looks {self.looks}, got {self.at_most}")
        return self

    @property
    def planned_looks(self) -> tuple[int, ...]:
        """The numbers of fresh seeds after which contrasts are judged: one where the number is fixed."""
        if self.looks is None or self.at_most is None:
            return (self.seeds or 0,)
        return tuple(look for look in self.looks if look <= self.at_most)


def _nothing_is_no_difference(value: Any) -> Any:
    return {} if value is None else value


class MatchSpec(Spec):
    """A variant made as large as another one: a setting of its model is chosen so that the sizes match."""

    to: str = Field(description="The variant whose size is matched.")
    by: Literal["parameters", "flops"] = Field("parameters", description="What is made equal.")
    tolerance: Annotated[float, Field(gt=0, lt=1)] = Field(0.02, description="Largest relative difference that passes.")
    setting: str = Field("width", alias="with", description="The setting of the model that is chosen.")


class VariantSpec(BaseModel):
    """One variant: its difference from what all variants share, in the model, in training and in the data."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)
    train: dict[str, Any] = Field(
        default_factory=dict, description="Own training settings: a declared confound, unless they are a factor."
    )
    data: dict[str, Any] = Field(
        default_factory=dict, description="Own settings of the data; the test images are those of all variants."
    )
    match: MatchSpec | None = Field(None, description="Choose a setting so that the variant is as large as another.")
    control: bool = Field(False, description="An A/A copy of another variant with seeds of its own.")

    @property
    def difference(self) -> dict[str, Any]:
        """The model settings in which this variant differs from the shared model."""
        return dict(self.model_extra or {})


class ClaimSpec(Spec):
    """A statement that the study judges: supported, refuted or inconclusive, never on a point estimate.

    Either two variants are compared (`left op right`, by `margin` or by `factor`), or one variant's measure is
    compared with a number (`variant`, `op`, `value`), or its verdict is expected (`variant`, `expect`).
    """

    id: str | None = Field(None, description="Name of the claim in the tables.")
    metric: str = Field(description="What is compared, such as test/mean_iou, rise, convergence.")
    left: str | None = Field(None, description="Variant on the left of the comparison.")
    op: Literal["<", ">", "<=", ">="] | None = Field(None, description="The comparison.")
    right: str | None = Field(None, description="Variant on the right of the comparison.")
    margin: NonNegativeFloat | None = Field(None, description="Least difference, in the metric's unit.")
    factor: PositiveFloat | None = Field(None, description="The right side is multiplied by this.")
    variant: str | None = Field(None, description="A variant, or 'any' or 'all' of them.")
    value: float | None = Field(None, description="The number that a variant's measure is compared with.")
    expect: str | None = Field(None, description="The verdict expected, such as under-converged.")
    where: dict[str, Scalar] = Field(
        default_factory=dict, description="Axis to a level or a condition such as '>=5e-4'; default the primary rule."
    )
    quantifier: Literal["all", "any"] = Field("all", description="Over the settings that `where` picks.")

    @model_validator(mode="after")
    def _one_form(self) -> ClaimSpec:
        compares = self.left is not None or self.right is not None
        if compares:
            if self.left is None or self.right is None or self.op is None:
                raise ValueError("expected left, op and right together, got only some of them")
            if self.variant is not None or self.expect is not None or self.value is not None:
                raise ValueError("expected either left, op, right or a variant's own claim, got both")
            if self.margin is not None and self.factor is not None:
                raise ValueError("expected either margin or factor, got both")
        elif self.variant is None:
            raise ValueError("expected left, op, right, or variant with expect or op and value, got neither")
        elif (self.expect is None) == (self.op is None or self.value is None):
            raise ValueError("expected for a variant either expect, or op and value")
        elif self.margin is not None or self.factor is not None:
            raise ValueError("expected margin and factor only between two variants, got one for a single variant")
        return self


def _names_alone(value: Any) -> Any:
    """Read a list of names as factors without levels."""
    names = isinstance(value, list) and all(isinstance(name, str) for name in value)
    return dict.fromkeys(value) if names else value


class StudySpec(Spec):
    """A whole study file."""

    study: str = Field(description="Name of the study and of its results folder.")
    data: Component = Field(description="Registered data set by name, with its settings.")
    model: Component = Field(
        default_factory=lambda: Component(name="unet"), description="Registered model that all variants share."
    )
    variants: dict[str, Annotated[VariantSpec, BeforeValidator(_nothing_is_no_difference)]] = Field(
        default_factory=dict, description="Name to the difference from the shared model."
    )
    baseline: str | None = Field(None, description="The variant that the others are compared with; default the first.")
    factors: Annotated[dict[str, list[Any] | None], BeforeValidator(_names_alone)] = Field(
        default_factory=dict,
        description="What the study varies, to its levels: switches of the model, train.<field>, data.<setting>. "
        "A list of names says of fields that the variants set by hand that they are no confounds.",
    )
    design: Literal["grid", "one_at_a_time", "leave_one_out"] = Field(
        "one_at_a_time", description="How factors make variants: all combinations, each added, or each left out."
    )
    exclude: list[dict[str, Any]] = Field(default_factory=list, description="Combinations that are left out.")
    grid: dict[str, list[Any]] = Field(default_factory=dict, description="Fields of train to the levels tried.")
    on_edge: Literal["report", "extend"] = Field("report", description="What to do with a best rate on the edge.")
    seeds: PositiveInt | list[Seed] = Field(3, description="How many seeds of every cell, or which; not with screen.")
    screen: ScreenSpec | None = Field(None, description="Few seeds at every setting, to choose each variant's.")
    train: TrainSpec = Field(default_factory=TrainSpec)
    search: SearchSpec | None = None
    prune: PruneSpec | None = None
    confirm: ConfirmSpec | None = Field(None, description="Fresh seeds at the chosen settings, which decide.")
    measure: MeasureSpec = Field(default_factory=MeasureSpec)
    claims: list[ClaimSpec] = Field(default_factory=list, description="Statements that the study judges.")
    plugins: list[str] = Field(
        default_factory=list, description="Python files beside the study with its own components; see `ablate trust`."
    )
    run: RunSpec = Field(default_factory=RunSpec)
    track: TrackSpec = Field(default_factory=TrackSpec)
