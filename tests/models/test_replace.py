"""Layers replaced by the pattern of their names, in networks of any origin."""

from __future__ import annotations

import os

import pytest
import torch
from torch import nn

from ablate.errors import StudyError
from ablate.models import PassThrough, replace_layers
from ablate.registry import MODELS
from ablate.study.components import create


def network() -> nn.Sequential:
    block = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Dropout(0.5))
    return nn.Sequential(block, nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()), nn.Conv2d(3, 2, 1))


def test_a_layer_becomes_its_input() -> None:
    model = network()
    assert replace_layers(model, {"*.1": "identity"}) == {"*.1": ["0.1", "1.1"]}
    assert isinstance(model.get_submodule("0.1"), PassThrough)
    assert isinstance(model.get_submodule("1.1"), PassThrough)


def test_of_layers_inside_one_another_the_outer_one_goes() -> None:
    model = network()
    assert replace_layers(model, {"0*": "identity"}) == {"0*": ["0"]}


def test_a_layer_is_removed_from_its_sequential() -> None:
    model = network()
    replace_layers(model, {"0.[12]": "removed"})
    assert [type(layer).__name__ for layer in model.get_submodule("0").children()] == ["Conv2d"]
    assert model(torch.zeros(1, 3, 4, 4)).shape == (1, 2, 4, 4)


def test_of_several_inputs_the_last_or_the_chosen_one_is_passed_on() -> None:
    assert PassThrough()(1, 2) == 2
    assert PassThrough()(g=1, x=2) == 2
    assert PassThrough(0)(1, x=2) == 1


@pytest.mark.parametrize(
    ("pattern", "cure"),
    [
        ("decoder.*.gat", r"did you mean 'decoder\.\*\.gate'\?"),
        ("gate", r"did you mean '\*\.gate'\?"),
        ("decoder.3.gate", r"did you mean 'decoder\.1\.gate'\?"),
        (
            "*.BatchNorm2d",
            r"by their names, not by their type; those of BatchNorm2d are encoder\.0\.norm1, .*, \.\.\.$",
        ),
        ("*.attention", r"those of AttentionGate are decoder\.1\.gate$"),
    ],
)
def test_a_pattern_without_a_match_is_told_what_it_may_have_meant(pattern: str, cure: str) -> None:
    component = {"name": "unet", "width": 4, "depth": 2, "skip": "attention"}
    model = create(MODELS, component, in_channels=3, num_classes=2)
    with pytest.raises(StudyError, match=cure):
        replace_layers(model, {pattern: "identity"})


def test_a_layer_that_stands_at_two_places_is_replaced_at_both() -> None:
    model = nn.Module()
    model.first = model.second = nn.ReLU()
    model.last = nn.Linear(1, 1)
    assert replace_layers(model, {"second": "identity", "first": 0}) == {"second": ["second"], "first": ["first"]}


def test_nothing_matched_names_the_nearest_layers() -> None:
    with pytest.raises(StudyError, match=r"replace\.0\.l: '0\.l' matches no layer of the network; did you mean '0\.2'"):
        replace_layers(network(), {"0.l": "identity"})
    with pytest.raises(StudyError, match=r"the layers are 0, 1, 2, 0\.0, "):
        replace_layers(network(), {"*.attention": "identity"})


def test_a_layer_at_two_places_is_replaced_at_both_and_removed_once() -> None:
    shared = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Sigmoid())
    model = nn.ModuleDict({"a": shared, "b": shared, "c": nn.Sequential(shared[1])})
    assert replace_layers(model, {"[ab].1": "removed"}) == {"[ab].1": ["a.1", "b.1"]}
    assert [type(layer) for layer in shared] == [nn.Conv2d, nn.Sigmoid]
    replace_layers(model, {"*.1": "identity"})
    assert [type(layer) for layer in shared] == [nn.Conv2d, PassThrough]


def test_a_network_of_which_nothing_is_left_is_refused() -> None:
    with pytest.raises(StudyError, match="nothing is left to train; replace fewer layers"):
        replace_layers(network(), {"*": "identity"})


def test_what_stands_in_no_sequential_cannot_be_removed() -> None:
    model = create(MODELS, {"name": "unet", "width": 4, "depth": 2}, in_channels=3, num_classes=2)
    with pytest.raises(StudyError, match=r"stands in no nn\.Sequential, so that it cannot be removed; write identity"):
        replace_layers(model, {"head": "removed"})


def test_the_other_layers_begin_with_the_weights_of_the_whole_network() -> None:
    models = []
    for rules in ({}, {"decoder.1.gate": 0}):
        torch.manual_seed(0)
        component = {"name": "unet", "width": 4, "depth": 2, "skip": "attention"} | (
            {"replace": rules} if rules else {}
        )
        models.append(create(MODELS, component, in_channels=3, num_classes=2).state_dict())
    whole, without = models
    assert set(without) < set(whole)
    assert all(torch.equal(without[name], whole[name]) for name in without)


def test_the_gates_of_monais_attention_unet_are_taken_out() -> None:
    if not os.environ.get("ABLATE_TEST_ALL"):
        pytest.importorskip("monai", reason="MONAI is not installed (extra monai)")
    component = {"name": "monai/attention_unet", "channels": [4, 8, 16]}
    gates = {"replace": {"model.*.attention": "identity"}}
    model = create(MODELS, component | gates, in_channels=3, num_classes=5)
    assert model.replaced == {"model.*.attention": ["model.1.attention", "model.1.submodule.1.attention"]}
    assert model(torch.zeros(2, 3, 32, 48)).shape == (2, 5, 32, 48)
