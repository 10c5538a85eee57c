"""The closing profile: every variant has its rates, whichever engine executes the steps."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch

import tests.tiny_plugin  # noqa: F401  (registers the tiny components)
from ablate.train.context import Context
from ablate.train.engine.config import Decisions
from ablate.train.profile import ROUNDS, profile_variants
from tests.train.test_loop import make_study


@pytest.mark.usefixtures("_captures_by_call")
@pytest.mark.parametrize("engine", ["eager", "graph"])
def test_every_variant_has_its_rates(tmp_path: Path, engine: str) -> None:
    study = make_study(tmp_path)
    bench = Context("cpu", Decisions("test", "float32", True, engine, 1, 1, True, {}), tmp_path)
    profile = profile_variants(study.representatives(), bench, seconds=0.2)
    assert list(profile["variants"]) == ["narrow", "wide"] and profile["engine"] == engine
    for row in profile["variants"].values():
        for rates in (row["train_images_per_s"], row["inference_images_per_s"]):
            assert len(rates) == ROUNDS and min(rates) > 0
        assert row["peak_memory_bytes"] >= 0 and row["parameters"] > 0 and row["forward_flops"] > 0


def test_each_of_many_compiled_variants_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []

    def backend(module: torch.fx.GraphModule, _inputs: Any) -> Any:
        compiled.append(module)
        return module.forward

    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    variants = ", ".join(f"w{width}: {{width: {width}}}" for width in range(1, 11))
    study = make_study(
        tmp_path,
        f"study: many\ndata: {{name: tiny}}\nmodel: {{name: two_convolutions}}\nvariants: {{{variants}}}\n"
        "baseline: w1\ngrid: {lr: [1e-3]}\nseeds: 1\ntrain: {epochs: 1, batch_size: 4}\n",
    )
    bench = Context("cpu", Decisions("test", "float32", True, "compiled", 1, 1, True, {}), tmp_path)
    profile_variants(study.representatives(), bench, seconds=0.05)
    assert len(compiled) == 2 * 10, "a training step and a prediction of each"
