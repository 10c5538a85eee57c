"""A number and the reason for its absence never come together, nor both lack."""

from __future__ import annotations

import math

from ablate.measure.measured import Measured, unknown


def test_a_number_needs_no_reason_and_a_reason_has_no_number():
    assert Measured(math.inf).known
    missing = unknown("too short")
    assert not missing.known
    assert math.isnan(missing.value)
    assert missing.reason == "too short"
