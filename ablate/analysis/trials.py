"""The frames of a study's trials, of their epochs and of their probed layers, from what was read of its folder."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ablate.analysis.folder import Folder
from ablate.analysis.reading import QUALITY
from ablate.analysis.source import CURVES, Source
from ablate.errors import ResultsError
from ablate.study.metrics import STABILITY


def trials_frame(folder: Folder) -> pd.DataFrame:
    """A row a planned trial (see `frames`)."""
    columns = ["name", "key", "variant", "setting", *folder.axes, "seed", "role", "status", "reason"]
    # Columns that exist whatever the trials left behind, so that a study without a result has them too.
    always = ["val_mean_iou", "test_mean_iou", "val_score", "test_score", *QUALITY, *STABILITY, "lr_headroom", "wall_s"]
    frame = pd.DataFrame(folder.rows)
    frame = frame.reindex(columns=list(dict.fromkeys([*columns, *always, *frame.columns])))
    numbers = [name for name in frame.columns if name in always]
    return frame.astype(dict.fromkeys(numbers, float))


def epochs_frame(trials: pd.DataFrame, axes: Sequence[str], source: Source) -> pd.DataFrame:
    """A row an epoch of every trial that has begun (see `frames`)."""
    identity = ["key", "variant", "setting", *axes, "seed"]
    # Columns of the whole study rather than a frame a trial: thousands of small frames take minutes to join.
    begun: list[int] = []
    tables: list[np.ndarray] = []
    for place, key in enumerate(trials["key"].tolist()):
        try:
            table = source.curves(key)
        except ResultsError:
            continue  # not begun
        begun.append(place)
        tables.append(table)
    columns = [*identity, "epoch", *CURVES]
    values = np.concatenate(tables) if tables else np.empty(0)
    if not len(values):
        return pd.DataFrame(columns=columns)
    frame = trials[identity].iloc[np.repeat(begun, [len(table) for table in tables])].reset_index(drop=True)
    frame["epoch"] = values[:, 0].astype(int)
    for place, name in enumerate(CURVES, start=1):
        frame[name] = values[:, place]
    return frame[columns]


def layers_frame(trials: pd.DataFrame, axes: Sequence[str], source: Source) -> pd.DataFrame:
    """A row a probed value of every trial with a record; `point` counts the probes from 0."""
    identity = ["key", "variant", "setting", *axes, "seed"]
    rows = [
        [*(row[name] for name in identity), measure, layer, point, math.nan if value is None else value]
        for row in trials.to_dict("records")
        for measure, layers in source.layers(row["key"]).items()
        for layer, values in layers.items()
        for point, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=[*identity, "measure", "layer", "point", "value"])


def numbered_classes(trials: pd.DataFrame, source: Source) -> tuple[str, ...]:
    """Names for classes that nothing names: "0", "1", ... as many as the counts have."""
    return tuple(map(str, range(_shape(trials, source, "test")[1])))


def numbered_images(trials: pd.DataFrame, source: Source, split: str) -> tuple[str, ...]:
    """Names for images that nothing names: "0", "1", ... as many as the counts have."""
    return tuple(map(str, range(_shape(trials, source, split)[0])))


def _shape(trials: pd.DataFrame, source: Source, split: str) -> tuple[int, ...]:
    for key in trials.loc[trials["status"] == "complete", "key"]:
        try:
            return source.counts(key)[split].shape
        except ResultsError:
            continue
    return 0, 0, 3
