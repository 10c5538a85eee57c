"""The whole analysis: the columns that the schema names, facts instead of sentences, and every incomplete study."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ablate.analysis.analyse import Analysis, analyse
from ablate.analysis.frames import Frames, load_results
from ablate.analysis.schema import CLAIMS, FRAMES, TRIAL_FRAMES, Frame
from ablate.claims.verdicts import judge
from ablate.errors import ResultsError
from tests.planted import Truth, plant

ALL = tuple((variant, lr, seed) for variant in ("unet", "noskip") for lr in (1e-3, 3e-4) for seed in range(2))
KINDS = {"text": "is_string_dtype", "flag": "is_bool_dtype", "count": "is_integer_dtype", "number": "is_float_dtype"}


def check(name: str, frame: pd.DataFrame, schema: Frame, axes: tuple[str, ...]) -> None:
    """Hold a frame against its schema: every column is named there, and is of its kind."""
    columns = schema.columns(axes)
    more = set(frame.columns) - set(columns)
    assert set(columns) <= set(frame.columns), f"{name} lacks {set(columns) - set(frame.columns)}"
    if schema.metrics:
        assert all(pd.api.types.is_float_dtype(frame[column]) for column in more)
    else:
        assert not more, f"{name}: {more} are not in the schema"
    for column, expected in columns.items() if len(frame) else ():
        kind = KINDS.get(expected.kind)
        assert kind is None or getattr(pd.api.types, kind)(frame[column]), f"{name}.{column}: {frame[column].dtype}"


def frames_of(analysis: Analysis) -> dict[str, pd.DataFrame]:
    values = {field.name: getattr(analysis, field.name) for field in dataclasses.fields(analysis)}
    return {name: value for name, value in values.items() if isinstance(value, pd.DataFrame) and name != "v"}


def check_all(frames: Frames) -> None:
    analysis = analyse(frames)
    for name, schema in TRIAL_FRAMES.items():
        check(name, getattr(frames, name), schema, frames.axes)
    found = frames_of(analysis)
    assert found.keys() == FRAMES.keys()
    for name, frame in found.items():
        check(name, frame, FRAMES[name], frames.axes)
    check("claims", judge(frames, analysis), CLAIMS, frames.axes)


def test_every_frame_is_as_its_schema_says(planted_frames: Frames) -> None:
    claims = [{"metric": "mean_iou", "left": "noskip", "op": "<", "right": "unet"}, {"metric": "rise", "op": "<"}]
    specs = [{**claims[0]}, {**claims[1], "variant": "any", "value": 1.5}]
    study = planted_frames.study.model_validate(planted_frames.study.model_dump(exclude_unset=True) | {"claims": specs})
    frames = dataclasses.replace(planted_frames, study=study)
    check_all(frames)
    analysis = analyse(frames)
    # Only what a study may lack is empty: too few settings for a budget, no shorter trials, no looks, no factors.
    assert {name for name, frame in frames_of(analysis).items() if not len(frame)} == {
        "budget", "extension", "looks", "interactions", "main_effects", "data_size",
    }  # fmt: skip
    assert all(not column.endswith("rule") for frame in frames_of(analysis).values() for column in frame.columns)


def test_frames_that_only_some_studies_have_are_as_their_schema_says(tmp_path: Path) -> None:
    rates = (3e-3, 1e-3, 7e-4, 5e-4, 3e-4, 2e-4, 1e-4, 5e-5)
    path = plant(tmp_path / "p", variants=("unet", "noskip"), lrs=rates, images=2, epochs=12, confirm=2, groups=2)
    frames = load_results(path)
    frames = dataclasses.replace(frames, run={**frames.run, "extended_from": {"unet": 6, "noskip": 6}})
    check_all(frames)
    analysis = analyse(frames)
    assert len(analysis.budget) and len(analysis.extension)


def test_the_same_frames_are_analysed_once(planted_analysis: Analysis) -> None:
    once = analyse(planted_analysis.frames)
    assert analyse(planted_analysis.frames) is once


def test_what_limits_a_study_stands_in_its_frames(planted_analysis: Analysis) -> None:
    status = planted_analysis.frames.trials["status"].value_counts()
    assert {name: status[name] for name in ("missing", "failed", "diverged")} == {
        "missing": 1, "failed": 1, "diverged": 1,
    }  # fmt: skip
    assert planted_analysis.cells["n_planned"].eq(3).all()
    assert planted_analysis.no_detail == ""


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
    tmp_path: Path, truth: Truth, options: dict[str, Any]
) -> None:
    settings: dict[str, Any] = {"lrs": (1e-3, 3e-4), "seeds": 2, "images": 4, "epochs": 6}
    settings |= {"measure": {"resamples": 100}}
    path = plant(tmp_path / "p", variants=("unet", "noskip"), truth=truth, **(settings | options))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frames = load_results(path)
        analysis = analyse(frames)
        check_all(frames)
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
