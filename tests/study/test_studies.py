"""The study files that come with the project are sound, and say what their comments say."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ablate.models import parameters
from ablate.models.unet import unet
from ablate.run.plan.reach import later_phases
from ablate.study.reader import read_study
from ablate.study.study import Study
from tests.conftest import ROOT, missing

FILES = [ROOT / "benchmark.yaml", *sorted((ROOT / "studies").glob("*.yaml"))]
FOUR = ["unet", "noskip", "residual", "attention"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_study_that_comes_along_can_be_read(path: Path) -> None:
    if "transformers/" in path.read_text() and importlib.util.find_spec("transformers") is None:
        missing("transformers is not installed, whose network the study names")
    study = read_study(path)
    assert study.name in (path.stem, "unet-ablation", "membrane")
    assert study.trials()


def test_the_benchmark_is_four_variants_at_five_rates_in_two_phases_of_48_trials() -> None:
    study = read_study(ROOT / "benchmark.yaml")
    assert (list(study.variants), study.baseline, len(study.trials())) == (FOUR, "unet", 20)
    assert [phase.total for phase in later_phases(study)] == [(8, 8), (20, 20)]
    assert [list(study.differences(name)) for name in FOUR] == [[], ["skip"], ["block"], ["skip"]]


@pytest.mark.parametrize("name", ["unet-street", "unet-camvid-small", "unet-camvid"])
def test_the_rates_of_the_original_report_are_among_those_of_the_longer_studies(name: str) -> None:
    study = read_study(ROOT / "studies" / f"{name}.yaml")
    assert {1e-3, 5e-4, 3e-4, 1e-4} <= set(study.spec.grid["lr"])
    assert list(study.variants) == FOUR


def test_the_words_of_the_original_report_are_claimed_in_all_studies_alike() -> None:
    benchmark, street, *others = (
        read_study(path).spec.claims
        for path in (
            FILES[0],
            *(ROOT / "studies" / f"{name}.yaml" for name in ("unet-street", "unet-camvid-small", "unet-camvid")),
        )
    )
    assert all(claims == street for claims in others)
    # The benchmark does not train at 1e-4.
    assert benchmark == [claim for claim in street if claim.id != "no-convergence-at-1e-4"]
    assert len(street) == 10


def test_the_reference_study_is_the_original_reports() -> None:
    study = read_study(ROOT / "studies" / "unet-camvid.yaml")
    trial = study.trials()[0]
    assert (trial.model["width"], trial.model["depth"], trial.train["epochs"]) == (64, 4, 100)
    assert trial.data["size"] == [360, 480]
    assert list(study.variants) == FOUR


def test_a_study_shares_the_benchmarks_trials_where_they_are_the_same() -> None:
    benchmark, factors = (read_study(path) for path in (FILES[0], ROOT / "studies" / "components.yaml"))
    shared = {trial.key for trial in benchmark.trials()} & {trial.key for trial in factors.trials()}
    # One seed at four rates of unet, noskip, residual and attention.
    assert len(shared) == 4 * 4


def test_what_a_component_is_worth_to_the_full_network_needs_no_further_runs() -> None:
    path = ROOT / "studies" / "components.yaml"
    every, left_out = read_study(path), read_study(path, ["study=left-out", "design=leave_one_out"])
    names = {trial.key: trial.variant for trial in every.trials()}
    assert {names[trial.key] for trial in left_out.trials()} == {
        "skip-attention+block-residual", "block-residual", "skip-attention"
    }  # fmt: skip


def test_the_wider_net_without_skips_has_at_least_the_baselines_parameters() -> None:
    study = read_study(ROOT / "studies" / "capacity.yaml")
    counts = {
        name: parameters(unet(in_channels=3, num_classes=11, **_settings(study, name))) for name in study.variants
    }
    assert counts["noskip"] < counts["unet"] <= counts["noskip_wide"] < 1.15 * counts["unet"]


def _settings(study: Study, variant: str) -> dict[str, Any]:
    trial = next(trial for trial in study.trials() if trial.variant == variant)
    return {name: value for name, value in trial.model.items() if name != "name"}


def test_editors_find_the_schema_that_study_files_name() -> None:
    for path in FILES:
        first = path.read_text().splitlines()[0]
        assert first.startswith("# yaml-language-server: $schema="), path
        assert (path.parent / first.partition("$schema=")[2]).resolve() == ROOT / "study.schema.json", path
    if importlib.util.find_spec("monai") is None:
        missing("MONAI is not installed, whose networks are in the schema")
    cure = "the schema has changed: ablate schema > study.schema.json"
    # In a process of its own: other tests register components, which would be in the schema.
    said = subprocess.run([sys.executable, "-m", "ablate.cli", "schema"], capture_output=True, text=True, check=True)
    assert json.loads((ROOT / "study.schema.json").read_text()) == json.loads(said.stdout), cure
