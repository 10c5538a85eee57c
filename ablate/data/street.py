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
from ablate.data.dataset import Dataset, Split
from ablate.data.street_canvas import SUPERSAMPLE, Camera, Canvas, Draw, Stand
from ablate.data.street_cars import car_ahead, car_oncoming, crossing_car
from ablate.data.street_houses import backdrop, building, ground
from ablate.data.street_light import labels, render
from ablate.data.street_objects import bin_, fence, hedge, lamp, post, sign, signal, tree
from ablate.data.street_paint import CLASSES, PALETTE, SKY, Material
from ablate.data.street_people import bicyclist, pedestrian
from ablate.data.street_scene import Fence, Scene, Thing, lay_out

VERSION = 1  # raised with every change of a pixel: it is part of the trials' keys

MARGIN = 4.0  # metres beside the picture from which something, or its shadow, may still reach into it

Side = Annotated[int, Field(ge=32, le=1024)]
Count = Annotated[int, Field(ge=1, le=100_000)]

PAINTERS = {
    "tree": tree,
    "hedge": hedge,
    "lamp": lamp,
    "post": post,
    "sign": sign,
    "signal": signal,
    "bin": bin_,
    "pedestrian": pedestrian,
    "bicyclist": bicyclist,
    "car_ahead": car_ahead,
    "car_oncoming": car_oncoming,
    "crossing_car": crossing_car,
}


def street(
    *, size: tuple[Side, Side] = (64, 96), train: Count = 200, val: Count = 48, test: Count = 100, seed: int = 0
) -> Dataset:
    """Street scenes of `size` (height, width) pixels: `train`, `val` and `test` images of each split.

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
                images[index], masks[index] = picture(size, seed, split, index)
        return {}

    arrays, _ = cache.fill(hashlib.sha256((text + _source_digest()).encode()).hexdigest(), build)
    return Dataset(
        name="street",
        classes=CLASSES,
        palette=PALETTE,
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
street.classes = CLASSES  # type: ignore[attr-defined]


def _source_digest() -> str:
    """SHA-256 of the generator's code: who changes it sees new pictures, whatever the cache holds."""
    total = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("street*.py")):
        total.update(path.read_bytes())
    return total.hexdigest()


def picture(size: tuple[int, int], seed: int, split: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    """One image, uint8 (H, W, 3), and its mask, uint8 (H, W) of class indices or `IGNORE`."""
    place = ("street", VERSION, seed, split, index)
    scene, draw = lay_out(Draw(*place, "scene")), Draw(*place, "paint")
    rows, columns = size[0] * SUPERSAMPLE, size[1] * SUPERSAMPLE
    camera = Camera(
        # Of the width in pictures of 2:3; others see as large a part of the street, not more of it.
        focal=scene.focal * math.sqrt(columns * rows * 1.5),
        centre=scene.centre * columns,
        horizon=scene.horizon * rows,
        height=scene.eye,
    )
    canvas = Canvas(size, camera, draw)
    _paint(canvas, scene, draw)
    return render(canvas, scene.light, draw), labels(canvas)


def _paint(canvas: Canvas, scene: Scene, draw: Draw) -> None:
    """Everything from the back to the front."""
    canvas.material(Material(SKY, scene.light.zenith))
    backdrop(canvas, scene, draw)
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
