"""Claims: the metrics that they may be about, the forms of each, and the variants and conditions of their study."""

from __future__ import annotations

import operator
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from ablate.errors import nearest
from ablate.registry import MEASURES
from ablate.study.axes import axis_name
from ablate.study.problems import Finding, KeyPath, shown
from ablate.study.spec import ClaimSpec
from ablate.study.yamlfile import Refused, scalar

OPERATORS = {"<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge}
CONDITION = re.compile(r"\s*(<=|>=|<|>)\s*(\S+)\s*")
# Scores of the whole split, and of a class as "iou/<class>"; of the test split, or of val as "val/<name>".
OVERLAP = ("mean_iou", "dice", "pixel_accuracy")
PER_CLASS = ("iou", "dice")
# Fine detail of the test split by the measure that a name stands for.
DETAIL: Mapping[str, str] = {
    "boundary_iou": "boundary_3",
    "thin_recall": "thin_3",
    "interior_iou": "interior",
    "trimap_iou": "trimap_3",
    **{f"boundary_{width}": f"boundary_{width}" for width in (3, 12)},
    **{f"thin_{diameter}": f"thin_{diameter}" for diameter in (3, 6)},
    **{f"trimap_{width}": f"trimap_{width}" for width in (1, 3, 5, 10)},
    "interior": "interior",
}
RATES = ("train_images_per_s", "inference_images_per_s")
COUNTS = ("parameters", "forward_flops")
RISES = ("rise", "val_rise")
SHARES = ("diverged", "diverged_share")
VERDICTS = ("under-converged", "converged")


def of_trials() -> tuple[str, ...]:
    """Return the metrics that are one value a trial, compared over seeds: every registered measure, and some more.

    A "/" may stand for the first "_", as in "test/loss".
    """
    return (*MEASURES, "best_epoch", "initial_val_loss", "final_val_loss", "val_loss", "test_loss")


# Measured once, without repetition: there is nothing to judge a claim by.
ONCE = ("peak_memory_bytes", "latency_ms", "latency_p50_ms", "latency_p95_ms", "wall_s")

Complaint = tuple[str, str, str]
"""The key of the claim that is wrong, what was expected, and the cure."""


def split_of(metric: str) -> tuple[str, str]:
    """Return the split that a metric is of ("test" where none is said), and its name without it."""
    for split in ("test", "val"):
        if metric.startswith(f"{split}/"):
            return split, metric.removeprefix(f"{split}/")
    return "test", metric


def complaints(claim: ClaimSpec, classes: Sequence[str] | None = None) -> Iterator[Complaint]:
    """Find what is wrong with a claim's metric, or with its form; `classes` is None where they are not known here."""
    split, name = split_of(claim.metric)
    kind, _, label = name.partition("/")
    if label and kind in PER_CLASS:
        if classes is not None and label not in classes:
            yield "metric", f"expected a class of the data set, got {shown(label)}", nearest(label, classes)
    elif claim.metric in ONCE:
        yield "metric", f"expected a metric with an interval, got '{claim.metric}', which is measured once", ""
    elif name in DETAIL and split == "val":
        cure = f"write test/{name}"
        yield "metric", "expected fine detail of the test split (val keeps no predictions), got that of val", cure
    elif (
        name not in OVERLAP
        and name not in DETAIL
        and claim.metric not in (*RATES, *COUNTS, *SHARES, "convergence")
        and claim.metric.replace("/", "_", 1) not in of_trials()
    ):
        yield "metric", f"expected a metric, got {shown(claim.metric)}", near_metric(claim.metric, classes)
    yield from _form(claim)


def near_metric(metric: str, classes: Sequence[str] | None = None) -> str:
    """Return the cure for an unknown metric: the nearest of all names, or those that claims are mostly about."""
    names = [*(f"{split}/{name}" for split in ("test", "val") for name in OVERLAP), *OVERLAP]
    names += [f"{kind}/{label}" for kind in PER_CLASS for label in classes or ()]
    names += [*DETAIL, *(f"test/{name}" for name in DETAIL), *RATES, *COUNTS, *SHARES, "convergence", *of_trials()]
    found = nearest(metric, [*names, "val/loss", "test/loss"])
    if found.startswith("did you mean"):
        return found
    return "choose from test/mean_iou, iou/<class>, thin_recall, boundary_iou, rise, convergence, diverged, …"


def _form(claim: ClaimSpec) -> Iterator[Complaint]:
    metric = claim.metric
    if metric == "convergence":
        if claim.expect is None:
            cure = "write variant, expect: under-converged"
            yield "metric", "expected convergence of a variant with expect, got a comparison", cure
        elif claim.expect not in VERDICTS:
            yield "expect", f"expected 'under-converged' or 'converged', got {shown(claim.expect)}", ""
    elif claim.expect is not None:
        yield "expect", f"expected op and value for '{metric}', which has no verdict, got {shown(claim.expect)}", ""
    if metric in (*RISES, *RATES, "lr_headroom") and claim.margin:
        why = "may be infinite" if metric in RISES else "is compared as a ratio"
        yield "margin", f"expected a factor for '{metric}', which {why}, got a margin", "write factor"
    if metric in SHARES and claim.factor:
        yield "factor", "expected a margin for a share of seeds, got a factor", "write margin"
    if metric in (*RATES, *COUNTS) and claim.where:
        yield "where", f"expected no condition for '{metric}', which does not depend on the setting, got one", ""


def claim_findings(
    claims: Sequence[ClaimSpec],
    variants: Collection[str],
    axes: Mapping[str, Sequence[Any]],
    broken: Collection[str],
    classes: Sequence[str] | None = None,
    *,
    searched: bool = False,
) -> list[Finding]:
    """Return what is wrong with the claims of a study that has these variants and axes (and `broken` ones besides).

    `classes` are those of its data set, None where only the data themselves tell. `searched`: every variant tries
    settings of its own.
    """
    findings: list[Finding] = []
    names: dict[str, int] = {}
    for index, claim in enumerate(claims):
        path = ("claims", index)
        # A claim that could not be read stands here without a metric, and has been complained about.
        if claim.metric:
            findings += [Finding((*path, key), message, cure) for key, message, cure in complaints(claim, classes)]
        for key in ("left", "right", "variant"):
            findings += _variant(getattr(claim, key), (*path, key), variants, words=key == "variant")
        if searched and claim.left is not None and claim.where:
            message = "expected no condition between two variants: a search tries other settings for each"
            findings.append(Finding((*path, "where"), message, "remove where: each then stands at its own best"))
        if claim.left is not None and claim.left == claim.right:
            findings.append(Finding((*path, "right"), f"expected another variant than left, got {shown(claim.right)}"))
        for axis, condition in claim.where.items():
            if axis_name(axis) in broken:
                continue
            findings += _where(axis, condition, (*path, "where", axis), axes)
        if claim.id is not None and names.setdefault(claim.id, index) != index:
            first = names[claim.id]
            findings.append(Finding((*path, "id"), f"expected every id once, got it again (first at claims[{first}])"))
    return findings


def _variant(name: str | None, path: KeyPath, variants: Collection[str], *, words: bool) -> list[Finding]:
    if name is None or name in variants or (words and name in ("any", "all")):
        return []
    choices = [*variants, "any", "all"] if words else variants
    return [Finding(path, f"expected a variant of the study, got {shown(name)}", nearest(name, choices))]


def _where(axis: str, condition: Any, path: KeyPath, axes: Mapping[str, Sequence[Any]]) -> list[Finding]:
    levels = axes.get(axis_name(axis))
    if levels is None:
        return [Finding(path, "expected an axis of the grid, got an unknown one", nearest(axis, axes))]
    try:
        picked = [level for level in levels if matches(condition, level)]
    except ValueError as error:
        return [Finding(path, str(error))]
    if picked:
        return []
    message = f"expected a condition that a level of the grid fulfils, got {shown(condition)}"
    return [Finding(path, message, f"the levels are {', '.join(map(str, levels))}")]


def matches(condition: Any, level: Any) -> bool:
    """Return whether a level of an axis fulfils a condition; raises `ValueError` for a condition that says nothing.

    A number, text or truth value is fulfilled by the level equal to it, ">=5e-4" by the numbers from 5e-4 on.
    """
    if isinstance(condition, str) and condition.lstrip()[:1] in ("<", ">"):
        found = CONDITION.fullmatch(condition)
        bound = _number(found[2]) if found else None
        if found is None or bound is None:
            raise ValueError(f"expected a condition such as '>=5e-4', got '{condition}'")
        if isinstance(level, bool) or not isinstance(level, int | float):
            return False
        return bool(OPERATORS[found[1]](level, bound))
    if isinstance(condition, bool) or isinstance(level, bool):
        return condition is level
    return bool(condition == level)


def all_match(where: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Return whether a setting fulfils every condition of `where`."""
    return all(axis in settings and matches(condition, settings[axis]) for axis, condition in where.items())


def _number(text: str) -> int | float | None:
    try:
        value = scalar(text)
    except Refused:
        return None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
