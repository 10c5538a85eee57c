"""The built-in data set: procedural street scenes with the eleven classes of CamVid, a pure function of the seed."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from ablate.data import cache
from ablate.data.dataset import CAMVID, Dataset, Split
from ablate.data.street import palette
from ablate.data.street.canvas import SUPERSAMPLE, Camera, Canvas, Draw, Stand
from ablate.data.street.houses import backdrop, building, ground
from ablate.data.street.scene import Fence, Light, Scene, Thing, lay_out
from ablate.data.street.things import PAINTERS, fence

VERSION = 1  # raised with every change of a pixel: it is part of the trials' keys

MARGIN = 4.0  # metres beside the image from which something, or its shadow, may still reach into it

Side = Annotated[int, Field(ge=32, le=1024)]
Count = Annotated[int, Field(ge=1, le=100_000)]


def street(
    *, size: tuple[Side, Side] = (64, 96), train: Count = 200, val: Count = 48, test: Count = 100, seed: int = 0
) -> Dataset:
    """Return street scenes of `size` (height, width) pixels: `train`, `val` and `test` images of each split.

    An image depends on (seed, split, index) and the size only: more images never change the first ones, no two
    splits share a scene, and another size shows the same scene with more or less detail. What was drawn once is kept in
    the cache of decoded data.
    """
    parameters = {"size": list(size), "train": train, "val": val, "test": test, "seed": seed}
    text = json.dumps({"generator": "street", "version": VERSION, **parameters}, sort_keys=True)
    counts = {"train": train, "val": val, "test": test}

    def build(allocate: cache.Allocate) -> dict[str, Any]:
        for split, count in counts.items():
            images = allocate(f"{split}_images", (count, *size, 3))
            masks = allocate(f"{split}_masks", (count, *size))
            for index in range(count):
                images[index], masks[index] = draw_scene(size, seed, split, index)
        return {}

    arrays, _ = cache.fill(hashlib.sha256((text + _source_digest()).encode()).hexdigest(), build)
    return Dataset(
        name="street",
        classes=tuple(CAMVID),
        palette=tuple(CAMVID.values()),
        splits={
            split: Split(
                arrays[f"{split}_images"],
                arrays[f"{split}_masks"],
                tuple(f"{split}_{index:05d}" for index in range(count)),
            )
            for split, count in counts.items()
        },
        fingerprint=hashlib.sha256(text.encode()).hexdigest(),
    )


street.version = VERSION  # type: ignore[attr-defined]
street.classes = tuple(CAMVID)  # type: ignore[attr-defined]


def _source_digest() -> str:
    """Return the SHA-256 of the generator's code: who changes it sees new images, whatever the cache holds."""
    total = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        total.update(path.read_bytes())
    return total.hexdigest()


def draw_scene(size: tuple[int, int], seed: int, split: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Return one image, uint8 (H, W, 3), and its mask, uint8 (H, W) of class indices or `IGNORE`."""
    place = ("street", VERSION, seed, split, index)
    scene, draw = lay_out(Draw(*place, "scene")), Draw(*place, "paint")
    rows, columns = size[0] * SUPERSAMPLE, size[1] * SUPERSAMPLE
    camera = Camera(
        # Of the width in images of 2:3; others see as large a part of the street, not more of it.
        focal=scene.focal * math.sqrt(columns * rows * 1.5),
        centre=scene.centre * columns,
        horizon=scene.horizon * rows,
        height=scene.eye,
    )
    canvas = Canvas(size, camera, draw)
    _paint(canvas, scene, draw)
    return render(canvas, scene.light, draw), labels(canvas)


def _paint(canvas: Canvas, scene: Scene, draw: Draw) -> None:
    """Paint everything from the back to the front."""
    canvas.material(palette.SKY, scene.light.zenith)
    backdrop(canvas, draw)
    ground(canvas, scene, draw)
    for plan in sorted(scene.buildings, key=lambda plan: -plan.start):
        building(canvas, plan, scene.light)
    standing: list[Fence | Thing] = [*scene.fences, *scene.things]
    for thing in sorted(standing, key=lambda item: -_depth(item)):
        if isinstance(thing, Fence):
            fence(canvas, thing, scene.light)
            continue
        look = Draw(thing.seed)
        stand = Stand(canvas, thing.x, thing.z, mirror=look.chance(0.5) and thing.kind != "sign")
        if -MARGIN * stand.scale < stand.column < canvas.columns + MARGIN * stand.scale:
            PAINTERS[thing.kind](stand, look, scene.light)


def _depth(item: Fence | Thing) -> float:
    return (item.start[1] + item.end[1]) / 2 if isinstance(item, Fence) else item.z


def labels(canvas: Canvas) -> np.ndarray:
    """Return the class of each pixel, uint8 (rows, columns): the upper median of its four samples.

    What covers half of a pixel or more so has it, where it stands above the rest in the order of the classes.
    """
    table = np.array([material.label for material in canvas.materials], np.uint8)
    fine = table[canvas.surface]
    a, b, c, d = fine[0::2, 0::2], fine[0::2, 1::2], fine[1::2, 0::2], fine[1::2, 1::2]
    inner = np.maximum(np.minimum(a, b), np.minimum(c, d))
    return np.maximum(inner, np.minimum(np.maximum(a, b), np.maximum(c, d)))


def render(canvas: Canvas, light: Light, draw: Draw) -> np.ndarray:
    """Return the image of what is painted, uint8 (rows, columns, 3)."""
    materials, number = canvas.materials, canvas.surface.astype(np.intp)
    depth = np.array([material.depth for material in materials], np.float32).take(number)
    varies = depth == 0  # ground, walls and sky have their depth on the canvas
    np.copyto(depth, canvas.depth, where=varies)
    sky = np.array([material.label == palette.SKY for material in materials]).take(number)

    tone = _grain(canvas, depth, number)
    tone *= np.array([material.grain * 12 for material in materials], np.float32).take(number)
    tone /= depth + 12  # a pixel of the distance averages over many grains
    tone += 1
    below = slice(max(0, math.ceil(canvas.camera.horizon)), None)
    tone[below] *= 1 - canvas.shade[below] * varies[below]  # shadows fall on the ground only
    haze = depth / (depth + light.haze)
    haze *= 0.75 * light.exposure
    tone *= light.exposure - haze

    colours = np.array([material.colour for material in materials], np.float32)
    above = slice(0, max(0, min(canvas.rows, math.ceil(canvas.camera.horizon))))
    rise = canvas.ys[above] / max(canvas.camera.horizon, 1.0)
    cover, open_sky = _clouds(canvas, draw)[above], sky[above]
    shape = canvas.rows // SUPERSAMPLE, canvas.columns // SUPERSAMPLE, 3
    noise = _noise(shape, draw) * light.noise
    for channel in range(3):
        lit = colours[:, channel].take(number)
        lit *= tone
        lit += haze * light.skyline[channel]
        blue = light.zenith[channel] + (light.skyline[channel] - light.zenith[channel]) * (rise * rise)
        np.copyto(lit[above], (blue + (0.95 - blue) * cover) * light.exposure, where=open_sky)
        mean = lit[0::2, 0::2] + lit[0::2, 1::2] + lit[1::2, 0::2] + lit[1::2, 1::2]
        mean *= 0.25 * 255 * light.tint[channel]
        noise[..., channel] += mean
    return np.clip(noise, 0, 255, out=noise).astype(np.uint8)


def _grain(canvas: Canvas, depth: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Return a texture fixed to the world: -0.5..0.5, a hash of the cell that a pixel's surface point lies in."""
    cells = np.array([1 / material.cell for material in canvas.materials], np.float32).take(number)
    cells *= depth
    camera = canvas.camera
    ahead = cells.astype(np.int32).view(np.uint32)
    cells *= 1 / camera.focal
    mixed = _cell((canvas.xs - camera.centre) * cells) * np.uint32(0x9E3779B1)
    mixed ^= _cell((canvas.ys - camera.horizon) * 1.6 * cells + 0.37) * np.uint32(0x85EBCA77)
    mixed ^= ahead * np.uint32(0xC2B2AE3D)
    mixed ^= mixed >> np.uint32(15)
    mixed *= np.uint32(0x2C1B3C6D)
    mixed >>= np.uint32(16)
    return mixed.astype(np.float32) * np.float32(1 / 65536) - np.float32(0.5)


def _cell(place: np.ndarray) -> np.ndarray:
    return np.floor(place, out=place).astype(np.int32).view(np.uint32)


def _clouds(canvas: Canvas, draw: Draw) -> np.ndarray:
    """Return soft banks of cloud above the horizon, 0..1: so smooth that the samples of a pixel share a value."""
    rows = math.ceil(min(max(canvas.camera.horizon, 0), canvas.rows) / SUPERSAMPLE)
    columns = canvas.columns // SUPERSAMPLE
    total = np.zeros((rows, columns), np.float32)
    for cells, weight in ((4, 0.6), (10, 0.4)):
        lattice = np.random.PCG64(draw.seed()).random_raw(32 * 64 // 8).view(np.uint8).reshape(32, 64) / np.float32(256)
        step = np.float32(cells * SUPERSAMPLE / canvas.rows)
        down, across = np.arange(rows, dtype=np.float32) * (step * 2), np.arange(columns, dtype=np.float32) * step
        first, left = np.floor(down).astype(int), np.floor(across).astype(int)
        v, u = down - first.astype(np.float32), across - left.astype(np.float32)
        v, u = (v * v * (3 - 2 * v))[:, None], u * u * (3 - 2 * u)
        coarse = lattice[:, left % 63] * (1 - u) + lattice[:, left % 63 + 1] * u
        total += weight * (coarse[first % 31] * (1 - v) + coarse[first % 31 + 1] * v)
    cover = np.zeros((canvas.rows, canvas.columns), np.float32)
    cover[: rows * SUPERSAMPLE] = np.clip(total * 2.2 - 0.75, 0, 1).repeat(SUPERSAMPLE, 0).repeat(SUPERSAMPLE, 1)
    return cover


def _noise(shape: tuple[int, ...], draw: Draw) -> np.ndarray:
    """Return noise of unit variance, near enough to normal: the sum of three uniform bytes."""
    count = shape[0] * shape[1] * shape[2]
    bits = np.random.PCG64(draw.seed()).random_raw((count * 3 + 7) // 8).view(np.uint8)[: count * 3]
    total = bits.reshape(3, *shape).astype(np.float32).sum(axis=0)
    return (total - np.float32(382.5)) * np.float32(1 / 128)  # a byte has the variance 73.9², three of them 128²
