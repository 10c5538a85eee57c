"""The canvas of the street scenes: numbered surfaces at twice the image's resolution, and the camera over them.

Only sums, products, quotients and square roots are used on the way to an image, and a generator whose stream is
fixed: IEEE arithmetic gives the same bits for them on every machine, which no sine or exponential does.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np

from ablate.data.street.palette import Colour, Material

SUPERSAMPLE = 2  # canvas pixels along a side of an image's pixel
NEAR = 0.5  # metres; nothing nearer to the camera is drawn
LATTICE = 512  # cells along a side of the random lattice that outlines are frayed by
LEAVES_HIGH = 256  # its cells to the height of an image

Point = tuple[float, float]
Choice = TypeVar("Choice")


class Draw:
    """Random choices that depend on nothing but the coordinates they are made from."""

    def __init__(self, *coordinates: str | int) -> None:
        seed = coordinates[0]
        if len(coordinates) > 1 or isinstance(seed, str):
            text = "/".join([str(part) for part in coordinates])
            seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
        self._random = random.Random(seed).random

    def between(self, low: float, high: float) -> float:
        """Return a number in [low, high)."""
        return low + (high - low) * self._random()

    def whole(self, low: int, high: int) -> int:
        """Return a whole number from low to high, both included."""
        return low + int(self._random() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return self._random() < probability

    def pick(self, choices: Sequence[Choice]) -> Choice:
        """Return one of the choices, all equally likely."""
        return choices[int(self._random() * len(choices))]

    def shade(self, colour: Colour, spread: float = 0.06) -> Colour:
        """Return the colour, a little brighter or darker and a little off its hue."""
        bright = self.between(-spread, spread)
        spread /= 1.5
        return (
            colour[0] + bright + spread * (self._random() - 0.5),
            colour[1] + bright + spread * (self._random() - 0.5),
            colour[2] + bright + spread * (self._random() - 0.5),
        )

    def paint(self, colours: Sequence[Colour], spread: float = 0.06) -> Colour:
        """Return one of the colours, a little off (`shade`)."""
        return self.shade(self.pick(colours), spread)

    def seed(self) -> int:
        """Return a coordinate for draws that are to be independent of these."""
        return int(self._random() * 2**48)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera looking along the street. World in metres: x right, y up from the ground, z ahead."""

    focal: float  # canvas pixels
    centre: float  # canvas column of the vanishing point
    horizon: float  # canvas row of the vanishing point
    height: float  # metres above the ground

    def point(self, x: float, y: float, z: float) -> Point:
        """Return canvas column and row of a point of the world."""
        return self.centre + self.focal * x / z, self.horizon + self.focal * (self.height - y) / z


@cache
def _lattice() -> np.ndarray:
    bits = np.random.PCG64(LATTICE).random_raw(LATTICE * LATTICE // 8).view(np.uint8)
    return bits.reshape(LATTICE, LATTICE).astype(np.float32) * np.float32(1 / 256)


class Canvas:
    """Surfaces by number, (rows, columns) canvas pixels; later paint covers earlier paint."""

    def __init__(self, size: tuple[int, int], camera: Camera, draw: Draw) -> None:
        self.rows, self.columns = size[0] * SUPERSAMPLE, size[1] * SUPERSAMPLE
        self.camera = camera
        self.surface = np.zeros((self.rows, self.columns), np.uint16)
        self.depth = np.full((self.rows, self.columns), 1000.0, np.float32)
        self.shade = np.zeros((self.rows, self.columns), np.float32)  # how much of the sun the ground lacks
        self.materials: list[Material] = []
        self.xs = np.arange(self.columns, dtype=np.float32) + np.float32(0.5)
        self.ys = (np.arange(self.rows, dtype=np.float32) + np.float32(0.5))[:, None]
        cells = np.arange(max(self.rows, self.columns)) * LEAVES_HIGH // self.rows
        down, across = cells[: self.rows] + draw.whole(0, LATTICE), cells[: self.columns] + draw.whole(0, LATTICE)
        self.rag = _lattice()[down % LATTICE][:, across % LATTICE]  # 0..1, what frays the outlines of foliage

    def material(self, label: int, colour: Colour, depth: float = 0.0, grain: float = 0.0, cell: float = 0.2) -> int:
        """Return the number under which a `Material` is painted."""
        self.materials.append(Material(label, colour, depth, grain, cell))
        return len(self.materials) - 1

    def on_ground(self, rows: slice, columns: slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """Return x and z, in metres, of the places of the ground that pixels below the horizon show."""
        z = self.camera.focal * self.camera.height / (self.ys[rows] - self.camera.horizon)
        return (self.xs[columns] - self.camera.centre) * (z / self.camera.focal), z

    def window(self, left: float, right: float, top: float, bottom: float) -> tuple[slice, slice] | None:
        """Return the part of the canvas that covers the given bounds, or None where that is none of it."""
        first_row, last_row = max(0, math.floor(top)), min(self.rows, math.ceil(bottom))
        first_column, last_column = max(0, math.floor(left)), min(self.columns, math.ceil(right))
        if first_row >= last_row or first_column >= last_column:
            return None
        return slice(first_row, last_row), slice(first_column, last_column)

    def bar(self, number: int, left: float, right: float, top: float, bottom: float) -> None:
        """Paint an upright bar whose sides fall on the borders of whole image pixels, at least one of them wide."""
        width = max(1, round((right - left) / SUPERSAMPLE)) * SUPERSAMPLE
        first = round(((left + right) - width) / 2 / SUPERSAMPLE) * SUPERSAMPLE
        rows = slice(max(0, round(top)), max(0, round(bottom)))
        self.surface[rows, max(0, first) : max(0, first + width)] = number

    def box(self, number: int, left: float, right: float, top: float, bottom: float) -> None:
        """Paint a rectangle along the axes, its sides rounded to canvas pixels."""
        self.surface[max(0, round(top)) : max(0, round(bottom)), max(0, round(left)) : max(0, round(right))] = number

    def polygon(self, number: int, points: Sequence[Point]) -> None:
        """Paint a convex polygon, its corners in order."""
        for row, first, last in self._spans(points):
            self.surface[row, first:last] = number

    def shadow(self, strength: float, ground: Sequence[Point]) -> None:
        """Paint a convex polygon of shadow, its corners x and z in metres; it shows where the ground does."""
        for row, first, last in self._spans([self.camera.point(x, 0.0, z) for x, z in ground]):
            self.shade[row, first:last] = strength

    def _spans(self, points: Sequence[Point]) -> Iterator[tuple[int, int, int]]:
        """Return row, first and last column (excluded) of the pixels whose centres a convex polygon covers."""
        heights = [point[1] for point in points]
        top, bottom = max(0, math.ceil(min(heights) - 0.5)), min(self.rows, math.ceil(max(heights) - 0.5))
        if top >= bottom:
            return
        left, right = [1e9] * (bottom - top), [-1e9] * (bottom - top)
        xa, ya = points[-1]
        for xb, yb in points:
            low, high = (ya, yb) if ya < yb else (yb, ya)
            if high > low:
                slope = (xb - xa) / (yb - ya)
                for row in range(max(top, math.ceil(low - 0.5)), min(bottom, math.ceil(high - 0.5))):
                    x = xa + (row + 0.5 - ya) * slope
                    if x < left[row - top]:
                        left[row - top] = x
                    if x > right[row - top]:
                        right[row - top] = x
            xa, ya = xb, yb
        for row in range(top, bottom):
            last = math.ceil(right[row - top] - 0.5)
            if last > 0:
                yield row, max(0, math.ceil(left[row - top] - 0.5)), last

    def ellipse(self, number: int, x: float, y: float, across: float, down: float, hole: float = 0.0) -> None:
        """Paint an ellipse of half axes `across` and `down`; with a `hole` (a fraction) a ring."""
        for row in range(max(0, math.ceil(y - down - 0.5)), min(self.rows, math.ceil(y + down - 0.5))):
            rise = (row + 0.5 - y) / down
            outer = across * math.sqrt(max(0.0, 1 - rise * rise))
            first, last = max(0, math.ceil(x - outer - 0.5)), max(0, math.ceil(x + outer - 0.5))
            if hole and abs(rise) < hole:
                inner = across * math.sqrt(hole * hole - rise * rise)
                self.surface[row, first : max(0, math.ceil(x - inner - 0.5))] = number
                first = max(0, math.ceil(x + inner - 0.5))
            self.surface[row, first:last] = number

    def clump(self, number: int, x: float, y: float, across: float, down: float, rag: float) -> None:
        """Paint an ellipse of foliage, its outline frayed by `rag` (a fraction of its area)."""
        at = self.window(x - across, x + across, y - down, y + down)
        if at is None:
            return
        columns, rows = (self.xs[at[1]] - x) / across, (self.ys[at[0]] - y) / down
        distance = self.rag[at] * rag
        distance += columns * columns
        distance += rows * rows
        self.surface[at][distance <= 1] = number

    def limb(self, number: int, start: Point, end: Point, start_width: float, end_width: float | None = None) -> None:
        """Paint a straight stroke, never thinner than an image's pixel."""
        end_width = start_width if end_width is None else end_width
        (xa, ya), (xb, yb) = start, end
        length = math.sqrt((xb - xa) * (xb - xa) + (yb - ya) * (yb - ya)) or 1.0
        across, down = (yb - ya) / length, (xa - xb) / length
        a, b = max(start_width, SUPERSAMPLE) / 2, max(end_width, SUPERSAMPLE) / 2
        self.polygon(
            number,
            [
                (xa + across * a, ya + down * a),
                (xb + across * b, yb + down * b),
                (xb - across * b, yb - down * b),
                (xa - across * a, ya - down * a),
            ],
        )


class Stand:
    """A place on the ground where something upright stands; its methods take metres, x right and y up from the foot.

    `mirror` turns what is drawn left to right.
    """

    def __init__(self, canvas: Canvas, x: float, z: float, *, mirror: bool = False) -> None:
        self.canvas, self.x, self.z = canvas, x, z
        self.column, self.row = canvas.camera.point(x, 0.0, z)
        self.scale = canvas.camera.focal / z  # canvas pixels of a metre
        self.side = -1 if mirror else 1

    def shows(self, metres: float) -> bool:
        """Return whether a detail of this size is at least a canvas pixel large."""
        return self.scale * metres >= 1

    def material(self, label: int, colour: Colour, grain: float = 0.0, cell: float = 0.1) -> int:
        """Return the number of a material at this depth."""
        return self.canvas.material(label, colour, self.z, grain, cell)

    def point(self, x: float, y: float) -> Point:
        """Return canvas column and row of a place in metres."""
        return self.column + self.side * x * self.scale, self.row - y * self.scale

    def box(self, number: int, left: float, right: float, low: float, high: float) -> None:
        """Paint a rectangle."""
        a, b = self.point(left, high)[0], self.point(right, high)[0]
        self.canvas.box(number, min(a, b), max(a, b), self.row - high * self.scale, self.row - low * self.scale)

    def bar(self, number: int, left: float, right: float, low: float, high: float) -> None:
        """Paint a thin upright, at least an image's pixel wide."""
        a, b = self.point(left, high)[0], self.point(right, high)[0]
        self.canvas.bar(number, min(a, b), max(a, b), self.row - high * self.scale, self.row - low * self.scale)

    def polygon(self, number: int, points: Sequence[Point]) -> None:
        """Paint a convex polygon."""
        self.canvas.polygon(number, [self.point(x, y) for x, y in points])

    def ellipse(self, number: int, x: float, y: float, across: float, down: float, hole: float = 0.0) -> None:
        """Paint an ellipse by its half axes, at least an image's pixel large; a `hole` leaves a ring that thick."""
        column, row = self.point(x, y)
        across, down = max(across * self.scale, SUPERSAMPLE / 2), max(down * self.scale, SUPERSAMPLE / 2)
        hole = min(hole, max(0.0, 1 - SUPERSAMPLE / min(across, down)))
        self.canvas.ellipse(number, column, row, across, down, hole)

    def clump(self, number: int, x: float, y: float, across: float, down: float, rag: float) -> None:
        """Paint an ellipse of foliage by its half axes."""
        column, row = self.point(x, y)
        self.canvas.clump(number, column, row, across * self.scale, down * self.scale, rag)

    def limb(self, number: int, start: Point, end: Point, width: float, end_width: float | None = None) -> None:
        """Paint a straight stroke, at least an image's pixel thick."""
        end_width = width if end_width is None else end_width
        self.canvas.limb(number, self.point(*start), self.point(*end), width * self.scale, end_width * self.scale)

    def shadow(self, strength: float, half_width: float, height: float, sun: Point) -> None:
        """Paint the shadow that something of this half width and height casts on the ground.

        `sun` is the shadow's reach along x and z for each metre of height.
        """
        tip_x, tip_z = self.x + height * sun[0], max(self.z + height * sun[1], NEAR)
        ground = [
            (self.x - half_width, self.z),
            (self.x + half_width, self.z),
            (tip_x + half_width, tip_z),
            (tip_x - half_width, tip_z),
        ]
        self.canvas.shadow(strength, ground)
