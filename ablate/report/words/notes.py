"""The limits to know before trusting the numbers: what is missing, not learned, not converged, chosen on an edge.

Besides: confounded, synthetic, of few seeds, of low precision, or measured on a busy machine.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ablate.analysis.analyse import Analysis
from ablate.errors import visible
from ablate.records.record import computed_differently
from ablate.report import lookup
from ablate.report.format import percent
from ablate.report.words.component_words import differs_text
from ablate.report.words.headline import LEAST_SEEDS, SYNTHETIC
from ablate.wording import count_of, few_groups, listed

_STATUS = (
    ("missing", *(f"{have} no result yet: every number is provisional" for have in ("has", "have"))),
    ("failed", *(f"failed through the machine and {are} left out" for are in ("is", "are"))),
    ("pruned", "was stopped early: its cell is not chosen", "were stopped early: their cells are not chosen"),
    ("diverged", "diverged and counts 0", "diverged and count 0"),
)
# A class of less IoU in every variant was not learned by any.
LEARNED = 0.01


def notes(analysis: Analysis) -> list[str]:
    """Return what limits the study, one sentence each, ready to print."""
    own = f"{analysis.frames.path}/"
    # A report is passed on: a file of its folder is named from there, not from the root of somebody's disk.
    parts = (_trials, _training, _contrasts, _study)
    said = [visible(text.replace(own, "")) for part in parts for text in part(analysis)]
    return [f"{text[0].upper()}{text[1:]}." for text in said]


def _trials(analysis: Analysis) -> Iterator[str]:
    """Say which trials have no full result, and which classes a split does not hold."""
    frames = analysis.frames
    status, total = frames.trials["status"].value_counts(), count_of(len(frames.trials), "trial")
    for name, one, more in _STATUS:
        if status.get(name, 0):
            yield f"{status[name]} of {total} {one if status[name] == 1 else more}"
    if differ := computed_differently(frames.trials["computed_by"]):
        yield f"the trials were not all computed alike, which alone can make numbers differ: {'; '.join(differ)}"
    complete = frames.trials[frames.trials["status"] == "complete"]
    bare = sum(not frames.arrays[key].folder.predictions.is_file() for key in complete["key"])
    if 0 < bare < len(complete):
        yield (
            f"{bare} of {count_of(len(complete), 'trial')} {'has' if bare == 1 else 'have'} no stored predictions (a "
            "published folder, from which trials may be taken over, holds none): figures of predictions show the others"
        )
    yield from (f"a file cannot be read: {reason}" for reason in frames.unreadable.values())
    for split, names in frames.run.get("data", {}).get("absent", {}).items():
        yield f"the {split} split has no pixel of {', '.join(names)}: left out of its means, whatever is predicted"


def _training(analysis: Analysis) -> Iterator[str]:
    """Say what has not been learned: nothing at all, single classes, or what more epochs would still bring."""
    frames, chosen = analysis.frames, lookup.at_own_best(analysis.cells, analysis)
    if blind := list(chosen.loc[chosen["untrained"].astype(bool), "variant"]):
        yield (
            f"untrained: {listed(blind)} scored at most a point more than the {percent(chosen['blind_score'].max())} % "
            "that a prediction made without looking at the image reaches, so no component is credited there"
        )
    best = analysis.classes.groupby("class", sort=False)["iou"].max().dropna()
    unlearned = list(best.index[best < LEARNED])
    if unlearned and len(best) > len(unlearned):
        yield (
            f"{len(unlearned)} of {len(best)} classes {'was' if len(unlearned) == 1 else 'were'} learned by no variant "
            f"({listed(unlearned)}): the mean IoU compares only the others"
        )
    rows = lookup.at_own_best(analysis.convergence, analysis)
    short = rows[rows["verdict"] == "under-converged"]
    main = lookup.main_trials(analysis)
    ended = main[main["status"] == "complete"]
    last = int((ended["best_epoch"] == ended["epochs_run"]).sum()) if "epochs_run" in ended else 0
    ends = f"in {last} of {count_of(len(ended), 'trial')} the last epoch was the best"
    if len(short):
        largest = float(np.nanmax(np.abs(lookup.primary_contrasts(analysis)["delta"].astype(float)), initial=0.0))
        gain = float(short["gain"].max())
        than = ", more than the largest difference found" if gain > largest > 0 else ""
        yield (
            f"under-converged: {len(short)} of {count_of(len(rows), 'variant')} "
            f"{'was' if len(short) == 1 else 'were'} still improving when the "
            f"{count_of(frames.study.train.epochs, 'epoch')} ended; longer training is projected to add up to "
            f"{percent(gain)} points of validation mIoU{than}, and may rank them differently; {ends}"
        )
    elif last > len(ended) / 2:
        yield f"perhaps under-converged: {ends}. Longer training may rank the variants differently"


def _contrasts(analysis: Analysis) -> Iterator[str]:
    """Say which contrasts depend on the choice of the rate, and which choices lie on the edge of the grid."""
    primary = lookup.rows_of(lookup.primary_contrasts(analysis))
    for row in primary:
        if row["lr_confounded"]:
            pair = f"{row['variant']} against {row['against']}"
            yield f"{pair} is lr-confounded: the difference depends on how the learning rate is chosen"
    if alone := lookup.untuned(analysis):
        yield f"no rate was chosen for {listed(alone)}, as only one setting has a result"
    if lookup.one_setting(analysis):
        only = lookup.named_setting(analysis, lookup.settings(analysis)[0])
        yield f"only one setting was tried ({only}): another may suit a variant better"
    elif edges := lookup.on_edge(analysis):
        whose = "every variant" if len(edges) == len(analysis.own_best) else listed(edges)
        yield f"unbracketed: the best rate of {whose} lies on the edge of the grid; a better one may lie beyond it"
    if any(row["conditional"] for row in primary):
        groups = int(primary[0]["groups"])
        holds = "the intervals are conditional on" if lookup.has_intervals(analysis) else "what is found holds for"
        yield f"{few_groups(groups)}: {holds} {'it' if groups == 1 else 'these'}"
    warned = [row["variant"] for row in primary if row["order_warning"] and np.isfinite(row["low"])]
    if warned:
        yield (
            f"neighbouring test images behave alike in the comparisons of {listed(warned)}: they seem to be sequences, "
            "but no group is declared, so the intervals are too narrow (declare data.group)"
        )
    chosen = lookup.tuned(analysis)
    if primary and lookup.primary_kind(analysis) == "own_best" and chosen:
        several = 1 < len(chosen) < len(analysis.own_best)
        whose = "every variant" if len(chosen) == len(analysis.own_best) else listed(chosen)
        yield (
            f"optimistic: {whose} {'are' if several else 'is'} scored by the same runs that chose "
            f"{'their' if several else 'its'} rate, which favours lucky ones; fresh seeds at the chosen rate (confirm) "
            "remove this"
        )


def _study(analysis: Analysis) -> Iterator[str]:
    """Say what the study itself leaves open: declared confounds, a search, few seeds, detail not measured."""
    frames = analysis.frames
    for variant in analysis.variants.loc[analysis.variants["confounds"] != "", "variant"]:
        yield f"declared confound: {variant} has training settings of its own ({differs_text(analysis, variant)})"
    if frames.study.search is not None:
        yield (
            f"each variant searched settings of its own ({frames.study.search.sampler}): no rate is shared or matched, "
            "and the intervals allow for the choice among the settings tried, not for the search itself"
        )
    primary = lookup.primary_contrasts(analysis)
    fewest = int(primary["n"].min() if len(primary) else frames.trials.groupby(["variant", "setting"]).size().min())
    # Of one seed the first answers say that nothing can be decided.
    if 1 < fewest < LEAST_SEEDS:
        yield f"few seeds: only {fewest} per variant, where five are the workable minimum"
    if frames.study.data.name in SYNTHETIC:
        yield "the images are synthetic, drawn by a program: what holds for them may not hold for photographs"
    precision = (frames.run.get("decisions") or {}).get("precision", {}).get("value")
    if precision not in (None, "float32"):
        yield f"the arithmetic was {precision}, chosen for this machine: in float32, scores may differ slightly"
    if text := lookup.busy(analysis):
        yield f"the speeds are no measure of cost: {text}"
    if analysis.no_detail:
        yield analysis.no_detail
