"""A picture of many tiles in a figure, scaled as what it is: bytes, each pixel the nearest of the tiles'."""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.transforms import IdentityTransform
from PIL import Image


class Sheet(AxesImage):
    """An image uint8 (H, W, 3) that fills its axes.

    matplotlib scales every image as floats with opacity, premultiplied and divided again: for opaque bytes that makes
    no difference but takes half of the time of a panel. Formats that keep the pixels themselves (SVG, PDF) get them.
    """

    def draw(self, renderer: Any) -> None:
        """See matplotlib; on a `Tape` as what it is, for every format scales it in its own way or not at all."""
        on_tape = getattr(renderer, "draw_artist", None)
        if on_tape is None:
            super().draw(renderer)
        else:
            on_tape(self)

    def make_image(self, renderer: Any, magnification: float = 1.0, unsampled: bool = False) -> Any:
        """See matplotlib: the pixels (h, w, 4) from the lowest row up, their lower left corner, their transform."""
        if unsampled:
            return super().make_image(renderer, magnification, unsampled)
        box = self.get_window_extent(renderer)
        size = max(1, ceil(box.width * magnification)), max(1, ceil(box.height * magnification))
        scaled = Image.fromarray(np.asarray(self.get_array())).resize(size, Image.Resampling.NEAREST).convert("RGBA")
        return np.asarray(scaled)[::-1].copy(), box.x0, box.y0, IdentityTransform()


def show_sheet(axes: Axes, sheet: np.ndarray) -> None:
    """Fill the axes with an image uint8 (H, W, 3)."""
    picture = Sheet(axes, interpolation="none", origin="upper", resample=False)
    picture.set_data(sheet)
    picture.set_extent((-0.5, sheet.shape[1] - 0.5, sheet.shape[0] - 0.5, -0.5))
    picture.set_clip_path(axes.patch)
    axes.add_image(picture)
