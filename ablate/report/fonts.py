"""The font of the figures, made quick to embed."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import matplotlib
from fontTools.ttLib import TTFont
from matplotlib import font_manager

FAMILY = "DejaVu Sans"  # comes with matplotlib: the same figure on every machine
# Tables for ligatures, positioning and mathematics: labels need none of them, and cutting a font down to the letters
# of one figure takes four times as long with them.
_LAYOUT_TABLES = ("GSUB", "GPOS", "GDEF", "MATH", "FFTM")
_FILES = {"DejaVuSans.ttf": 400, "DejaVuSans-Bold.ttf": 700}


@contextlib.contextmanager
def quick_font() -> Iterator[str]:
    """A family that looks as DejaVu Sans and is embedded quickly, known to matplotlib inside the context only."""
    family = f"{FAMILY} for figures"
    source = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    with tempfile.TemporaryDirectory(prefix="ablate-fonts-") as folder:
        entries = []
        for name, weight in _FILES.items():
            with TTFont(source / name, lazy=True) as font:
                for table in _LAYOUT_TABLES:
                    if table in font:
                        del font[table]
                font.save(Path(folder) / name, reorderTables=None)
            entries.append(font_manager.FontEntry(fname=str(Path(folder) / name), name=family, weight=weight))
        known = font_manager.fontManager.ttflist
        known.extend(entries)
        try:
            yield family
        finally:
            for entry in entries:
                known.remove(entry)
