"""Paired augmentation of whole batches of images and masks, on whatever device they lie, and the way to a device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ablate.data.dataset import IGNORE
from ablate.data.rng import derive, uniform
from ablate.errors import DataError
from ablate.plugins import reported
from ablate.registry import AUGMENTATIONS
from ablate.study.components import bound
from ablate.study.spec import AugmentSpec

# Interpolation weights are multiples of 1/256: every product and sum below then is exact (in float32 for 8 bits, in
# float64 for 16), so that a sample's pixels are the same in any batch, with any number of threads and on any device.
_STEPS = 256


def upload(values: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Return `values` (an array or a tensor of any shape) on `device`, without waiting for the work queued there."""
    tensor = torch.from_numpy(np.ascontiguousarray(values)) if isinstance(values, np.ndarray) else values
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    # From pageable memory the copy would wait for the stream. The allocator of pinned memory gives a block out again
    # only when the copies from it are done, so nothing has to be kept here.
    return tensor.pin_memory().to(device, non_blocking=True)


def movable(pixels: Tensor) -> Tensor:
    """Return `pixels` as what torch can index and choose on any device: the bits of uint16 as int16, a view."""
    return pixels.view(torch.int16) if pixels.dtype == torch.uint16 else pixels


def _by_plugin(
    name: str, function: Callable[..., Any], images: Tensor, masks: Tensor, seed: int, epoch: int, samples: np.ndarray
) -> tuple[Tensor, Tensor]:
    """Return copies by an augmentation from a plugin, called image by image with a generator of its own.

    Any batch gives the same; on the device and of the shapes and types given.
    """
    made = []
    with reported(AUGMENTATIONS, name, calls="(image, mask, *, rng)"):
        for image, mask, sample in zip(images.cpu().numpy(), masks.cpu().numpy(), samples, strict=True):
            rng = np.random.default_rng(derive(seed, "augment", epoch, int(sample)))
            changed = function(image.copy(), mask.copy(), rng=rng)
            for kind, new, old in zip(("image", "mask"), changed, (image, mask), strict=True):
                if not isinstance(new, np.ndarray) or (new.shape, new.dtype) != (old.shape, old.dtype):
                    got = f"{new.dtype} {new.shape}" if isinstance(new, np.ndarray) else type(new).__name__
                    message = f"expected an {kind} {old.dtype} {old.shape} as it was given, got {got}"
                    raise AUGMENTATIONS.broken(name, message)
            made.append(changed)
    pixels, labels = (np.stack(parts) for parts in zip(*made, strict=True))
    return upload(pixels, images.device), upload(labels, masks.device)


class Augmenter:
    """Random flip, zoom, crop, brightness and contrast: a pure function of (seed, epoch, sample).

    - `spec.flip`: left-right with probability one half.
    - `spec.scale`: the image is zoomed by a factor drawn log-uniformly from the range (both sides the same factor);
      bilinear for the image, nearest for the mask. A window of the output's size is cut from it at random; where the
      zoomed image is the smaller one it lies at a random place in the window, with the image's border repeated and the
      mask ignored around it.
    - `crop` (height, width): the output's size; None keeps `size`.
    - `spec.brightness`, `spec.contrast`: factors 1 ± up to that much; contrast about the image's own mean.

    A registered augmentation (`register_augment`) takes the place of all but the crop, which follows it.
    Output shapes are fixed: (B, *crop or size). Raises `DataError` where `crop` is larger than `size`.
    """

    def __init__(
        self,
        augment: AugmentSpec | Mapping[str, Any],
        crop: tuple[int, int] | None,
        size: tuple[int, int],
    ) -> None:
        height, width = size
        self._plugin = None
        if isinstance(augment, Mapping) and "name" in augment:
            self._plugin = partial(_by_plugin, augment["name"], bound(AUGMENTATIONS, augment))
            augment = AugmentSpec(flip=False)
        self.spec = spec = AugmentSpec.model_validate(augment)
        self.size = (int(height), int(width))
        self.output = (int(crop[0]), int(crop[1])) if crop else self.size
        if self.output[0] > height or self.output[1] > width:
            raise DataError(
                f"a crop of {self.output[0]}x{self.output[1]} does not fit the images of {height}x{width}",
                key="train.crop",
            )
        self._zooms = tuple(spec.scale) != (1.0, 1.0)
        self._moves = self._zooms or self.output != self.size
        self._shades = spec.brightness > 0 or spec.contrast > 0

    @torch.no_grad()
    def __call__(
        self, images: Tensor, masks: Tensor, *, seed: int, epoch: int, samples: np.ndarray
    ) -> tuple[Tensor, Tensor]:
        """Return augmented copies (or the tensors themselves, where nothing is to be done).

        `images` uint8 or uint16 (B, H, W, C) and `masks` uint8 (B, H, W) of the `size` given before, on one device;
        `samples` integer (B,): their indices in the split. The results have the output's size, and the types given.
        """
        samples = np.asarray(samples)
        if self._plugin is not None:
            images, masks = self._plugin(images, masks, seed, epoch, samples)
        # A stream for each purpose: switching one kind of augmentation on leaves the draws of the others as they are.
        if self._moves:
            images, masks = self._move(images, masks, seed, epoch, samples)
        elif self.spec.flip:
            flips = upload(self._flips(seed, epoch, samples), images.device)
            images, masks = _mirror(movable(images), flips).view(images.dtype), _mirror(masks, flips)
        if self._shades:
            images = self._shade(images, seed, epoch, samples)
        return images, masks

    def _flips(self, seed: int, epoch: int, samples: np.ndarray) -> np.ndarray:
        if not self.spec.flip:
            return np.zeros(len(samples), dtype=bool)
        return uniform("flip", seed, epoch, samples, 1)[:, 0] < 0.5

    def _move(self, images: Tensor, masks: Tensor, seed: int, epoch: int, samples: np.ndarray) -> tuple[Tensor, Tensor]:
        """Zoom, crop and flip in one gather: for each output row and column the place in the source it shows."""
        draws = uniform("place", seed, epoch, samples, 3)
        low, high = self.spec.scale
        zoom = np.exp(np.log(low) + (np.log(high) - np.log(low)) * draws[:, 0]) if self._zooms else np.ones(len(draws))
        rows = self._axis(self.size[0], self.output[0], zoom, draws[:, 1])
        columns = self._axis(self.size[1], self.output[1], zoom, draws[:, 2])
        flips = self._flips(seed, epoch, samples)
        columns[flips] = columns[flips, ::-1]

        device = images.device
        near_rows, rows_outside = (upload(part, device) for part in _nearest(rows, self.size[0]))
        near_columns, columns_outside = (upload(part, device) for part in _nearest(columns, self.size[1]))
        masks = _columns(_rows(masks, near_rows), near_columns)
        bits = movable(images)
        if not self._zooms:
            return _columns(_rows(bits, near_rows), near_columns).view(images.dtype), masks
        masks = masks.masked_fill(rows_outside[:, :, None] | columns_outside[:, None, :], IGNORE)

        real = np.float32 if images.dtype == torch.uint8 else np.float64
        top, bottom, row_weight = (upload(part, device) for part in _neighbours(rows, self.size[0], real))
        left, right, column_weight = (upload(part, device) for part in _neighbours(columns, self.size[1], real))
        above, below = (_rows(bits, part).view(images.dtype) for part in (top, bottom))
        lines = _blend(above, below, row_weight[:, :, None, None])
        pixels = _blend(_columns(lines, left), _columns(lines, right), column_weight[:, None, :, None])
        return pixels.div_(_STEPS * _STEPS).round_().to(images.dtype), masks

    @staticmethod
    def _axis(source: int, output: int, zoom: np.ndarray, draw: np.ndarray) -> np.ndarray:
        """Return source coordinates (pixel centres at whole numbers) of the output's pixels: float64 (B, output)."""
        slack = source * zoom - output
        start = np.where(zoom == 1.0, np.floor(draw * (slack + 1)), draw * slack)
        return (start[:, None] + np.arange(output) + 0.5) / zoom[:, None] - 0.5

    def _shade(self, images: Tensor, seed: int, epoch: int, samples: np.ndarray) -> Tensor:
        draws = 2 * uniform("shade", seed, epoch, samples, 2) - 1
        factors = np.maximum(1 + draws * (self.spec.brightness, self.spec.contrast), 0).astype(np.float32)
        brightness, contrast = upload(factors, images.device).T[..., None, None, None]
        # Whole numbers add up to the same sum in any order; a float mean would not.
        sums = images.int().sum(dim=(1, 2, 3), keepdim=True, dtype=torch.int64).float()
        # Not by a number: on CUDA that is a product with its reciprocal, rounded otherwise than the quotient.
        mean = sums / torch.full_like(sums, images[0].numel())
        shaded = images.float().mul_(brightness * contrast).add_(brightness * (1 - contrast) * mean)
        return shaded.round_().clamp_(0, torch.iinfo(images.dtype).max).to(images.dtype)


def _nearest(places: np.ndarray, source: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the index of the nearest source pixel, int64, and whether the place is outside of the source."""
    near = np.floor(places + 0.5).astype(np.int64)
    outside = (near < 0) | (near >= source)
    return near.clip(0, source - 1), outside


def _neighbours(places: np.ndarray, source: int, real: type[np.floating]) -> tuple[np.ndarray, ...]:
    """Return the source pixels before and after each place, and the weight of the latter in 1/256."""
    fixed = np.floor(places * _STEPS + 0.5).astype(np.int64)
    before = fixed // _STEPS
    weight = (fixed - before * _STEPS).astype(real)
    return before.clip(0, source - 1), (before + 1).clip(0, source - 1), weight


def _mirror(pixels: Tensor, flips: Tensor) -> Tensor:
    """Return `pixels` (B, H, W, ...) with the samples of `flips` mirrored left-right."""
    return torch.where(flips.view(-1, *[1] * (pixels.dim() - 1)), pixels.flip(2), pixels)


def _rows(pixels: Tensor, rows: Tensor) -> Tensor:
    """Return the rows (B, h) of each image of `pixels` (B, H, ...)."""
    return pixels[torch.arange(len(rows), device=rows.device)[:, None], rows]


def _columns(pixels: Tensor, columns: Tensor) -> Tensor:
    """Return the columns (B, w) of each image of `pixels` (B, h, W, ...)."""
    batch = torch.arange(len(columns), device=columns.device)[:, None, None]
    return pixels[batch, torch.arange(pixels.shape[1], device=columns.device)[:, None], columns[:, None, :]]


def _blend(before: Tensor, after: Tensor, weight: Tensor) -> Tensor:
    return before.to(weight.dtype).mul_(_STEPS - weight).add_(after.to(weight.dtype).mul_(weight))
