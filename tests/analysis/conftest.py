"""One planted study that the tests of the analysis share: four variants, an A/A copy, four rates, three seeds."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablate.analysis.analyse import Analysis, analyse
from ablate.analysis.frames import Frames, load_results
from tests.planted import Truth, plant

TRUTH = Truth(
    control={"unet-again": "unet"},
    missing=(("residual", 1e-3, 2),),
    failed=(("attention", 1e-4, 0),),
)


@pytest.fixture(scope="session")
def planted_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of the shared study; nobody writes to it."""
    return plant(
        tmp_path_factory.mktemp("analysis") / "planted", images=16, epochs=12, truth=TRUTH, measure={"resamples": 400}
    )


@pytest.fixture(scope="session")
def planted_frames(planted_path: Path) -> Frames:
    """Its frames."""
    return load_results(planted_path)


@pytest.fixture(scope="session")
def planted_analysis(planted_frames: Frames) -> Analysis:
    """What it says."""
    return analyse(planted_frames)
