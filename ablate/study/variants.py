"""From what a study says about its model to whole variants: shared settings, factor levels, own differences."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ablate.registry import MODELS
from ablate.study.axes import check_train
from ablate.study.components import Signature, find
from ablate.study.names import variant_name_findings
from ablate.study.problems import Finding, KeyPath, shown
from ablate.study.spec import StudySpec, VariantSpec
from ablate.study.study import MODEL_AXIS, Variant
from ablate.study.trial import canonical, level_text

MAX_VARIANTS = 1000
Design = Literal["grid", "one_at_a_time", "leave_one_out"]


class Variants:
    """Builds the variants of a study; what is wrong gathers in `findings`.

    Without `registered` (a report, which imports no model) settings stand as the file writes them, unchecked.
    """

    def __init__(self, spec: StudySpec, *, registered: bool) -> None:
        self.spec, self.registered = spec, registered
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
            self.signatures[name] = takes
        return self.signatures[name]

    def _shared(self) -> dict[str, Any]:
        model = self.spec.model
        takes = self._find(model.name, ("model", "name"))
        if takes is None:
            return model.settings
        values, found = takes.check(model.settings, ("model",))
        self.findings += found
        return values

    def _factors(self) -> dict[str, list[Any]]:
        takes = self.signatures.get(self.spec.model.name)
        factors: dict[str, list[Any]] = {}
        for key, levels in self.spec.factors.items():
            path, setting = ("factors", key), key.removeprefix(MODEL_AXIS)
            before = len(self.findings)
            if len(levels) < 2:
                self.findings.append(Finding(path, f"expected at least two levels, got {shown(levels)}"))
            if takes is not None and setting not in takes.parameters:
                self.findings += takes.check({setting: None}, ("factors",), extra_keys=())[1]
            if len(self.findings) > before:
                continue
            factors[setting] = self._levels(takes, setting, levels, path)
            if len(self.findings) > before:
                del factors[setting]
        return factors

    def _levels(self, takes: Signature | None, setting: str, levels: list[Any], path: KeyPath) -> list[Any]:
        checked: list[Any] = []
        for index, level in enumerate(levels):
            value = level
            if takes is not None:
                value, found = takes.parameters[setting].check(level, (*path, index))
                self.findings += found
            if canonical(value) in map(canonical, checked):
                self.findings.append(Finding((*path, index), f"expected every level once, got {shown(level)} again"))
            checked.append(value)
        return checked

    def _generated(self) -> list[Generated]:
        if not self.factors or len(self.factors) < len(self.spec.factors):
            return []
        planned = count(self.factors, self.spec.design)
        if planned > MAX_VARIANTS:
            message = f"expected at most {MAX_VARIANTS} variants, got {planned:,} combinations"
            self.findings.append(Finding(("factors",), message, "write design: one_at_a_time"))
            return []
        return generate(self.factors, self.spec.design)

    def _build(self) -> dict[str, Variant]:
        written = self.spec.variants
        self.findings += variant_name_findings(written)
        if len(written) > MAX_VARIANTS:
            self.findings.append(Finding(("variants",), f"expected at most {MAX_VARIANTS}, got {len(written):,}"))
            return {}
        built: dict[str, Variant] = {}
        for made in self._generated():
            generated = self._variant(made.name, VariantSpec(), made.levels)
            # A resolved file writes generated variants out beside their factors: that is one and the same.
            itself = made.name in written and self._says(made.name, written[made.name], generated)
            if made.name in built or (made.name in written and not itself):
                message = f"expected another name than '{made.name}', which the factors give to a variant"
                self.findings.append(Finding(("variants" if made.name in written else "factors", made.name), message))
            built[made.name] = generated
        written = {name: spec for name, spec in written.items() if name not in built}
        for name, spec in written.items():
            built[name] = self._variant(name, spec, {})
        if not built and not self.spec.factors:
            built[self.spec.model.name] = self._variant(self.spec.model.name, VariantSpec(), {})
        return built

    def _says(self, name: str, spec: VariantSpec, generated: Variant) -> bool:
        own = self._variant(name, spec, {})
        return own.model == generated.model and not spec.train and not spec.control

    def _variant(self, name: str, spec: VariantSpec, levels: dict[str, Any]) -> Variant:
        path: KeyPath = ("variants", name)
        train, found = check_train(spec.train, (*path, "train"), registered=self.registered)
        self.findings += found
        difference = spec.difference
        model_name = difference.pop("name", self.spec.model.name)
        if not isinstance(model_name, str):
            self.findings.append(Finding((*path, "name"), f"expected text, got {shown(model_name)}"))
            model_name = self.spec.model.name
        takes = self._find(model_name, (*path, "name")) if model_name != self.spec.model.name else None
        takes = takes or self.signatures.get(model_name)
        if takes is None:
            settings = self.shared | levels | difference
        else:
            own, found = takes.check(difference, path, extra_keys=("name", "train", "control"))
            self.findings += found
            # Another model takes of the shared settings what it knows; the plan shows what it does not.
            shared = {key: value for key, value in self.shared.items() if key in takes.parameters}
            settings = takes.defaults() | shared | levels | own
            for key in takes.missing(settings):
                message = f"expected a value for the setting '{key}' of the model '{takes.name}', got none"
                place = path if name in self.spec.variants else ("model",)
                self.findings.append(Finding(place, message, "add it here or to model"))
        return Variant(name, {"name": model_name, **settings}, train, spec.control, dict(levels))

    def check_axes(self, axes: Mapping[str, Any]) -> None:
        """Find the variants that set what the grid varies: one of the two would be without effect."""
        for name, variant in self.built.items():
            spec = self.spec.variants.get(name)
            for axis in axes:
                if axis.startswith(MODEL_AXIS):
                    own: Mapping[str, Any] = spec.difference if spec else variant.levels
                    place: KeyPath = ("variants", name) if spec else ("factors",)
                    key = axis.removeprefix(MODEL_AXIS)
                else:
                    own, place = (spec.train if spec else {}), ("variants", name, "train")
                    key = axis
                if _sets(own, key):
                    message = f"expected the grid alone to set '{axis}', got it here too"
                    self.findings.append(Finding((*place, *key.split(".")), message, "remove it here or from the grid"))

    def trials(self, axes: Mapping[str, Any], seeds: int) -> int:
        """Count the trials of the plan before anything is excluded."""
        return len(self.built) * math.prod(len(levels) for levels in axes.values()) * seeds


def _sets(values: Mapping[str, Any], key: str) -> bool:
    """Return whether nested `values` have an entry at a dotted key."""
    head, _, rest = key.partition(".")
    if head not in values or not rest:
        return head in values
    return isinstance(values[head], Mapping) and _sets(values[head], rest)


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
