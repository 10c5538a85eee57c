"""The page: one self-contained HTML file that asks nothing of anybody, under a policy that allows nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from markupsafe import Markup

from ablate.report.answers import Card
from ablate.report.grid import Grid
from ablate.report.style import COLORS, DARK_COLORS
from ablate.report.templates import asset, templates
from ablate.report.tiles import Panel
from ablate.report.verdicts import Row, Scale

# Seconds after which the page of a running study loads itself anew.
RELOAD_EVERY = 20


@dataclass(frozen=True)
class Drawing:
    """A figure as the page shows it."""

    name: str
    title: str
    rule: str
    source: str
    width: int
    height: int


@dataclass(frozen=True)
class ClassColour:
    """An entry of the legend of the classes."""

    name: str
    colour: str


@dataclass(frozen=True)
class Findings:
    """What is said of one variant: topic and sentence."""

    variant: str
    sentences: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Page:
    """Everything that the page says, as text; the template escapes all of it."""

    study: str
    subject: str
    headline: str
    unfinished: str
    cards: Sequence[Card]
    verdicts: Sequence[Row]
    verdict_note: str
    verdict_rule: str
    scale: Scale
    findings: Sequence[Findings]
    notes: Sequence[str]
    claims: Grid | None
    consolidated: Drawing | None
    tables: Sequence[Grid]
    figures: Sequence[Drawing]
    absent: Sequence[tuple[str, str]]
    panels: Sequence[Panel]
    sheets: Sequence[Drawing]
    legend: Sequence[ClassColour]
    no_panels: str
    failures: Grid | None
    methods: Sequence[str]
    rules: Sequence[tuple[str, str]]
    command: str
    provenance: Sequence[tuple[str, str]]
    version: str

    @property
    def contents(self) -> list[tuple[str, str]]:
        """The sections, for the way to them."""
        return [
            ("verdicts", "Verdicts"),
            *([("consolidated", "One figure")] if self.consolidated else []),
            *([("claims", "Claims")] if self.claims else []),
            *([("words", "In words")] if self.findings else []),
            ("tables", "Tables"),
            ("figures", "Figures"),
            ("panels", "Predictions"),
            ("failures", "Failures"),
            ("methods", "Methods"),
            ("provenance", "Provenance"),
        ]


def render(page: Page, *, reload: bool = False) -> str:
    """The HTML of the page; with `reload` it asks the browser to load it anew now and then, while a study runs."""
    style, script = style_sheet(), asset("page.js")
    template = templates().get_template("page.html.j2")
    return template.render(
        page=page,
        reload=RELOAD_EVERY if reload and page.unfinished else 0,
        # Ours alone, and hashed: nothing of a study ever enters them.
        style=Markup(style),
        script=Markup(script),
        policy=policy(style, script),
    )


def typeset(text: str) -> str:
    """A sentence with minus signs before negative numbers and a narrow space before every sign of per cent."""
    return re.sub(r"(?<=\d) ?%", "\u202f%", re.sub(r"(?<![\w.)])-(?=\d)", "−", text))


def policy(style: str, script: str) -> str:
    """Content security policy: this style, this script, pictures within the file, and nothing else whatever."""
    return (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@cache
def style_sheet() -> str:
    """The page's style with the variants' colours, light and dark."""

    def rules(colours: Sequence[str]) -> str:
        return "".join(f".s{i}{{stroke:{c}}}.f{i}{{fill:{c}}}" for i, c in enumerate(colours))

    dark = f"@media screen and (prefers-color-scheme: dark){{{rules(DARK_COLORS)}}}"
    return f"\n{asset('page.css')}{rules(COLORS)}\n{dark}\n"


def provenance(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is known of how the records came about, as name and value."""
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


def _decision(decision: Any) -> str:
    if isinstance(decision, dict) and "value" in decision:
        why = decision.get("why")
        return f"{_flat(decision['value'])}{f' ({why})' if why else ''}"
    return _flat(decision)
