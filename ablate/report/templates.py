"""The templates of the page, from the files beside this module; everything that they are given is escaped."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from ablate.wording import count_of


@cache
def templates() -> Environment:
    """The templates by the names of their files."""
    environment = Environment(
        loader=FunctionLoader(asset),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {"whole": whole, "count_of": count_of}
    return environment


@cache
def asset(name: str) -> str:
    """The text of a file of the page."""
    return (files("ablate.report") / "assets" / name).read_text(encoding="utf-8")


def whole(text: str) -> Markup:
    """Escaped text in which no line ends within a number such as 1e-3 or within an interval."""
    return Markup(_PARTED.sub(r'<span class="nb">\g<0></span>', str(escape(text))))


# A number with a hyphen, with the key that it belongs to (lr=1e-3), and an interval.
_PARTED = re.compile(r"(?<![^\s(])(?:\w+=)?\d[\d.]*e-\d+(?![\w-])|\[[−+]?[\d.]+, [−+]?[\d.]+\]")
