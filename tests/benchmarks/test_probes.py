"""The probes at tiny sizes on the CPU: that every figure is there, and that what is compared computes the same."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import probes
from benchmarks.probes import TINY, Device, Shuffled, convolutions, first_layer, render, upsampling


@pytest.fixture(scope="module")
def device() -> Device:
    return Device("cpu", TINY.seconds)


def test_a_shuffled_product_is_the_transposed_convolution() -> None:
    layer = torch.nn.ConvTranspose2d(6, 3, 2, stride=2, bias=False)
    x = torch.randn(2, 6, 5, 7)
    torch.testing.assert_close(Shuffled(layer)(x), layer(x))


def test_every_level_has_its_convolutions_both_ways(device: Device) -> None:
    rows = convolutions(device, TINY, 4)
    assert [row["layer"] for row in rows] == [
        "first", "level 0", "level 0 decoder", "level 1", "level 1 decoder", "level 2",
    ]  # fmt: skip
    assert rows[-1]["channels"] == [16, 16] and rows[-1]["size"] == [8, 12]
    # The first layer's input needs no gradient: its backward pass has as many FLOPs as its forward pass, not twice.
    for row in rows:
        share = row["backward_tflops"] * row["backward_ms"] / (row["forward_tflops"] * row["forward_ms"])
        assert share == pytest.approx(1 if row["layer"] == "first" else 2)


def test_upsampling_and_first_layer_are_measured_in_both_ways(device: Device) -> None:
    assert [row["way"] for row in upsampling(device, TINY, 4)] == ["transposed", "shuffled"] * 2
    assert [row["channels"] for row in first_layer(device, TINY, 4)] == [3, 8]


def test_the_script_writes_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["probes", "--device", "cpu", "--tiny", "--name", "here", "--out", str(tmp_path)])
    probes.main()
    document = json.loads((tmp_path / "here.json").read_text())
    assert [row["engine"] for row in document["engines"]] == ["eager"]
    assert document["engines"][0]["images_per_s"] > 0 and document["engines"][0]["error"] is None
    assert [row["workers"] for row in document["workers"]] == [1, 2] and document["workers"][1]["images_per_s"] > 0
    assert set(document["rates"]) == {"bfloat16_matmul_tflops", "float32_matmul_tflops", "copy_gb_per_s"}
    text = (tmp_path / "here.md").read_text()
    # A second run finds all its parts, so its figures are those of the first.
    probes.main()
    assert json.loads((tmp_path / "here.json").read_text()) == document
    assert text == render(document) and "## First layer" in text and "| 4 | level 1 decoder | 16×8 | 16×24 |" in text
