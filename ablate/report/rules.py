"""The making of every frame of numbers, in words, once a frame: the text that stands under its tables and figures.

Each function takes the `Analysis` and says it from facts: the study's `measure`, the groups of its images, its profile,
the kinds of its contrasts. What needs no facts is a text by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ablate.analysis.analyse import Analysis
from ablate.analysis.contrasts import KINDS
from ablate.errors import ResultsError
from ablate.measure.convergence import GAIN_THRESHOLD
from ablate.measure.detail import BOUNDARY_WIDTHS, THIN_DIAMETERS, scaled_width
from ablate.measure.sensitivity import BUDGET_CURVE_FROM
from ablate.report.lookup import busy, primary_kind

_V = "V is the mean over seeds of val mIoU at the best-val epoch, a diverged seed counting 0"
_CHOICES = {
    "own_best": f"Each variant at the setting that is best for it: the highest V of its own. {_V}.",
    "shared": (
        "All variants at one setting: the one with the highest mean of V over the variants (A/A controls left out), "
        f"among those at which every variant has a result. {_V}."
    ),
    "matched": "All variants at the same setting, for every setting of the grid; nothing is chosen.",
    "confirmed": (
        "Each variant at the setting that the main trials chose for it, scored by seeds that took no part in choosing."
    ),
}
_ERROR_BARS = {
    "retune": "Error bar retune: the setting is chosen on val again in every replicate.",
    "fixed": "Error bar fixed: the setting is kept, only seeds and images are drawn.",
    "tune_once": (
        "Error bar tune_once: the setting is chosen once and run again with fresh seeds; only seeds and images are "
        "drawn."
    ),
}
_SE = "SE (SD of the replicates: seeds deviate by √(n/(n − 1)) times, a run's luck with the images counts once)"
# What is made alike in every study; {level} is the confidence of its intervals.
_ALIKE = {
    "detail_verdicts": (
        "Detail is lost where boundary IoU and the recall of thin structures fall, and fall further, in proportion, "
        "than the interior IoU does, each with an interval below zero; gained where all four lie above zero; else "
        "undecided."
    ),
    "stability": (
        "Mean over the seeds of a cell, infinite where a seed diverged; the interval is Student's t over seeds. "
        "rise: largest ratio of an epoch's median training loss to the lowest of an earlier epoch (1 = never rose); "
        "val_rise: the same of val loss; spike_rate: spikes of loss or gradient norm per 1,000 steps; spike_score: "
        "share of steps that spike in the form of OLMo; roughness: IQR of the loss' first differences over its "
        "descent; excess_variation: way to and fro over the range of the epoch medians; tail_risk: mean of the "
        "upper 5 % of the steps of log loss; late_oscillation: std of val mIoU about its line over the last epochs; "
        "lr_headroom: the least of the probed points, its mean geometric and its interval on the logarithm, none "
        "where a seed's is an end of the range probed."
    ),
    "convergence": (
        "Projected gain: what as many further epochs as the last fifth (5 to 20) would bring, from the mean slopes of "
        "val mIoU over the two halves of a window three times as long, along an approach to a plateau whose slope "
        "falls by the same factor from half to half; the 90 % interval is the jackknife's over seeds, its upper end "
        "not below that of the last slope. Under-converged where it lies above "
        f"{GAIN_THRESHOLD:g}, converged where it lies below, else inconclusive, as always below three seeds. No "
        "verdict for a schedule that ends near zero."
    ),
    "extension": (
        "The decisive check of convergence, by training on: per seed the mean val mIoU of the last fifth of the "
        "shorter budget (5 to 20 epochs) is taken from that of as many epochs at the end of the longer one; the 90 "
        "% interval is Student's t over seeds. Verdict on the shorter budget: under-converged where the interval "
        f"lies above {GAIN_THRESHOLD:g}, converged where it lies below, else inconclusive, as always below three "
        "seeds. Projected: what the shorter curves alone had said."
    ),
    "sensitivity": (
        f"{_CHOICES['own_best']} Chosen again: share of the bootstrap replicates that choose the same setting. "
        "lr_sensitivity: mean over log rate, over the range stated, of min(final val loss, loss at initialisation) "
        "minus its lowest, a diverged seed counting as the loss at initialisation. Basin: parabola in log rate "
        "through the best V and its neighbours; width in decades within the rope of its top."
    ),
    "ranking": (
        "Kendall's tau-b between the rankings of the variants by V at two settings, 1 where both rank them alike. "
        "Descriptive."
    ),
    "headroom": (
        "lr_headroom at each probed point of training, points evenly spread from the first epoch to the last: the "
        "smallest multiple of the optimizer's own step, from 2^-6 to 2^8, that raises the loss of its batch; about "
        "1 is the edge of stability. Geometric mean over seeds with Student's t interval on the logarithm; none "
        "where a seed lies at an end of the range, which says only that the edge lies there or beyond. One batch a "
        "point. Descriptive."
    ),
    "gates": (
        "Each variant at its own best setting, the best epoch's weights, the whole test split. AUROC: chance that a "
        "pixel of the class has a larger gate coefficient than a pixel of another, 0.5 = not told apart. Over "
        "shuffled: less the AUROC against the masks of other images, what position alone gives. Over untrained: "
        "less that of a gate with fresh weights and the same inputs. Lift: mean coefficient of the class over that "
        "of all pixels. Means over seeds with Student's t intervals, differences paired by run. Descriptive, each "
        "class by itself."
    ),
    "main_effects": (
        "Test mIoU at the second level less that at the first, averaged over all levels of the other factors, with the "
        "{level} interval of the contrasts (that of the latest look at one of the variants, where these train until "
        "decided); p is adjusted over this table (Holm)."
    ),
    "interactions": (
        "What changing A does to test mIoU at either level of B (all other factors at their first level), and the "
        "second less the first with its {level} interval (that of the latest look at one of the four, where they train "
        "until decided), from the same replicates; p is adjusted over this table (Holm). Synergistic: together they "
        "bring more than their parts."
    ),
    "data_size": (
        "All variants are chosen and scored on the same val and test images. A smaller training set is part of every "
        "larger one. {level} intervals."
    ),
    "looks": (
        "After every look only the variants whose comparison is open, and the baseline, get further seeds. A "
        "comparison is decided where p reaches the level of the look (O'Brien–Fleming's spending of the error, Holm "
        "over the comparisons), so that looking several times costs no error; it is stopped for futility where the "
        "chance of a decision at the last look is small even if the difference is as seen."
    ),
    "gate_ablation": (
        "Change of test mIoU where the coefficients of a gate are replaced by their mean over the image, each "
        "variant at its own best setting; mean over seeds with Student's t interval, test images held fixed. Below "
        "zero: where the gate looks matters to the trained network. Descriptive."
    ),
}


def _confidence(analysis: Analysis) -> str:
    return f"{100 * analysis.confidence:.0f} %"


def _scored(analysis: Analysis) -> str:
    """Return at which size the scores were taken."""
    return f"Test scores {analysis.frames.resolution}."


def _interval(analysis: Analysis) -> str:
    """Return how the intervals of contrasts are made."""
    frames = analysis.frames
    return (
        f"Interval ({_confidence(analysis)}): Multi-Bootstrap of {frames.study.measure.resamples} replicates, each "
        f"drawing the seeds within every cell and the images {images_drawn(analysis)}, the same for both variants; "
        f"difference ± t × {_SE}, with Satterthwaite's degrees of freedom over the variances of the two sides and of "
        "the images (Welch's test, where the images add nothing)."
    )


def images_drawn(analysis: Analysis) -> str:
    """Return how the test images are resampled: independently, by whole groups, or in blocks within few groups."""
    facts = analysis.contrasts.iloc[0] if len(analysis.contrasts) else {"images_drawn": "independent"}
    if facts["images_drawn"] == "groups":
        return f"by whole groups ({facts['groups']:.0f} of them)"
    if facts["images_drawn"] == "blocks":
        only = int(facts["groups"])
        within = "one group (conditional on it)" if only == 1 else f"{only} groups (conditional on these)"
        return f"in circular blocks of {facts['block']:.0f} within their {within}"
    return "independently"


def _decided(analysis: Analysis) -> str:
    """Return how the intervals and decisions of contrasts are made."""
    looks = (
        " Judged at every look by the level that O'Brien–Fleming's spending leaves there, so that looking again costs "
        "no error; the interval holds over all looks."
        if len(analysis.looks)
        else ""
    )
    return (
        f"{_scored(analysis)} {_interval(analysis)} p by the same t, Holm over the contrasts with the baseline (an A/A "
        f"control is judged by itself).{looks} Equivalent: interval inside ±{analysis.rope:g} and Holm's p of the two "
        f"one-sided tests at most {1 - analysis.confidence:.2g}."
    )


def primary(analysis: Analysis) -> str:
    """Return the rule of the primary decisions alone; "" where there is nothing to compare."""
    if not len(analysis.contrasts):
        return ""
    kind = primary_kind(analysis)
    bars = dict(zip(analysis.contrasts["kind"], analysis.contrasts["error_bar"], strict=True))
    return f"{_CHOICES[kind]} {_ERROR_BARS[bars[kind]]} This is the primary decision. {_decided(analysis)}"


def contrasts(analysis: Analysis) -> str:
    """Return the rules of all ways to make a contrast: what each chooses, and once what they have in common."""
    frame = analysis.contrasts
    made = set(frame["kind"]) if len(frame) else {"own_best"}
    bars = dict(zip(frame["kind"], frame["error_bar"], strict=True)) if len(frame) else {"own_best": "retune"}
    said = []
    for kind in (kind for kind in KINDS if kind in made):
        status = "This is the primary decision." if kind == primary_kind(analysis) else "Descriptive."
        said.append(f"{KINDS[kind]}: {_CHOICES[kind]} {_ERROR_BARS[bars[kind]]} {status}")
    superiority = (
        "P(better): how often a run of the variant scores higher than one of the other, ties one half, with Newcombe's "
        "interval over seeds (images held fixed); noise where it holds 0.5, meaningful where it lies above 0.5 and "
        "reaches above 0.75 or lies below 0.5 and reaches below 0.25, no verdict below five seeds a side."
    )
    return " ".join([*said, _decided(analysis), superiority])


def cells(analysis: Analysis) -> str:
    """Return how the numbers of a cell are made."""
    return (
        f"{_V}; T is the same of test mIoU. Intervals are Student's t over seeds; the share of diverged seeds has "
        f"Wilson's. Regret is the variant's highest V minus V. {_scored(analysis)}"
    )


def variants(analysis: Analysis) -> str:
    """Return how the numbers of a variant by itself are made."""
    return (
        f"{_judged(analysis)} {_scored(analysis)} T with its interval: Multi-Bootstrap over seeds and test images; "
        "mean ± t with n − 1 degrees of freedom × "
        f"{_SE}. Components of the variance of one run's test mIoU: seed (what would remain on unlimited images), "
        "image (the sampling of the test images, common to all runs), interaction (what one run gains or loses on just "
        "these images). mIoU^I, mIoU^C and the worst 10 % of the images: means over seeds, a description."
    )


def classes(analysis: Analysis) -> str:
    """Return how the scores of single classes are made."""
    return (
        "IoU and Dice of a class on the whole test split, mean over seeds, a diverged seed counting 0. "
        f"{_judged(analysis)} {_scored(analysis)} A class without a pixel in the target has no score. "
        f"Descriptive. Interval of the IoU ({_confidence(analysis)}): Multi-Bootstrap as that of T."
    )


def class_contrasts(analysis: Analysis) -> str:
    """Return how the differences of single classes are made."""
    return f"{_judged(analysis)} {_scored(analysis)} {_interval(analysis)} Descriptive."


def _judged(analysis: Analysis) -> str:
    """Return which seeds speak for a variant at its own best setting, and how the error bar holds the choice."""
    kind = primary_kind(analysis)
    return f"{_CHOICES[kind]} {_ERROR_BARS['tune_once' if kind == 'confirmed' else 'retune']}"


def detail(analysis: Analysis) -> str:
    """Return what the measures of fine detail are at the size that was scored, and how their intervals are made."""
    try:
        shapes = analysis.frames.detail_target.shapes
    except (ResultsError, ValueError) as error:
        return f"No measures of fine detail: {error}."
    band = _span([scaled_width(BOUNDARY_WIDTHS[0], shape) for shape in shapes])
    disc = _span([scaled_width(THIN_DIAMETERS[0], shape, at_least=2) for shape in shapes])
    size = " to ".join(dict.fromkeys(f"{shape[0]} × {shape[1]}" for shape in (shapes[0], shapes[-1])))
    own = ", the masks' own size" if analysis.frames.study.measure.native else ""
    return (
        f"Scored at {size} pixels{own}; widths are given for a diagonal of 600 and scaled (boundary_3 is a band of "
        f"{band} pixel{'s' * (band != '1')} here, thin_3 what a disc of {disc} pixels removes). boundary: IoU of the "
        "bands inside the masks; trimap: IoU near target boundaries; interior: IoU away from them; thin: recall of "
        f"thin structures. {_CHOICES[primary_kind(analysis)]} The setting is chosen once. A diverged seed counts 0 in "
        f"all. {_interval(analysis)} Descriptive."
    )


def _span(widths: list[int]) -> str:
    return " to ".join(dict.fromkeys(map(str, (min(widths), max(widths)))))


def budget(analysis: Analysis) -> str:
    """Return what a tuning-budget curve expects, and what it is uniform over."""
    search = analysis.frames.study.search
    over = "the grid" if search is None else "the settings that the search tried"
    text = (
        f"Expected test mIoU of the val-best among n of the settings tried, uniform over {over}, by enumeration of the "
        f"subsets; from {BUDGET_CURVE_FROM} settings on."
    )
    if search is not None and search.sampler == "tpe":
        text += " The sampler learns: its early settings were worse than its late ones, and the curve hides that order."
    return text


def throughput(analysis: Analysis) -> str:
    """Return how the rates were measured; "" where nothing was profiled."""
    profile = analysis.frames.profile
    if not profile.get("variants"):
        return ""
    return (
        f"Each variant alone on {profile.get('machine', 'the machine')} ({profile.get('device', 'device')}), batches "
        f"of {profile.get('batch_size', '?')} at {' × '.join(map(str, profile.get('size', ['?'])))} pixels, "
        f"{profile.get('precision', '?')}, {profile.get('engine', '?')}; {profile.get('rounds', '?')} rounds with the "
        "variants interleaved. Value: median over rounds. Ratio: geometric mean over rounds, Student's t interval "
        f"({_confidence(analysis)}) on its logarithm."
        + (f" No measure of cost here: {busy(analysis)}." if busy(analysis) else "")
    )


def cost(analysis: Analysis) -> str:
    """Return how costs were measured; "" where nothing was profiled."""
    rates = throughput(analysis)
    return f"{rates} Latency: of one image; p50 and p95 of the samples." if rates else ""


_MADE: dict[str, Callable[[Analysis], str]] = {
    made.__name__: made for made in (cells, variants, contrasts, classes, class_contrasts, detail, budget, cost)
}
FRAMES = (
    *("cells", "variants", "contrasts", "classes", "class_contrasts", "detail", "detail_verdicts", "stability"),
    *("convergence", "extension", "sensitivity", "ranking", "budget", "headroom", "gates", "gate_ablation", "cost"),
)


def rule(analysis: Analysis, frame: str) -> str:
    """Return how the numbers of a frame of the analysis were made; "" where there are none."""
    if frame in _ALIKE:
        return _ALIKE[frame].replace("{level}", f"{analysis.confidence:.0%}")
    return _MADE[frame](analysis)


def all_rules(analysis: Analysis) -> dict[str, str]:
    """Return the rule of every frame that the study has numbers in, by the frame's name, in the order of `FRAMES`."""
    there = (name for name in FRAMES if len(getattr(analysis, name, analysis.variants)))
    return {name: text for name in there if (text := rule(analysis, name))}


# --- claims ---------------------------------------------------------------------------------------------------------


def claim(row: dict[str, Any]) -> str:
    """Return how the number of a claim and its verdict were made, from its row of the frame of verdicts.

    "" for a claim that could not be judged.
    """
    count = int(row["comparisons"])
    if not count or not (row["method"] or row["exact"]):
        return ""
    if row["exact"]:
        return f"{row['quantity']}: a count without sampling error, compared as it is."
    said = (
        f"{row['quantity']}: {row['method']}. Supported where the whole interval lies {row['side']} "
        f"{row['threshold']:g}, refuted where none of it does, inconclusive else"
    )
    if count == 1:
        return f"{said}."
    if row["quantifiers"] == "all":
        return f"{said}; of {count} comparisons all must be, each at the full level, while one at α/{count} refutes."
    if row["quantifiers"] == "any":
        return f"{said}; of {count} comparisons one must be, at α/{count}, while all at the full level refute."
    return (
        f"{said}; over {count} comparisons: 'all' at the full level, 'any' with α divided by the number to choose from."
    )
