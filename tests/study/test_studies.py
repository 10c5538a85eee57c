"""The study files that come with the project are sound, and say what their comments say."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablate.run.plan.reach import later_phases
from ablate.study.reader import read_study
from tests.conftest import ROOT

FILES = [ROOT / "benchmark.yaml", *sorted((ROOT / "studies").glob("*.yaml"))]
FOUR = ["unet", "noskip", "residual", "attention"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_study_that_comes_along_can_be_read(path: Path) -> None:
    study = read_study(path)
    assert study.name in (path.stem, "unet-ablation", "membrane")
    assert study.trials()


def test_the_benchmark_is_four_variants_at_four_rates_in_two_phases_of_48_trials() -> None:
    study = read_study(ROOT / "benchmark.yaml")
    assert (list(study.variants), study.baseline, len(study.trials())) == (FOUR, "unet", 16)
    assert [phase.total for phase in later_phases(study)] == [(8, 8), (24, 24)]
    assert study.spec.grid == {"lr": [1e-3, 5e-4, 3e-4, 1e-4]}
    assert [list(study.differences(name)) for name in FOUR] == [[], ["skip"], ["block"], ["skip"]]
    assert len(study.spec.claims) == 10


def test_the_words_of_the_original_report_are_claimed_on_street_scenes_and_on_camvid_alike() -> None:
    benchmark, *others = (
        read_study(path).spec.claims
        for path in (FILES[0], ROOT / "studies" / "camvid-small.yaml", ROOT / "studies" / "unet-camvid.yaml")
    )
    assert all(claims == benchmark for claims in others)


def test_the_reference_study_is_the_original_reports() -> None:
    study = read_study(ROOT / "studies" / "unet-camvid.yaml")
    trial = study.trials()[0]
    assert (trial.model["width"], trial.model["depth"], trial.train["epochs"]) == (64, 4, 100)
    assert trial.data["size"] == [360, 480]
    assert list(study.variants) == FOUR


def test_a_study_shares_the_benchmarks_trials_where_they_are_the_same() -> None:
    benchmark, factors = (read_study(path) for path in (FILES[0], ROOT / "studies" / "skip-block-factors.yaml"))
    shared = {trial.key for trial in benchmark.trials()} & {trial.key for trial in factors.trials()}
    # One seed at 1e-3 and 3e-4 of unet, residual and attention; of noskip only at 3e-4.
    assert len(shared) == 2 + 2 + 2 + 1
