"""A measured number together with why it is missing, where it is."""

from __future__ import annotations

import math
from typing import NamedTuple


class Measured(NamedTuple):
    """A number, or NaN and the reason for it.

    `reason` is None exactly where `value` is a number (infinity is one); it is one line of plain text otherwise.
    """

    value: float
    reason: str | None = None

    @property
    def known(self) -> bool:
        """Whether there is a number."""
        return self.reason is None


def unknown(reason: str) -> Measured:
    """A measure that the data are too few, or unfit, for."""
    return Measured(math.nan, reason)
