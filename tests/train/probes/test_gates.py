"""Gate measures: ranks against counting pairs, gates with known answers, and not a bit disturbed."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ablate.models.layers import GateTap
from ablate.models.unet import unet
from ablate.train.probes.gates import RankHistogram, gate_ablation, gate_statistics

IGNORE = 255
Batches = Callable[[], list[tuple[Tensor, Tensor]]]


def _pairs(alpha: np.ndarray, inside: np.ndarray) -> float:
    """AUROC by counting pairs: Mann–Whitney's U as it is defined."""
    a, b = alpha[inside][:, None], alpha[~inside][None, :]
    return float(((a > b) + 0.5 * (a == b)).mean())


@pytest.mark.parametrize("spread", [1.0, 1e-3, 20.0])
@pytest.mark.parametrize("levels", [None, 7])
def test_auroc_from_bins_is_that_of_all_pairs(spread: float, levels: int | None) -> None:
    rng = np.random.default_rng(0)
    masks = rng.choice([0, 1, 2, IGNORE], size=(6, 9, 11), p=[0.6, 0.25, 0.1, 0.05]).astype(np.uint8)
    logit = spread * (rng.normal(size=masks.shape) + 0.8 * (masks == 1) - 0.5 * (masks == 2))
    if levels:
        logit = np.round(logit / spread * levels / 4) * 4 / levels * spread  # ties
    alpha = (1 / (1 + np.exp(-logit))).astype(np.float32)
    histogram = RankHistogram(4)
    for i in range(0, 6, 2):
        histogram.add(torch.from_numpy(alpha[i : i + 2, None]), torch.from_numpy(masks[i : i + 2]))
    seen = masks != IGNORE
    expected = [_pairs(alpha[seen], masks[seen] == index) for index in range(3)]
    assert histogram.auroc()[:3].tolist() == pytest.approx(expected, abs=1e-4)
    assert math.isnan(histogram.auroc()[3])
    lift = [alpha[masks == index].mean(dtype=float) / alpha[seen].mean(dtype=float) for index in range(3)]
    assert histogram.lift()[:3].tolist() == pytest.approx(lift)


def test_later_values_outside_the_first_batch_keep_their_rank() -> None:
    histogram = RankHistogram(2)
    histogram.add(torch.full((1, 1, 2, 2), 0.5), torch.tensor([[[0, 0], [1, 1]]]))
    histogram.add(torch.tensor([[[[0.0, 1.0], [0.001, 0.999]]]]), torch.tensor([[[0, 1], [0, 1]]]))
    # Class 1 is .5, .5, .999, 1 and class 0 is .5, .5, .001, 0: of 16 pairs 12 are won and 4 tied.
    assert histogram.auroc().tolist() == [0.125, 0.875]


def test_constant_and_absent_values() -> None:
    histogram = RankHistogram(2)
    assert all(math.isnan(value) for value in [*histogram.auroc(), *histogram.lift()])
    histogram.add(torch.full((1, 1, 2, 2), 0.3), torch.tensor([[[0, 0], [1, IGNORE]]]))
    assert histogram.auroc().tolist() == [0.5, 0.5]
    assert histogram.lift().tolist() == pytest.approx([1, 1])


def test_masks_are_read_at_the_pixels_of_a_coarser_gate() -> None:
    histogram = RankHistogram(2)
    masks = torch.zeros(1, 8, 8, dtype=torch.uint8)
    masks[:, :4] = 1
    histogram.add(torch.tensor([[[[0.9, 0.8], [0.2, 0.4]]]]), masks)
    assert histogram.auroc().tolist() == [0, 1]
    assert histogram.lift().tolist() == pytest.approx([0.3 / 0.575, 0.85 / 0.575])


class Looks(nn.Module):
    """A gate whose α is σ(weight · image), weight 4 when trained and 0 when new."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), 4.0))
        self.tap = GateTap()

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.tap(torch.sigmoid(self.weight * x))


class Sees(nn.Module):
    """Says class 1 where α is over one half."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Looks()

    def forward(self, x: Tensor) -> Tensor:
        alpha = self.gate(x)
        return torch.cat([torch.full_like(alpha, 0.5), alpha], 1)


def _shown(masks: Tensor) -> Batches:
    """Images that are +1 where the mask is 1 and -1 elsewhere, two a batch."""
    return lambda: [((2.0 * (m == 1) - 1)[:, None], m) for m in masks.split(2)]


def _masks(count: int) -> Tensor:
    """Each image's class 1 is another column of eight."""
    masks = torch.zeros(count, 4, 8, dtype=torch.uint8)
    for index in range(count):
        masks[index, :, index % 8] = 1
    return masks


def test_statistics_of_a_gate_that_sees_the_mask() -> None:
    found = gate_statistics(Sees(), _shown(_masks(8)), ["ground", "line"], seed=3)
    on, off = 1 / (1 + math.exp(-4)), 1 / (1 + math.exp(4))
    mean = (on + 7 * off) / 8
    assert found["gate_auroc"] == {"gate/ground": 0, "gate/line": 1}
    assert found["gate_lift"] == pytest.approx({"gate/ground": off / mean, "gate/line": on / mean})
    # Against another image's column: the line's pixels are all off, of the others one in seven is on.
    assert found["gate_auroc_shuffled"] == pytest.approx({"gate/ground": 4 / 7, "gate/line": 3 / 7})
    assert found["gate_auroc_untrained"] == {"gate/ground": 0.5, "gate/line": 0.5}


def test_what_position_alone_gives_survives_the_shuffling() -> None:
    masks = _masks(1).repeat(5, 1, 1)
    found = gate_statistics(Sees(), _shown(masks), ["ground", "line"])
    assert found["gate_auroc_shuffled"] == found["gate_auroc"] == {"gate/ground": 0, "gate/line": 1}


def test_a_single_image_cannot_be_shuffled_and_ignored_pixels_do_not_count() -> None:
    masks = _masks(1)
    batches = [(_shown(masks)()[0][0], torch.where(masks == 0, IGNORE, masks))]
    found = gate_statistics(Sees(), lambda: batches, ["ground", "line"])
    assert math.isnan(found["gate_auroc_shuffled"]["gate/line"])
    assert math.isnan(found["gate_auroc"]["gate/line"])  # nothing to be told from
    assert found["gate_lift"]["gate/line"] == pytest.approx(1)


def test_a_gate_that_cannot_be_drawn_again_has_no_untrained_value() -> None:
    model = Sees()
    model.gate.constant = nn.Parameter(torch.ones(1))
    found = gate_statistics(model, _shown(_masks(4)), ["ground", "line"])
    assert found["gate_auroc_untrained"] == {}
    assert found["gate_auroc"]["gate/line"] == 1


def test_flattening_a_gate_that_decides_everything_costs_what_it_must() -> None:
    # As it is every pixel is right. With α at its mean, under one half, all is ground: IoU 7/8 and 0.
    assert gate_ablation(Sees(), _shown(_masks(8)), 2) == pytest.approx({"gate": 7 / 16 - 1})


def test_flattening_a_constant_gate_costs_nothing() -> None:
    model = Sees()
    nn.init.zeros_(model.gate.weight)
    assert gate_ablation(model, _shown(_masks(4)), 2) == {"gate": 0}


def test_models_without_gates_have_no_measures() -> None:
    model = unet(in_channels=1, num_classes=2, width=2, depth=2)
    assert gate_statistics(model, _shown(_masks(2)), ["ground", "line"]) == {}
    assert gate_ablation(model, _shown(_masks(2)), 2) == {}


def test_on_a_u_net_all_gates_are_measured_and_every_bit_put_back() -> None:
    torch.manual_seed(0)
    model = unet(in_channels=1, num_classes=2, width=4, depth=3, skip="attention", dropout=0.3)
    model.encoder[0].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    random = torch.get_rng_state()
    batches = _shown(_masks(5))
    found = gate_statistics(model, batches, ["ground", "line"], seed=1)
    changes = gate_ablation(model, batches, 2)
    again = gate_statistics(model, batches, ["ground", "line"], seed=1)
    assert found == again
    assert list(changes) == ["decoder.1.gate", "decoder.2.gate", "all"]
    keys = [f"decoder.{level}.gate/{name}" for level in (1, 2) for name in ("ground", "line")]
    assert all(list(values) == keys for values in found.values())
    for gate in ("decoder.1.gate", "decoder.2.gate"):  # two classes: each is the other's rest
        assert found["gate_auroc"][f"{gate}/ground"] + found["gate_auroc"][f"{gate}/line"] == pytest.approx(1)
    assert found["gate_auroc_untrained"] != found["gate_auroc"]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert modes == [module.training for module in model.modules()]
    assert torch.equal(random, torch.get_rng_state())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
