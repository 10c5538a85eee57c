"""What the page answers first: the finding in a sentence, and the four questions that a reader comes with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ablate.analysis.analyse import Analysis
from ablate.report.format import percent, percent_interval
from ablate.report.lookup import WHOLE, by_variant, order, primary_contrasts, setting_label, settings
from ablate.report.words.verdict_rows import speed_text
from ablate.wording import count_of, range_of


@dataclass(frozen=True)
class Card:
    """One question and its answer."""

    question: str
    answer: str
    more: str


def cards(analysis: Analysis) -> list[Card]:
    """Return which component helps, at which rate, how sure, at what cost."""
    primary = _primary(analysis)
    if primary.empty:
        return []
    by_decision = {word: list(primary.loc[primary["decision"] == word, "variant"]) for word in _CLAUSES}
    better, worse = by_decision["better"], by_decision["worse"]
    shown = [*(_component(analysis, v, True) for v in better), *(_component(analysis, v, False) for v in worse)]
    rest = [f"{_first(by_decision[word])}: {word}" for word in _CLAUSES if by_decision[word]]
    at = _by_setting(analysis)
    # A setting of several axes is long; the table of verdicts has all of them.
    most = MOST_NAMED if len(analysis.frames.axes) == 1 else 2
    edge = list(analysis.variants.loc[analysis.variants["unbracketed"].astype(bool), "variant"])
    seeds = primary["n"].astype(int)
    decided = int(primary["decision"].isin(["better", "worse", "equivalent"]).sum())
    return [
        Card("Which component helps?", _first(shown, "; ") or "None is shown to help", "; ".join(rest)),
        Card(
            "At which rate?",
            ", ".join(at) if len(at) <= 3 else f"{len(at)} different ones",
            (
                _first([f"{text}: {_first(variants)}" for text, variants in at.items()], "; ", most) + "."
                if len(at) > 1
                else "Chosen by every variant on validation."
            )
            + (f" On the edge of the grid for {_all(edge, analysis)}: the best may lie beyond." if edge else ""),
        ),
        Card(
            "How sure?",
            f"{decided} of {len(primary)} decided",
            _means(analysis, seeds),
        ),
        _price(analysis, better, worse, list(primary["variant"])),
    ]


def _means(analysis: Analysis, seeds: pd.Series) -> str:
    """Return what the decisions rest on."""
    if int(seeds.max()) < 2:
        return "One seed has no interval, so that nothing can be decided; five are the workable minimum."
    return (
        f"{100 * analysis.confidence:.0f} % intervals over {count_of(range_of(seeds), 'seed')} and the test images, "
        f"Holm-corrected decisions; differences within ± {percent(analysis.rope)} points count as none."
    )


def _all(variants: list[str], analysis: Analysis) -> str:
    return "every variant" if len(variants) == len(analysis.own_best) else _first(variants)


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
    for setting in [*settings(analysis), None]:
        chosen = [variant for variant in order(analysis) if analysis.own_best.get(variant) == setting]
        if chosen:
            found.setdefault(setting_label(analysis, setting, WHOLE), []).extend(chosen)
    return found


def _price(analysis: Analysis, better: list[str], worse: list[str], compared: list[str]) -> Card:
    """Return what the helping component costs, or what going without it saves; then what the others do."""
    first = next(iter(better or worse), None)
    costs = {variant: cost for variant in compared if (cost := _cost(analysis, variant))}
    if not costs:
        return Card("At what cost?", "Not measured", "")
    answer = "" if first is None else costs.pop(first, "Not measured")
    lead = "" if first is None else f"{first}, against {analysis.baseline}"
    others = _first([f"{variant}: {cost}" for variant, cost in costs.items()], "; ")
    if first is not None and not better:
        answer = f"Without: {answer}"
    if first is None:
        answer = _span_of_costs(analysis, compared)
        lead = f"Against {analysis.baseline}"
    return Card("At what cost?", answer, ". ".join(text for text in (lead, others) if text) + ".")


def _span_of_costs(analysis: Analysis, variants: list[str]) -> str:
    """Return from which to which number of parameters the variants go, as factors of the baseline's."""
    rows = by_variant(analysis.variants)
    factors = sorted(f for v in variants if np.isfinite(f := float(rows[v]["parameters_ratio"])))
    if not factors:
        return "Not measured"
    low, high = (f"{factor:.2f}×" for factor in (factors[0], factors[-1]))
    return f"{low} parameters" if low == high else f"{low} to {high} parameters"


def _component(analysis: Analysis, variant: str, better: bool) -> str:
    """Return what helps in words of the settings: "block residual rather than plain" for a better variant that has it.

    A variant that is worse shows that what the baseline has instead helps: "skip concat rather than none".
    """
    described = (analysis.frames.run.get("variants") or {}).get(variant) or {}
    differs = described.get("differs") or {}
    if not differs or any(not isinstance(pair, list) or len(pair) != 2 for pair in differs.values()):
        return variant if better else f"{analysis.baseline} rather than {variant}"
    pairs = [(field, *(pair[::-1] if better else pair)) for field, pair in differs.items()]
    return ", ".join(f"{field} {has} rather than {lacks}" for field, has, lacks in pairs)


def _cost(analysis: Analysis, variant: str) -> str:
    row = by_variant(analysis.variants)[variant]
    parts = []
    if np.isfinite(row["parameters_ratio"]):
        parts.append(f"{row['parameters_ratio']:.2f}× parameters")
    speed = speed_text(analysis, variant)
    if speed.endswith("×"):
        parts.append(f"{speed} training speed")
    return ", ".join(parts)


def _primary(analysis: Analysis) -> pd.DataFrame:
    """Return the primary contrasts, without those of A/A controls."""
    primary = primary_contrasts(analysis)
    return primary[~primary["control"].astype(bool)]


def headline(analysis: Analysis, most: int = 4) -> str:
    """Return the finding in one sentence: every primary decision with number and interval, the decided ones first."""
    primary = _primary(analysis)
    if primary.empty:
        return f"{analysis.baseline} stands alone: there is no other variant to compare it with."
    ordered = primary.assign(_size=-primary["delta"].abs()).sort_values("_size", kind="stable")
    parts, room = [], most
    for decision, words in _CLAUSES.items():
        rows = ordered[ordered["decision"] == decision].head(room)
        room -= len(rows)
        if decision in ("better", "worse"):
            parts += [words.format(_sized(row)) for _, row in rows.iterrows()]
        elif len(rows):
            # What is not a difference is named once, for all of whom it is said.
            unit = "" if parts else " points of test mIoU"
            said = ", ".join(_signed(row, "" if place else unit) for place, (_, row) in enumerate(rows.iterrows()))
            parts.append(f"{words.format(percent(analysis.rope))}: {said}")
    if len(ordered) > most:
        parts.append(f"{len(ordered) - most} more variants below")
    seeds = count_of(range_of(primary["n"]), "seed")
    if (primary["decision"] == "undecided").all():
        # One list, after one colon.
        said = "; ".join(parts).replace("undecided: ", "", 1)
        return f"Against {analysis.baseline} nothing is decided: {said} – each at its own best rate, {seeds}."
    return f"Against {analysis.baseline}: {'; '.join(parts)} – each at its own best rate, {seeds}."


# How each decision is said, the strongest first.
_CLAUSES = {
    "better": "{0[0]} gains {0[1]} points of test mIoU{0[2]}",
    "worse": "{0[0]} loses {0[1]} points of test mIoU{0[2]}",
    "equivalent": "equivalent within ± {0} points",
    "undecided": "undecided",
}


def _interval(row: pd.Series) -> str:
    return f" {percent_interval(row['low'], row['high'])}".rstrip()


def _sized(row: pd.Series) -> tuple[str, str, str]:
    return str(row["variant"]), percent(abs(row["delta"])), _interval(row)


def _signed(row: pd.Series, unit: str) -> str:
    known = f" {percent(row['delta'], sign=True)}{unit}{_interval(row)}" if np.isfinite(row["delta"]) else ""
    return f"{row['variant']}{known}"
