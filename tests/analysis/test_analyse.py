"""The whole analysis: documented columns, a rule under every number, and every incomplete study."""

from __future__ import annotations

import dataclasses
import re
import warnings
from pathlib import Path

import pandas as pd
import pytest
from planted import Truth, plant

from ablate.analysis import analyse as module
from ablate.analysis.analyse import Analysis, analyse, notes
from ablate.analysis.frames import Frames, load_results
from ablate.errors import ResultsError

ALL = tuple((variant, lr, seed) for variant in ("unet", "noskip") for lr in (1e-3, 3e-4) for seed in range(2))


def frames_of(analysis: Analysis) -> dict[str, pd.DataFrame]:
    values = {field.name: getattr(analysis, field.name) for field in dataclasses.fields(analysis)}
    return {name: value for name, value in values.items() if isinstance(value, pd.DataFrame) and name != "v"}


def documented(name: str) -> set[str]:
    """The words of the paragraph about a frame at the top of the module."""
    paragraph = re.search(rf"\*\*{name}\*\*(.*?)(?=\n\*\*|\Z)", module.__doc__ or "", re.DOTALL)
    assert paragraph, name
    return set(re.findall(r"\w+", paragraph[1]))


def test_every_column_is_documented(planted_analysis: Analysis) -> None:
    for name, frame in frames_of(planted_analysis).items():
        undocumented = set(frame.columns) - documented(name) - {"lr", *module.STABILITY}
        assert not undocumented, f"{name}: {undocumented}"


def test_every_frame_prints_its_rule(planted_analysis: Analysis) -> None:
    for name, frame in frames_of(planted_analysis).items():
        assert "rule" in frame, name
        assert frame["rule"].str.endswith(".").all(), name
    assert all(text.endswith(".") for text in planted_analysis.rules.values())
    assert {"contrasts/own_best", "contrasts/shared", "contrasts/matched"} <= set(planted_analysis.rules)


def test_the_same_frames_are_analysed_once(planted_analysis: Analysis) -> None:
    once = analyse(planted_analysis.frames)
    assert analyse(planted_analysis.frames) is once


def test_notes_say_what_limits_the_study(planted_analysis: Analysis) -> None:
    assert planted_analysis.notes == (
        "1 of 60 trials has no result yet: every number is provisional",
        "1 of 60 trials failed by the machine's fault and is left out",
        "1 of 60 trials diverged and counts 0",
        "3 seeds a cell: five are the workable minimum",
    )


def test_classes_without_a_pixel_are_named(planted_frames: Frames) -> None:
    run = planted_frames.run | {"data": planted_frames.run["data"] | {"absent": {"test": ["pole", "fence"]}}}
    said = notes(dataclasses.replace(planted_frames, run=run), pd.DataFrame())
    assert "the test split has no pixel of pole, fence: left out of its means, or IoU 0 where predicted" in said


@pytest.mark.parametrize(
    ("truth", "options"),
    [
        pytest.param(Truth(missing=ALL), {}, id="nothing has run"),
        pytest.param(Truth(failed=ALL[1:]), {}, id="all but one failed"),
        pytest.param(Truth(diverges_from={"unet": 1e-5, "noskip": 1e-5}), {}, id="everything diverged"),
        pytest.param(Truth(), {"seeds": 1, "predictions": False, "profile": False}, id="one seed, no pictures"),
        pytest.param(Truth(), {"lrs": (3e-4,), "groups": 2, "confirm": 2}, id="one rate, groups, confirmation"),
    ],
)
def test_incomplete_studies_are_analysed_without_a_warning(
    tmp_path: Path, truth: Truth, options: dict[str, object]
) -> None:
    settings: dict[str, object] = {"lrs": (1e-3, 3e-4), "seeds": 2, "images": 4, "epochs": 6}
    settings |= {"measure": {"resamples": 100}}
    path = plant(tmp_path / "p", variants=("unet", "noskip"), truth=truth, **(settings | options))  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frames = load_results(path)
        analysis = analyse(frames)
        assert [frames.epochs, frames.classes, frames.images, frames.layers, frames.throughput]
    assert len(analysis.contrasts.query("primary")) == 1
    assert len(analysis.variants) == 2
    # What has no number has a reason.
    for name in ("contrasts", "class_contrasts", "detail", "stability"):
        frame = getattr(analysis, name)
        assert not (frame["low"].isna() & frame["reason"].eq("")).any(), name


def test_an_empty_plan_is_said_in_one_line(tmp_path: Path) -> None:
    path = plant(tmp_path / "p", variants=("unet",), lrs=(), images=2)
    with pytest.raises(ResultsError, match="this study has no trials yet; run it first"):
        analyse(load_results(path))
