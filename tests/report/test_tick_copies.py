"""Copied ticks look as those that matplotlib builds one by one, and matplotlib is left as it was."""

from __future__ import annotations

import matplotlib
import pytest
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.spines import Spine

from ablate.report import texts
from ablate.report.draw import encode
from ablate.report.style import canvas, theme
from ablate.report.tick_copies import copied_ticks

TOUCHED = (
    *((Axis, name) for name in ("get_major_ticks", "get_minor_ticks", "_get_tick", "set_clip_path", "set_tick_params")),
    (Spine, "get_window_extent"),
)
of_this_release = pytest.mark.skipif(matplotlib.__version_info__[:2] != texts.KNOWN, reason="another matplotlib")


def figure() -> Figure:
    """Shared axes, minor ticks, ticks changed together and one by one, a scale of colours."""
    made = canvas(6, 4)
    grid = made.subplots(2, 3, sharex="col", sharey="row")
    for number, axes in enumerate(grid.ravel()):
        axes.plot([0.01, 1 + number], [1e-3, 1])
        axes.set(title="title", xlabel="x", ylabel="y", yscale="log" if number < 3 else "linear")
    grid[0][0].tick_params(axis="x", which="both", rotation=30, labelsize=5, direction="in")
    grid[1][0].set_xticks([0.1, 0.5, 0.9], ["a", "b", "c"], color="#d1442f", weight="bold")
    grid[1][1].minorticks_on()
    grid[1][1].grid(which="minor", color="#3fa0d8")
    grid[1][2].set_yticks([])
    grid[0][2].yaxis.get_major_ticks()[1].label1.set(color="#77318c", size=12)
    grid[0][2].xaxis.tick_top()
    made.colorbar(grid[0][1].scatter([1], [1], c=[1]), ax=grid[0][1])
    return made


def test_pictures_are_equal() -> None:
    with theme():
        built = encode(figure(), ["png", "svg"])
        with copied_ticks():
            copied = encode(figure(), ["png", "svg"])
    assert copied["png"] == built["png"]


@of_this_release
def test_ticks_are_made_for_axes_that_show_some_only() -> None:
    with copied_ticks(), theme():
        axes = canvas(3, 2).subplots()
        axes.tick_params(which="both", length=2)
        assert not {"majorTicks", "minorTicks"} & {*vars(axes.xaxis)}
        first, second = axes.xaxis.get_major_ticks(2)
        second.label1.set_color("#d1442f")
        second.label1.set_fontsize(30)
        assert first.label1.get_color() != "#d1442f" and first.label1.get_fontsize() != 30
        assert first.tick1line.get_markersize() == second.tick1line.get_markersize() == 2
        assert second.gridline.get_clip_box() is not None


@of_this_release
def test_matplotlib_is_as_before_afterwards() -> None:
    before = [getattr(owner, name) for owner, name in TOUCHED]
    with pytest.raises(KeyError), copied_ticks():
        assert all(getattr(owner, name) is not was for (owner, name), was in zip(TOUCHED, before, strict=True))
        raise KeyError
    assert [getattr(owner, name) for owner, name in TOUCHED] == before
