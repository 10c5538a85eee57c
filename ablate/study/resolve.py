"""A typed study file to a `Study`: every name looked up, every default filled in, every contradiction found."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ablate.errors import nearest, redacted
from ablate.registry import DATASETS
from ablate.study.axes import MAX_TRIALS, axis_name, check_grid, check_search, check_train, search_levels
from ablate.study.claims import claim_findings
from ablate.study.components import find
from ablate.study.machine import RunSpec
from ablate.study.matching import match_sizes
from ablate.study.names import name_findings
from ablate.study.problems import Finding, shown, translate
from ablate.study.spec import Component, StudySpec, SubsetSpec, TrainSpec, VariantSpec
from ablate.study.study import MODEL_AXIS, Study, subset
from ablate.study.trial import canonical, without_folder, without_location
from ablate.study.variants import Variants

# The databases that an Optuna storage may lie in.
DATABASES = ("sqlite", "postgresql", "mysql", "mariadb", "oracle", "mssql", "redis", "rediss")


def resolve(
    spec: StudySpec, path: Path, base: Path, *, registered: bool = True, broken: Collection[str] = ()
) -> tuple[Study | None, list[Finding]]:
    """Return the study, whose relative paths start at `base`, or None and everything that is wrong with it.

    `broken` are the top-level keys of which something could not be read: what follows from that is not said again.
    Without `registered` no component is imported and none is checked: names and settings stand as written.
    """
    findings = name_findings(spec.study, ("study",))
    data, identity, found = _data(spec, base, registered=registered)
    findings += found
    if spec.prune is not None and registered:
        findings.append(
            Finding(("prune",), "not run by this version", "leave it out: every trial is trained to its end")
        )
    findings += _machine(spec.run) if registered else []
    variants = Variants(spec, base, registered=registered)
    axes, found = check_grid(spec.grid, variants.models, structural=not registered)
    findings += found
    if spec.search is not None:
        findings += check_search(spec.search, spec.grid, structural=not registered)
        if spec.on_edge == "extend":
            message = "expected 'report' beside a search, which has no grid to extend, got 'extend'"
            findings.append(Finding(("on_edge",), message, "widen search.space"))
    train, found = check_train(spec.train.model_dump(mode="json"), ("train",), registered=registered)
    findings += found
    variants.check_axes(axes)
    findings += variants.findings
    findings += _seeds(spec) + _phases(spec)
    seeds = _seeds_of(spec)
    seeds = seeds if isinstance(seeds, int) else len(seeds)
    planned = math.prod(map(len, (variants.built, *axes.values()))) * seeds * (spec.search.trials if spec.search else 1)
    if spec.screen is not None:
        planned += len(variants.built) * spec.screen.again * spec.screen.more
    if spec.confirm is not None:
        planned += len(variants.built) * spec.confirm.planned_looks[-1]
    if planned > MAX_TRIALS:
        key = "search" if spec.search else "grid"
        findings.append(Finding((key,), f"expected at most {MAX_TRIALS:,} trials, got {planned:,}"))
    baseline = spec.baseline if spec.baseline is not None else next(iter(variants.built), "")
    # With broken factors or axes these would only complain about what follows from that.
    if variants.built and (len(variants.factors) == len(spec.factors)):
        if baseline not in variants.built:
            message = f"expected a variant of the study, got {shown(baseline)}"
            findings.append(Finding(("baseline",), message, nearest(baseline, variants.built)))
        lost = {axis_name(key) for key in spec.grid} - set(axes)
        if "grid" in broken:
            lost |= {axis_name(key) for claim in spec.claims for key in claim.where}
        levels = axes | (search_levels(spec.search) if spec.search else {})
        classes = _classes(spec, registered=registered)
        searched = spec.search is not None
        findings += claim_findings(spec.claims, variants.built, levels, lost, classes, searched=searched)
        if not lost and not broken:
            findings += _exclude(spec, variants, axes)
    if findings or broken:
        return None, findings
    spec = spec.model_copy(update={"train": TrainSpec.model_validate(train)})
    wanted = {name: item.match for name, item in spec.variants.items() if item.match is not None}
    if wanted and registered:
        variants.built, findings = match_sizes(variants.built, wanted, data, base)
        if findings:
            return None, findings
    resolved = _resolved(spec, variants, axes, baseline, data)
    study = Study(resolved, path, variants.built, baseline, data, identity, base=base)
    findings = _same(study) if registered else []
    kept = {
        name: item
        for name, item in study.variants.items()
        if not all(study.excludes(name, settings) for settings in study.settings())
    }
    if baseline not in kept:
        findings.append(Finding(("exclude",), f"expected trials of the baseline '{baseline}' to be left, got none"))
    return dataclasses.replace(study, variants=kept), findings


def _data(spec: StudySpec, base: Path, *, registered: bool) -> tuple[dict[str, Any], dict[str, Any], list[Finding]]:
    """Return the data with defaults, and what of it is in a trial's key."""
    if not registered:
        settings = spec.data.settings
        named = {"name": spec.data.name}
        return named | settings, named | without_location(settings), []
    takes, findings = find(DATASETS, spec.data.name, ("data", "name"))
    if takes is None:
        return {}, {}, findings
    findings += _turned_classes(spec)
    part = {key: value for key, value in spec.data.settings.items() if key in SubsetSpec.model_fields}
    rest = {key: value for key, value in spec.data.settings.items() if key not in part}
    settings, found = takes.check(rest, ("data",), ("name", *SubsetSpec.model_fields))
    findings += found if not findings else []
    for key in takes.missing(spec.data.settings):
        message = f"expected a value for the setting '{key}' of the data set '{takes.name}', got none"
        propose = getattr(DATASETS.get(takes.name), "proposals", {}).get(key)
        cure = propose(settings, base) if propose and not found else ""
        findings.append(Finding(("data",), message, cure or "add it"))
    try:
        part = SubsetSpec.model_validate(part, strict=True).model_dump(exclude_unset=True)
    except ValidationError as error:
        findings += translate(error, part, ("data",))
        part = {}
    full = subset({"name": spec.data.name, **takes.defaults(), **settings, **part})
    identity = takes.without_locations(full)
    if takes.version is not None:
        identity["version"] = takes.version
    return full, identity, findings


def _turned_classes(spec: StudySpec) -> list[Finding]:
    """Find classes written as value: name. The values of a map of names are never all text and its keys numbers."""
    written = spec.data.settings.get("classes")
    if not isinstance(written, dict) or not written:
        return []
    if not all(name.isdecimal() and isinstance(value, str) for name, value in written.items()):
        return []
    right = ", ".join(f"{value}: {name}" for name, value in list(written.items())[:2])
    message = "expected the name of a class before its value, got the value first"
    return [Finding(("data", "classes"), message, f"write {{{right}{', …' if len(written) > 2 else ''}}}")]


def _machine(run: RunSpec) -> list[Finding]:
    """Find settings of the run that cannot be meant here: thousands of threads, a storage that is no URL."""
    cores = os.cpu_count() or 1
    findings = []
    for key in ("workers", "threads"):
        value = getattr(run, key)
        if isinstance(value, int) and value > 4 * cores:
            message = f"expected at most {4 * cores}, four for each of the {cores} cores here, got {value:,}"
            findings.append(Finding(("run", key), message, "write auto"))
    if run.storage is not None:
        scheme = run.storage.partition("://")[0] if "://" in run.storage else ""
        if scheme.partition("+")[0] not in DATABASES:
            message = f"expected the URL of a database, got {shown(redacted(run.storage))}"
            findings.append(Finding(("run", "storage"), message, "write, for example, sqlite:///optuna.db"))
    return findings


def _classes(spec: StudySpec, *, registered: bool) -> list[str] | None:
    """Return the names of the classes where the settings, or the data set whatever its settings, tell; else None."""
    written = spec.data.settings.get("classes")
    if isinstance(written, dict | list):
        return [str(name) for name in written]
    if not registered or spec.data.name not in DATASETS:
        return None
    fixed = getattr(DATASETS.get(spec.data.name), "classes", None)
    return None if fixed is None else list(fixed)


def _seeds(spec: StudySpec) -> list[Finding]:
    if isinstance(spec.seeds, int):
        return []
    if not spec.seeds:
        return [Finding(("seeds",), "expected at least one seed, got an empty list")]
    findings = []
    seen: dict[int, int] = {}
    for index, seed in enumerate(spec.seeds):
        first = seen.setdefault(seed, index)
        if first != index:
            findings.append(
                Finding(("seeds", index), f"expected every seed once, got {seed} again (first at [{first}])")
            )
    return findings


def _phases(spec: StudySpec) -> list[Finding]:
    """Find what cannot stand beside `screen`."""
    findings = []
    if spec.screen is not None and "seeds" in spec.model_fields_set:
        message = "expected either seeds for every cell or screen, got both"
        findings.append(Finding(("seeds",), message, "remove one of the two"))
    if spec.screen is not None and spec.search is not None:
        message = "expected a grid to screen, got a search, which has a budget of its own"
        findings.append(Finding(("screen",), message, "write seeds: 1 beside search"))
    return findings


def _seeds_of(spec: StudySpec) -> int | list[int]:
    """Return how many seeds every cell has, or which: those of `screen` where there is one."""
    return spec.seeds if spec.screen is None else spec.screen.seeds


def _exclude(spec: StudySpec, variants: Variants, axes: Mapping[str, list[Any]]) -> list[Finding]:
    known: dict[str, list[Any]] = {"variant": list(variants.built), **variants.factors, **axes}
    findings = []
    for index, rule in enumerate(spec.exclude):
        path = ("exclude", index)
        if not rule:
            findings.append(Finding(path, "expected at least one key, got an empty mapping, which would exclude all"))
        for key, value in rule.items():
            levels = known.get(_known_as(key, known))
            if levels is None:
                message = "expected a factor, an axis of the grid or 'variant', got an unknown key"
                findings.append(Finding((*path, key), message, nearest(key, known)))
            elif not any(_equal(level, value) for level in levels):
                cure = nearest(value, levels) if isinstance(value, str) else f"the levels are {levels}"
                findings.append(Finding((*path, key), f"expected a level of '{key}', got {shown(value)}", cure))
    return findings


def _known_as(key: str, known: Collection[str]) -> str:
    """Return the name of a factor or axis, before which "train." or "model." may be written."""
    return next((name for name in (key, axis_name(key), key.removeprefix(MODEL_AXIS)) if name in known), axis_name(key))


def _equal(level: Any, value: Any) -> bool:
    return isinstance(level, bool) == isinstance(value, bool) and bool(level == value)


def _same(study: Study) -> list[Finding]:
    """Find variants that compute the same, unless one is declared a control, and controls that copy no other."""
    originals: dict[str, str] = {}
    findings = []
    whole = {
        name: canonical([without_folder(variant.model), study.train_settings(variant, {}), study.data_of(name)])
        for name, variant in study.variants.items()
    }
    for name, variant in study.variants.items():
        if variant.control:
            continue
        first = originals.setdefault(whole[name], name)
        if first != name:
            path = ("variants", name) if name in study.spec.variants else ("factors",)
            cure = "remove one, or write control: true for an A/A copy"
            findings.append(Finding(path, f"expected settings of its own, got those of '{first}'", cure))
    for name, variant in study.variants.items():
        if variant.control and whole[name] not in originals:
            message = "expected the settings of another variant (an A/A copy), got different ones"
            findings.append(Finding(("variants", name, "control"), message, "remove control, or its differences"))
    return findings


def _resolved(
    spec: StudySpec, variants: Variants, axes: dict[str, list[Any]], baseline: str, data: dict[str, Any]
) -> StudySpec:
    """Return the spec with everything written out, so that its dump says the same study whatever defaults become."""
    shared = variants.shared_settings()
    written = {}
    for name, built in variants.built.items():
        # The shared model's defaults, once written out, must not reach a variant of another model.
        same = built.model["name"] == spec.model.name
        own = {
            key: value
            for key, value in built.model.items()
            if not same or (key != "name" and (key not in shared or canonical(shared[key]) != canonical(value)))
        }
        said = spec.variants.get(name, VariantSpec())
        written[name] = VariantSpec(train=built.train, data=built.data, control=said.control, match=said.match, **own)
    seeds = _seeds_of(spec)
    update = {
        "data": Component(**data),
        "model": Component(name=spec.model.name, **shared),
        "variants": written,
        "baseline": baseline,
        "factors": {name: levels or None for name, levels in variants.factors.items()},
        "grid": axes,
        "seeds": list(range(seeds)) if isinstance(seeds, int) else list(seeds),
        "exclude": [_canonical_rule(rule, variants, axes) for rule in spec.exclude],
        "claims": [
            claim.model_copy(update={"where": {axis_name(key): value for key, value in claim.where.items()}})
            for claim in spec.claims
        ],
    }
    return spec.model_copy(update=update)


def _canonical_rule(rule: dict[str, Any], variants: Variants, axes: Mapping[str, list[Any]]) -> dict[str, Any]:
    known: dict[str, list[Any]] = {"variant": list(variants.built), **variants.factors, **axes}
    named = {_known_as(key, known): value for key, value in rule.items()}
    return {name: next(level for level in known[name] if _equal(level, value)) for name, value in named.items()}
