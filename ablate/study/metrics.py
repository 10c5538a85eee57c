"""The metrics that a claim may be about: their names, and the forms in which each can be claimed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ablate.errors import nearest
from ablate.registry import MEASURES
from ablate.study.problems import shown
from ablate.study.spec import ClaimSpec

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


def known_metrics(classes: Sequence[str] | None = None) -> list[str]:
    """Every name that a metric may have; those of classes where the classes are known."""
    names = [*(f"{split}/{name}" for split in ("test", "val") for name in OVERLAP), *OVERLAP]
    names += [f"{kind}/{label}" for kind in PER_CLASS for label in classes or ()]
    names += [*DETAIL, *(f"test/{name}" for name in DETAIL), *RATES, *COUNTS, *SHARES, "convergence", *of_trials()]
    return [*names, "val/loss", "test/loss"]


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
    """Return the cure for an unknown metric: the nearest name, or those that claims are mostly about."""
    found = nearest(metric, known_metrics(classes))
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
