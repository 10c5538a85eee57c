"""The page as HTML: one self-contained file that asks nothing of anybody, under a policy that allows nothing else.

Templates, style and script are the files in `assets`; everything that a template is given is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from ablate.report.figures.theme import COLORS, DARK_COLORS, DASHES, looks
from ablate.report.page.document import Page
from ablate.report.tables.table import Table, cells
from ablate.wording import count_of

# Seconds after which the page of a running study loads itself anew.
RELOAD_EVERY = 20
# A rule of more letters is folded up.
LONGEST_RULE = 280
# Rows of one table on the page; the files have all of them.
MOST_ROWS = 1500
# The kind of badge for a word of a table.
_BADGES = {
    **dict.fromkeys(("better", "supported", "gained"), "good"),
    **dict.fromkeys(("worse", "refuted", "diverged", "failed", "lost"), "bad"),
    **dict.fromkeys(("equivalent", "baseline", "complete", "converged"), "even"),
    **dict.fromkeys(
        ("undecided", "untrained", "futile", "open", "inconclusive", "pruned", "missing", "under-converged"), "open"
    ),
}
# A number with a hyphen, with the key that it belongs to (lr=1e-3), an interval, an option, and a percentage.
_PARTED = re.compile(r"(?<![^\s(])(?:\w+=)?\d[\d.]*e-\d+(?![\w-])|\[[−+]?[\d.]+, [−+]?[\d.]+\]|-o [\w.]+=\S+|[\d.]+ %")


def render(page: Page, *, reload: bool = False) -> str:
    """Return the HTML of the page; with `reload` it asks the browser to load it anew while a study runs."""
    style, script = style_sheet(), asset("page.js")
    return (
        _templates()
        .get_template("page.html.j2")
        .render(
            page=page,
            looks=variant_looks([row.variant for row in page.verdicts]),
            reload=RELOAD_EVERY if reload and page.unfinished else 0,
            # Ours alone, and hashed: nothing of a study ever enters them.
            style=Markup(style),
            script=Markup(script),
            policy=policy(style, script),
        )
    )


def policy(style: str, script: str) -> str:
    """Return the content security policy: this style, this script, images within the file, and nothing else."""
    return (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@cache
def style_sheet() -> str:
    """Return the page's style with the variants' colours, light and dark."""

    def rules(colours: Sequence[str]) -> str:
        return "".join(f".s{i}{{stroke:{c}}}.f{i}{{fill:{c}}}" for i, c in enumerate(colours))

    dark = f"@media screen and (prefers-color-scheme: dark){{{rules(DARK_COLORS)}}}"
    return f"\n{asset('page.css')}{rules(COLORS)}\n{dark}\n"


def variant_looks(variants: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return each variant's classes of the style sheet, `stroke` and `fill`, and its `dashes`, as in the figures."""
    found = {}
    for variant, look in looks(variants).items():
        place = COLORS.index(look.color)
        dashes = "" if look.dash == DASHES[0] else " ".join(f"{2 * length:g}" for length in look.dash[1])
        found[variant] = {"stroke": f"s{place}", "fill": f"f{place}", "dashes": dashes}
    return found


@cache
def _templates() -> Environment:
    """Return the templates by the names of their files."""
    environment = Environment(
        loader=FunctionLoader(asset),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {"whole": whole, "count_of": count_of, "badge_kind": badge_kind, "grid": grid}
    return environment


@cache
def asset(name: str) -> str:
    """Return the text of a file of the page."""
    return (files("ablate.report.page") / "assets" / name).read_text(encoding="utf-8")


def whole(text: str) -> Markup:
    """Return escaped text in which no line ends within a number such as 1e-3 or within an interval."""
    return Markup(_PARTED.sub(r'<span class="nb">\g<0></span>', str(escape(text))))


def badge_kind(word: str) -> str:
    """Return the kind of badge for a word, by its first part: "better (lr-confounded)" is good; "" for other words."""
    return _BADGES.get(word.split(" (")[0], "")


def grid(table: Table) -> Markup:
    """Return a table for the page: at most `MOST_ROWS` rows, words as badges, the best in bold, all text escaped."""
    short = Table(table.frame.head(MOST_ROWS), table.columns, bold_of=table.bold_of)
    rows = cells(short)
    template = _templates().get_template("grid.html.j2")
    return Markup(template.render(table=table, rows=rows, left_out=len(table.frame) - len(rows), longest=LONGEST_RULE))
