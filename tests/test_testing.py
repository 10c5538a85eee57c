"""`ablate check-plugin` on a file that keeps its contracts and on one that breaks each of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablate.errors import PluginError
from ablate.plugins import load_plugins
from ablate.testing import check, check_plugin
from tests.test_plugins import plugin

pytestmark = pytest.mark.usefixtures("registered")

SOUND = """\
import ablate, torch
from pathlib import Path
from typing import Any
from matplotlib.figure import Figure
from torch import nn

@ablate.register_model("sound")
def sound(*, in_channels: int, num_classes: int, width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.Conv2d(width, num_classes, 1))

@ablate.register_loss("sound_loss")
def sound_loss(logits, target, *, num_classes, ignore_index, class_weights=None):
    return nn.functional.cross_entropy(logits.float(), target.long(), class_weights, ignore_index=ignore_index)

@ablate.register_loss("sound_multilabel")
def sound_multilabel(logits, target, *, num_classes, ignore_index, class_weights=None, multilabel=False, share: float = 0.5):
    if not multilabel:
        return nn.functional.cross_entropy(logits.float(), target.long(), ignore_index=ignore_index)
    truth = (target[:, None] >> torch.arange(num_classes)[:, None, None] & 1).float()
    return nn.functional.binary_cross_entropy_with_logits(logits.float(), truth)

@ablate.register_optimizer("sound_sgd")
def sound_sgd(parameters, *, lr, weight_decay, momentum):
    return torch.optim.SGD(parameters, lr=lr)

@ablate.register_dataset("sound_data")
def sound_data(*, root: Path, base: Path):
    raise NotImplementedError

@ablate.register_augment("sound_augment")
def sound_augment(image, mask, *, rng, most: float = 0.5):
    return (image * rng.uniform(1 - most, 1)).astype(image.dtype), mask

@ablate.register_figure("sound_figure")
def sound_figure(analysis):
    figure = Figure()
    figure.subplots().plot(analysis.cells["val_mean"])
    return figure

@ablate.register_measure("sound_measure")
def sound_measure(trial) -> float:
    return float(trial.steps[0, 0])
"""  # noqa: E501
BROKEN = """\
import ablate, torch
from torch import nn
CALLS = []

class Counting(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.layer, self.calls = nn.Conv2d(channels, classes, 1), 0
    def forward(self, x):
        self.calls += self.training
        return self.layer(x) * (1 + 0.1 * self.calls)

@ablate.register_model("counting")
def counting(*, in_channels: int, num_classes: int) -> nn.Module:
    return Counting(in_channels, num_classes)

@ablate.register_loss("raising")
def raising(logits, target, *, num_classes, ignore_index, class_weights=None):
    raise KeyError("nothing here")

@ablate.register_loss("single")
def single(logits, target, *, num_classes, ignore_index, class_weights=None, multilabel=False):
    return nn.functional.cross_entropy(logits.float(), target.long(), ignore_index=ignore_index)

@ablate.register_optimizer("forgetful")
def forgetful(parameters, *, lr, weight_decay, momentum):
    class Forgetful(torch.optim.SGD):
        steps = 0
        def step(self, closure=None):
            self.steps += 1
            for group in self.param_groups:
                group["lr"] = group["lr"] / self.steps
            return super().step(closure)
    return Forgetful(parameters, lr=lr)

@ablate.register_augment("drifting")
def drifting(image, mask, *, rng):
    CALLS.append(1)
    return image // len(CALLS), mask

@ablate.register_figure("no_figure")
def no_figure(analysis):
    return analysis.nothing

@ablate.register_table("no_table")
def no_table(analysis):
    return 3
"""


def test_what_keeps_its_contract_is_said_line_by_line(tmp_path: Path) -> None:
    path = plugin(tmp_path, SOUND, "sound.py")
    lines = list(check_plugin(path.parent / ".." / path.parent.name / path.name))
    assert lines[0] == "model 'sound': keeps its contract"
    assert lines[1].startswith("data set 'sound_data': not checked, it has no default for root; `ablate check STUDY")
    assert lines[2:4] == [f"loss 'sound_{name}': keeps its contract" for name in ("loss", "multilabel")]
    assert lines[4] == "optimizer 'sound_sgd': keeps its contract"
    assert lines[5] == "augmentation 'sound_augment': keeps its contract"
    assert lines[6].startswith("measure 'sound_measure': 2.")
    assert lines[7].startswith("figure 'sound_figure': is made")


def test_what_breaks_its_contract_is_one_line_each_at_its_place(tmp_path: Path) -> None:
    path = plugin(tmp_path, BROKEN, "broken.py")
    with pytest.raises(PluginError) as caught:
        list(check_plugin(path))
    place, lines = f"{path}:", [str(problem).removeprefix(f"{path}:") for problem in caught.value.problems]
    assert all(str(problem).startswith(place) for problem in caught.value.problems)
    assert lines[0].startswith(
        "13: the model 'counting': trained to other numbers the second time in one process; keep"
    )
    assert lines[1] == "19: the loss 'raising': KeyError: 'nothing here'"
    assert lines[2].startswith("23: the loss 'single': IndexError: Target 3 is out of bounds")
    assert lines[3].startswith(
        "25: the optimizer 'forgetful': trained to other numbers when it was stopped and resumed"
    )
    assert lines[4].startswith(
        "36: the augmentation 'drifting': trained to other numbers the second time in one process"
    )
    assert lines[5].startswith("43: the figure 'no_figure': AttributeError: ")
    assert lines[6] == "45: the table 'no_table': expected a DataFrame, got a int"


def test_one_part_by_the_word_of_its_decorator(tmp_path: Path) -> None:
    load_plugins([plugin(tmp_path, BROKEN, "broken.py")], entry_points=False)
    for kind, name, message in (
        ("loss", "raising", "19: the loss 'raising': KeyError"),
        ("table", "no_table", "45: the table 'no_table': expected a DataFrame"),
        ("measure", "first_los", r"unknown measure 'first_los'; "),
        ("modle", "x", "unknown kind 'modle'; did you mean 'model'"),
    ):
        with pytest.raises(PluginError, match=message):
            check(kind, name)


def test_a_file_that_registers_nothing(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"registers nothing; begin with @ablate.register_model"):
        list(check_plugin(plugin(tmp_path, "x = 1\n", "empty.py")))
