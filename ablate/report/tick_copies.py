"""Ticks made only where one is drawn, the second and all further ones of an axis as copies of its first.

matplotlib makes two ticks for every axis before it knows whether it shows any, and builds each further one from nothing
(three lines and two texts) to give it the first one's properties afterwards: a fifth of the time of a figure of many
panels. The names used here are private and those of one release; with any other nothing is done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axis import Axis, Tick, XTick, YTick
from matplotlib.spines import Spine

from ablate.report.texts import KNOWN

_LISTS = ("majorTicks", "minorTicks")
_PARTS = ("tick1line", "tick2line", "gridline", "label1", "label2")


@contextlib.contextmanager
def copied_ticks() -> Iterator[None]:
    """Inside, axes make their ticks late and copy them. For one thread only."""
    if matplotlib.__version_info__[:2] != KNOWN:
        yield
        return
    with contextlib.ExitStack() as undone:
        for owner, name, replaced in (
            (Axis, "get_major_ticks", lambda made: _copied(made, "majorTicks", "get_majorticklocs")),
            (Axis, "get_minor_ticks", lambda made: _copied(made, "minorTicks", "get_minorticklocs")),
            (Axis, "_get_tick", _clipped),
            (Axis, "set_clip_path", lambda done: _unmade(_noted(done), lambda axis: axis)),
            (Axis, "set_tick_params", lambda done: _unmade(done, lambda axis: axis)),
            (Spine, "get_window_extent", lambda done: _unmade(done, lambda spine: spine.axis)),
        ):
            original = getattr(owner, name)
            undone.callback(setattr, owner, name, original)
            setattr(owner, name, replaced(original))
        yield


def _copied(make: Callable[..., list[Tick]], name: str, places: str) -> Callable[..., list[Tick]]:
    """The axis' ticks, of which those that it has not are copies of the first."""

    @wraps(make)
    def ticks(axis: Axis, numticks: int | None = None) -> list[Tick]:
        if axis._tick_class not in (XTick, YTick):  # type: ignore[attr-defined]
            return make(axis, numticks)
        if numticks is None:
            numticks = len(getattr(axis, places)())
        made: list[Tick] = getattr(axis, name)
        made.extend(_copy(made[0]) for _ in range(len(made), numticks))
        return made[:numticks]

    return ticks


def _copy(tick: Tick) -> Tick:
    """A tick equal to the other whose parts are its own: whoever changes one exchanges what it holds."""
    made = _alike(tick)
    for part in _PARTS:
        setattr(made, part, _alike(getattr(tick, part)))
    for label in (made.label1, made.label2):
        # The one thing in a part that is changed where it is.
        label.set_fontproperties(label.get_fontproperties())
    return made


def _alike(artist: Any) -> Any:
    made = object.__new__(type(artist))
    made.__dict__.update(artist.__dict__)
    return made


def _clipped(make: Callable[[Axis, bool], Tick]) -> Callable[[Axis, bool], Tick]:
    """A tick made late is clipped as the axis was told to clip those it had."""

    @wraps(make)
    def tick(axis: Axis, major: bool) -> Tick:
        made = make(axis, major)
        if hasattr(axis, "_clipped_to"):
            made.set_clip_path(*axis._clipped_to)
        return made

    return tick


def _noted(clip: Callable[..., None]) -> Callable[..., None]:
    """Clips the axis, which keeps what to."""

    @wraps(clip)
    def noted(axis: Any, path: Any, transform: Any = None) -> None:
        axis._clipped_to = path, transform
        clip(axis, path, transform)

    return noted


def _unmade(do: Callable[..., Any], axis_of: Callable[[Any], Axis | None]) -> Callable[..., Any]:
    """A method that goes through the ticks of an axis, without those that would be made for it to go through."""

    @wraps(do)
    def done(artist: Artist, *args: Any, **options: Any) -> Any:
        axis = axis_of(artist)
        own = {} if axis is None else vars(axis)
        late = [name for name in _LISTS if name not in own]
        own.update((name, []) for name in late)
        try:
            return do(artist, *args, **options)
        finally:
            for name in late:
                own.pop(name, None)

    return done
