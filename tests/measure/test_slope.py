"""The slope of a series against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ablate.measure.slope import theil_sen_slope


def test_slope_equals_scipy():
    values = np.random.default_rng(0).standard_normal((6, 13))
    ours = theil_sen_slope(values)
    assert ours == pytest.approx([stats.theilslopes(row, np.arange(13)).slope for row in values])


def test_slope_of_a_very_long_line():
    assert theil_sen_slope(0.25 * np.arange(3001)) == pytest.approx(0.25)
