"""The description of a column and of a frame of the analysis, and the columns that mean the same in all frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import pandas as pd

from ablate.registry import MEASURES

Kind = Literal["text", "flag", "count", "number", "any"]


@dataclass(frozen=True)
class Column:
    """A column: its kind, what it holds, and its unit ("" for a fraction or a plain number).

    Kinds are text, flag (bool), count (int), number (float), and any (such as a level: number, text or tuple).
    """

    kind: Kind
    about: str
    unit: str = ""


@dataclass(frozen=True)
class Frame:
    """A frame: what one row is, and its columns.

    `named` holds columns by name, or by several names that mean alike ("low high"); `shared` names columns of
    `SHARED`. With `axes` there is a column for every axis of the grid besides ("lr" always), with `measures` one for
    every registered measure, and with `metrics` one for every other metric of the records.
    """

    row: str
    shared: str
    named: Mapping[str, Column]
    axes: bool = False
    measures: bool = False
    metrics: bool = False

    def columns(self, axes: Sequence[str] = ("lr",)) -> dict[str, Column]:
        """Return every column that the frame has for a study with these axes, by its name."""
        found = {name: SHARED[name] for name in self.shared.split()}
        found |= {name: column for names, column in self.named.items() for name in names.split()}
        if self.axes:
            found |= {axis: Column("any", "level of this axis of the grid") for axis in axes}
        if self.measures:
            found |= {name: Column("number", one.title, one.unit) for name, one in MEASURES.items()}
        return found

    def filled(self, rows: Sequence[Mapping[str, Any]], axes: Sequence[str] = ("lr",)) -> pd.DataFrame:
        """Return rows as this frame; where there is none it has its columns all the same."""
        if rows:
            return pd.DataFrame(rows)
        columns = self.columns(axes)
        flags = [name for name, column in columns.items() if column.kind == "flag"]
        return pd.DataFrame(columns=list(columns)).astype(dict.fromkeys(flags, bool))


text, flag = partial(Column, "text"), partial(Column, "flag")
count, number = partial(Column, "count"), partial(Column, "number")

# Columns that mean the same wherever they stand.
SHARED: Mapping[str, Column] = {
    "variant": text("the variant"),
    "against": text("what the variant is compared with: the baseline, or for a control what it copies"),
    "setting": text("the setting, a key of `Frames.settings`"),
    "key": text("key of the trial"),
    "seed": count("seed of the trial"),
    "split": text('"val" or "test"'),
    "class": text("name of the class"),
    "measure": text("name of the measure"),
    "kind": text('way about the settings: "own_best", "shared", "matched" or "confirmed"'),
    "control": flag("whether the variant is an A/A copy"),
    "low": number("lower end of the interval"),
    "high": number("upper end of the interval"),
    "delta": number("`variant` minus `against`"),
    "left": number("score of `variant`, mean over seeds"),
    "right": number("score of `against`, mean over seeds"),
    "n": count("seeds with a result, of the smaller side", "seeds"),
    "reason": text("why a number could not be had"),
    "blind_score": number("test mIoU of the best prediction without an image: constant, or by class frequencies"),
    "pixels": count("target pixels of the class in the test split", "pixels"),
    "parameters_ratio": number("parameters of `variant` over those of `against`"),
    "flops_ratio": number("forward FLOPs of `variant` over those of `against`"),
}
