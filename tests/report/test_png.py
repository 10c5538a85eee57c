"""The encoder of drawings gives the pixels back, and no large file."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from ablate.report.png import png


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (40, 61)])
def test_pixels_come_back(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 4), dtype=np.uint8)
    with Image.open(io.BytesIO(png(pixels, 200))) as read:
        read.load()
        assert (read.format, read.mode, read.size) == ("PNG", "RGB", shape[::-1])
        assert np.allclose(read.info["dpi"], 200, atol=0.01)
        assert np.array_equal(np.asarray(read), pixels[..., :3])


def test_white_takes_no_room() -> None:
    pixels = np.full((1000, 1400, 4), 255, np.uint8)
    pixels[:, 200:210] = 0
    assert len(png(pixels, 200)) < pixels.size / 200
