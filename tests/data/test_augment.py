"""Augmentation: a sample looks alike in any batch, and image and mask stay together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from ablate.data.augment import Augmenter
from ablate.errors import DataError, PluginError
from ablate.registry import AUGMENTATIONS
from ablate.study.spec import AugmentSpec

SIZE = (20, 28)
EVERYTHING = AugmentSpec(flip=True, scale=(0.5, 2.0), brightness=0.3, contrast=0.4)
NOTHING = AugmentSpec(flip=False)


def batch(count: int, size: tuple[int, int] = SIZE, channels: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    draw = np.random.default_rng(0)
    images = torch.from_numpy(draw.integers(0, 256, (count, *size, channels), dtype=np.uint8))
    return images, torch.from_numpy(draw.integers(0, 11, (count, *size), dtype=np.uint8))


@pytest.mark.parametrize("crop", [None, (12, 16), (20, 16)])
@pytest.mark.parametrize("spec", [AugmentSpec(), EVERYTHING, NOTHING, AugmentSpec(flip=False, scale=(1.5, 1.5))])
def test_a_sample_is_augmented_alike_in_any_batch(spec: AugmentSpec, crop: tuple[int, int] | None) -> None:
    images, masks = batch(40)
    augment = Augmenter(spec, crop, SIZE)
    whole = augment(images, masks, seed=5, epoch=2, samples=np.arange(40))
    for chosen in (np.array([7]), np.array([39, 7, 0]), np.arange(39, -1, -1)):
        some = augment(images[chosen], masks[chosen], seed=5, epoch=2, samples=chosen)
        assert torch.equal(some[0], whole[0][chosen])
        assert torch.equal(some[1], whole[1][chosen])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("crop", "expected"), [(None, SIZE), ((8, 9), (8, 9))])
def test_shapes_and_types_are_fixed(crop: tuple[int, int] | None, expected: tuple[int, int], channels: int) -> None:
    images, masks = batch(4, channels=channels)
    before = images.clone(), masks.clone()
    new_images, new_masks = Augmenter(EVERYTHING, crop, SIZE)(images, masks, seed=0, epoch=0, samples=np.arange(4))
    assert new_images.shape == (4, *expected, channels) and new_images.dtype == torch.uint8
    assert new_masks.shape == (4, *expected) and new_masks.dtype == torch.uint8
    assert torch.equal(images, before[0]) and torch.equal(masks, before[1])


def test_nothing_to_do_gives_the_tensors_themselves() -> None:
    images, masks = batch(3)
    same = Augmenter(NOTHING, None, SIZE)(images, masks, seed=0, epoch=0, samples=np.arange(3))
    assert same[0] is images and same[1] is masks


def test_a_flip_mirrors_image_and_mask_of_about_half_of_the_samples() -> None:
    images, masks = batch(400)
    new_images, new_masks = Augmenter(AugmentSpec(), None, SIZE)(images, masks, seed=1, epoch=0, samples=np.arange(400))
    flipped = 0
    for index in range(400):
        mirrored = torch.equal(new_images[index], images[index].flip(1))
        assert mirrored or torch.equal(new_images[index], images[index])
        assert torch.equal(new_masks[index], masks[index].flip(1) if mirrored else masks[index])
        flipped += mirrored
    assert 150 < flipped < 250


def test_a_crop_shows_a_window_of_both_and_reaches_every_corner() -> None:
    size, crop = (6, 7), (4, 4)
    # Each pixel carries its own place, so that a window tells where it was cut.
    places = torch.arange(42, dtype=torch.uint8).reshape(1, 6, 7).repeat(500, 1, 1)
    images, masks = Augmenter(NOTHING, crop, size)(places[..., None], places, seed=0, epoch=0, samples=np.arange(500))
    assert torch.equal(images[..., 0], masks)
    corners = masks[:, 0, 0].to(torch.int64)
    windows = corners[:, None, None] + 7 * torch.arange(4)[:, None] + torch.arange(4)
    assert torch.equal(masks.to(torch.int64), windows)
    counts = np.bincount(corners.numpy(), minlength=42).reshape(6, 7)[:3, :4]
    assert counts.sum() == 500 and counts.min() > 20


def test_zooming_in_by_two_is_bilinear_for_the_image_and_nearest_for_the_mask() -> None:
    ramp = (torch.arange(16, dtype=torch.uint8) * 10).repeat(16, 1)[None]
    images, masks = Augmenter(AugmentSpec(flip=False, scale=(2.0, 2.0)), None, (16, 16))(
        ramp[..., None], ramp, seed=0, epoch=0, samples=np.array([3])
    )
    steps = images[0, 0, :, 0].to(torch.int64).diff()
    # 10 a pixel becomes 5 a pixel, to the rounding of 1/256; every second mask value is new.
    assert set(steps.tolist()) <= {4, 5, 6}
    assert set(masks[0, 0].to(torch.int64).diff().tolist()) == {0, 10}
    apart = images[0, ..., 0].to(torch.int64) - masks[0].to(torch.int64)
    assert apart.abs().max() <= 5


def test_zooming_out_ignores_what_lies_outside() -> None:
    images = torch.full((50, *SIZE, 3), 200, dtype=torch.uint8)
    masks = torch.full((50, *SIZE), 4, dtype=torch.uint8)
    new_images, new_masks = Augmenter(AugmentSpec(flip=False, scale=(0.5, 0.5)), None, SIZE)(
        images, masks, seed=0, epoch=0, samples=np.arange(50)
    )
    assert set(new_masks.unique().tolist()) == {4, 255}
    inside = (new_masks == 4).sum(dim=(1, 2))
    # A quarter of the picture, up to a row and a column by where it lies.
    assert inside.min() >= 9 * 13 and inside.max() <= 11 * 15
    assert (new_images == 200).all()
    assert len({tuple(mask.nonzero()[0].tolist()) for mask in new_masks == 4}) > 20


def test_brightness_and_contrast_keep_the_mask_and_stay_within_their_range() -> None:
    images, masks = batch(100)
    dim = images // 2
    lit, same = Augmenter(AugmentSpec(flip=False, brightness=0.25), None, SIZE)(
        dim, masks, seed=0, epoch=0, samples=np.arange(100)
    )
    assert torch.equal(same, masks)
    factors = lit.float().mean(dim=(1, 2, 3)) / dim.float().mean(dim=(1, 2, 3))
    assert 0.74 < factors.min() < 0.8 and 1.2 < factors.max() < 1.26

    middle = images // 4 + 96
    spread, _ = Augmenter(AugmentSpec(flip=False, contrast=0.25), None, SIZE)(
        middle, masks, seed=0, epoch=0, samples=np.arange(100)
    )
    assert (spread.float().mean(dim=(1, 2, 3)) - middle.float().mean(dim=(1, 2, 3))).abs().max() < 0.5
    factors = spread.float().std(dim=(1, 2, 3)) / middle.float().std(dim=(1, 2, 3))
    assert 0.74 < factors.min() < 0.8 and 1.2 < factors.max() < 1.26


def test_seeds_and_epochs_draw_anew_and_kinds_do_not_disturb_each_other() -> None:
    images, masks = batch(30)
    plain = Augmenter(AugmentSpec(), None, SIZE)
    call = {"samples": np.arange(30)}
    first = plain(images, masks, seed=0, epoch=0, **call)
    assert not torch.equal(first[1], plain(images, masks, seed=0, epoch=1, **call)[1])
    assert not torch.equal(first[1], plain(images, masks, seed=1, epoch=0, **call)[1])
    shaded = Augmenter(AugmentSpec(brightness=0.2), None, SIZE)(images, masks, seed=0, epoch=0, **call)
    assert torch.equal(first[1], shaded[1])


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(DataError, match=r"train\.crop: a crop of 32x16 does not fit the images of 20x28"):
        Augmenter(NOTHING, (32, 16), SIZE)


@pytest.mark.parametrize("crop", [None, (12, 16)])
def test_sixteen_bits_are_augmented_as_eight_are(crop: tuple[int, int] | None) -> None:
    images, masks = batch(12)
    deep = (images.to(torch.int32) * 257).to(torch.uint16)
    augment = Augmenter(EVERYTHING, crop, SIZE)
    bytes_, labels = augment(images, masks, seed=3, epoch=1, samples=np.arange(12))
    words, same = augment(deep, masks, seed=3, epoch=1, samples=np.arange(12))
    assert words.dtype == torch.uint16
    assert torch.equal(labels, same)
    assert (words.double() / 257 - bytes_.double()).abs().max() <= 1.2
    one = augment(deep[7:8], masks[7:8], seed=3, epoch=1, samples=np.array([7]))
    assert torch.equal(one[0], words[7:8])


@pytest.mark.cuda
@pytest.mark.parametrize("crop", [None, (12, 16)])
@pytest.mark.parametrize("spec", [AugmentSpec(), AugmentSpec(scale=(0.5, 2.0)), EVERYTHING])
def test_a_gpu_gives_the_same_bits(spec: AugmentSpec, crop: tuple[int, int] | None) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    images, masks = batch(16)
    call: dict[str, Any] = {"seed": 0, "epoch": 0, "samples": np.arange(16)}
    augment = Augmenter(spec, crop, SIZE)
    for pixels in (images, (images.to(torch.int32) * 257).to(torch.uint16)):
        here = augment(pixels, masks, **call)
        there = augment(pixels.cuda(), masks.cuda(), **call)
        assert torch.equal(here[0], there[0].cpu())
        assert torch.equal(here[1], there[1].cpu())


# -- registered augmentations ----------------------------------------------------------------------------------------


@pytest.fixture
def registered() -> Iterator[None]:
    """Some augmentations, forgotten after the test."""
    kept = dict(AUGMENTATIONS._entries)

    @AUGMENTATIONS.register("noise")
    def noise(
        image: np.ndarray, mask: np.ndarray, *, rng: np.random.Generator, strength: int = 9
    ) -> tuple[np.ndarray, np.ndarray]:
        return (image + rng.integers(0, strength, image.shape)).clip(0, 255).astype(np.uint8), mask

    @AUGMENTATIONS.register("halved")
    def halved(image: np.ndarray, mask: np.ndarray, *, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return image[:: 2 + rng.integers(1)], mask

    yield
    AUGMENTATIONS._entries.clear()
    AUGMENTATIONS._entries.update(kept)


@pytest.mark.usefixtures("registered")
def test_a_registered_augmentation_depends_on_seed_epoch_and_sample_alone() -> None:
    images, masks = batch(6)
    augment = Augmenter({"name": "noise", "strength": 20}, (12, 16), SIZE)
    whole = augment(images, masks, seed=5, epoch=2, samples=np.arange(6))
    some = augment(images[[4, 1]], masks[[4, 1]], seed=5, epoch=2, samples=np.array([4, 1]))
    assert torch.equal(some[0], whole[0][[4, 1]])
    assert whole[0].shape == (6, 12, 16, 3)
    other = augment(images, masks, seed=5, epoch=3, samples=np.arange(6))
    assert not torch.equal(whole[0], other[0])


@pytest.mark.usefixtures("registered")
def test_a_registered_augmentation_that_changes_the_shape_is_one_line() -> None:
    images, masks = batch(2)
    with pytest.raises(
        PluginError, match=r"'halved': expected an image uint8 \(20, 28, 3\) as it was given, got uint8"
    ):
        Augmenter({"name": "halved"}, None, SIZE)(images, masks, seed=0, epoch=1, samples=np.arange(2))
