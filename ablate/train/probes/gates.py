"""The targets of attention gates, and whether they matter: measured on a trained model over a whole split."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from ablate.data.dataset import IGNORE
from ablate.measure import segmentation
from ablate.models import copy_weights, drawn_again, outputs
from ablate.models.layers import gates, hooked_gates
from ablate.train.device import arithmetic
from ablate.train.evaluate import image_counts
from ablate.train.network import predicted
from ablate.train.probes.gradients import untouched

Batches = Callable[[], Iterable[tuple[Tensor, Tensor]]]

# Bins of a `RankHistogram`; pairs that share a bin count one half, which in the tests moves an AUROC by less than 1e-4.
BINS = 2**14


def gate_statistics(
    model: nn.Module, batches: Batches, classes: Sequence[str], *, seed: int = 0, precision: torch.dtype = torch.float32
) -> dict[str, dict[str, float]]:
    """Measure how far each gate's α tells each class from the rest: measure -> "<gate>/<class>" -> value.

    - `gate_auroc`: probability that a pixel of the class has a larger α than a pixel of another (ties one half);
    - `gate_lift`: E[α | class] / E[α];
    - `gate_auroc_shuffled`: the first with every image's α against the mask of another image: what the position in
      the image alone gives. NaN for a single image;
    - `gate_auroc_untrained`: the first of a gate with fresh weights (drawn by `seed`) at the same place with the same
      inputs: what the features alone give. Absent where a gate's weights cannot be drawn again.

    `batches()` yields images float (B, C, H, W), as the model takes them, and targets (B, H, W) of one size. The masks
    are brought to the grid of α (nearest pixel); ignored pixels are left out; α with several channels is averaged over
    them. NaN where a class, or everything else, is absent. An empty answer where the model has no gates.
    """
    places = gates(model)
    if not places:
        return {}
    target = torch.cat([masks for _, masks in batches()])
    partner = _other_images(len(target), seed)
    untrained = _untrained(places, seed)
    trained = {gate: RankHistogram(len(classes)) for gate in places}
    shuffled = {gate: RankHistogram(len(classes)) for gate in places}
    fresh = {gate: RankHistogram(len(classes)) for gate in untrained}

    with untouched(model), torch.no_grad():
        model.eval()
        first = 0
        for images, masks in batches():
            with _recorded(model, untrained) as (alphas, fresh_alphas), arithmetic(images.device, precision):
                model(images)
            others = target[partner[first : first + len(masks)].to(target.device)]
            first += len(masks)
            for gate, alpha in alphas.items():
                trained[gate].add(alpha, masks)
                if len(target) > 1:
                    shuffled[gate].add(alpha, others)
            for gate, alpha in fresh_alphas.items():
                fresh[gate].add(alpha, masks)

    def table(histograms: dict[str, RankHistogram], values: str) -> dict[str, float]:
        return {
            f"{gate}/{name}": value
            for gate, histogram in histograms.items()
            for name, value in zip(classes, getattr(histogram, values)().tolist(), strict=True)
        }

    return {
        "gate_auroc": table(trained, "auroc"),
        "gate_lift": table(trained, "lift"),
        "gate_auroc_shuffled": table(shuffled, "auroc"),
        "gate_auroc_untrained": table(fresh, "auroc"),
    }


def gate_ablation(
    model: nn.Module,
    batches: Batches,
    num_classes: int,
    *,
    multilabel: bool = False,
    precision: torch.dtype = torch.float32,
) -> dict[str, float]:
    """Measure what the pattern of each gate's α is worth in dataset mean IoU.

    The score with α replaced by its mean over each image, minus the one with the gates as they are (a difference of
    fractions; negative where the pattern helps). One gate at a time under its name, and under "all" where there are
    several. `batches` as in `gate_statistics`.
    """
    places = list(gates(model))
    if not places:
        return {}
    flattened = {gate: {gate} for gate in places}
    if len(places) > 1:
        flattened["all"] = set(places)
    counts: dict[str, list[Tensor]] = {name: [] for name in ["as it is", *flattened]}

    def flatten(name: str) -> Callable[[str, Tensor], Tensor | None]:
        chosen = flattened.get(name, set())
        return lambda gate, alpha: alpha.mean((2, 3), keepdim=True).expand_as(alpha) if gate in chosen else None

    with untouched(model), torch.no_grad():
        model.eval()
        for images, masks in batches():
            for name, kept in counts.items():
                with hooked_gates(model, flatten(name)), arithmetic(images.device, precision):
                    preds = predicted(outputs(model(images))[0], multilabel=multilabel)
                counted = image_counts(preds, masks, num_classes, multilabel=multilabel)
                kept.append(counted.sum(0, keepdim=True))
    scores = {
        name: float(segmentation.mean_iou(torch.cat(kept).cpu().numpy(), axis=0)) for name, kept in counts.items()
    }
    return {name: scores[name] - scores["as it is"] for name in flattened}


class RankHistogram:
    """Counts of α by class and by value, from which ranks follow without keeping any α.

    The bins divide the logit of α evenly over three times the range of the first batch, so that a gate whose α hardly
    varies is resolved as well as one that opens and closes; what lies outside shares the two end bins.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self._range: tuple[Tensor, Tensor] | None = None
        self._counts = torch.zeros(num_classes, BINS, dtype=torch.int64)
        self._sums = torch.zeros(num_classes, dtype=torch.float64)

    def add(self, alpha: Tensor, masks: Tensor) -> None:
        """Add α (N, K, h, w) in 0..1 and the masks (N, H, W) of the same images."""
        alpha = alpha.double().mean(1)
        masks = _on_grid(masks, alpha.shape[-2], alpha.shape[-1])
        labelled = masks != IGNORE
        alpha, classes = alpha[labelled], masks[labelled].long()
        if not len(alpha):
            return
        cells = classes * BINS + self._bin(torch.logit(alpha))
        counts = torch.bincount(cells, minlength=self.num_classes * BINS).view(self.num_classes, BINS)
        sums = torch.stack([torch.where(classes == index, alpha, 0.0).sum() for index in range(self.num_classes)])
        self._counts = self._counts.to(counts.device) + counts
        self._sums = self._sums.to(sums.device) + sums

    def auroc(self) -> Tensor:
        """Return each class's AUROC against all others, float64 (num_classes,): Mann–Whitney's U over the pairs."""
        # On the CPU: a running sum of floating-point numbers has no deterministic form on CUDA.
        inside = self._counts.cpu().double()
        outside = inside.sum(0) - inside
        below = outside.cumsum(1) - outside
        wins = (inside * (below + outside / 2)).sum(1)
        return wins / (inside.sum(1) * outside.sum(1))  # 0/0 is NaN

    def lift(self) -> Tensor:
        """Return E[α | class] / E[α], float64 (num_classes,)."""
        pixels = self._counts.sum(1).double()
        return (self._sums / pixels) / (self._sums.sum() / pixels.sum())

    def _bin(self, logit: Tensor) -> Tensor:
        if self._range is None:
            finite = logit[torch.isfinite(logit)]
            low, high = (finite.min(), finite.max()) if len(finite) else (logit.new_zeros(()), logit.new_zeros(()))
            width = (high - low).clamp(min=1e-9)
            self._range = low - width, 3 * width
        low, width = self._range
        inner = BINS - 2
        return ((logit - low) / width * inner).floor().clamp(-1, inner).long() + 1


def _on_grid(masks: Tensor, height: int, width: int) -> Tensor:
    """Masks (N, H, W) at the centres of a grid of `height` × `width` cells."""
    rows = ((torch.arange(height, device=masks.device) + 0.5) * masks.shape[1] / height).long()
    columns = ((torch.arange(width, device=masks.device) + 0.5) * masks.shape[2] / width).long()
    return masks[:, rows][:, :, columns]


def _other_images(count: int, seed: int) -> Tensor:
    """For each of `count` images another one, each used once: a single cycle drawn by `seed`."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    partner = torch.empty_like(order)
    partner[order] = order.roll(1)
    return partner


def _untrained(places: dict[str, nn.Module], seed: int) -> dict[str, nn.Module]:
    """Return copies of the gates with fresh weights, without those that cannot be drawn again."""
    fresh = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, gate in places.items():
            drawn = drawn_again(gate)
            if drawn is not None:
                fresh[name] = copy.deepcopy(gate).eval()
                copy_weights(drawn, fresh[name])
    return fresh


@contextmanager
def _recorded(
    model: nn.Module, untrained: dict[str, nn.Module]
) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Collect the α of the model's gates, and of the untrained ones on the same inputs, while the model runs."""
    alphas: dict[str, Tensor] = {}
    fresh_alphas: dict[str, Tensor] = {}

    def run_untrained(name: str, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        with hooked_gates(untrained[name], lambda _gate, alpha: fresh_alphas.__setitem__(name, alpha)):
            untrained[name](*inputs)

    places = gates(model)
    with ExitStack() as stack:
        for name in untrained:
            stack.enter_context(places[name].register_forward_pre_hook(partial(run_untrained, name)))
        stack.enter_context(hooked_gates(model, alphas.__setitem__))
        yield alphas, fresh_alphas
