"""One trial's curves as one small image, for the dashboard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ablate.records.store import Results, read_lines

ROWS = {"training and val loss": ("train_loss", "val_loss"), "val mIoU": ("val_mean_iou",)}


def write_curves(results: Results, name: str, path: Path) -> Path | None:
    """Draw the loss of every step, the losses and the val mIoU of every epoch; None where no epoch was finished."""
    folder = results.trial(name)
    epochs = read_lines(folder.epochs)
    if not epochs:
        return None
    steps = np.fromfile(folder.steps, dtype="<f4").reshape(-1, 2)
    figure = Figure(figsize=(9, 2.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    left, *others = figure.subplots(1, 3)
    left.plot(np.arange(1, len(steps) + 1), steps[:, 0], linewidth=0.8)
    left.set(title="training loss", xlabel="step", yscale="log")
    for axes, (title, columns) in zip(others, ROWS.items(), strict=True):
        for column in columns:
            values = [np.nan if row[column] is None else row[column] for row in epochs]
            axes.plot([row["epoch"] for row in epochs], values, marker=".", label=column.replace("_", " "))
        axes.set(title=title, xlabel="epoch")
        if len(columns) > 1:
            axes.legend(frameon=False)
    figure.savefig(path)
    return path
