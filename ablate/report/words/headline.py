"""The first answers of the page: what was studied, what was found, how sure, at which rate, at what cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ablate.analysis.analyse import Analysis
from ablate.claims.evidence import LEAST_TO_JUDGE
from ablate.report import lookup
from ablate.report.format import count_text, percent
from ablate.report.words.component_words import (
    DECISIONS,
    MOST_RUN,
    component,
    deciding_seeds,
    effect_sentence,
    found_from,
    fresh_seeds_option,
    interaction_sentence,
    names_listed,
    seeds_text,
    span_text,
)
from ablate.report.words.verdict_rows import speed
from ablate.wording import count_of, listed, range_of

# Data sets whose images are drawn by a program.
SYNTHETIC = ("street",)
# Seeds a variant below which intervals are too wide to be of use.
LEAST_SEEDS = 5


@dataclass(frozen=True)
class Card:
    """One question and its answer."""

    question: str
    answer: str
    more: str


def subject(analysis: Analysis) -> list[str]:
    """Return what was studied, in sentences: the data and whether they are real, the network, its budget, the runs."""
    frames, run = analysis.frames, analysis.frames.run
    data = run.get("data") or {}
    splits, size = data.get("splits") or {}, data.get("size")
    images = f"{'synthetic ' * (frames.study.data.name in SYNTHETIC)}images"
    said = f"Data: {frames.study.data.name}, {images}"
    if splits:
        said = f"Data: {frames.study.data.name}, {splits.get('train', '?')} {images} for training"
        said += f" and {splits.get('test', '?')} for testing"
    said += f", {size[0]} × {size[1]} pixels" if splits and size else ""
    base = lookup.by_variant(analysis.variants).get(analysis.baseline, {})
    network = "" if analysis.baseline == "baseline" else f" {analysis.baseline}"
    if np.isfinite(base.get("parameters", np.nan)):
        network += f", {count_text(base['parameters'])} parameters"
    done, planned = lookup.progress(analysis)
    main = lookup.main_trials(analysis)
    tried = range_of(main.groupby("variant")["setting"].nunique())
    axis = "learning rate" if list(frames.axes) == ["lr"] else "setting"
    seeds = range_of(main.groupby(["variant", "setting"])["seed"].nunique())
    runs = "Runs planned" if done < planned else "Runs"
    runs += f": each variant with {count_of(seeds, 'seed')} at {'each of ' * (tried != '1')}{count_of(tried, axis)}"
    fresh = frames.trials[frames.trials["role"] == "confirm"].groupby("variant")["seed"].nunique()
    runs += f", then with {count_of(range_of(fresh), 'fresh seed')} at its best" if len(fresh) else ""
    runs += f"; {done} of {count_of(planned, 'trial')} finished"
    # What computed, not the machine around it: a machine with GPUs has a processor, too.
    place = ((run.get("decisions") or {}).get("device") or {}).get("value")
    runs += f", on {place}" if place else ""
    budget = f"trained for {count_of(frames.study.train.epochs, 'epoch')}"
    variants = count_of(len(lookup.order(analysis)), "variant")
    return [f"{said}.", f"Networks: {variants} (baseline{network}), {budget}.", f"{runs}."]


def headline(analysis: Analysis, most: int = 4) -> str:
    """Return what was found, in plain sentences: each decided component with number and interval, then what is open."""
    rows = _primary(analysis)
    if not rows:
        score = percent(lookup.by_variant(analysis.variants).get(analysis.baseline, {}).get("test_mean"))
        does = f"scores {score} % test mIoU" if score != "–" else "stands alone"
        return f"{analysis.baseline} {does}; there is no other variant to compare it with."
    rows = sorted(rows, key=lambda row: -abs(row["delta"]) if np.isfinite(row["delta"]) else 1.0)
    # Of two crossed factors the combination is no component: what it says is the interaction's to say.
    crossed = lookup.rows_of(analysis.interactions) if len(analysis.interactions) == 1 else []
    rows = [row for row in rows if not (crossed and component(analysis, row["variant"]).whole)]
    told = [row for row in rows if row["decision"] in DECISIONS and not row["untrained"]]
    told.sort(key=lambda row: row["decision"] == "equivalent")
    blind = [row for row in rows if row["untrained"]]
    futile = [row for row in rows if row["decision"] == "futile" and row not in blind]
    still = [row for row in rows if row not in told and row not in blind and row not in futile]
    said = [
        effect_sentence(analysis, row, unit=" points" if place else " points of test mIoU")
        for place, row in enumerate(told[:most])
    ]
    if len(told) > most:
        said.append(f"{count_of(len(told) - most, 'more decision')} below.")
    if blind and still and not told:
        said.append(_whether(analysis, still, len(rows), most))
    if blind:
        about = names_listed(analysis, blind) if len(blind) <= most else f"{len(blind)} of the {len(rows)} variants"
        about = f"any of the {len(rows)} variants" if len(blind) == len(rows) > most else about
        said.append(
            f"Nothing can be said about {about}: at least one side scores no higher than a prediction made "
            f"without looking at the image ({percent(max(row['blind_score'] for row in blind))} % mIoU)."
        )
    if futile:
        said.append(f"Stopped early, as more seeds would hardly have decided it: {names_listed(analysis, futile)}.")
    if still and (told or (futile and not blind)):
        said.append(_whether(analysis, still, len(rows), most))
    elif still and not blind:
        found = [_open(analysis, row, place) for place, row in enumerate(still[:most])]
        more = f", {len(still) - most} more below" if len(still) > most else ""
        lead = "No component was shown to help or to hurt. Undecided"
        if not any(np.isfinite(row["low"]) for row in still):
            one = max(row["n"] for row in still) < 2
            done, planned = lookup.progress(analysis)
            lead = f"Nothing can be decided{' yet' * (done < planned)}{' from one seed a variant' * one}. Seen"
        said = [f"{lead}: {', '.join(found)}{more}."]
    return " ".join([*said, *(interaction_sentence(analysis, row) for row in crossed)])


def _whether(analysis: Analysis, still: list[lookup.Row], rows: int, most: int) -> str:
    one = len(still) == 1 and not component(analysis, still[0]["variant"]).plural
    shown = names_listed(analysis, still) if len(still) <= most else f"{len(still)} of the {rows} variants"
    return f"Whether {shown} help{'s' * one} is undecided."


def _open(analysis: Analysis, row: lookup.Row, place: int) -> str:
    tested = component(analysis, row["variant"])
    if not np.isfinite(row["delta"]):
        return tested.name
    unit = "" if place else " points of test mIoU"
    return f"{tested.name} {span_text(*tested.effect(row), sign=True, unit=unit)}"


def cards(analysis: Analysis) -> list[Card]:
    """Return how sure the findings are, at which rate, at what cost, and what would decide the rest."""
    rows = _primary(analysis)
    if not rows:
        return []
    made = sum(lookup.decided(row) in DECISIONS for row in rows)
    return [
        Card("How sure?", f"{made} of {count_of(len(rows), 'comparison')} decided", _means(analysis, rows)),
        _chosen(analysis),
        _price(analysis, rows),
        *_open_card(analysis, [row for row in rows if row["decision"] not in DECISIONS and not row["untrained"]]),
    ]


def _chosen(analysis: Analysis) -> Card:
    """Return at which settings the variants did best, and where that says little."""
    at, alone = _by_setting(analysis), lookup.untuned(analysis)
    # A setting of several axes is long; the table of verdicts has all of them.
    most = MOST_NAMED if len(analysis.frames.axes) == 1 else 2
    tuned = [variant for variant in lookup.order(analysis) if variant not in alone]
    edge = lookup.on_edge(analysis)
    said = []
    if len(at) > 1:
        said.append(_first([f"{text}: {_first(variants)}" for text, variants in at.items()], "; ", most) + ".")
    elif lookup.one_setting(analysis):
        said, edge = ["The only one tried."], []
    elif tuned:
        said.append(f"It did best on the validation images for {_all(tuned, analysis)}.")
    if edge:
        whose = "It" if len(at) == 1 else f"That of {_all(edge, analysis)}"
        said.append(f"{whose} lies on the edge of the grid, so a better one may lie beyond.")
    if alone:
        said.append(f"No other rate has a result yet for {listed(alone)}.")
    question = "At which rate?" if list(analysis.frames.axes) == ["lr"] else "At which setting?"
    return Card(question, ", ".join(at) if len(at) <= 3 else f"{len(at)} different ones", " ".join(said))


def _means(analysis: Analysis, rows: list[lookup.Row]) -> str:
    """Return what the decisions rest on."""
    seeds = [int(row["n"]) for row in rows]
    if max(seeds) < 2:
        return "One seed gives no interval, so nothing can be decided; plan five or more."
    fresh = "fresh " if lookup.primary_kind(analysis) == "confirmed" else ""
    error = f"{100 * (1 - analysis.confidence):.0f} %"
    return (
        f"The {100 * analysis.confidence:.0f} % intervals allow for chance in {range_of(seeds)} {fresh}"
        f"seed{'s' * (max(seeds) > 1)} per variant and in the test images. The chance of even one false finding is at "
        f"most {error} (Holm's correction). Differences within ± {percent(analysis.rope)} points count as none."
    )


def _open_card(analysis: Analysis, still: list[lookup.Row]) -> list[Card]:
    """Return what could have been found where nothing was decided, and the command that would decide it."""
    could = sorted(row["detectable"] for row in still if np.isfinite(row["detectable"]))
    if not could and still and max(row["n"] for row in still) < LEAST_TO_JUDGE:
        done, planned = lookup.progress(analysis)
        other = count_of(planned - done, "trial")
        more = f"The command under Run it again finishes the other {other}. " * (done < planned)
        more += f"Run it again with {fresh_seeds_option(analysis, LEAST_SEEDS)}: "
        more += "that trains so many fresh seeds of each variant at its best."
        if analysis.frames.study.claims:
            more += " A smaller number beside a claim is only the least that the method of that claim can judge by."
        return [Card("What would decide it?", f"{LEAST_SEEDS} seeds per variant or more", more)]
    if not could:
        return []
    least = " to ".join(dict.fromkeys(map(found_from, (could[0], could[-1]))))
    needed = [
        f"{seeds_text(row['seeds_needed'])} ({component(analysis, row['variant']).name})"
        for row in still
        if row["seeds_needed"] > 0
    ]
    said = f"This study would have found differences of {least} points with a chance of 80 %."
    if len(needed) > 1 and min(row["seeds_needed"] for row in still) > MOST_RUN:
        said += f" Each of the differences it saw would take more than {MOST_RUN} seeds per variant."
    elif needed:
        seeds_of = listed(needed) if len(needed) <= MOST_NAMED else _first(needed)
        said += f" The differences it saw would be decided by {seeds_of} per variant."
    seeds = deciding_seeds(analysis)
    said += f" Run it again with {fresh_seeds_option(analysis, seeds)}." if seeds else ""
    answer = f"{count_of(seeds, 'fresh seed')} per variant" if seeds else "No number of seeds within reach"
    return [Card("What would decide the rest?", answer, said)]


def _all(variants: list[str], analysis: Analysis) -> str:
    of = len(analysis.own_best)
    few = listed(variants) if len(variants) <= MOST_NAMED else f"{len(variants)} of the {of} variants"
    return "every variant" if len(variants) == of else few


# More than these are counted: the table of verdicts names them all.
MOST_NAMED = 4


def _first(texts: list[str], between: str = ", ", most: int = MOST_NAMED) -> str:
    """Return the first few, and how many more there are."""
    more = len(texts) - most
    if more < 2:
        return between.join(texts)
    return f"{between.join(texts[:most])} and {more} more"


def _by_setting(analysis: Analysis) -> dict[str, list[str]]:
    """Return the variants by the setting they are best at, the lowest rate first; a dash for those without a result."""
    found: dict[str, list[str]] = {}
    for setting in [*lookup.settings(analysis), None]:
        chosen = [variant for variant in lookup.order(analysis) if analysis.own_best.get(variant) == setting]
        if chosen:
            found.setdefault(lookup.setting_label(analysis, setting, lookup.WHOLE), []).extend(chosen)
    return found


def _price(analysis: Analysis, rows: list[lookup.Row]) -> Card:
    """Return what each component costs, those first that are shown to matter."""
    rank = {"better": 0, "worse": 0}
    costs = []
    for row in sorted(rows, key=lambda row: rank.get(row["decision"], 1)):
        tested = component(analysis, row["variant"])
        if text := _cost(analysis, row["variant"], tested.of_variant):
            costs.append((f"{tested.subject}: {text}", "going without" if tested.alone else analysis.baseline))
    if not costs:
        return Card("At what cost?", "Not measured", "")
    note = " The speeds are no measure of cost: see below." if lookup.busy(analysis) else ""
    lead, _, answer = costs[0][0].partition(": ")
    others = _first([text for text, _ in costs[1:]], "; ")
    more = f"{_capital(lead)}, compared with {costs[0][1]}. {_capital(others)}"
    return Card("At what cost?", answer, f"{more.rstrip('. ')}.{note}")


def _capital(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _cost(analysis: Analysis, variant: str, of_variant: bool) -> str:
    """Return parameters and training speed with a component as multiples of those without it."""
    parts = []
    ratios = (lookup.by_variant(analysis.variants)[variant]["parameters_ratio"], speed(analysis, variant)[1])
    for ratio, word in zip(ratios, ("parameters", "training speed"), strict=True):
        if np.isfinite(ratio) and ratio > 0:
            parts.append(f"{ratio if of_variant else 1 / ratio:.2f}× {word}")
    return ", ".join(parts)


def _primary(analysis: Analysis) -> list[dict[str, Any]]:
    """Return the primary contrasts, without those of A/A controls."""
    primary = lookup.primary_contrasts(analysis)
    return lookup.rows_of(primary[~primary["control"].astype(bool)])
