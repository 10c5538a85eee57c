"""What training asks of a device: nothing whose answer the host would have to wait for.

A GPU's own test (`test_cuda.py`) has the device say so; here it is read from the operations that are dispatched, with
the branches for CUDA taken on CPU tensors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ablate.data.augment import Augmenter
from ablate.study.spec import AugmentSpec
from ablate.train.batches import DeviceData
from ablate.train.evaluate import score
from ablate.train.network import Network, learn
from ablate.train.optim import make_optimizer
from benchmarks.gpu_probe import random_data

DATA = random_data(3, 11, (20, 28), 5)
DEVICE = torch.device("cpu")
MODEL = {"name": "unet", "width": 4, "depth": 2, "skip": "attention", "dropout": 0.1}
# On CUDA these bring a number, or a shape that depends on numbers, to the host.
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "bincount", "_unique2", "histc", "is_nonzero")


class Dispatched(TorchDispatchMode):
    """Collects the operations that a GPU would have to be waited for, and how many there were at all."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[str] = []
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        name = func.overloadpacket.__name__
        by_truth = name in ("index", "index_put_") and any(
            isinstance(leaf, torch.Tensor) and leaf.dtype == torch.bool for leaf in tree_leaves(args[1])
        )
        if name in WAITING or by_truth:
            self.waiting.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.fixture
def as_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "is_cuda", True, raising=False)


def network(weights: bool = False) -> Network:
    class_weights = torch.rand(11) if weights else None
    return Network(MODEL, DATA, "cross_entropy", class_weights, device=DEVICE, precision=torch.bfloat16)


def test_what_is_looked_for_is_found() -> None:
    values = torch.arange(4)
    with Dispatched() as found:
        values[values > 1].sum().item()
    assert found.waiting == ["aten.index.Tensor", "aten._local_scalar_dense.default"]


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.usefixtures("as_on_cuda")
def test_a_step_asks_for_no_number(weights: bool, optimizer: str) -> None:
    net = network(weights)
    made = make_optimizer(net.model, {"lr": 1e-3, "optimizer": optimizer, "weight_decay": 1e-4, "momentum": 0.9})
    images, masks, _ = next(DeviceData(DATA, DEVICE).splits["train"].in_order(4))
    net.model.train()
    with Dispatched() as found:
        learn(net, made, images, masks, {"clip_norm": 0.5})
    assert found.count > 100 and found.waiting == []


@pytest.mark.usefixtures("as_on_cuda")
def test_the_scores_of_a_split_ask_for_no_number() -> None:
    net, split = network(), DeviceData(DATA, DEVICE).splits["val"]
    with Dispatched() as found:
        score(net, split, 2, keep_preds=True)
    assert found.count > 100 and found.waiting == []


@pytest.mark.parametrize("crop", [None, (16, 16)])
@pytest.mark.parametrize("spec", [{}, {"scale": (0.8, 1.25)}, {"brightness": 0.1, "contrast": 0.1}])
def test_augmentation_asks_for_no_number(spec: dict[str, Any], crop: tuple[int, int] | None) -> None:
    split = DeviceData(DATA, DEVICE).splits["train"]
    augment = Augmenter(AugmentSpec.model_validate(spec), crop, (20, 28))
    batch = np.arange(4)
    with Dispatched() as found:
        augment(*split.take(batch), seed=0, epoch=1, samples=batch)
    assert found.count > 0 and found.waiting == []
