"""Whole trials in fused kernels: the eager ones' curves, and bits that depend on nothing that ran before."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from ablate.models.layers import ConvBlock, ResidualBlock
from ablate.models.unet import UNet, unet
from ablate.records.record import Record
from ablate.records.store import Results, TrialFolder
from ablate.study.reader import read_study
from ablate.study.study import Study
from ablate.train import losses
from ablate.train.context import Context
from ablate.train.engine.config import Decisions
from ablate.train.engine.fused import (
    FusedBatchNorm2d,
    FusedConvBlock,
    FusedDecoder,
    FusedUNet,
    fuse,
    fused_cross_entropy,
    fused_loss,
)
from ablate.train.loop import Interrupted, Options, run_trial
from tests.train.test_loop import content

pytestmark = pytest.mark.usefixtures("kernels")

STUDY = """\
study: small
data: {name: street, size: [34, 45], train: 8, val: 4, test: 4}
model: {name: unet, width: 4, depth: 2}
variants: {unet: {}, residual: {block: residual}, attention: {skip: attention}}
grid: {lr: [1e-3]}
seeds: 1
train: {epochs: 3, batch_size: 4, precision: float32}
measure: {lr_headroom: 1, gradients: 2}
"""
FUSED = Decisions("test", "float32", True, "fused", 1, 1, True, {})
EAGER = dataclasses.replace(FUSED, engine="eager")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    path = tmp_path_factory.mktemp("study") / "study.yaml"
    path.write_text(STUDY, encoding="utf-8")
    return read_study(path)


def trained(study: Study, decisions: Decisions, folder: Path) -> list[tuple[Record, TrialFolder]]:
    bench = Context("cpu", decisions, study.base)
    results = Results(folder)
    found = []
    for trial in study.trials():
        place = results.trial(trial.name)
        found.append((run_trial(trial, bench, place, Options(study.spec.measure, keep="last")), place))
    return found


def test_the_curves_are_those_of_the_plain_engine(study: Study, tmp_path: Path) -> None:
    eager, fused = (trained(study, d, tmp_path / d.engine) for d in (EAGER, FUSED))
    for (plain, there), (record, here) in zip(eager, fused, strict=True):
        assert (plain.status, record.status) == ("complete", "complete")
        theirs, ours = (np.fromfile(place.steps, dtype="<f4").reshape(-1, 2) for place in (there, here))
        np.testing.assert_allclose(ours, theirs, rtol=2e-3)
        assert not np.array_equal(ours, theirs)  # it was another engine that computed them


def stop_at_third(steps: Iterator[int]) -> str | None:
    return "test" if next(steps) == 3 else None


def test_a_trial_that_was_interrupted_has_the_bits_of_one_that_was_not(study: Study, tmp_path: Path) -> None:
    undisturbed = trained(study, FUSED, tmp_path / "undisturbed")
    bench = Context("cpu", FUSED, study.base)
    for trial, (_, wanted) in zip(reversed(study.trials()), reversed(undisturbed), strict=True):
        place = Results(tmp_path / "disturbed").trial(trial.name)
        steps = itertools.count()
        with pytest.raises(Interrupted):
            run_trial(
                trial, bench, place,
                Options(study.spec.measure, keep="last", should_stop=functools.partial(stop_at_third, steps)),
            )  # fmt: skip
        run_trial(trial, bench, place, Options(study.spec.measure, keep="last"))
        assert content(place) == content(wanted)


def test_only_modules_that_are_known_are_replaced() -> None:
    model = unet(in_channels=3, num_classes=4, width=4, depth=1)
    names, weights = list(model.state_dict()), [parameter.data_ptr() for parameter in model.parameters()]
    fuse(model)
    assert type(model) is FusedUNet and type(model.decoder[0]) is FusedDecoder
    assert type(model.encoder[0]) is FusedConvBlock and type(model.encoder[0].norm1) is FusedBatchNorm2d
    assert list(model.state_dict()) == names and [parameter.data_ptr() for parameter in model.parameters()] == weights
    other = unet(in_channels=3, num_classes=4, width=4, depth=1)
    assert type(other) is UNet and type(other.encoder[0]) is ConvBlock, "nothing but the network given is touched"

    class Own(ResidualBlock):
        """Computes something that nobody here knows."""

    foreign = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.GroupNorm(2, 4), Own(4, 4, "group"))
    before = [type(module) for module in foreign.modules()]
    fuse(foreign)
    changed = [type(m) for m, kind in zip(foreign.modules(), before, strict=True) if type(m) is not kind]
    assert changed == [FusedBatchNorm2d]
    assert fused_loss(losses.cross_entropy) is fused_cross_entropy and fused_loss(losses.dice) is losses.dice
