"""A part of the training split, nested: the smaller part is in every larger one, and groups are kept together."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Literal

import numpy as np

from ablate.data.dataset import Dataset, Split
from ablate.data.rng import permutation

# Below so many groups whole ones are too coarse a part: of each recording its first images are taken instead.
LEAST_GROUPS = 10


def take_part(dataset: Dataset, fraction: float, steps: Literal["equal", "epochs"]) -> Dataset:
    """Return the data set with about `fraction` of its training images; val and test stay as they are.

    Images are drawn at random, the same for every seed of a study; of a data set with groups, whole groups; of one with
    few groups (recordings), the first images of each. With steps "equal" the part is repeated up to the number of
    images there were, so that an epoch has as many steps, each image with augmentations of its own.
    """
    split = dataset.splits["train"]
    chosen = part_of(split, fraction)
    if len(chosen) == len(split):
        return dataset
    rows = np.resize(chosen, len(split)) if steps == "equal" else chosen
    groups = None if split.groups is None else tuple(split.groups[row] for row in rows)
    part = Split(split.images[rows], split.masks[rows], tuple(split.names[row] for row in rows), groups)
    text = f"{dataset.fingerprint} {chosen.tolist()} {len(rows)}"
    return replace(
        dataset,
        splits={**dataset.splits, "train": part},
        fingerprint=hashlib.sha256(text.encode()).hexdigest(),
        stored_moments=None,
    )


def part_of(split: Split, fraction: float) -> np.ndarray:
    """Return the indices of the training images that are taken, in the order of the split: int64, at least one."""
    wanted = max(1, round(fraction * len(split)))
    if split.groups is None:
        return np.sort(permutation(0, 0, len(split))[:wanted])
    members = {name: np.flatnonzero([group == name for group in split.groups]) for name in dict.fromkeys(split.groups)}
    if len(members) < LEAST_GROUPS:
        firsts = [rows[: max(1, round(fraction * len(rows)))] for rows in members.values()]
        return np.sort(np.concatenate(firsts))
    names = list(members)
    order = [members[names[place]] for place in permutation(0, 0, len(names))]
    sizes = np.cumsum([len(rows) for rows in order])
    return np.sort(np.concatenate(order[: 1 + int(np.abs(sizes - wanted).argmin())]))
