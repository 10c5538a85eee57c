"""Cells: what was planted in the curves comes out as stability, convergence and response to the rate."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from ablate.analysis.analyse import Analysis, analyse
from ablate.analysis.cells import budget_frame, convergence_frame, extension_frame
from ablate.analysis.frames import Frames, load_results
from ablate.analysis.selection import v_table
from tests.planted import Truth, plant


def cell(frame: pd.DataFrame, variant: str, lr: float, **more: object) -> pd.Series:
    found = frame[(frame["variant"] == variant) & (frame["lr"] == lr)]
    for name, value in more.items():
        found = found[found[name] == value]
    assert len(found) == 1
    return found.iloc[0]


def test_a_row_a_cell_with_its_t_interval(planted_analysis: Analysis) -> None:
    cells = planted_analysis.cells
    assert len(cells) == 5 * 4
    row = cell(cells, "unet", 3e-4)
    scores = planted_analysis.frames.trials.query("variant == 'unet' and lr == 3e-4")["test_mean_iou"]
    low, high = stats.t.interval(0.95, 2, scores.mean(), stats.sem(scores))
    assert (row["test_mean"], row["test_low"], row["test_high"]) == pytest.approx((scores.mean(), low, high))
    assert (row["n"], row["n_planned"], row["reason"]) == (3, 3, "")


def test_a_diverged_seed_counts_zero_in_the_mean(planted_analysis: Analysis) -> None:
    row = cell(planted_analysis.cells, "noskip", 1e-3)
    scores = planted_analysis.frames.trials.query("variant == 'noskip' and lr == 1e-3")
    survivors = scores.loc[scores["status"] == "complete", "val_mean_iou"]
    assert len(survivors) == 2
    assert row["val_mean"] == pytest.approx(survivors.sum() / 3)
    assert (row["n_diverged"], row["n"]) == (1, 3)
    assert row["diverged_share"] == pytest.approx(1 / 3)
    # Wilson's interval for 1 of 3, worked out by hand: (p + z²/2n ± z√(pq/n + z²/4n²)) / (1 + z²/n), z = 1.96.
    assert (row["diverged_low"], row["diverged_high"]) == pytest.approx((0.0615, 0.7923), abs=1e-4)
    assert row["rise"] == math.inf


def test_a_cell_that_reaches_no_more_than_a_blind_prediction_is_untrained(tmp_path: Path) -> None:
    truth = Truth(diverges_from={"noskip": 1e-5}, diverged=())
    path = plant(
        tmp_path / "p", variants=("unet", "noskip"), lrs=(3e-4,), images=6, epochs=5, truth=truth, predictions=False
    )
    analysis = analyse(load_results(path))
    assert analysis.cells.set_index("variant")["untrained"].to_dict() == {"unet": False, "noskip": True}
    assert analysis.cells["blind_score"].between(0.05, 0.4).all()
    assert analysis.contrasts["untrained"].all()


def test_cells_say_what_they_lack(planted_analysis: Analysis) -> None:
    assert cell(planted_analysis.cells, "residual", 1e-3)["reason"] == "2 of 3 seeds"
    row = cell(planted_analysis.cells, "attention", 1e-4)
    assert (row["n"], row["n_failed"], row["reason"]) == (2, 1, "2 of 3 seeds")


def test_regret_is_zero_at_the_best_rate_and_what_v_loses_elsewhere(planted_analysis: Analysis) -> None:
    cells = planted_analysis.cells
    assert cell(cells, "unet", 3e-4)["regret"] == 0.0
    # Planted: 0.2 per squared decade from 3e-4, with seeds of 0.006.
    assert cell(cells, "unet", 1e-3)["regret"] == pytest.approx(0.2 * math.log10(10 / 3) ** 2, abs=0.015)
    chosen = cells[cells["own_best"]]
    assert chosen["lr"].eq(3e-4).all()
    assert cells.loc[cells["shared"], "lr"].eq(3e-4).all()
    assert cells["shared"].sum() == 5


def test_the_planted_instability_is_found_where_it_was_planted(planted_analysis: Analysis) -> None:
    rise = planted_analysis.stability.query("measure == 'rise'")
    assert cell(rise, "noskip", 5e-4)["low"] > 1.3
    row = cell(rise, "noskip", 1e-3)
    assert (row["mean"], row["n_infinite"]) == (math.inf, 1)
    assert row["finite_mean"] > 1.5
    assert row["reason"] == "1 of 3 seeds left the finite: no interval"
    assert math.isnan(row["low"])
    steady = rise[~((rise["variant"] == "noskip") & (rise["lr"] >= 5e-4))]
    assert steady["largest"].max() < 1.2


def test_stability_says_why_a_measure_is_missing(planted_analysis: Analysis) -> None:
    scores = planted_analysis.stability.query("measure == 'spike_score'")
    assert scores["mean"].isna().all()
    assert set(scores["reason"]) == {"96 steps; the OLMo form needs 128"}


def test_the_planted_under_convergence_is_found_where_it_was_planted(planted_analysis: Analysis) -> None:
    verdicts = planted_analysis.convergence
    for variant in ("unet", "noskip", "residual", "unet-again"):
        assert cell(verdicts, variant, 1e-4)["verdict"] == "under-converged"
        assert cell(verdicts, variant, 3e-4)["verdict"] == "converged"
    short = cell(verdicts, "attention", 1e-4)  # a seed of it failed
    assert (short["verdict"], short["n"]) == ("inconclusive", 2)
    cells = planted_analysis.cells
    assert cell(cells, "unet", 1e-4)["convergence"] == "under-converged"


def test_a_schedule_that_ends_near_zero_gets_no_verdict(tmp_path: Path) -> None:
    path = plant(tmp_path / "p", variants=("unet",), lrs=(3e-4,), images=2, epochs=8, predictions=False)
    for record in path.glob("trials/*/record.json"):
        record.write_text(record.read_text().replace('"schedule": "constant"', '"schedule": "cosine"'))
    verdict = convergence_frame(load_results(path)).iloc[0]
    assert (verdict["verdict"], verdict["n"]) == ("none", 3)
    assert "makes its own plateau" in verdict["reason"]


def test_an_extended_study_says_what_the_further_epochs_brought(planted_frames: Frames, tmp_path: Path) -> None:
    assert not len(extension_frame(planted_frames))
    steady = Truth(diverged=(), unstable_from={})
    path = plant(
        tmp_path / "p", variants=("unet", "noskip"), lrs=(1e-4, 1e-3), images=4, epochs=24, truth=steady,
        predictions=False,
    )  # fmt: skip
    frames = load_results(path)
    frames = replace(frames, run={**frames.run, "extended_from": {"unet": 12, "noskip": 12}})
    rows = extension_frame(frames)
    # Planted: at 1e-4 val mIoU climbs in a line over all 24 epochs, by 0.45 of its height; at 1e-3 it stands early.
    climbing = cell(rows, "unet", 1e-4)
    top = frames.trials.query("variant == 'unet' and lr == 1e-4")["val_mean_iou"].mean()
    assert (climbing["verdict"], climbing["budget"], climbing["epochs"]) == ("under-converged", 12, 24)
    assert climbing["gain"] == pytest.approx(0.45 * top * 12 / 24, rel=0.05)
    assert climbing["projected"] == pytest.approx(0.45 * top * 5 / 24, rel=0.1)
    assert cell(rows, "noskip", 1e-3)["verdict"] == "converged"


def test_response_to_the_rate(planted_analysis: Analysis) -> None:
    variants = planted_analysis.variants.set_index("variant")
    # Planted: V = top − 0.2·d² in decades d from 3e-4; so the width within 0.005 is 2·√(0.005/0.2) decades.
    assert variants["basin_optimum"]["unet"] == pytest.approx(3e-4, rel=0.15)
    assert variants["basin_width"]["unet"] == pytest.approx(2 * math.sqrt(0.005 / 0.2), rel=0.2)
    assert variants["sensitivity_low"].eq(1e-4).all() and variants["sensitivity_high"].eq(1e-3).all()
    # The one with a diverged seed at the highest rate is the most sensitive.
    assert variants["lr_sensitivity"].idxmax() == "noskip"


def test_a_diverged_seed_ends_where_it_began(tmp_path: Path) -> None:
    truth = Truth(diverges_from={"unet": 1e-3}, diverged=(), unstable_from={})
    path = plant(
        tmp_path / "p", variants=("unet",), lrs=(1e-3, 3e-4), images=2, epochs=6, truth=truth, predictions=False
    )
    frames = load_results(path)
    row = analyse(frames).variants.iloc[0]
    final = frames.trials.query("lr == 3e-4")["final_val_loss"].mean()
    # Two rates: the mean over log rate is half the rise at the diverged one, capped at ln 5, the loss before training.
    assert row["lr_sensitivity"] == pytest.approx((math.log(5) - final) / 2)


def test_the_budget_curve_begins_at_the_mean_and_ends_at_the_choice(tmp_path: Path) -> None:
    rates = (3e-3, 1e-3, 7e-4, 5e-4, 3e-4, 2e-4, 1e-4, 5e-5)
    path = plant(tmp_path / "p", variants=("unet",), lrs=rates, seeds=1, images=2, epochs=6, predictions=False)
    frames = load_results(path)
    v = v_table(frames.trials)
    budget = budget_frame(frames, v)
    assert budget["settings_tried"].tolist() == list(range(1, 9))
    best = frames.trials["test_score"].iloc[int(frames.trials["val_score"].argmax())]
    assert budget["expected_test"].iloc[[0, -1]].tolist() == pytest.approx([frames.trials["test_score"].mean(), best])
    assert not len(budget_frame(frames, v.iloc[:, :7]))  # seven settings are too few


def test_a_study_without_a_result_has_cells_all_the_same(tmp_path: Path) -> None:
    nothing = Truth(missing=tuple(("unet", 3e-4, seed) for seed in range(3)))
    path = plant(tmp_path / "p", variants=("unet",), lrs=(3e-4,), images=2, epochs=6, truth=nothing)
    analysis = analyse(load_results(path))
    assert analysis.cells["reason"].tolist() == ["no result yet: 3 missing, 0 failed"]
    assert analysis.cells["test_mean"].isna().all()
    assert analysis.own_best == {"unet": None}
    assert analysis.shared_setting is None


def test_frames_of_the_shared_study_have_one_row_a_cell_and_measure(planted_frames: Frames) -> None:
    stability = analyse(planted_frames).stability
    assert not stability.duplicated(["variant", "setting", "measure"]).any()
    assert len(stability) == 20 * 9
