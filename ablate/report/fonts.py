"""The font of the figures, made quick to embed."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
from fontTools import subset
from fontTools.ttLib import TTFont
from matplotlib import font_manager

from ablate.report.texts import remembered_texts
from ablate.report.tick_copies import copied_ticks

FAMILY = "DejaVu Sans"  # comes with matplotlib: the same figure on every machine
# Tables for ligatures, positioning and mathematics: labels need none of them.
_LAYOUT_TABLES = ("GSUB", "GPOS", "GDEF", "MATH", "FFTM")
_FILES = {"DejaVuSans.ttf": 400, "DejaVuSans-Bold.ttf": 700}
# What labels are made of nearly always: Latin, Greek, punctuation, letter-like signs, arrows, operators, shapes.
_LETTERS = (
    (0x20, 0x180), (0x370, 0x400), (0x2010, 0x2040), (0x2070, 0x20A0), (0x2100, 0x2270), (0x25A0, 0x2600)
)  # fmt: skip

_SEARCH = "_find_fonts_by_props"
_TIME = "SOURCE_DATE_EPOCH"

# Fonts that systems have for the letters of names that DejaVu Sans has not: Chinese, Japanese, Korean, Indic, Thai.
_FURTHER = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "Noto Sans JP",
    "WenQuanYi Micro Hei",
    "IPAexGothic",
    "Hiragino Sans",
    "PingFang SC",
    "Apple SD Gothic Neo",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "Nirmala UI",
    "Leelawadee UI",
)


@cache
def further_families() -> tuple[str, ...]:
    """Those of the fonts for other scripts that are installed, for the letters that DejaVu Sans has not."""
    known = {entry.name for entry in font_manager.fontManager.ttflist}
    return tuple(name for name in _FURTHER if name in known)


@contextlib.contextmanager
def quick_font() -> Iterator[str]:
    """A family that looks as DejaVu Sans and is embedded quickly, known to matplotlib inside the context only.

    Every figure cuts its font down to its own letters; cutting from a few hundred takes a tenth of the time that
    cutting from six thousand takes. A letter that is not among them comes from DejaVu Sans itself, behind it in
    `theme`'s list of families.
    """
    source = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    with _timeless(), tempfile.TemporaryDirectory(prefix="ablate-fonts-") as folder:
        # A name of its own: matplotlib remembers for good in which file it found a family.
        family = f"{FAMILY} in {Path(folder).name}"
        entries = []
        for name, weight in _FILES.items():
            with TTFont(source / name, lazy=True, recalcBBoxes=False) as font:
                options = subset.Options(layout_features=[], name_IDs=["*"], notdef_outline=True, glyph_names=True)
                options.drop_tables += _LAYOUT_TABLES
                subsetter = subset.Subsetter(options)
                subsetter.populate(unicodes=[code for first, end in _LETTERS for code in range(first, end)])
                subsetter.subset(font)
                font.save(Path(folder) / name, reorderTables=None)
            entries.append(font_manager.FontEntry(fname=str(Path(folder) / name), name=family, weight=weight))
        known = font_manager.fontManager.ttflist
        known.extend(entries)
        try:
            with _remembered_files(), remembered_texts(), copied_ticks():
                yield family
        finally:
            for entry in entries:
                known.remove(entry)


@contextlib.contextmanager
def _timeless() -> Iterator[None]:
    """Keep the time out of embedded fonts, which fontTools writes into each: equal figures are equal bytes.

    The variable is that of reproducible-builds.org; what the user has set stays.
    """
    if _TIME in os.environ:
        yield
        return
    os.environ[_TIME] = "0"
    try:
        yield
    finally:
        del os.environ[_TIME]


@contextlib.contextmanager
def _remembered_files() -> Iterator[None]:
    """Let matplotlib look up each list of families once: it does so anew for every text, several times a drawing.

    The name is matplotlib's own and not public: where it is gone this costs time and changes nothing.
    """
    manager = font_manager.fontManager
    search = getattr(manager, _SEARCH, None)
    if search is None:
        yield
        return
    found: dict[Any, Any] = {}

    def remembered(prop: Any, *args: Any, **options: Any) -> Any:
        if args or options or not isinstance(prop, font_manager.FontProperties):
            return search(prop, *args, **options)
        if prop not in found:
            # A copy: the text that asks may change its own.
            found[prop.copy()] = search(prop)
        return list(found[prop])

    setattr(manager, _SEARCH, remembered)
    try:
        yield
    finally:
        delattr(manager, _SEARCH)
