"""The tables of the comparison, from rounds whose ratios are known."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.phases import PHASES
from benchmarks.tables import loop_rate, render, summarise


def run(wall: float, scores: tuple[float, float] = (0.25, 0.5), others: float = 0.0) -> dict[str, Any]:
    trials = [
        {"variant": "unet", "lr": 0.001, "seed": 0, "test_mean_iou": scores[0]},
        {"variant": "noskip", "lr": 0.001, "seed": 0, "test_mean_iou": scores[1]},
    ]
    return {"wall_s": wall, "cpu_s": wall, "others_cores": others, "trials": trials}


def document(*, amx: bool = True) -> dict[str, Any]:
    rounds = [
        {"cache": "cold", "runs": {"ablate": run(20.0), "plain": run(50.0)}},
        {"cache": "warm", "runs": {"ablate": run(10.0), "plain": run(40.0)}},
        {"cache": "warm", "runs": {"ablate": run(10.0), "plain": run(50.0, others=0.7)}},
        {"cache": "warm", "runs": {"ablate": run(20.0), "plain": run(70.0, (0.2, 0.3))}},
    ]
    for entry in rounds:
        entry["runs"]["ablate"]["phases"] = dict.fromkeys(PHASES, 0.0) | {"training": 7.0}  # type: ignore[index]
    return {
        "name": "street",
        "command": "python -m benchmarks.compare",
        "machine": {"device": "a processor", "cores": 2, "amx": amx},
        "versions": {"torch": "2.13.0"},
        "study": "street.yaml",
        "trials": 2,
        "flops": 4e12,
        "matmul": {"dtype": "bfloat16", "median": 2.0, "min": 1.9, "max": 2.1},
        "contestants": ["ablate", "plain"],
        "rounds": rounds,
        "checks": {"plain": [{"variant": "unet", "loop_s": [2.0, 1.0, 4.0], "bare_s": [1.0, 0.95, 3.2]}]},
    }


def test_ratios_are_paired_within_their_round() -> None:
    plain = summarise(document())["plain"]
    assert plain["warm_ratio"] == {"median": 4.0, "min": 3.5, "max": 5.0}
    assert plain["cold_ratio"]["median"] == 2.5


def test_share_is_the_studys_arithmetic_by_the_wall_clock() -> None:
    # 4 TFLOP in 10 s is 0.4 TFLOP/s, a fifth of 2.
    assert summarise(document())["ablate"]["warm_share"] == pytest.approx({"median": 0.2, "min": 0.1, "max": 0.2})


def test_loop_rate_is_the_median_of_paired_rounds() -> None:
    assert loop_rate({"loop_s": [2.0, 1.0, 4.0], "bare_s": [1.0, 0.95, 3.2]}) == pytest.approx(0.8)


def test_rendered_rows() -> None:
    text = render(document())
    assert "| plain | 50.0 [40.0, 70.0] | 4.00 [3.50, 5.00] | 50.0 | 2.50 |" in text
    assert "| × plain | 3.00 | 6.00 | 4.00 [3.50, 5.00] | floor passed |" in text
    assert "| of the matmul rate | 12.0% | 25.0% | 20.0% [10.0%, 20.0%] | floor within the spread |" in text
    assert "| unet | 0.001 | 0 | 25.00 | 20.00 |" in text
    assert "| mean |  |  | 37.50 | 25.00 |" in text
    assert "| training | 7.00 | 7.00 |" in text


def test_a_weak_peer_and_a_loud_machine_are_named() -> None:
    text = render(document())
    assert "so not at its best here: plain" in text
    assert "plain in round 3 (0.7 cores)" in text


def test_goals_are_not_judged_on_another_machine() -> None:
    text = render(document(amx=False))
    assert "| × plain | 3.00 | 6.00 | 4.00 [3.50, 5.00] | not judged |" in text
    assert "cannot be judged here" in text
