"""The closing profile: every variant has its rates, whichever engine executes the steps."""

from __future__ import annotations

from pathlib import Path

import pytest

import tests.tiny_plugin  # noqa: F401  (registers the tiny components)
from ablate.train.decisions import Decisions
from ablate.train.profile import ROUNDS, profile_variants
from ablate.train.workbench import Workbench
from tests.train.test_trial import make_study


@pytest.mark.parametrize("engine", ["eager", "graph"])
def test_every_variant_has_its_rates(tmp_path: Path, engine: str) -> None:
    study = make_study(tmp_path)
    bench = Workbench("cpu", Decisions("test", "float32", True, engine, 1, 1, True, {}), tmp_path)
    profile = profile_variants(study.representatives(), bench, seconds=0.2)
    assert list(profile["variants"]) == ["narrow", "wide"] and profile["engine"] == engine
    for row in profile["variants"].values():
        for rates in (row["train_images_per_s"], row["inference_images_per_s"]):
            assert len(rates) == ROUNDS and min(rates) > 0
        assert row["peak_memory_bytes"] >= 0 and row["parameters"] > 0 and row["forward_flops"] > 0
