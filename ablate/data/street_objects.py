"""How what stands beside a street is drawn: trees, poles, signs, signals, fences and bins."""

from __future__ import annotations

import math

from ablate.data.dataset import IGNORE
from ablate.data.street_canvas import SUPERSAMPLE, Canvas, Draw, Stand
from ablate.data.street_paint import (
    BLACK,
    BLUE,
    BROWN,
    CREAM,
    DARK,
    FENCE,
    GREEN,
    GREY,
    LEAVES,
    METAL,
    NAVY,
    PICKETS,
    POLE,
    RED,
    SIGN,
    TREE,
    WHITE,
    YELLOW,
    Colour,
    Material,
    scaled,
)
from ablate.data.street_scene import Fence, Light

LEAST_PITCH = 3 * SUPERSAMPLE  # canvas pixels between pickets: gaps must show what is behind


def tree(stand: Stand, draw: Draw, light: Light) -> None:
    """A trunk under a crown of ragged clumps, darker below and away from the sun."""
    height = draw.between(4.0, 7.5)
    radius = height * draw.between(0.26, 0.36)
    leaf = draw.shade(draw.pick(LEAVES), 0.04)
    trunk = stand.material(TREE, draw.shade(BROWN), 0.3, 0.08)
    stand.limb(trunk, (0.0, 0.0), (draw.between(-0.2, 0.2), height * 0.6), height * 0.06, height * 0.03)
    _clumps(stand, draw, light, leaf, height - radius * 1.05, radius, radius * 1.05, 11)
    stand.shadow(light.sunlight * 0.8, height * 0.03, height * 0.5, light.sun)
    reach_x, reach_z = stand.x + light.sun[0] * height * 0.7, stand.z + light.sun[1] * height * 0.7
    if light.sunlight > 0.2 and reach_z > 1.5:
        _dapple(stand.canvas, reach_x, reach_z, radius, light.sunlight)


def hedge(stand: Stand, draw: Draw, light: Light) -> None:
    """A length of clipped hedge."""
    leaf = LEAVES[0] if draw.chance(0.6) else LEAVES[1]
    _clumps(stand, draw, light, draw.shade(leaf, 0.03), 0.55, 0.75, 0.65, 4)


def _clumps(
    stand: Stand, draw: Draw, light: Light, leaf: Colour, middle: float, across: float, down: float, number: int
) -> None:
    tones = [stand.material(TREE, scaled(leaf, tone), 0.45, 0.11) for tone in (0.68, 0.88, 1.1)]
    sunny = -1 if light.sun[0] > 0 else 1
    stand.clump(tones[0], 0.0, middle, across * 0.85, down * 0.85, 0.4)
    for step in range(number):
        rise = step / number * 1.3 - 0.65  # from the bottom to the top
        reach = math.sqrt(1 - rise * rise) * 0.62
        x = draw.between(-reach, reach)
        tone = 0 if step < number * 0.3 else (2 if x * sunny > -0.05 + 0.3 * (1 - light.sunlight) else 1)
        size = draw.between(0.28, 0.46)
        if step % 3 and not stand.shows(0.25 / across):
            continue  # so far off, the clumps run into each other
        stand.clump(tones[tone], x * across, middle + rise * down, across * size, down * size, 0.5)


def _dapple(canvas: Canvas, x: float, z: float, radius: float, strength: float) -> None:
    """The broken shadow of a crown on the ground around (x, z)."""
    depth = max(0.6, z - radius)
    corners = [canvas.camera.point(x + a, 0.0, b) for a in (-radius, radius) for b in (depth, z + radius)]
    columns, rows = [corner[0] for corner in corners], [corner[1] for corner in corners]
    at = canvas.window(min(columns), max(columns), min(rows), max(rows))
    if at is None:
        return
    camera = canvas.camera
    far = camera.focal * camera.height / (canvas.ys[at[0]] - camera.horizon)
    aside = (canvas.xs[at[1]] - camera.centre) * (far / camera.focal) - x
    distance = (aside * aside + (far - z) * (far - z)) * (1 / (radius * radius)) + canvas.rag[at] * 0.7
    canvas.shade[at][(distance < 1) & (far > 0)] = strength


def lamp(stand: Stand, draw: Draw, light: Light) -> None:
    """A street lamp or a plain mast."""
    height = draw.between(5.0, 8.0)
    paint = stand.material(POLE, draw.shade(draw.pick(METAL)), 0.04)
    stand.shadow(light.sunlight, 0.07, height, light.sun)
    stand.bar(paint, -0.12, 0.12, 0.0, height)
    if stand.shows(0.05):
        stand.bar(paint, -0.13, 0.13, 0.0, 1.1)
    if draw.chance(0.6):
        reach = (1 if stand.x < 0 else -1) * draw.between(0.8, 1.6)
        stand.limb(paint, (0.0, height - 0.05), (reach, height + 0.15), 0.1)
        stand.limb(paint, (reach * 0.75, height + 0.08), (reach * 1.15, height + 0.15), 0.2)


def post(stand: Stand, draw: Draw, light: Light) -> None:
    """A short bollard post."""
    paint = stand.material(POLE, draw.shade(draw.pick(METAL)), 0.04)
    stand.shadow(light.sunlight, 0.08, 1.0, light.sun)
    stand.bar(paint, -0.1, 0.1, 0.0, draw.between(0.9, 1.3))
    if stand.shows(0.05):
        stand.box(stand.material(POLE, WHITE), -0.1, 0.1, 0.75, 0.85)


def sign(stand: Stand, draw: Draw, light: Light) -> None:
    """A round, triangular or square plate, or a street name, on a pole."""
    middle, size = draw.between(2.1, 2.7), draw.between(0.46, 0.62)
    stand.shadow(light.sunlight, 0.05, middle, light.sun)
    stand.bar(stand.material(POLE, draw.shade(draw.pick((GREY, GREY, DARK, CREAM)))), -0.045, 0.045, 0.0, middle + 0.1)
    rim = stand.material(SIGN, draw.shade(RED, 0.04))
    face = stand.material(SIGN, draw.shade(WHITE, 0.04))
    mark = stand.material(SIGN, BLACK)
    kind = draw.pick(("round", "round", "triangle", "square", "stop", "board"))
    if kind == "round":
        stand.ellipse(rim, 0.0, middle, size, size)
        stand.ellipse(face, 0.0, middle, size * 0.68, size * 0.68)
        if stand.shows(0.1):
            stand.box(mark, -size * 0.3, -size * 0.06, middle - size * 0.35, middle + size * 0.35)
            stand.ellipse(mark, size * 0.22, middle, size * 0.22, size * 0.36, hole=0.5)
    elif kind == "triangle":
        for paint, part in ((rim, 1.15), (face, 0.62)):
            corners = [(-size * part, middle - size * part * 0.8), (size * part, middle - size * part * 0.8)]
            stand.polygon(paint, [*corners, (0.0, middle + size * part)])
        stand.box(mark, -0.05, 0.05, middle - size * 0.3, middle + size * 0.25)
    elif kind == "square":
        blue = stand.material(SIGN, draw.shade(draw.pick((BLUE, (0.12, 0.42, 0.26), YELLOW))))
        stand.box(face, -size, size, middle - size, middle + size)
        stand.box(blue, -size * 0.88, size * 0.88, middle - size * 0.88, middle + size * 0.88)
        stand.box(face, -size * 0.2, size * 0.2, middle - size * 0.6, middle + size * 0.5)
    elif kind == "stop":
        stand.ellipse(rim, 0.0, middle, size, size)
        stand.box(face, -size * 0.65, size * 0.65, middle - size * 0.2, middle + size * 0.2)
    else:
        stand.box(mark, -size * 1.5, size * 1.5, middle - size * 0.55, middle + size * 0.55)
        stand.box(face, -size * 1.4, size * 1.4, middle - size * 0.45, middle + size * 0.45)
        if stand.shows(0.08):
            stand.box(mark, -size * 1.1, size * 0.9, middle - size * 0.08, middle + size * 0.12)


def signal(stand: Stand, draw: Draw, light: Light) -> None:
    """Traffic lights."""
    stand.shadow(light.sunlight, 0.07, 3.2, light.sun)
    stand.bar(stand.material(POLE, draw.shade(draw.pick((GREY, DARK)))), -0.06, 0.06, 0.0, 2.4)
    frame, case = stand.material(SIGN, draw.shade(WHITE)), stand.material(SIGN, BLACK)
    stand.box(frame, -0.34, 0.34, 2.1, 3.5)
    stand.box(case, -0.27, 0.27, 2.17, 3.43)
    lit = draw.whole(0, 2)
    for place, colour in enumerate(((0.95, 0.15, 0.10), (1.0, 0.70, 0.10), (0.15, 0.85, 0.40))):
        lens = stand.material(SIGN, colour if place == lit else scaled(colour, 0.3))
        stand.ellipse(lens, 0.0, 3.22 - place * 0.42, 0.19, 0.19)


def bin_(stand: Stand, draw: Draw, light: Light) -> None:
    """A litter bin or a letter box: nothing that has a class."""
    colour = draw.shade(draw.pick((DARK, GREEN, RED, BLACK, NAVY)))
    body, lid = stand.material(IGNORE, colour, 0.1), stand.material(IGNORE, scaled(colour, 0.6))
    stand.shadow(light.sunlight, 0.3, 1.0, light.sun)
    stand.box(body, -0.3, 0.3, 0.0, 1.0)
    stand.box(lid, -0.34, 0.34, 0.95, 1.1)
    stand.box(lid, -0.2, 0.2, 0.7, 0.8)


def fence(canvas: Canvas, plan: Fence, light: Light) -> None:
    """Pickets and two rails between two ground points, in perspective; the gaps are open."""
    draw = Draw(plan.seed)
    height, pitch, width = draw.between(1.0, 1.5), draw.between(0.28, 0.42), draw.between(0.09, 0.13)
    colour = draw.shade(draw.pick(PICKETS))
    (xa, za), (xb, zb) = plan.start, plan.end
    span = math.sqrt((xb - xa) * (xb - xa) + (zb - za) * (zb - za))
    pickets, point = int(span / pitch), canvas.camera.point
    middle = (za + zb) / 2
    reach_x, reach_z = (xb - xa) / span * width / 2, (zb - za) / span * width / 2
    rail = canvas.material(Material(FENCE, scaled(colour, 0.85), middle))
    stripe = [(xa, za), (xb, zb), (xb + height * light.sun[0], zb), (xa + height * light.sun[0], za)]
    canvas.shadow(light.sunlight * 0.5, [point(x, 0.0, z) for x, z in stripe])
    for level in (0.22, 0.78):
        thick = 0.09 * canvas.camera.focal
        canvas.limb(rail, point(xa, height * level, za), point(xb, height * level, zb), thick / za, thick / zb)
    last = -1e9
    paint, painted = rail, 0.0
    for step in range(pickets, -1, -1):  # from the far end, so that nearer pickets cover
        part = step / pickets
        x, z = xa + (xb - xa) * part, za + (zb - za) * part
        column, foot = point(x, 0.0, z)
        if abs(column - last) < LEAST_PITCH:
            continue  # at this distance the picture cannot resolve every picket
        last = column
        if abs(z - painted) > 1.0:
            paint, painted = canvas.material(Material(FENCE, colour, z, 0.15, 0.1)), z
        # A picket is flat and lies in the fence: seen along it, it is as narrow as the board is thick.
        along = point(x + reach_x, 0.0, z + reach_z)[0] - point(x - reach_x, 0.0, z - reach_z)[0]
        half = max(abs(along), 0.025 * canvas.camera.focal / z) / 2
        canvas.bar(paint, column - half, column + half, point(x, height, z)[1], foot)
