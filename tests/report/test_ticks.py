"""Kept ticks change nothing of a figure, and are worked out anew where a panel has moved."""

from __future__ import annotations

from matplotlib.figure import Figure

from ablate.report.draw import encode
from ablate.report.style import canvas
from ablate.report.ticks import remember_ticks


def drawn() -> Figure:
    figure = canvas(4, 3)
    for number, axes in enumerate(figure.subplots(2, 2).ravel()):
        axes.plot([0.001 * 10**number, 1], [1e6, 2e6 * (number + 1)])
        axes.set(title="a title", xlabel="x", ylabel="y", xscale="log" if number % 2 else "linear")
    return figure


def test_a_picture_is_the_same_with_kept_ticks():
    kept = drawn()
    remember_ticks(kept)
    assert encode(kept, ["png"]) == encode(drawn(), ["png"])


def test_a_range_that_changes_gives_other_ticks():
    figure = drawn()
    remember_ticks(figure)
    encode(figure, ["png"])
    axis = figure.axes[0].xaxis
    before = [tick.get_loc() for tick in axis._update_ticks()]
    assert [tick.get_loc() for tick in axis._update_ticks()] == before
    figure.axes[0].set_xlim(5, 6)
    after = [tick.get_loc() for tick in axis._update_ticks()]
    assert after and min(after) >= 5 and max(after) <= 6
