"""Costs: the planted ratios come out of the interleaved rounds, whatever the machine's drift."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ablate.analysis.analyse import Analysis
from ablate.analysis.by_variant import throughput_frame
from ablate.analysis.frames import load_results
from tests.planted import plant


def test_the_planted_ratios_lie_in_their_intervals(planted_analysis: Analysis) -> None:
    rows = planted_analysis.throughput.query("quantity == 'train_images_per_s'").set_index("variant")
    for variant, ratio in {"noskip": 1.15, "residual": 0.82, "attention": 0.93, "unet-again": 1.0}.items():
        assert rows["low"][variant] < ratio < rows["high"][variant]
        assert rows["high"][variant] - rows["low"][variant] < 0.05  # rounds pair: the drift of 3 % is not in it
    assert rows["ratio"]["unet"] == 1.0
    assert rows["reason"]["unet"] == "the baseline itself"


def test_the_interval_is_a_t_interval_of_log_ratios(planted_analysis: Analysis) -> None:
    profile = planted_analysis.frames.profile["variants"]
    logs = np.log(np.divide(profile["noskip"]["inference_images_per_s"], profile["unet"]["inference_images_per_s"]))
    low, high = np.exp(stats.t.interval(0.95, 6, logs.mean(), stats.sem(logs)))
    row = planted_analysis.throughput.query("variant == 'noskip' and quantity == 'inference_images_per_s'").iloc[0]
    assert (row["low"], row["high"], row["rounds"]) == pytest.approx((low, high, 7))


def test_cost_of_each_variant(planted_analysis: Analysis) -> None:
    cost = planted_analysis.cost.set_index("variant")
    samples = planted_analysis.frames.profile["variants"]["residual"]["latency_ms"]
    assert cost["latency_p50_ms"]["residual"] == pytest.approx(np.median(samples))
    assert cost["latency_p95_ms"]["residual"] == pytest.approx(np.percentile(samples, 95))
    assert cost["memory_ratio"]["residual"] == pytest.approx(1 / 0.82, rel=1e-6)
    assert cost["parameters"]["unet"] == 486_000


def test_rounds_that_do_not_pair_give_no_ratio(tmp_path: Path) -> None:
    path = plant(tmp_path / "p", variants=("unet", "noskip"), lrs=(3e-4,), seeds=1, images=2, epochs=6)
    profile = json.loads((path / "profile.json").read_text())
    profile["variants"]["noskip"]["train_images_per_s"].pop()
    profile["variants"]["noskip"]["inference_images_per_s"].pop()
    (path / "profile.json").write_text(json.dumps(profile))
    row = throughput_frame(load_results(path)).query("variant == 'noskip'").iloc[0]
    assert np.isnan(row["ratio"])
    assert row["reason"] == "the rounds of the two variants do not pair"
    assert row["value"] > 0


def test_a_study_without_a_profile_has_no_rows(tmp_path: Path) -> None:
    path = plant(tmp_path / "p", variants=("unet",), lrs=(3e-4,), seeds=1, images=2, epochs=6, profile=False)
    assert not len(throughput_frame(load_results(path)))
