"""The comparison of the fast path with the plain one, and of the engines' steps."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmarks import engines, paths
from benchmarks.common import check_trials, load_work


def trials(*scores: float) -> pd.DataFrame:
    return pd.DataFrame({"variant": ["unet", "unet"], "setting": ["lr=1e-3"] * 2, "test_mean_iou": scores})


def test_cells_are_compared_by_their_means_and_the_larger_spread() -> None:
    (row,) = paths.compared(trials(0.5, 0.7), trials(0.5, 0.52))
    assert (row["fast"], row["plain"], row["seeds"]) == pytest.approx((0.6, 0.51, 2))
    assert row["difference"] == pytest.approx(0.09) and row["spread"] == pytest.approx(0.2 / 2**0.5)
    decided = {"precision": "float32", "engine": "fused", "workers": 2, "threads": 1}
    document = {"study": "s", "command": "c", "machine": "m", "versions": {}, "fast": decided, "plain": decided}
    text = paths.render({**document, "rows": [row, {**row, "difference": 0.3}]})
    assert "| unet | lr=1e-3 | 60.00 | 51.00 | +9.00 | 14.14 |" in text and "1 of 2 differences are within it" in text


@pytest.mark.usefixtures("kernels")
def test_engines_are_timed_in_turn_on_the_same_batch(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        "study: s\ndata: {name: street, size: [32, 32], train: 4, val: 2, test: 2}\n"
        "model: {name: unet, width: 2, depth: 1}\ngrid: {lr: [1e-3]}\nseeds: 1\ntrain: {batch_size: 2}\n"
    )
    work, threads = load_work(path), torch.get_num_threads()
    try:
        row = engines.measure(work, check_trials(work)[0], "float32", steps=3)
    finally:
        torch.set_num_threads(threads)
    assert set(row["ms"]) == {"eager", "fused"} and min(row["ms"].values()) > 0
    assert row["least"] <= row["gain"] <= row["most"]
