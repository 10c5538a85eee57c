"""A claim as a reader says it: a sentence, its number in its own unit, and what the main comparison says beside it."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite, isnan

from scipy import special

from ablate.analysis.analyse import Analysis
from ablate.claims.evidence import LEAST_TO_JUDGE
from ablate.claims.verdicts import where_text
from ablate.report.format import detail_name, number, percent
from ablate.report.lookup import Row, primary_contrasts, rows_of
from ablate.report.words.component_words import DECISIONS, MOST_RUN, fresh_seeds_option
from ablate.stats.detectable import seeds_to_find
from ablate.stats.intervals import LEAST_SEEDS_TO_TELL
from ablate.study.claims import COUNTS, DETAIL, OVERLAP, PER_CLASS, RATES, RISES, SHARES, split_of
from ablate.study.spec import ClaimSpec

_METRICS = {
    "mean_iou": "mIoU",
    "dice": "Dice score",
    "pixel_accuracy": "pixel accuracy",
    "train_images_per_s": "training speed",
    "inference_images_per_s": "prediction speed",
    "parameters": "number of parameters",
    "forward_flops": "number of FLOPs",
    "rise": "rise of the training loss",
    "val_rise": "rise of the validation loss",
    "diverged": "share of diverged seeds",
    "diverged_share": "share of diverged seeds",
}
_MORE = {"<": "lower", "<=": "lower or equal", ">": "higher", ">=": "higher or equal"}
_BOUND = {"<": "below", "<=": "at most", ">": "above", ">=": "at least"}


def metric_words(metric: str) -> str:
    """Return the name of a claim's metric: "test mIoU", "test IoU of Fence", "training speed"."""
    split, name = split_of(metric)
    kind, _, label = name.partition("/")
    if label and kind in PER_CLASS:
        return f"{split} {'IoU' if kind == 'iou' else 'Dice score'} of {label}"
    if name in DETAIL:
        kind, _, width = detail_name(DETAIL[name]).partition(", ")
        return f"{split} {kind}{f' ({width})' if width else ''}"
    known = _METRICS.get(name, name.replace("_", " ").replace("/", " "))
    return f"{split} {known}" if name in OVERLAP else known


def _is_share(metric: str) -> bool:
    """Return whether the metric is a fraction, whose differences are told in points."""
    name = split_of(metric)[1]
    return name in (*OVERLAP, *SHARES, *DETAIL, "convergence") or name.partition("/")[0] in PER_CLASS


def sentence(claim: ClaimSpec) -> str:
    """Return the claim as a sentence: "noskip has a lower test mIoU than unet, by at least 1.0 points"."""
    name, share = metric_words(claim.metric), _is_share(claim.metric)
    if claim.left is not None and claim.op is not None:
        if claim.factor is not None:
            said = f"{claim.left} has {_BOUND[claim.op]} {claim.factor:g} times the {name} of {claim.right}"
        else:
            said = f"{claim.left} has a {_MORE[claim.op]} {name} than {claim.right}"
        if claim.margin:
            said += f", by at least {f'{percent(claim.margin)} points' if share else f'{claim.margin:g}'}"
    else:
        subject = {"any": "At least one variant", "all": "Every variant"}.get(claim.variant or "", claim.variant)
        if claim.expect is not None:
            said = f"{subject} is {claim.expect}"
        else:
            value = claim.value if claim.value is not None else 0.0
            bound = f"{percent(value)} %" if share else f"{value:g}"
            said = f"{subject} has a {name} {_BOUND[claim.op or '>']} {bound}".replace(" at ", " of at ")
    where = where_text(claim).replace("<=", "≤").replace(">=", "≥")
    return f"{said} {where}".rstrip()


def value_text(claim: ClaimSpec, row: Row) -> str:
    """Return the number that a claim hangs on with its interval and bound, in the claim's own unit; "" without one."""
    if isnan(row["value"]):
        return ""
    say, unit = _unit(claim)
    low, high = row["low"], row["high"]
    # Of two sides' rises it is how probable the larger one is.
    text = "probability " * (claim.metric in RISES and claim.left is not None) + f"{say(row['value'])}{unit}"
    if isfinite(low) and isfinite(high) and low < high:
        text += f" ({say(low)} to {say(high)})"
    return f"{text}; needed: {row['side']} {say(row['threshold']).lstrip('+')}"


def _unit(claim: ClaimSpec) -> tuple[Callable[[float], str], str]:
    """Return how a number of the claim is written, and its unit."""
    if _is_share(claim.metric):
        of_two = claim.left is not None or claim.metric == "convergence"
        return (lambda x: percent(x, sign=of_two and x != 0)), (" points" if of_two else " %")
    if claim.metric in RISES and claim.left is None:
        # Judged as 1 − 1/rise, which stays finite where a seed diverged.
        return (lambda x: number(1 / (1 - x) if x < 1 else float("inf"))), ""
    if claim.metric == "lr_headroom":
        return (lambda x: f"{number(2**x)}×"), ""
    if claim.metric in (*RATES, *COUNTS) and claim.right:
        return (lambda x: f"{x:.3f}×"), ""
    return number, ""


def beside(analysis: Analysis, claim: ClaimSpec, row: Row) -> str:
    """Return what the main comparison of the same two variants says where the claim's verdict sounds otherwise.

    A claim is judged by itself, at a level that is not corrected for the other comparisons of the study.
    """
    if claim.left is None or claim.metric in (*RATES, *COUNTS):
        return ""
    pair = {claim.left, claim.right}
    main = next((one for one in rows_of(primary_contrasts(analysis)) if {one["variant"], one["against"]} == pair), None)
    if main is None:
        return ""
    if row["verdict"] in ("supported", "refuted") and main["decision"] not in DECISIONS:
        what = "Judged by itself, uncorrected; the corrected comparison of the two in test mIoU is undecided"
    elif row["verdict"] == "inconclusive" and main["decision"] in DECISIONS and split_of(claim.metric)[1] == "mean_iou":
        what = f"The main comparison itself is decided ({main['variant']} {main['decision']})"
    else:
        what = ""
    detail = analysis.detail_verdicts
    if split_of(claim.metric)[1] in DETAIL and row["verdict"] in ("supported", "refuted") and len(detail):
        open_ones = detail[(detail["variant"] == main["variant"]) & (detail["verdict"] == "undecided")]
        if len(open_ones):
            whole = "Fine detail as a whole, which takes several such measures, is undecided"
            what = f"{what}. {whole}" if what else whole
    return what


def deciding(analysis: Analysis, claim: ClaimSpec, row: Row) -> str:
    """Return how many seeds would decide an inconclusive claim, with the option that trains them; "" if none is known.

    Below the seeds that any verdict needs it is those. Else a difference is taken to be the true one, found with a
    chance of 80 %, the spread of either side being that which the interval shows.
    """
    if row["verdict"] != "inconclusive" or not row["comparisons"] or claim.metric in (*RATES, *COUNTS):
        return ""
    n, least = int(row["n"]), LEAST_SEEDS_TO_TELL if claim.metric in RISES and claim.right else LEAST_TO_JUDGE
    if n < least:
        needed, why = float(least), "The least that a verdict needs"
    elif claim.right and claim.metric not in RISES:
        alpha = 1 - row["confidence"]
        error = (row["high"] - row["low"]) / 2 / float(special.stdtrit(2 * n - 2, 1 - alpha / 2))
        needed = seeds_to_find(row["value"] - row["threshold"], [n * error**2 / 2] * 2, alpha=alpha)
        why = "Would decide this, were the difference the true one"
    else:
        return ""
    if needed > MOST_RUN:
        return f"More than {MOST_RUN} seeds would be needed to decide it"
    if not needed > n:  # none is known, or more seeds than these are not needed
        return ""
    if claim.where and not row["at"].endswith(", fresh seeds"):
        axis = "screen.seeds" if analysis.frames.study.screen is not None else "seeds"
        return f"{why}: {needed:.0f} seeds at every setting (-o {axis}={needed:.0f})"
    return f"{why}: {needed:.0f} seeds a variant ({fresh_seeds_option(analysis, int(needed))})"
