"""Planted studies that the tests of the report share, each written and analysed once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ablate.analysis.analyse import Analysis, analyse
from ablate.analysis.frames import load_results
from ablate.report.build import build_report
from tests.planted import Truth, plant
from tests.report.hostile import plant_hostile

Analysed = Callable[[Path], Analysis]
CLAIMS: list[dict[str, Any]] = [
    {"id": "skips-matter", "metric": "test/mean_iou", "left": "noskip", "op": "<", "right": "unet", "margin": 0.01},
    {"id": "slow-rate", "metric": "convergence", "variant": "any", "where": {"lr": 1e-4}, "expect": "under-converged"},
]
# Long ones too, of which some differ in the middle only.
TWELVE = (
    "unet-with-concatenating-skips",
    "noskip",
    "residual-blocks-in-encoder-only",
    "residual-blocks-in-decoder-only",
    "additive-attention-gates-on-all-skips",
    "additive-attention-gates-on-deep-skips",
    *(f"variant-{number}" for number in range(7, 13)),
)


@pytest.fixture(scope="session")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two variants at three rates, everything finished but one diverged trial."""
    path = tmp_path_factory.mktemp("two") / "two"
    return plant(
        path, variants=("unet", "noskip"), lrs=(1e-3, 3e-4, 1e-4), epochs=12, images=12, claims=CLAIMS, name="two"
    )


@pytest.fixture(scope="session")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four variants and a control at two rates; trials are missing, one failed, one diverged."""
    truth = Truth(
        control={"unet-again": "unet"},
        missing=(("attention", 3e-4, 1), ("attention", 1e-3, 0), ("attention", 1e-3, 1), ("residual", 1e-3, 1)),
        failed=(("residual", 1e-3, 0),),
    )
    path = tmp_path_factory.mktemp("unfinished") / "unfinished"
    return plant(path, lrs=(1e-3, 3e-4), seeds=2, epochs=8, images=10, truth=truth, name="unfinished")


@pytest.fixture(scope="session")
def settings54(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two variants at 54 settings of three axes, one seed each."""
    path = tmp_path_factory.mktemp("settings54") / "settings54"
    rates = (4e-3, 2e-3, 1e-3, 5e-4, 3e-4, 1e-4)
    plant(path, variants=("unet", "noskip"), lrs=rates, seeds=9, epochs=6, images=4, predictions=False)
    run = json.loads((path / "run.json").read_text())
    for entry in run["plan"]:
        decay, batch = divmod(entry["seed"], 3)
        entry["settings"] |= {"weight_decay": (0.0, 1e-4, 1e-2)[decay], "batch_size": (2, 4, 8)[batch]}
    (path / "run.json").write_text(json.dumps(run))
    return path


@pytest.fixture(scope="session")
def analysed() -> Analysed:
    """The analysis of a results folder, made once."""
    made: dict[Path, Analysis] = {}

    def of(path: Path) -> Analysis:
        if path not in made:
            made[path] = analyse(load_results(path))
        return made[path]

    return of


@pytest.fixture(scope="session")
def twelve(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve variants at three rates."""
    path = tmp_path_factory.mktemp("twelve") / "twelve"
    return plant(
        path, variants=TWELVE, lrs=(1e-3, 3e-4, 1e-4), seeds=2, epochs=6, images=8, size=(16, 24), name="twelve"
    )


@pytest.fixture(scope="session")
def page_of_two(two: Path) -> Path:
    """The page of `two`."""
    return build_report(two, only=["page"])[-1]


@pytest.fixture(scope="session")
def page_of_hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a study whose names are markup, in a folder whose name is no help either."""
    path = tmp_path_factory.mktemp("hostile") / 'it\'s a "fôlder" & more'
    return build_report(plant_hostile(path), only=["page"])[-1]
