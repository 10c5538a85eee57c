"""The text of the page, section by section, before any HTML: headline, verdicts, findings, tables, figures, methods."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from ablate import __version__
from ablate.analysis.analyse import Analysis
from ablate.records.store import Results
from ablate.registry import FIGURES, TABLES, Displays
from ablate.report import rules
from ablate.report.figures.saving import FILE_ONLY, Drawn
from ablate.report.format import typeset
from ablate.report.gallery import gallery, panels
from ablate.report.lookup import NotDrawn, busy, has_intervals, only_one, primary_kind, progress
from ablate.report.tables.table import Table
from ablate.report.words import notes
from ablate.report.words.component_words import run_command
from ablate.report.words.findings import findings
from ablate.report.words.headline import cards, headline, subject
from ablate.report.words.methods import methods_paragraph
from ablate.report.words.verdict_rows import verdict_rows
from ablate.wording import count_of, listed

VERDICT_NOTE = (
    "Δ: difference from the baseline{interval}, each variant at the rate that did best on validation{alone}{fresh}. "
    "Grey: differences that count as none. {decided}{reach}"
    "Rise: 1 means that the training loss never rose. Training speed: relative to the baseline, measured alone{mark}."
)
INTERVAL_NOTE = (
    "The verdict follows p, which is corrected for the number of comparisons (Holm); the interval is not corrected, so "
    "it may exclude zero where nothing is decided. "
)
REACH_NOTE = (
    "Detectable: the difference that would have been found with a chance of 80 %. To decide: the seeds per "
    "variant that would decide the difference seen. "
)


class Page(SimpleNamespace):
    """Everything that the page says, as text; the template escapes all of it and fails on what is not there."""


def make_page(analysis: Analysis, tables: Sequence[Table], drawn: Sequence[Drawn]) -> Page:
    """Return the page, from the analysis, its tables and its figures."""
    frames = analysis.frames
    done, planned = progress(analysis)
    of_trials = f"{done} of {count_of(planned, 'trial')} {'has' if done == 1 else 'have'} a result"
    rows, scale = verdict_rows(analysis)
    try:
        tiles, no_panels, shown = panels(analysis), "", gallery(analysis)
        colours = map("#{:02x}{:02x}{:02x}".format, *shown.class_colours.T)
        legend = list(zip(shown.classes, colours, strict=True))
    except NotDrawn as reason:
        tiles, no_panels, legend = [], f"No predictions are shown: {reason}.", []
    # A page is passed on: a file of this folder is named from here, not from the root of somebody's disk.
    own = f"{frames.path}/"
    absent: dict[str, list[str]] = {}
    for one in drawn:
        if one.reason and one.section:
            absent.setdefault(one.reason, []).append(one.title)
    page = Page(
        version=__version__,
        study=frames.study.study,
        subject=subject(analysis),
        headline=headline(analysis),
        unfinished=f"{of_trials}{_without(analysis)}. Every number here may still change." if done < planned else "",
        cards=cards(analysis),
        verdicts=rows,
        verdict_note=VERDICT_NOTE.format(
            interval=" with its interval (dashed where undecided)" if has_intervals(analysis) else "",
            alone=only_one(analysis),
            decided=INTERVAL_NOTE if has_intervals(analysis) else "Without an interval nothing is decided. ",
            reach=REACH_NOTE if any(row.reach for row in rows) else "",
            fresh=", on fresh seeds" * (primary_kind(analysis) == "confirmed")
            + ", as many of the baseline's as of its own" * (len(analysis.looks) > 0),
            mark=" (*: no measure of cost, see above)" if busy(analysis) else "",
        ),
        verdict_rule=rules.primary(analysis),
        scale=scale,
        # Topic and sentence, by variant.
        findings={
            variant: [(topic, typeset(text)) for topic, text in sentences]
            for variant, sentences in findings(analysis).items()
        },
        notes=notes.notes(analysis),
        # By section, those that have rows; the figures that could be drawn, and of the others reason and titles.
        tables=_by_section(TABLES, [table for table in tables if len(table.frame)]),
        figures=_by_section(FIGURES, [one for one in drawn if one.shown]),
        absent=list(absent.items()),
        # The file with the panels of all variants side by side, "" where none was written.
        sheet=next((path.name for one in drawn if one.name == FILE_ONLY for path in one.files[:1]), ""),
        panels=tiles,
        no_panels=no_panels,
        legend=legend,
        methods=typeset(methods_paragraph(analysis)),
        rules=[
            (name.replace("_", " "), typeset(text.replace(own, ""))) for name, text in rules.all_rules(analysis).items()
        ],
        command=run_command(analysis),
        fixed=_same_numbers(analysis),
        study_file=Results(frames.path).study.name,
        provenance=provenance(frames.run),
    )
    sections = {
        "limits": page.notes and "Limits",
        "verdicts": "Verdicts",
        "consolidated": page.figures["consolidated"] and "Figure",
        "panels": "Predictions",
        "claims": page.tables["claims"] and "Claims",
        "reproduce": "Run it again",
        "supplement": "Supplement",
        "words": page.findings and "In words",
        "tables": "All tables",
        "figures": "More figures",
        "failures": "Failures",
        "methods": "Methods",
        "provenance": "Provenance",
    }
    page.contents = [(name, title) for name, title in sections.items() if title]
    return page


def _without(analysis: Analysis) -> str:
    """Return which trials have no result: "; 2 of unet and 2 of noskip have none"."""
    trials = analysis.frames.trials
    waiting = trials.loc[trials["status"].isin(["missing", "failed"]), "variant"].value_counts(sort=False)
    said = listed(f"{count} of {variant}" for variant, count in waiting.items())
    return f"; {said} {'has' if waiting.sum() == 1 else 'have'} none"


def _same_numbers(analysis: Analysis) -> str:
    """Return what to add to the command for the same numbers: what the study leaves to the machine, as decided here."""
    study, decisions = analysis.frames.study, analysis.frames.run.get("decisions") or {}
    said = []
    for part, name in (("train", "precision"), ("run", "engine"), ("run", "workers"), ("run", "threads")):
        decision = decisions.get(name)
        left_open = getattr(getattr(study, part), name) == "auto"
        if left_open and isinstance(decision, dict) and decision.get("value") is not None:
            said.append(f"-o {part}.{name}={_flat(decision['value'])}")
    return " ".join(said)


def _by_section(registry: Displays, parts: Sequence[Any]) -> dict[str, list[Any]]:
    return {section: [part for part in parts if part.section == section] for section in registry.sections}


def provenance(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what is known of how the records came about, as name and value."""
    rows: list[tuple[str, str]] = []
    data = run.get("data") or {}
    splits = data.get("splits") or {}
    if splits:
        rows.append(("Images", ", ".join(f"{name} {count}" for name, count in splits.items())))
    if data.get("fingerprint"):
        rows.append(("Data fingerprint (SHA-256)", str(data["fingerprint"])))
    rows += [(f"Version of {name}", str(version)) for name, version in sorted((run.get("versions") or {}).items())]
    for title, key in (("Device", "device"), ("Code", "git")):
        if run.get(key):
            rows.append((title, _flat(run[key])))
    for plugin in run.get("plugins") or []:
        rows.append(("Plugin", _flat(plugin)))
    for name, decision in sorted((run.get("decisions") or {}).items()):
        rows.append((f"Decided: {name.replace('_', ' ')}", _decision(decision)))
    return rows


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flat(inner)}" for key, inner in value.items())
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _decision(decision: dict[str, Any]) -> str:
    why = decision.get("why")
    return f"{_flat(decision.get('value'))}{f' ({why})' if why else ''}"
