"""From what a study says to whole variants: shared settings, factor levels, own differences."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import NonNegativeInt, TypeAdapter, ValidationError

from ablate.errors import nearest
from ablate.registry import DATASETS, MODELS
from ablate.study.axes import axis_name, check_axis, check_level, check_train, train_fields
from ablate.study.components import VARIANT_KEYS, Signature, find, signature
from ablate.study.names import variant_name_findings
from ablate.study.problems import Finding, KeyPath, shown, translate
from ablate.study.spec import StudySpec, SubsetSpec, VariantSpec
from ablate.study.study import MODEL_AXIS, Variant, assign
from ablate.study.trial import canonical, level_text

MAX_VARIANTS = 1000
Design = Literal["grid", "one_at_a_time", "leave_one_out"]
TRAIN_NAMES = train_fields()
# What may stand in the place of a layer: its input (of several the last, or the one of that number), or nothing.
REPLACE: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Literal["identity", "removed"] | NonNegativeInt])


class Variants:
    """Builds the variants of a study, in whose file relative paths start at `base`; faults gather in `findings`.

    Without `registered` (a report, which imports no model) settings stand as the file writes them, unchecked.
    """

    def __init__(self, spec: StudySpec, base: Path, *, registered: bool) -> None:
        self.spec, self.base, self.registered = spec, base, registered
        self.findings: list[Finding] = []
        self.signatures: dict[str, Signature] = {}
        self.shared = self._shared()
        self.factors = self._factors()
        self.built = self._build()

    @property
    def models(self) -> list[Signature]:
        """The signatures of the models that the variants use."""
        return list(self.signatures.values())

    def shared_settings(self) -> dict[str, Any]:
        """Return the shared model's settings with its defaults."""
        takes = self.signatures.get(self.spec.model.name)
        return (takes.defaults() if takes else {}) | self.shared

    def _find(self, name: str, path: KeyPath) -> Signature | None:
        if not self.registered:
            return None
        if name not in self.signatures:
            takes, found = find(MODELS, name, path)
            self.findings += found
            if takes is None:
                return None
            self.signatures[name] = takes.at(self.base)
        return self.signatures[name]

    def _shared(self) -> dict[str, Any]:
        model = self.spec.model
        takes = self._find(model.name, ("model", "name"))
        return self._model_settings(takes, model.settings, ("model",))

    def _model_settings(self, takes: Signature | None, settings: dict[str, Any], path: KeyPath) -> dict[str, Any]:
        """Return settings of a model as JSON values; `replace` may stand beside those of any model."""
        if takes is None:
            return settings
        rest = {key: value for key, value in settings.items() if key != "replace"}
        values, found = takes.check(rest, path, ("name", "replace", *(VARIANT_KEYS if path != ("model",) else ())))
        self.findings += found
        if "replace" in settings:
            try:
                values["replace"] = REPLACE.validate_python(settings["replace"], strict=True)
            except ValidationError as error:
                self.findings += translate(error, settings["replace"], (*path, "replace"))
        return values

    def _factors(self) -> dict[str, list[Any]]:
        factors: dict[str, list[Any]] = {}
        for key, levels in self.spec.factors.items():
            path, name = ("factors", key), key.removeprefix(MODEL_AXIS)
            before = len(self.findings)
            if levels is not None and len(levels) < 2:
                self.findings.append(Finding(path, f"expected at least two levels, got {shown(levels)}"))
            self.findings += self._check_factor(name, path)
            if name in factors:
                self.findings.append(Finding(path, f"expected every factor once, got '{name}' twice"))
            if len(self.findings) == before:
                checked = self._levels(name, levels or [], path)
                if len(self.findings) == before:
                    factors[name] = checked
        return factors

    def _check_factor(self, name: str, path: KeyPath) -> list[Finding]:
        """Return what is wrong with the name of a factor: train.<field>, data.<setting>, or a switch of the model."""
        if name.startswith("train."):
            return check_axis(axis_name(name), path, [], structural=False)
        if not self.registered:
            return []
        if name.startswith("data."):
            return self._data({name.removeprefix("data."): None}, ("factors",), names_only=True)[1]
        takes = self.signatures.get(self.spec.model.name)
        if takes is None or name in takes.parameters or name == "replace":
            return []
        found = takes.check({name: None}, ("factors",), extra_keys=())[1]
        return [
            Finding(path, item.message, f"write train.{name}" if name in TRAIN_NAMES else item.cure) for item in found
        ]

    def _levels(self, name: str, levels: list[Any], path: KeyPath) -> list[Any]:
        takes = self.signatures.get(self.spec.model.name)
        checked: list[Any] = []
        for index, level in enumerate(levels):
            value, place, found = level, (*path, index), list[Finding]()
            if name.startswith("train."):
                value, found = check_level(axis_name(name), level, place, [], registered=self.registered)
            elif name.startswith("data.") and self.registered:
                setting = name.removeprefix("data.")
                values, found = self._data({setting: level}, path)
                value, found = values.get(setting), [Finding(place, item.message, item.cure) for item in found]
            elif takes is not None and name == "replace":
                value = self._model_settings(takes, {name: level}, place).get(name)
            elif takes is not None:
                value, found = takes.parameters[name].check(level, place)
            self.findings += found
            if canonical(value) in map(canonical, checked):
                self.findings.append(Finding(place, f"expected every level once, got {shown(level)} again"))
            checked.append(value)
        return checked

    def _data(
        self, settings: dict[str, Any], path: KeyPath, *, names_only: bool = False
    ) -> tuple[dict[str, Any], list[Finding]]:
        """Return a variant's own settings of the data as JSON values, and what is wrong with them."""
        if not self.registered or self.spec.data.name not in DATASETS:
            return settings, []
        takes = signature(DATASETS, self.spec.data.name)
        values, findings = dict[str, Any](), list[Finding]()
        for key, value in settings.items():
            parts = SubsetSpec.model_fields
            place = (*path, f"data.{key}" if path == ("factors",) else key)
            if takes.is_location(key):
                message = f"expected a setting that says what is trained on, got the location '{key}'"
                findings.append(Finding(place, message, "make it a study of its own"))
            elif key in parts:
                if not names_only:
                    try:
                        values[key] = getattr(SubsetSpec.model_validate({key: value}, strict=True), key)
                    except ValidationError as error:
                        findings += translate(error, {key: value}, path)
            elif key not in takes.parameters:
                message = f"expected a setting of the data set '{takes.name}', got an unknown one"
                findings.append(Finding(place, message, nearest(key, [*takes.parameters, *parts])))
            elif not names_only:
                values[key], found = takes.parameters[key].check(value, place)
                findings += found
        return values, findings

    def _generated(self) -> list[Generated]:
        varied = {name: levels for name, levels in self.factors.items() if levels}
        if not varied or len(self.factors) < len(self.spec.factors):
            return []
        planned = count(varied, self.spec.design)
        if planned > MAX_VARIANTS:
            message = f"expected at most {MAX_VARIANTS} variants, got {planned:,} combinations"
            self.findings.append(Finding(("factors",), message, "write design: one_at_a_time"))
            return []
        return generate(varied, self.spec.design)

    def _build(self) -> dict[str, Variant]:
        written = self.spec.variants
        self.findings += variant_name_findings(written)
        if len(written) > MAX_VARIANTS:
            self.findings.append(Finding(("variants",), f"expected at most {MAX_VARIANTS}, got {len(written):,}"))
            return {}
        built: dict[str, Variant] = {}
        for made in self._generated():
            generated = self._variant(made.name, _of_levels(made.levels), made.levels)
            # A resolved file writes generated variants out beside their factors: that is one and the same.
            itself = made.name in written and self._says(made.name, written[made.name], generated)
            if made.name in built or (made.name in written and not itself):
                message = f"expected another name than '{made.name}', which the factors give to a variant"
                self.findings.append(Finding(("variants" if made.name in written else "factors", made.name), message))
            built[made.name] = generated
        written = {name: spec for name, spec in written.items() if name not in built}
        for name, spec in written.items():
            built[name] = self._variant(name, spec, {})
        if not built and not any(self.spec.factors.values()):
            built[self.spec.model.name] = self._variant(self.spec.model.name, VariantSpec(), {})
        return built

    def _says(self, name: str, spec: VariantSpec, generated: Variant) -> bool:
        own = self._variant(name, spec, {})
        alike = (own.model, own.train, own.data) == (generated.model, generated.train, generated.data)
        return alike and not spec.control

    def _variant(self, name: str, spec: VariantSpec, levels: dict[str, Any]) -> Variant:
        path: KeyPath = ("variants", name)
        train, found = check_train(spec.train, (*path, "train"), registered=self.registered)
        data, wrong = self._data(spec.data, (*path, "data"))
        self.findings += found + wrong
        difference = spec.difference
        model_name = difference.pop("name", self.spec.model.name)
        if not isinstance(model_name, str):
            self.findings.append(Finding((*path, "name"), f"expected text, got {shown(model_name)}"))
            model_name = self.spec.model.name
        takes = self._find(model_name, (*path, "name")) if model_name != self.spec.model.name else None
        takes = takes or self.signatures.get(model_name)
        own = self._model_settings(takes, difference, path)
        settings = self.shared | own
        if takes is not None:
            # Another model takes of the shared settings what it knows; the plan shows what it does not.
            shared = {key: value for key, value in self.shared.items() if key in (*takes.parameters, "replace")}
            settings = takes.defaults() | shared | own
            for key in takes.missing(settings):
                message = f"expected a value for the setting '{key}' of the model '{takes.name}', got none"
                place = path if name in self.spec.variants else ("model",)
                self.findings.append(Finding(place, message, "add it here or to model"))
        return Variant(name, {"name": model_name, **settings}, train, data, spec.control, dict(levels))

    def check_axes(self, axes: Mapping[str, Any]) -> None:
        """Find the variants that set what the grid varies: one of the two would be without effect."""
        for name, variant in self.built.items():
            spec = self.spec.variants.get(name) or _of_levels(variant.levels)
            for axis in axes:
                of_model = axis.startswith(MODEL_AXIS)
                key = axis.removeprefix(MODEL_AXIS)
                if _has_field(spec.difference if of_model else spec.train, key):
                    place: KeyPath = ("variants", name, *(() if of_model else ("train",)), *key.split("."))
                    if name not in self.spec.variants:
                        place = ("factors", *key.split(".")) if of_model else ("factors", f"train.{key}")
                    message = f"expected the grid alone to set '{axis}', got it here too"
                    self.findings.append(Finding(place, message, "remove it here or from the grid"))


def _has_field(values: Mapping[str, Any], key: str) -> bool:
    """Return whether nested `values` have an entry at a dotted key."""
    head, _, rest = key.partition(".")
    if head not in values or not rest:
        return head in values
    return isinstance(values[head], Mapping) and _has_field(values[head], rest)


def _of_levels(levels: Mapping[str, Any]) -> VariantSpec:
    """Return levels of factors as what a variant may say: settings of the model, `train` and `data`."""
    tree: dict[str, Any] = {}
    for name, level in levels.items():
        if name.startswith(("train.", "data.")):
            assign(tree, name, level)
        else:
            tree[name] = level
    return VariantSpec(**tree)


@dataclass(frozen=True)
class Generated:
    """A variant that a design makes: its name and the level of every factor."""

    name: str
    levels: dict[str, Any]


def count(factors: Mapping[str, Sequence[Any]], design: Design) -> int:
    """Count the variants that `generate` makes, without making them."""
    if design == "grid":
        return math.prod(len(levels) for levels in factors.values())
    if design == "one_at_a_time":
        return 1 + sum(len(levels) - 1 for levels in factors.values())
    return 1 + len(factors)


def generate(factors: Mapping[str, Sequence[Any]], design: Design) -> list[Generated]:
    """Return the variants of a design, the natural baseline first.

    `grid` and `one_at_a_time` start from the first level of every factor (named "baseline"): the former makes every
    combination, the latter changes one factor at a time. `leave_one_out` starts from the last level of every factor
    (named "full") and puts one factor at a time back to its first level ("without-<factor>"): there the contrast of
    interest is with the full model, so that is its baseline.
    """
    first = {name: levels[0] for name, levels in factors.items()}
    last = {name: levels[-1] for name, levels in factors.items()}
    if design == "grid":
        return [
            _named(dict(zip(factors, combination, strict=True)), first)
            for combination in itertools.product(*factors.values())
        ]
    if design == "one_at_a_time":
        changed = [first | {name: level} for name, levels in factors.items() for level in levels[1:]]
        return [_named(first, first), *(_named(levels, first) for levels in changed)]
    left_out = [Generated(f"without-{_label(name)}", last | {name: first[name]}) for name in factors]
    return [Generated("full", last), *left_out]


def _named(levels: dict[str, Any], first: Mapping[str, Any]) -> Generated:
    different = [f"{_label(name)}-{level_text(level)}" for name, level in levels.items() if level is not first[name]]
    return Generated("+".join(different) or "baseline", levels)


def _label(factor: str) -> str:
    return factor.rsplit(".", 1)[-1]
