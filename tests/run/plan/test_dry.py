"""The dry pass: what would fail in a trial is said before one begins, in one line at its place."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ablate.data.dataset import Dataset, Split
from ablate.errors import AblateError, DataError, PluginError, StudyError
from ablate.plugins import load_plugins, random_states
from ablate.registry import DATASETS, LOSSES, MEASURES, MODELS, OPTIMIZERS
from ablate.run.plan import dry
from ablate.run.plan.dry import dry_pass, load_data
from ablate.run.plan.measured import measures_that_raise
from tests.study.study_files import GOOD, read
from tests.test_plugins import plugin

pytestmark = pytest.mark.usefixtures("registered")
HERE = re.escape(__file__)


def passed(folder: Path, text: str = GOOD, *overrides: str) -> None:
    """Pass the study dry."""
    study = read(folder, text, overrides)
    dry_pass(study, load_data(study))


class Net(nn.Module):
    """A convolution whose logits go through `act` in evaluation mode, or through `train` in training mode."""

    def __init__(self, channels: int, classes: int, act: Callable[[Tensor], Any], train: bool = False) -> None:
        super().__init__()
        self.layer, self.act, self.when = nn.Conv2d(channels, classes, 1), act, train

    def forward(self, x: Tensor) -> Any:
        """(N, channels, H, W) -> logits, and what `act` makes of them."""
        logits = self.layer(x)
        return self.act(logits) if self.training is self.when else logits


def refuse(_logits: Tensor) -> Tensor:
    """Fail in a line of this file."""
    raise AssertionError("sides must be multiples of 64")


def refuse_four(logits: Tensor) -> Tensor:
    """Fail for the real batch only."""
    if len(logits) == 4:
        raise ValueError("no batches of four")
    return logits


def test_a_sound_study_passes_and_leaves_the_random_states_alone(tmp_path: Path) -> None:
    random.seed(5), np.random.seed(5), torch.manual_seed(5)  # noqa: NPY002
    before = random_states()
    passed(
        tmp_path, GOOD.replace("batch_size: 4", "batch_size: 4, crop: [16, 32], class_weights: balanced, loss: dice")
    )
    assert random_states() == before


@pytest.mark.parametrize(
    ("act", "train", "message"),
    [
        (lambda logits: {"out": logits}, False, "or a dict with 'main', got a dict in evaluation mode"),
        (lambda logits: logits[..., ::2, ::2], False, r"got \(2, 11, 16, 24\) in evaluation mode"),
        (lambda logits: logits.argmax(1), True, "got a tensor of torch.int64 in training mode"),
        (refuse, False, "AssertionError: sides must be multiples of 64"),
        (refuse_four, True, "ValueError: no batches of four"),
        (lambda logits: logits.detach(), True, "RuntimeError: element 0 of tensors does not require grad"),
    ],
)
@pytest.mark.fault("P2", "in training and in evaluation mode, with the real batch")
def test_a_model_that_fails_in_either_mode(
    act: Callable[[Tensor], Any], train: bool, message: str, tmp_path: Path
) -> None:
    @MODELS.register("unsound")
    def unsound(*, in_channels: int, num_classes: int) -> nn.Module:
        return Net(in_channels, num_classes, act, train)

    with pytest.raises(PluginError, match=rf"^{HERE}:\d+: variant 'noskip': the model 'unsound': .*{message}"):
        passed(tmp_path, GOOD.replace("{skip: none}", "{name: unsound}"))


def test_a_network_that_fails_names_its_variant_its_settings_and_the_users_own_line(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n\nclass Net(nn.Sequential):\n"
        "    def forward(self, x):\n        return super().forward(x)\n"
    )
    own = (
        "import ablate\nfrom torch import nn\nfrom nets import Net\n\n@ablate.register_model('mine')\n"
        "def mine(*, in_channels: int, num_classes: int, width: int = 8, more: bool = False):\n"
        "    return Net(nn.Conv2d(in_channels, width, 1), nn.Conv2d(8, num_classes, 1))\n"
    )
    load_plugins([plugin(tmp_path, own, "mine.py")], entry_points=False)
    text = GOOD.replace("{name: unet, width: 4, depth: 2}", "{name: mine, more: true}")
    with pytest.raises(PluginError) as caught:
        passed(tmp_path, text.replace("{skip: none}", "{width: 16}"))
    (problem,) = caught.value.problems
    assert (problem.file, problem.line) == (str(tmp_path / "nets.py"), 5)
    assert problem.message.startswith(
        "variant 'noskip' (width: 16, more: true): the model 'mine': RuntimeError: Given groups=1"
    )


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("variants:\n  unet: {}\n  gated: {skip: attention, depth: 1}\n", "study.yaml:6: variants.gated.depth"),
        ("factors: {depth: [2, 1]}\n", "study.yaml:4: factors.depth"),
        ("variants:\n  unet: {replace: {nothing: identity}}\n", "study.yaml:5: variants.unet.replace"),
    ],
)
def test_a_setting_of_a_network_that_fails_is_placed_where_it_is_written(
    written: str, key: str, tmp_path: Path
) -> None:
    shared = "{name: unet, width: 4, skip: attention" + (
        ", replace: {head: identity}}" if "nothing" in written else "}"
    )
    text = GOOD.replace("variants:\n  unet: {}\n  noskip: {skip: none}\n", written)
    with pytest.raises(StudyError, match=rf"{re.escape(key)}: variant '"):
        passed(tmp_path, text.replace("{name: unet, width: 4, depth: 2}", shared))


def last_loss(trial: Any) -> float:
    """Give the last epoch's loss, which a trial that diverged in its first has not."""
    return float(trial.epochs["val_loss"][-1])


def by_class(trial: Any) -> float:
    """Look at a class that the data have not."""
    return float(trial.counts["test"][:, 11].sum())


def of_a_probe(trial: Any) -> float:
    """Give what a probe measures."""
    return float(trial.layers["skip_share"]["encoder.0"][0])


def of_text(trial: Any) -> str:
    """Return what is no number."""
    return "high" if trial.steps_per_epoch else "low"


def sound(trial: Any) -> float:
    """Use all that is described, as shapes and as numbers."""
    assert trial.steps.shape == (2 * trial.steps_per_epoch, 2) and trial.steps_per_epoch == 2
    shape = trial.counts["val"].shape
    assert shape == (4, 11, 3)
    return float(trial.epochs["val_mean_iou"].mean()) if len(trial.epochs["val_mean_iou"]) == 2 else float("nan")


@pytest.mark.parametrize(
    ("function", "epochs", "message"),
    [
        (last_loss, 1, r"IndexError: .* \(of a trial that diverged\); where there is no number, raise ValueError with"),
        (last_loss, 2, ""),
        (by_class, 2, r"IndexError: index 11 is out of bounds for axis 1 with size 11$"),
        (of_a_probe, 2, ""),
        (of_text, 2, "expected a number, got 'high'$"),
        (sound, 2, ""),
    ],
)
def test_the_measures_of_plugins_are_tried(
    function: Callable[..., Any], epochs: int, message: str, tmp_path: Path
) -> None:
    MEASURES.register("mine")(function)
    study = read(tmp_path, GOOD, [f"train.epochs={epochs}"])
    found = measures_that_raise(study, load_data(study))
    line = function.__code__.co_firstlineno + (0 if function is of_text else 2)
    assert [bool(re.match(rf"{HERE}:{line}: the measure 'mine': {message}", str(one))) for one in found] == [
        True
    ] * bool(message)


def test_a_large_plugin_passes_with_two_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry, "MOST_FLOPS", 1.0)
    seen = []

    def look(logits: Tensor) -> Tensor:
        seen.append(logits.shape)
        return logits

    @MODELS.register("large")
    def large(*, in_channels: int, num_classes: int) -> nn.Module:
        return Net(in_channels, num_classes, look, True)

    passed(tmp_path, GOOD.replace("{skip: none}", "{name: large}"))
    assert set(seen) == {(2, 11, 32, 48)}


@pytest.mark.parametrize("most", [60e9, 1.0])
def test_a_norm_of_one_value_names_depth_and_cures(
    most: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dry, "MOST_FLOPS", most)  # on the CPU, and on the meta device
    text = GOOD.replace("[32, 48]", "[32, 32]").replace("depth: 2", "depth: 9")
    with pytest.raises(
        StudyError,
        match=r"model\.depth: variant 'unet' \(.*depth: 9, .*\): at 32 × 32 .*; take depth 4 or larger images$",
    ):
        passed(tmp_path, text, "model.norm=instance", "variants={unet: {}}")
    with pytest.raises(StudyError, match=r"with batch_size 1 .*; take depth 4 or larger images or batch_size 2$"):
        passed(tmp_path, text, "train.batch_size=1", "variants={unet: {}}")


def plain(logits: Tensor, target: Tensor) -> Tensor:
    """Take no keywords."""
    return functional.cross_entropy(logits, target.long(), ignore_index=255)


def per_pixel(logits: Tensor, target: Tensor, **_: Any) -> Tensor:
    """Give a loss for each pixel."""
    return functional.cross_entropy(logits.float(), target.long(), reduction="none", ignore_index=255)


def detached(logits: Tensor, target: Tensor, **_: Any) -> Tensor:
    """Give a number that no longer knows of the logits."""
    return torch.tensor(plain(logits, target).item(), requires_grad=True)


def never_alone(logits: Tensor, target: Tensor, **_: Any) -> Tensor:
    """Fail for a single image, as evaluation passes."""
    if len(logits) == 1:
        raise ValueError("expected two images")
    return plain(logits, target)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (plain, r"TypeError: .*'num_classes'.*; it is called with \(logits, target, \*, num_classes"),
        (per_pixel, r"expected one floating-point number for the batch, got torch.float32 \(4, 32, 48\)"),
        (detached, "expected a loss that depends on the logits"),
        (never_alone, "ValueError: expected two images"),
    ],
)
def test_a_loss_that_breaks_its_contract(function: Callable[..., Tensor], message: str, tmp_path: Path) -> None:
    LOSSES.register("mine")(function)
    with pytest.raises(PluginError, match=rf"^{HERE}:\d+: the loss 'mine': {message}"):
        passed(tmp_path, GOOD, "train.loss=mine")


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (lambda parameters, lr: torch.optim.RMSprop(parameters, lr=lr), r"it is called with \(parameters, \*, lr"),
        (lambda parameters, **_: torch.optim.LBFGS(parameters), "TypeError: .*closure"),
        (lambda _parameters, **_: 3, "expected a torch.optim.Optimizer, got a int"),
    ],
)
def test_an_optimizer_that_breaks_its_contract(factory: Callable[..., Any], message: str, tmp_path: Path) -> None:
    OPTIMIZERS.register("mine")(factory)
    with pytest.raises(PluginError, match=rf"^{HERE}:\d+: the optimizer 'mine': .*{message}"):
        passed(tmp_path, GOOD, "train.optimizer=mine")


def test_all_that_fails_is_said_at_once(tmp_path: Path) -> None:
    LOSSES.register("mine")(plain)
    MEASURES.register("mine")(by_class)
    OPTIMIZERS.register("own")(lambda _parameters, **_: 3)
    text = GOOD.replace("batch_size: 4", "batch_size: 4, loss: mine, optimizer: own, precision: float32")
    with pytest.raises(AblateError) as caught:
        passed(tmp_path, text.replace("depth: 2", "depth: 5, norm: instance").replace("[32, 48]", "[32, 32]"))
    networks, loss, optimizer, measure = str(caught.value).splitlines()
    assert (
        "study.yaml:3: model.depth: variant 'unet' (width: 4, depth: 5, norm: instance), variant 'noskip' (" in networks
    )
    assert "the loss 'mine'" in loss and "the optimizer 'own'" in optimizer and "the measure 'mine'" in measure


def test_a_data_set_that_is_another_each_time(tmp_path: Path) -> None:
    @DATASETS.register("unseeded")
    def unseeded() -> Dataset:
        def part(count: int) -> Split:
            masks = np.random.default_rng().integers(0, 2, (count, 8, 8)).astype(np.uint8)
            return Split(masks[..., None] * np.uint8(200), masks, tuple(map(str, range(count))))

        splits = {"train": part(4), "val": part(2), "test": part(2)}
        return Dataset("unseeded", ("a", "b"), ((0, 0, 0), (9, 9, 9)), splits, "1")

    study = read(
        tmp_path, GOOD.replace("{name: street, size: [32, 48], train: 8, val: 4, test: 4}", "{name: unseeded}")
    )
    load_data(study)
    with pytest.raises(DataError, match=r"study\.yaml:2: data.name: .* is another each time it is made .*; seed what"):
        load_data(study, again=True)
