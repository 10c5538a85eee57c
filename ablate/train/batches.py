"""The images of a split on the device, as uint8 or uint16, and batches of them in an order that is given."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ablate.data.augment import movable, upload
from ablate.data.dataset import IGNORE, Dataset, Split
from ablate.data.rng import permutation
from ablate.measure.segmentation import class_pixels

# Data larger than this share of a GPU's free memory, all workers together, stay with the host: copied batch by batch.
RESIDENT_SHARE = 0.4


def data_bytes(dataset: Dataset) -> int:
    """Return the bytes of all splits' images and masks, as a device keeps them."""
    return sum(split.images.nbytes + split.masks.nbytes for split in dataset.splits.values())


def resident(dataset: Dataset, workers: int, free: int) -> bool:
    """Return whether each of `workers` processes may keep the whole data set on a device with `free` bytes."""
    return workers * data_bytes(dataset) < RESIDENT_SHARE * free


class DeviceSplit:
    """One split: images uint8 or uint16 (N, H, W, C), masks uint8 (N, H, W); on the device if `resident`, else here."""

    def __init__(self, split: Split, device: torch.device, *, resident: bool) -> None:
        with warnings.catch_warnings():
            # A memory-mapped split is read-only, and nothing here writes to it.
            warnings.filterwarnings("ignore", message=".*not writable.*")
            images, masks = torch.from_numpy(split.images), torch.from_numpy(split.masks)
        self.device = device
        self.names = split.names
        if resident:
            images, masks = images.to(device), masks.to(device)
        self.images, self.masks = images, masks

    def __len__(self) -> int:
        return len(self.names)

    def take(self, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return the images and masks at `indices` (B,), on the device."""
        index = upload(indices, self.images.device)
        images = movable(self.images)[index].view(self.images.dtype)
        return upload(images, self.device), upload(self.masks[index], self.device)

    def in_order(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Yield all images by index in batches of one shape: images, masks, and how many of the batch are real.

        The last batch is filled up by repeating the last image, so that a compiled step sees one shape only.
        """
        for start in range(0, len(self), batch_size):
            indices = np.arange(start, start + batch_size)
            images, masks = self.take(np.minimum(indices, len(self) - 1))
            yield images, masks, min(batch_size, len(self) - start)


class DeviceData:
    """A data set on one device, with what training needs of it besides the images.

    `workers` processes have the device to themselves, each with the data set once.
    """

    def __init__(self, dataset: Dataset, device: torch.device, workers: int = 1) -> None:
        self.dataset = dataset
        keep = device.type != "cuda" or resident(dataset, workers, torch.cuda.mem_get_info(device)[0])
        self.splits = {name: DeviceSplit(split, device, resident=keep) for name, split in dataset.splits.items()}
        self.device = device

    def class_weights(self, rule: str | list[float] | None) -> Tensor | None:
        """Return the weights (C,) of the loss: none, as listed, or 'balanced'.

        Balanced is median frequency: the median class frequency over that of the class, frequencies over the
        images where the class occurs (Eigen & Fergus, ICCV 2015); 0 for a class that never occurs.
        """
        if rule is None:
            return None
        if isinstance(rule, list):
            return torch.tensor(rule, dtype=torch.float32, device=self.device)
        classes, several = self.dataset.num_classes, self.dataset.multilabel
        pixels, places = np.zeros(classes), np.zeros(classes)
        for mask in self.dataset.splits["train"].masks:
            labels = np.bincount(mask.reshape(-1), minlength=256)
            count = class_pixels(labels, classes, multilabel=several)
            pixels += count
            places += (count > 0) * (labels[:IGNORE].sum() if several else count.sum())
        frequency = pixels / np.maximum(places, 1)
        weights = np.where(pixels > 0, np.median(frequency[pixels > 0]) / np.where(pixels > 0, frequency, 1), 0)
        return torch.tensor(weights, dtype=torch.float32, device=self.device)


def epoch_order(seed: int, epoch: int, images: int, batch_size: int) -> np.ndarray:
    """Return the order of the training images in `epoch`, int64 (steps, batch_size), the same for a seed's variants.

    The incomplete last batch is left out (another one every epoch): batch statistics of very few images would
    make an outlier of a step. A split smaller than the batch gives one batch of what there is.
    """
    order = permutation(seed, epoch, images)
    size = min(batch_size, images)
    steps = images // size
    return order[: steps * size].reshape(steps, size)
