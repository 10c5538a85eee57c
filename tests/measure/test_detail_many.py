"""Maps of several sizes: every image has the counts that it has among maps of its own size."""

from __future__ import annotations

import numpy as np
import pytest

from ablate.measure.detail import DetailTarget
from ablate.measure.detail_all import detail_counts
from ablate.measure.detail_sizes import DetailTargets


def maps(rng: np.random.Generator, sizes: list[tuple[int, int]]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    target = [rng.integers(0, 3, (h // 4, w // 4)).astype(np.uint8).repeat(4, 0).repeat(4, 1) for h, w in sizes]
    for labels in target:
        labels[:, -1] = 255
    preds = [np.where(rng.random(t.shape) < 0.2, 0, np.where(t == 255, 1, t)).astype(np.uint8) for t in target]
    return target, preds


def test_each_image_is_measured_by_the_widths_of_its_own_size() -> None:
    sizes = [(40, 48), (200, 240), (40, 48), (360, 480)]
    target, preds = maps(np.random.default_rng(0), sizes)
    found = DetailTargets(target, 3)
    counts = found.counts(preds)
    assert found.shapes == [(40, 48), (200, 240), (360, 480)]
    for place, (labels, guess) in enumerate(zip(target, preds, strict=True)):
        alone = detail_counts(guess, DetailTarget(labels, 3))
        for name, table in alone.items():
            assert (counts[name][place] == table[0]).all(), (name, place)
    # A width of 3 at a diagonal of 600 is one pixel on the smallest maps and three on the largest.
    assert (counts["trimap_3"][0] == counts["trimap_1"][0]).all()
    assert counts["trimap_3"][3].sum() > counts["trimap_1"][3].sum()


def test_a_stack_is_what_it_always_was() -> None:
    target, preds = maps(np.random.default_rng(1), [(40, 48)] * 3)
    stack = np.stack(target), np.stack(preds)
    counts, expected = DetailTargets(stack[0], 3).counts(stack[1]), detail_counts(stack[1], DetailTarget(stack[0], 3))
    assert all((counts[name] == expected[name]).all() for name in expected)


def test_predictions_of_another_number_or_size_are_refused() -> None:
    target, preds = maps(np.random.default_rng(2), [(40, 48), (80, 80)])
    found = DetailTargets(target, 3)
    with pytest.raises(ValueError, match="1 predictions for 2 targets"):
        found.counts(preds[:1])
    with pytest.raises(ValueError, match="differ in shape"):
        found.counts(preds[::-1])
