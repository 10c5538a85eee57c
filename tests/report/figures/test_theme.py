"""The looks of variants can be told apart, and the theme is a figure's own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from ablate.report.figures import theme
from ablate.report.figures.theme import COLORS, DARK_COLORS, PAPER, looks

# Machado, Oliveira and Fernandes (2009), full severity, on linear RGB.
BLINDNESS = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(color: str) -> np.ndarray:
    value = np.array(to_rgb(color))
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(rgb, 0, 1) / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_first_four_colours_differ_in_grey_by_lightness_alone() -> None:
    lightness = [lab(linear(color))[0] for color in COLORS[:4]]
    assert min(abs(a - b) for a, b in combinations(lightness, 2)) > 12


@pytest.mark.parametrize(
    ("kind", "count", "apart"), [("protanopia", 8, 18), ("deuteranopia", 8, 18), ("tritanopia", 6, 12)]
)
def test_first_colours_differ_for_the_colour_blind(kind: str, count: int, apart: float) -> None:
    seen = [lab(np.array(BLINDNESS[kind]) @ linear(color)) for color in COLORS[:count]]
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > apart


@pytest.mark.parametrize(("colors", "paper"), [(COLORS, PAPER), (DARK_COLORS, theme.DARK[PAPER])])
def test_every_colour_stands_out_from_its_paper(colors: Sequence[str], paper: str) -> None:
    def luminance(color: str) -> float:
        return float(np.array([0.2126, 0.7152, 0.0722]) @ linear(color))

    for color in colors:
        bright, dark = sorted((luminance(color), luminance(paper)), reverse=True)
        assert (bright + 0.05) / (dark + 0.05) > 1.6, color


def test_no_two_variants_look_alike_even_in_grey() -> None:
    drawn = looks([f"v{index}" for index in range(132)])
    assert len({(look.color, look.marker) for look in drawn.values()}) == 132
    first = list(drawn.values())[:12]
    assert len({(str(look.dash), look.marker) for look in first}) == 12


def test_theme_leaves_no_trace() -> None:
    before = dict(matplotlib.rcParams)
    with theme.theme():
        assert matplotlib.rcParams["axes.spines.top"] is False
    assert dict(matplotlib.rcParams) == before


def test_theme_does_not_listen_to_the_users_settings() -> None:
    with matplotlib.rc_context({"lines.linewidth": 9.0, "axes.facecolor": "pink", "xtick.top": True}), theme.theme():
        assert matplotlib.rcParams["xtick.top"] is False
        assert matplotlib.rcParams["lines.linewidth"] == 1.5


def test_a_letter_that_no_font_has_is_drawn_without_a_word(recwarn: pytest.WarningsRecorder) -> None:
    with theme.theme():
        figure = theme.canvas(2, 1)
        figure.text(0.1, 0.5, "\U00012000")
        figure.draw_without_rendering()
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


def test_mathematics_in_a_name_is_shown_as_text() -> None:
    assert theme.plain("$x^2$") == r"\$x^2\$"


@pytest.mark.fault(25, "obeyed by no figure, and its code is not run")
def test_a_matplotlibrc_in_the_working_folder_runs_nothing(tmp_path: Path) -> None:
    # The frames of a generator lead out of the evaluation that matplotlib before 3.11 gave this line to.
    frames = "f.gi_frame.f_back.f_back.f_back.f_back.f_builtins['open']('ran', 'w')"
    (tmp_path / "matplotlibrc").write_text(
        f"axes.prop_cycle : [[g.append(({frames} for f in g)), [i for i in g[0]]] for g in [[]]]\n"
    )
    command = [sys.executable, "-P", "-c", "import ablate.report.figures.theme"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "ran").exists()
