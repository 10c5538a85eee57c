"""The fast path and the plain one learn the same: bfloat16 in fused kernels beside float32 op by op."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ablate.records.store import Results
from ablate.study.reader import read_study
from ablate.train.context import Context
from ablate.train.engine.config import Decisions
from ablate.train.loop import Options, run_trial

STUDY = """\
study: small
data: {name: street, size: [32, 48], train: 16, val: 8, test: 4}
model: {name: unet, width: 4, depth: 2}
grid: {lr: [3e-3]}
seeds: 4
train: {epochs: 6, batch_size: 4}
measure: {gradients: 0}
"""


def losses(folder: Path, precision: str, engine: str) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation loss of the last epoch, by seed."""
    path = folder / "study.yaml"
    path.write_text(STUDY, encoding="utf-8")
    study = read_study(path)
    bench = Context("cpu", Decisions("test", precision, True, engine, 1, 1, True, {}), folder)
    results = Results(folder / f"{precision}-{engine}")
    training, validation = [], []
    for trial in study.trials():
        place = results.trial(trial.name)
        record = run_trial(trial, bench, place, Options(study.spec.measure))
        steps = np.fromfile(place.steps, dtype="<f4").reshape(-1, 2)
        training.append(float(steps[-4:, 0].mean()))
        validation.append(record.metrics["final_val_loss"])
    return np.array(training), np.array(validation)


@pytest.mark.usefixtures("kernels")
def test_both_paths_end_within_the_spread_of_the_seeds(tmp_path: Path) -> None:
    plain, fast = losses(tmp_path, "float32", "eager"), losses(tmp_path, "bfloat16", "fused")
    for name, theirs, ours in zip(("training", "validation"), plain, fast, strict=True):
        spread = theirs.std(ddof=1)
        assert abs(ours.mean() - theirs.mean()) < spread, name
        # Seed by seed, too: the same images in the same order from the same weights.
        assert np.abs(ours - theirs).max() < 2 * spread, name
        assert not np.array_equal(ours, theirs)
