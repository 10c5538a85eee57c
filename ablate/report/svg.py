"""Figures inside the page: one SVG that follows the reader's light or dark scheme, as a data URI."""

from __future__ import annotations

import base64
import re
from functools import cache

from ablate.report.style import DARK

_MARK = re.compile(rb"<defs>", re.ASCII)
_META = re.compile(rb"\s*<metadata>.*?</metadata>", re.DOTALL)


@cache
def dark_rules() -> bytes:
    """CSS that exchanges the figures' inks where the page is dark.

    matplotlib writes colours into style attributes; rules with attribute selectors reach them. A colour map's own
    colours and the numbers on it are no inks and stay.
    """
    lines = []
    for light, dark in DARK.items():
        for part in ("fill", "stroke"):
            lines.append(f'[style*="{part}: {light}"]{{{part}:{dark}!important}}')
    return ("<style>@media screen and (prefers-color-scheme: dark){" + "".join(lines) + "}</style>").encode()


def adaptive(svg: bytes) -> bytes:
    """The SVG without its metadata and with `dark_rules`."""
    return _MARK.sub(lambda match: dark_rules() + match.group(), _META.sub(b"", svg), count=1)


def data_uri(data: bytes, kind: str) -> str:
    """Bytes as a data URI of a media type such as image/svg+xml."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
