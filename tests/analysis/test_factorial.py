"""Interactions, main effects and data size, with truths that were planted."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

from ablate.analysis.analyse import Analysis, analyse
from ablate.analysis.factorial import interactions_frame, main_effects_frame
from ablate.analysis.frames import load_results
from ablate.analysis.looks import Looks
from ablate.analysis.schema import FRAMES
from ablate.report.tables.table import all_tables
from ablate.report.words.findings import findings
from tests.analysis.test_analyse import check_all
from tests.planted import Truth, plant

NAMES = ("baseline", "block-residual", "skip-none", "skip-none+block-residual")
FACTORS = {"skip": ["concat", "none"], "block": ["plain", "residual"]}


def crossed(folder: Path, together: float, *, confirm: int = 0, design: str = "grid") -> Analysis:
    """A 2 x 2 study: residual blocks +3 points, no skips -10, and `together` more where both are."""
    truth = Truth(
        delta={NAMES[1]: 0.03, NAMES[2]: -0.10, NAMES[3]: -0.07 + together},
        detail={},
        unstable_from={},
        diverged=(),
        seed_std=0.004,
    )
    path = plant(
        folder / f"planted{together:g}{confirm}",
        variants=NAMES,
        lrs=(1e-3, 3e-4),
        seeds=4,
        images=24,
        epochs=4,
        truth=truth,
        confirm=confirm,
        measure={"resamples": 300},
        predictions=False,
        profile=False,
    )
    study = yaml.safe_load((path / "study.yaml").read_text())
    (path / "study.yaml").write_text(yaml.safe_dump({**study, "factors": FACTORS, "design": design}, sort_keys=False))
    return analyse(load_results(path))


@pytest.mark.parametrize(
    ("together", "decision"), [(0.06, "synergistic"), (-0.06, "antagonistic"), (0.0, "none")], ids=str
)
def test_an_interaction_that_was_planted_comes_out(together: float, decision: str, tmp_path: Path) -> None:
    analysis = crossed(tmp_path, together)
    frame = analysis.interactions
    assert len(frame) == 1
    row = frame.iloc[0]
    assert (row["factor_a"], row["factor_b"]) == ("skip", "block")
    assert [row[f"level_{key}"] for key in ("a0", "a1", "b0", "b1")] == ["concat", "none", "plain", "residual"]
    assert row["low"] < together < row["high"]
    assert row["estimate"] == pytest.approx(row["mean_11"] - row["mean_10"] - row["mean_01"] + row["mean_00"], abs=1e-9)
    assert row["estimate"] == pytest.approx(row["effect_b1"] - row["effect_b0"], abs=1e-9)
    if decision == "none":
        assert row["decision"] in ("undecided", "additive")
    else:
        assert row["decision"] == decision
        assert row["p_holm"] < 0.05
    ((topic, said),) = findings(analysis)[""]
    assert topic == "interaction" and ("undecided" in said) == (row["decision"] == "undecided")
    assert said.startswith("Skip connections help by ")
    assert " points with plain blocks and by " in said
    assert "; the difference, " in said


def test_fresh_seeds_decide_where_there_are_any(tmp_path: Path) -> None:
    analysis = crossed(tmp_path, 0.05, confirm=5)
    row = analysis.interactions.iloc[0]
    fresh = analysis.contrasts[
        (analysis.contrasts["kind"] == "confirmed") & (analysis.contrasts["variant"] == NAMES[2])
    ]
    assert row["effect_b0"] == pytest.approx(float(fresh["delta"].iloc[0]), abs=1e-9)
    assert row["decision"] == "synergistic"
    # Where the cells had fresh seeds until they were decided, the latest look at one of them says the level.
    ended = [{"variant": NAMES[2], "n": 4, "confidence": 0.97}, {"variant": NAMES[1], "n": 8, "confidence": 0.96}]
    looks = Looks(FRAMES["looks"].filled(ended))
    wide = interactions_frame(analysis.scores, looks).iloc[0]
    assert wide["low"] < row["low"] < row["high"] < wide["high"]
    assert (wide["p"], wide["mean_11_low"]) == (row["p"], row["mean_11_low"])
    assert wide["p_holm"] == pytest.approx(row["p"] * 0.05 / 0.04)
    effects, plain = main_effects_frame(analysis.scores, looks), analysis.main_effects
    assert (effects["low"] < plain["low"]).all() and (effects["p_holm"] > plain["p_holm"]).all()


def test_main_effects_are_means_over_the_other_factor(tmp_path: Path) -> None:
    analysis = crossed(tmp_path, 0.04)
    check_all(analysis.frames)
    effects = analysis.main_effects.set_index("factor")
    row = analysis.interactions.iloc[0]
    assert effects.loc["skip", "estimate"] == pytest.approx((row["effect_b0"] + row["effect_b1"]) / 2, abs=1e-9)
    assert effects.loc["skip", "decision"] == "worse"
    block = effects.loc["block"]
    assert block["low"] < 0.05 < block["high"]


def test_without_a_grid_of_factors_there_is_none(tmp_path: Path, planted_analysis: Analysis) -> None:
    for analysis in (crossed(tmp_path, 0.0, design="one_at_a_time"), planted_analysis):
        assert analysis.interactions.empty
        assert analysis.main_effects.empty
        assert analysis.data_size.empty
        # An empty frame makes a table without rows, no error.
        assert {"interactions", "main_effects", "data_size"} <= {table.name for table in all_tables(analysis)}


def test_a_study_of_data_sizes_has_a_curve_against_the_images(tmp_path: Path) -> None:
    names = ("full", "third", "tenth")
    truth = Truth(delta={"third": -0.05, "tenth": -0.12}, detail={}, unstable_from={}, diverged=())
    path = plant(
        tmp_path / "planted",
        variants=names,
        lrs=(3e-4,),
        seeds=3,
        epochs=4,
        truth=truth,
        measure={"resamples": 200},
        predictions=False,
        profile=False,
    )
    run = json.loads((path / "run.json").read_text())
    for name, images, fraction in zip(names, (40, 12, 4), (1.0, 0.3, 0.1), strict=True):
        differs = {} if name == "full" else {"data.fraction": [1.0, fraction]}
        run["variants"][name] |= {"train_images": images, "differs": differs}
    (path / "run.json").write_text(json.dumps(run))
    check_all(load_results(path))
    frame = analyse(load_results(path)).data_size
    assert list(frame["images"]) == [4, 12, 40]
    assert list(frame["name"]) == ["tenth", "third", "full"]
    assert set(frame["variant"]) == {"unet"}
    assert list(frame["seeds"]) == [3, 3, 3]
    assert frame["score"].is_monotonic_increasing
    assert pd.notna(frame["low"]).all()
