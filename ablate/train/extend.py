"""A longer trial goes on where its shorter parent ended: the parent's last state becomes its first checkpoint."""

from __future__ import annotations

import numpy as np
import torch

from ablate.errors import ResultsError
from ablate.records.files import read_file, write_atomic
from ablate.records.store import TrialFolder, read_record
from ablate.study.trial import Trial
from ablate.train import checkpoint


def inherit(trial: Trial, folder: TrialFolder, parent: TrialFolder) -> str:
    """Lay a checkpoint into `folder` from which `trial` goes on after the last epoch of `parent`.

    Gives a line that says so, or why the trial has to start over: the parent is not complete, or its last state was
    too large to be kept. Only for constant schedules, in which the first epochs of both are the same.
    """
    if folder.checkpoints():
        return ""
    record = read_record(parent.record)
    if record is None or record.status != "complete" or record.key != trial.parent:
        return "started over: there is no complete shorter trial"
    if not parent.last.exists():
        return "started over: the last state of the shorter trial was not kept"
    try:
        last = checkpoint.unpack(parent.last.read_bytes())
    except ResultsError as error:
        return f"started over: {error}"
    folder.make()
    for source, target in ((parent.epochs, folder.epochs), (parent.steps, folder.steps)):
        write_atomic(target, read_file(source))
    best = {
        "epoch": int(record.metrics["best_epoch"] or 0),
        "mean_iou": record.metrics["val_mean_iou"],
        "loss": record.metrics["val_loss"],
        "counts": torch.from_numpy(np.load(parent.images)["val"]),
        "weights": torch.load(parent.best, weights_only=True),
    }
    state = {
        "key": trial.key,
        "step": last["step"],
        "model": last["model"],
        "optimizer": last["optimizer"],
        "best": best,
        "initial_val_loss": record.metrics["initial_val_loss"],
        "layers": record.layers,
        "seconds": record.timing["wall_s"],
    }
    write_atomic(folder.path / "checkpoint.pt", checkpoint.pack(state))
    return f"goes on after epoch {record.metrics['epochs_run']:.0f} of {parent.name}"
