"""The frame of a street: the ground with its markings, the buildings along it and the skyline at its end."""

from __future__ import annotations

import numpy as np

from ablate.data.street import palette
from ablate.data.street.canvas import NEAR, Canvas, Draw
from ablate.data.street.palette import Colour, scaled
from ablate.data.street.scene import Building, Light, Scene

DEEP = 9.0  # metres from the front of a building to its back
GLAZING = ((0.22, 0.27, 0.34), (0.16, 0.18, 0.22), (0.45, 0.55, 0.66), (0.62, 0.70, 0.78), (0.93, 0.80, 0.50))


def ground(canvas: Canvas, scene: Scene, draw: Draw) -> None:
    """Paint road, markings, pavements and gardens up to the horizon."""
    camera = canvas.camera
    first = int(np.searchsorted(canvas.ys[:, 0], camera.horizon + 0.25))
    if first >= canvas.rows:
        return
    x, z = canvas.on_ground(slice(first, None))
    canvas.depth[first:] = np.minimum(z, 500)
    tone = draw.between(0.32, 0.52)
    road = canvas.material(palette.ROAD, draw.shade((tone, tone, tone * 1.03), 0.02), 0, 0.16, 0.04)
    other = draw.between(0.34, 0.62)
    slabs = draw.shade((other, other * 0.98, other * 0.94), 0.02)
    if draw.chance(0.25):
        slabs = draw.shade((0.54, 0.40, 0.34), 0.05)  # brick paving
    pavement = canvas.material(palette.PAVEMENT, slabs, 0, 0.16, 0.45)
    kerb = canvas.material(palette.PAVEMENT, draw.paint(palette.KERBS), 0, 0.1, 0.4)
    lines = canvas.material(palette.ROAD, scaled(palette.WHITE, draw.between(0.75, 1.0)), 0, 0.15, 0.05)
    yellow = canvas.material(palette.ROAD, scaled(palette.YELLOW, 0.9), 0, 0.15, 0.05)

    surface = np.full(x.shape, road, np.uint16)
    _mark(surface, x, z, scene, draw, lines, yellow)
    if draw.chance(0.4):
        _patch(canvas, surface, x, z, scene, draw, road)
    for side in (-1, 1):
        beyond = (x - scene.edge(side)) * side  # metres beyond the kerb
        open_street = np.zeros(z.shape, bool)
        if scene.junction and scene.junction[0] == side:
            open_street = (z > scene.junction[1]) & (z < scene.junction[2])
        grass = draw.paint(palette.LEAVES[:3], 0.03)
        verge = pavement
        if scene.green[side]:
            verge = canvas.material(palette.TREE, grass, 0, 0.35, 0.12)
        paved = (beyond > 0) & ~open_street
        surface[paved] = pavement
        surface[paved & (beyond < np.maximum(0.14, z / camera.focal))] = kerb
        surface[paved & (beyond > scene.pavement[side])] = verge
        joint = 0.02 * camera.focal / z > 0.6  # slabs show their joints where an image can resolve them
        if verge != pavement and joint.any():
            gap = canvas.material(palette.PAVEMENT, scaled(slabs, 0.7), 0)
            between = (_fraction(x * (1 / 0.6)) < 0.04) | (_fraction(z * (1 / 0.6)) < 0.04)
            surface[paved & joint & between & (beyond > 0.15) & (beyond < scene.pavement[side])] = gap
    canvas.surface[first:] = surface


def _mark(surface: np.ndarray, x: np.ndarray, z: np.ndarray, scene: Scene, draw: Draw, lines: int, yellow: int) -> None:
    """Paint centre line, edge lines and zebra crossing; distant lines keep a visible width."""
    middle = (scene.left + scene.right) / 2
    wide = np.maximum(0.07, z * 0.004)
    if draw.chance(0.8):
        dash = draw.pick((4.0, 6.0, 9.0))
        surface[(np.abs(x - middle) < wide) & (_fraction((z + draw.between(0, 6)) * (1 / dash)) < 0.5)] = lines
    kind = draw.pick(("none", "none", "yellow", "white"))
    for side in (-1, 1) if kind != "none" else ():
        inward = (scene.edge(side) - x) * side
        paint = yellow if kind == "yellow" else lines
        surface[np.abs(inward - 0.3) < wide * 0.8] = paint
        if kind == "yellow":
            surface[(np.abs(inward - 0.55) < wide * 0.8) & (z < 12)] = paint
    if scene.crossing:
        within = (z > scene.crossing) & (z < scene.crossing + 2.6)
        surface[within & (_fraction((x - scene.left) * (1 / 1.1)) < 0.5)] = lines


def _patch(
    canvas: Canvas, surface: np.ndarray, x: np.ndarray, z: np.ndarray, scene: Scene, draw: Draw, road: int
) -> None:
    """Paint a mended stretch of asphalt."""
    tone = draw.between(0.7, 1.2)
    mended = canvas.material(palette.ROAD, scaled(canvas.materials[road].colour, tone), 0, 0.16, 0.04)
    left, near = draw.between(scene.left, scene.right - 1.5), draw.between(3.0, 12.0)
    inside = (x > left) & (x < left + draw.between(0.8, 3.0)) & (z > near) & (z < near + draw.between(1.0, 8.0))
    surface[inside & (surface == road)] = mended


def _fraction(values: np.ndarray) -> np.ndarray:
    return values - np.floor(values)


def backdrop(canvas: Canvas, draw: Draw) -> None:
    """Paint distant trees and roofs along the horizon, and what closes the street."""
    camera, depth = canvas.camera, 90.0
    leaf = scaled(draw.paint(palette.LEAVES), 0.85)
    foot = camera.horizon + 1.0  # the ground is painted over it
    x = -90.0
    while x < 90.0:
        width = draw.between(8.0, 20.0)
        left, right = camera.point(x, 0.0, depth)[0], camera.point(x + width, 0.0, depth)[0]
        rise = draw.between(3.0, 11.0)
        if draw.chance(0.55):
            paint = canvas.material(palette.TREE, draw.shade(leaf, 0.03), depth, 0.3, 0.9)
            middle, down = (left + right) / 2, rise * camera.focal / depth
            canvas.clump(paint, middle, foot, (right - left) * 0.75, down, 0.3)
            canvas.box(paint, left, right, foot - down * 0.5, foot)
        else:
            wall = canvas.material(palette.BUILDING, draw.paint(palette.WALLS), depth, 0.15, 2.5)
            canvas.box(wall, left, right, camera.point(x, rise + 4.0, depth)[1], foot)
        x += width


def building(canvas: Canvas, plan: Building, light: Light) -> None:
    """Paint the gable that faces the camera, then the front along the street with its windows."""
    draw = Draw(plan.seed)
    side = -1 if plan.x < 0 else 1
    paint = draw.paint(palette.WALLS)
    sunny = 1.08 if (light.sun[0] > 0) == (plan.x > 0) else 1.0 - 0.6 * light.sunlight
    roof = draw.paint(palette.ROOFS)
    point = canvas.camera.point
    glazing, trim = (
        draw.pick(GLAZING),
        draw.paint(palette.TRIMS) if draw.chance(0.4) else scaled(paint, draw.pick((0.8, 1.15))),
    )
    ridge = draw.between(2.8, 4.4) if plan.height < 6.5 and draw.chance(0.85) else 0.0

    if ridge:
        tiles = canvas.material(palette.BUILDING, scaled(roof, sunny), (plan.start + plan.end) / 2, 0.2, 0.3)
        crest = plan.x + side * DEEP / 2, plan.height + ridge
        eaves = [point(plan.x, plan.height, plan.start), point(plan.x, plan.height, plan.end)]
        canvas.polygon(tiles, [*eaves, point(*crest, plan.end), point(*crest, plan.start)])
    if plan.start > 1.0:
        gable = canvas.material(palette.BUILDING, scaled(paint, 0.9), plan.start, 0.14, 0.24)
        far = plan.x + side * DEEP
        left, top = point(min(plan.x, far), plan.height, plan.start)
        right, foot = point(max(plan.x, far), 0.0, plan.start)
        canvas.box(gable, left, right, top, foot)
        if ridge:
            canvas.polygon(
                gable, [(left, top), (right, top), point((plan.x + far) / 2, plan.height + ridge, plan.start)]
            )
        if draw.chance(0.5):
            pane = canvas.material(palette.BUILDING, glazing, plan.start)
            for level in range(int(plan.height / 3.0)):
                a, b = point(plan.x + side * 3.0, level * 3.0 + 2.2, plan.start)
                c, d = point(plan.x + side * 4.3, level * 3.0 + 0.9, plan.start)
                canvas.box(pane, min(a, c), max(a, c), b, d)
    if side * light.sun[0] < 0 and light.sunlight > 0.2:
        _cast(canvas, plan, light)
    _front(canvas, plan, draw, scaled(paint, sunny), glazing, trim)


def _front(canvas: Canvas, plan: Building, draw: Draw, paint: Colour, glazing: Colour, trim: Colour) -> None:
    """Paint the wall along the street, drawn in its own coordinates: z along it, y up it."""
    camera = canvas.camera
    near, far = camera.point(plan.x, plan.height, plan.start), camera.point(plan.x, 0.0, plan.end)
    at = canvas.window(min(near[0], far[0]), max(near[0], far[0]), near[1], camera.point(plan.x, 0.0, plan.start)[1])
    if at is None:
        return
    offset = canvas.xs[at[1]] - camera.centre
    z = camera.focal * plan.x / np.where(offset == 0, 1e-3, offset)
    y = camera.height - (canvas.ys[at[0]] - camera.horizon) * (z / camera.focal)
    inside = (y >= 0) & (y < plan.height) & (z >= plan.start) & (z < plan.end)

    wall = canvas.material(palette.BUILDING, paint, 0, 0.12, 0.24)
    pane = canvas.material(palette.BUILDING, glazing, 0, 0.25, 0.9)
    frame = canvas.material(palette.BUILDING, trim, 0)
    surface = np.full(y.shape, wall, np.uint16)
    storey, bay = draw.between(2.7, 3.3), draw.between(1.8, 3.2)
    up, along = _fraction(y * (1 / storey)), _fraction((z - plan.start) * (1 / bay))
    width, tall = draw.between(0.16, 0.30), draw.between(0.20, 0.30)
    aside, above = np.abs(along - 0.5), np.abs(up - 0.55)
    surface[(aside < width + 0.05) & (above < tall + 0.05)] = frame
    surface[(aside < width) & (above < tall) & ((aside > 0.012) | (bay > 2.6))] = pane
    surface[(y >= storey * 0.97) & (y < storey * 1.04)] = frame if draw.chance(0.4) else wall
    ground_floor = y < storey * 0.95
    kind = draw.pick(("door", "door", "shop", "plain"))
    if kind == "shop":
        awning = canvas.material(palette.BUILDING, draw.paint(palette.AWNINGS), 0)
        surface[ground_floor & (y > 0.5)] = pane
        surface[ground_floor & (y > 0.5) & (_fraction((z - plan.start) * (1 / 1.6)) < 0.08)] = frame
        surface[ground_floor & (y > 2.2)] = awning
    elif kind == "door":
        door = canvas.material(palette.BUILDING, draw.paint(palette.WALLS), 0)
        place = plan.start + (plan.end - plan.start) * draw.between(0.3, 0.7)
        surface[(y < 2.15) & (np.abs(z - place) < 0.6)] = frame
        surface[(y < 2.05) & (np.abs(z - place) < 0.48)] = door
    surface[y > plan.height - 0.3] = frame
    np.copyto(canvas.surface[at], surface, where=inside)
    np.copyto(canvas.depth[at], z, where=inside)


def _cast(canvas: Canvas, plan: Building, light: Light) -> None:
    """Paint the shadow of a building on the street in front of it."""
    camera = canvas.camera
    low = plan.start + min(0.0, plan.height * light.sun[1])
    foot = camera.point(0.0, 0.0, max(low, NEAR))[1]
    at = canvas.window(0, canvas.columns, camera.horizon + 1, foot)
    if at is None:
        return
    x, z = canvas.on_ground(at[0])
    blocked = (x - plan.x) * (1 / light.sun[0])  # height of the point of the wall that keeps the sun off
    origin = z - blocked * light.sun[1]
    dark = (blocked > 0) & (blocked < plan.height) & (origin > plan.start) & (origin < plan.end)
    canvas.shade[at][dark] = light.sunlight
