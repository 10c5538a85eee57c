"""What all tables share: the order of their rows, columns for the axes of the grid, the rule of a frame."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ablate.analysis.analyse import Analysis
from ablate.report.figures.common import order
from ablate.report.render import Column


def in_order(frame: pd.DataFrame, analysis: Analysis) -> pd.DataFrame:
    """The rows in the order of the variants, otherwise as they are, numbered anew."""
    if frame.empty:
        return frame
    place = {variant: rank for rank, variant in enumerate(order(analysis))}
    rank = frame["variant"].map(place).fillna(len(place))
    return frame.iloc[np.argsort(rank.to_numpy(), kind="stable")].reset_index(drop=True)


def axis_columns(analysis: Analysis) -> list[Column]:
    return [Column(axis, axis, "rate" if axis == "lr" else "text") for axis in analysis.frames.axes]


def present(columns: list[Column], frame: pd.DataFrame) -> tuple[Column, ...]:
    """The columns that the frame has; an axis with values that are no numbers is text."""
    return tuple(column for column in columns if column.key in frame.columns)


def rule_of(analysis: Analysis, name: str, frame: pd.DataFrame, fallback: str = "") -> str:
    """The sentence that the analysis gives for a frame."""
    if len(frame) and "rule" in frame.columns and isinstance(frame["rule"].iloc[0], str):
        return str(frame["rule"].iloc[0])
    return analysis.rules.get(name) or analysis.rules.get(fallback, "")
