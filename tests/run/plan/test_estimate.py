"""The time that a plan says: the arithmetic of it, and that more work takes longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablate.run.plan.estimate import Pace, estimate_seconds, makespan
from ablate.run.plan.view import checked
from tests.run.conftest import STUDY
from tests.run.test_optuna_mirror import study_in


def test_a_trial_is_its_training_every_validation_the_first_one_too_and_the_test(tmp_path: Path) -> None:
    trial = study_in(tmp_path, STUDY).trials()[0]
    assert trial.train["epochs"] == 3
    pace = Pace(train=2.0, score=0.5, images={"train": 10, "val": 4, "test": 6})
    assert pace.of(trial) == pytest.approx(3 * 10 * 2.0 + 4 * 4 * 0.5 + 6 * 0.5)


def test_trials_are_given_to_workers_the_longest_first() -> None:
    assert makespan([1.0, 1.0, 1.0], 2) == 2.0
    assert makespan([1.0, 2.0, 3.0, 4.0], 2) == 5.0
    assert makespan([], 2) == 0.0


def test_the_estimate_counts_epochs_start_and_profile(tmp_path: Path) -> None:
    found = []
    for text in (
        STUDY,
        STUDY.replace("epochs: 3", "epochs: 300"),
        STUDY.replace("profile: false", "profile_seconds: 7"),
    ):
        study = study_in(tmp_path, text)
        found.append(estimate_seconds(study, checked(study)[0], measure_for=0.1, start_up=5.0))
    short, long, profiled = (item for item in found if item is not None)
    assert (short.fixed, long.fixed, profiled.fixed) == (5.0, 5.0, 12.0)
    assert long.trials > 10 * short.trials > 0
