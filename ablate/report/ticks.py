"""Ticks worked out once for each place of a panel: matplotlib works them out some ten times a drawing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from matplotlib.axis import Axis
from matplotlib.figure import Figure

# What is asked again and again, in the layout and in each format. The names are matplotlib's own and not public: one
# that is gone costs time and changes nothing.
_TICKS, _BOXES, _TITLE = "_update_ticks", "_get_ticklabel_bboxes", "_update_title_position"


def remember_ticks(figure: Figure) -> None:
    """Let the axes of a finished figure keep their ticks for as long as nothing moves that they depend on.

    That is the panel's place in inches and the range of the axis; for the labels' boxes the resolution and the
    renderer, too. To be called when everything is drawn into the figure: a locator or formatter that is exchanged
    afterwards would not be seen.
    """
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            for name, kept in ((_TICKS, _kept_ticks), (_BOXES, _kept_boxes)):
                if hasattr(axis, name):
                    setattr(axis, name, kept(axis, getattr(axis, name)))


def settle_titles(figure: Figure) -> None:
    """Leave the titles of a figure that has been drawn where they are: their place is a share of their panel's."""
    for axes in figure.axes:
        if hasattr(axes, _TITLE):
            setattr(axes, _TITLE, lambda renderer: None)


def _place(axis: Axis) -> tuple[Any, ...]:
    inch = axis.axes.get_figure(root=True).dpi  # type: ignore[union-attr]
    return (*(round(value / inch, 5) for value in axis.axes.bbox.bounds), *axis.get_view_interval())


def _kept_ticks(axis: Axis, work_out: Callable[[], list[Any]]) -> Callable[[], list[Any]]:
    at: tuple[Any, ...] = ()
    ticks: list[Any] = []

    def kept() -> list[Any]:
        nonlocal at, ticks
        place = _place(axis)
        if place != at:
            ticks = work_out()
            # Afterwards: a locator may widen the range.
            at = _place(axis)
        return ticks

    return kept


def _kept_boxes(axis: Axis, work_out: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    at: tuple[Any, ...] = ()
    seen: Any = None
    boxes: Any = None

    def kept(ticks: Any, renderer: Any) -> Any:
        nonlocal at, seen, boxes
        place = (*axis.axes.bbox.bounds, *axis.get_view_interval(), *map(id, ticks))
        if place != at or renderer is not seen:
            boxes = work_out(ticks, renderer)
            at, seen = place, renderer
        return boxes

    return kept
