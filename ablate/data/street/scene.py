"""The layout of a street scene in metres, which is drawn before a single pixel is."""

from __future__ import annotations

from dataclasses import dataclass, field

from ablate.data.street.canvas import NEAR, Draw
from ablate.data.street.palette import Colour

Taken = list[tuple[float, float, float, float]]  # patches of ground: x, z and half their extents

END = 48.0  # metres to which the street is built up


@dataclass(frozen=True)
class Light:
    """Sun, sky and camera."""

    sun: tuple[float, float]  # reach of a shadow along x and z for each metre of height
    sunlight: float  # 0 overcast .. 1 clear: how dark the shadows are
    tint: Colour
    zenith: Colour
    skyline: Colour
    clouds: float
    haze: float  # metres over which the air takes half of the colour
    exposure: float
    noise: float  # standard deviation of the sensor, in grey levels of 255


@dataclass(frozen=True)
class Building:
    """A block along the street, its front at x and from z `start` to `end`."""

    x: float
    start: float
    end: float
    height: float
    seed: int


@dataclass(frozen=True)
class Fence:
    """Pickets from one ground point to another."""

    start: tuple[float, float]
    end: tuple[float, float]
    seed: int


@dataclass(frozen=True)
class Thing:
    """Something that stands on the ground, by kind; the seed decides how it looks."""

    kind: str
    x: float
    z: float
    seed: int


@dataclass
class Scene:
    """A whole scene. `left` and `right` are the road's edges; pavements and fronts are beyond them, by side."""

    focal: float  # of the image's width
    centre: float  # of the vanishing point, of the width
    horizon: float  # of the height
    eye: float  # metres above the ground
    left: float
    right: float
    pavement: dict[int, float]
    setback: dict[int, float]
    light: Light
    crossing: float | None  # z of a zebra crossing
    junction: tuple[int, float, float] | None  # side street: side, from z, to z
    buildings: list[Building] = field(default_factory=list)
    fences: list[Fence] = field(default_factory=list)
    things: list[Thing] = field(default_factory=list)
    green: dict[int, bool] = field(default_factory=dict)  # by side: grass beyond the pavement

    def edge(self, side: int) -> float:
        """Return x of the road's edge on a side (-1 left, 1 right)."""
        return self.left if side < 0 else self.right

    def front(self, side: int) -> float:
        """Return x of the fronts of the buildings on a side."""
        return self.edge(side) + side * (self.pavement[side] + self.setback[side])

    def in_view(self, x: float) -> float:
        """Return the least z at which a place x beside the camera is well inside the image."""
        reach = (self.centre if x < 0 else 1 - self.centre) - 0.03
        return abs(x) * self.focal / reach


def lay_out(draw: Draw) -> Scene:
    """Draw a scene; it does not depend on the size of the image."""
    road = draw.between(5.2, 6.8)
    place = draw.between(0.28, 0.42) if draw.chance(0.6) else draw.between(0.58, 0.72)
    scene = Scene(
        focal=draw.between(0.66, 0.84),
        centre=draw.between(0.40, 0.60),
        horizon=draw.between(0.46, 0.58),
        eye=draw.between(1.45, 1.9),
        left=-road * place,
        right=road * (1 - place),
        pavement={side: draw.between(1.8, 2.8) for side in (-1, 1)},
        setback={side: draw.between(1.5, 4.0) if draw.chance(0.65) else 0.0 for side in (-1, 1)},
        light=_light(draw),
        crossing=draw.between(6.0, 14.0) if draw.chance(0.25) else None,
        junction=None,
    )
    if draw.chance(0.35):
        start = draw.between(9.0, 22.0)
        scene.junction = draw.pick((-1, 1)), start, start + draw.between(5.0, 7.0)
    for side in (-1, 1):
        _build_up(scene, side, draw)
    _add_fences(scene, draw)
    taken: Taken = []
    _add_traffic(scene, draw, taken)
    _add_people(scene, draw, taken)
    _add_furniture(scene, draw, taken)
    return scene


def _light(draw: Draw) -> Light:
    sunny, side = draw.chance(0.6), draw.pick((-1.0, 1.0))
    evening = draw.between(0.0, 1.0) if draw.chance(0.3) else 0.0
    blue, grey = draw.shade((0.42, 0.60, 0.86)), draw.shade((0.74, 0.76, 0.79), 0.08)
    zenith = blue if sunny else grey
    pale = draw.shade((0.84, 0.88, 0.93), 0.05)
    warm = (0.95, 0.74, 0.52)
    mixed = [p * (1 - 0.7 * evening) + w * 0.7 * evening for p, w in zip(pale, warm, strict=True)]
    warmth = draw.between(0.92, 1.08)  # white balance
    return Light(
        sun=(side * draw.between(0.4, 1.3), draw.between(-0.4, 0.7)),
        sunlight=draw.between(0.35, 0.6) if sunny else draw.between(0.0, 0.12),
        tint=(warmth + 0.08 * evening, 1.0, 2.0 - warmth - 0.12 * evening),
        zenith=zenith,
        skyline=(mixed[0], mixed[1], mixed[2]),
        clouds=draw.between(0.0, 0.9),
        haze=draw.between(60.0, 240.0),
        exposure=draw.between(0.8, 1.2),
        noise=draw.between(1.0, 3.5),
    )


def _build_up(scene: Scene, side: int, draw: Draw) -> None:
    """Add a terrace, houses with gaps, or a park with trees."""
    kind = draw.pick(("terrace", "terrace", "houses", "houses", "houses", "park"))
    scene.green[side] = kind == "park" or draw.chance(0.75)
    front = scene.front(side)
    z = draw.between(-6.0, 3.0)
    while z < END:
        length = draw.between(7.0, 15.0)
        start, end = max(z, NEAR), z + length
        crossed = scene.junction and scene.junction[0] == side and start < scene.junction[2] and end > scene.junction[1]
        if crossed and scene.junction:
            z = scene.junction[2] + 0.5
            continue
        if kind != "park" and end > 1.0:
            height = draw.between(4.2, 7.0) if kind == "houses" else draw.between(6.0, 13.0)
            scene.buildings.append(Building(front, start, end, height, draw.seed()))
        z = end
        if kind == "park":
            if end > 4 and draw.chance(0.8):
                scene.things.append(Thing("tree", front + side * draw.between(0.0, 5.0), end, draw.seed()))
        elif kind == "houses" or draw.chance(0.15):
            gap = draw.between(1.5, 6.0)
            if end > 3:
                if draw.chance(0.6):
                    low, high = sorted((front, front + side * 9.0))
                    scene.fences.append(Fence((low, end + 0.4), (high, end + 0.4), draw.seed()))
                if draw.chance(0.6):
                    scene.things.append(Thing("tree", front + side * draw.between(1.5, 3.5), end + gap, draw.seed()))
            z += gap


def _add_fences(scene: Scene, draw: Draw) -> None:
    """Add fences along the gardens, or hedges instead, and as railings at the kerb."""
    for side in (-1, 1):
        garden = scene.edge(side) + side * scene.pavement[side]
        if scene.setback[side]:
            start = scene.in_view(garden) * draw.between(0.7, 1.1)
            end = start + draw.between(5.0, 13.0)
            stop = scene.junction[1] if scene.junction and scene.junction[0] == side else END
            if draw.chance(0.85):
                scene.fences.append(Fence((garden, start), (garden, max(start + 2.0, min(end, stop))), draw.seed()))
            else:
                scene.things.extend(
                    Thing("hedge", garden, start + step * 1.1, draw.seed()) for step in range(int((end - start) / 1.1))
                )
        if draw.chance(0.55):
            kerb = scene.edge(side) + side * 0.25
            start = scene.in_view(kerb) * draw.between(1.0, 1.5)
            scene.fences.append(Fence((kerb, start), (kerb, start + draw.between(3.0, 8.0)), draw.seed()))


def _add(scene: Scene, taken: Taken, draw: Draw, kind: str, x: float, z: float, half_x: float, half_z: float) -> None:
    """Add a thing on a patch of ground, unless something stands there."""
    if not any(abs(x - a) < half_x + w and abs(z - b) < half_z + d for a, b, w, d in taken):
        taken.append((x, z, half_x, half_z))
        scene.things.append(Thing(kind, x, z, draw.seed()))


def _add_traffic(scene: Scene, draw: Draw, taken: Taken) -> None:
    """Add cars driving and parked, and cyclists on the road. A car's z is that of its near end."""
    middle = (scene.left + scene.right) / 2
    for _ in range(draw.pick((0, 1, 1, 1, 2))):
        side = draw.pick((-1, 1))
        x = scene.edge(side) * draw.between(0.45, 0.9)
        low = scene.in_view(x)
        _add(scene, taken, draw, "bicyclist", x, max(3.2, low) + draw.between(0.0, 2.5), 0.6, 1.0)
    if draw.chance(0.12):
        _add(scene, taken, draw, "crossing_car", draw.between(-3.0, 3.0), draw.between(9.0, 16.0), 2.4, 1.2)
    if draw.chance(0.55):
        x = (scene.left + middle) / 2 + draw.between(-0.2, 0.3)
        _add(scene, taken, draw, "car_ahead", x, draw.between(5.0, 14.0), 1.1, 2.5)
    for _ in range(draw.pick((0, 1, 1, 2))):
        x = (scene.right + middle) / 2 + draw.between(-0.3, 0.2)
        _add(scene, taken, draw, "car_oncoming", x, draw.between(5.0, 16.0), 1.1, 2.5)
    for side in (-1, 1):
        if draw.chance(0.45):
            x = scene.edge(side) - side * 0.95
            z = scene.in_view(x) + draw.between(0.0, 5.0)
            for _ in range(draw.whole(1, 3)):
                _add(scene, taken, draw, "car_oncoming" if side > 0 else "car_ahead", x, z, 1.0, 2.4)
                z += draw.between(5.0, 7.0)


def _add_people(scene: Scene, draw: Draw, taken: Taken) -> None:
    """Add pedestrians on the pavements and crossing the road."""
    for _ in range(draw.pick((1, 2, 2, 3, 3))):
        if draw.chance(0.5):
            x = draw.between(scene.left, scene.right)
            z = scene.crossing if scene.crossing and draw.chance(0.5) else draw.between(3.2, 5.2)
        else:
            side = draw.pick((-1, 1))
            x = scene.edge(side) + side * draw.between(0.4, scene.pavement[side] - 0.3)
            z = max(3.2, scene.in_view(x)) + draw.between(0.0, 2.0)
        _add(scene, taken, draw, "pedestrian", x, z, 0.4, 0.4)


def _add_furniture(scene: Scene, draw: Draw, taken: Taken) -> None:
    """Add lamp posts, signs, signals, trees and bins along both kerbs."""
    kinds = ("lamp", "lamp", "lamp", "sign", "sign", "sign", "signal", "tree", "tree", "bin", "post")
    for side in (-1, 1):
        x = scene.edge(side) + side * 0.5
        z = max(3.2, scene.in_view(x)) + draw.between(0.0, 1.0)
        while z < 14:
            kind = draw.pick(kinds)
            if kind != "tree" or z > 7:
                _add(scene, taken, draw, kind, x, z, 0.2, 0.3)
            z += draw.between(1.6, 4.5)
