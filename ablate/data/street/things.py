"""Painters of what stands on the ground of a street scene: trees, poles, signs, fences, cars and people.

Every painter takes a place to stand, its own random draws and the light.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from ablate.data.dataset import IGNORE
from ablate.data.street import palette
from ablate.data.street.canvas import SUPERSAMPLE, Canvas, Draw, Stand
from ablate.data.street.palette import Colour, scaled
from ablate.data.street.scene import Fence, Light

LEAST_PITCH = 3 * SUPERSAMPLE  # canvas pixels between pickets: gaps must show what is behind


def tree(stand: Stand, draw: Draw, light: Light) -> None:
    """Draw a trunk under a crown of ragged clumps, darker below and away from the sun."""
    height = draw.between(4.0, 7.5)
    radius = height * draw.between(0.26, 0.36)
    leaf = draw.paint(palette.LEAVES, 0.04)
    trunk = stand.material(palette.TREE, draw.shade(palette.BROWN), 0.3, 0.08)
    stand.limb(trunk, (0.0, 0.0), (draw.between(-0.2, 0.2), height * 0.6), height * 0.06, height * 0.03)
    _clumps(stand, draw, light, leaf, height - radius * 1.05, radius, radius * 1.05, 11)
    stand.shadow(light.sunlight * 0.8, height * 0.03, height * 0.5, light.sun)
    reach_x, reach_z = stand.x + light.sun[0] * height * 0.7, stand.z + light.sun[1] * height * 0.7
    if light.sunlight > 0.2 and reach_z > 1.5:
        _dapple(stand.canvas, reach_x, reach_z, radius, light.sunlight)


def hedge(stand: Stand, draw: Draw, light: Light) -> None:
    """Draw a length of clipped hedge."""
    leaf = palette.LEAVES[0] if draw.chance(0.6) else palette.LEAVES[1]
    _clumps(stand, draw, light, draw.shade(leaf, 0.03), 0.55, 0.75, 0.65, 4)


def _clumps(
    stand: Stand, draw: Draw, light: Light, leaf: Colour, middle: float, across: float, down: float, number: int
) -> None:
    tones = [stand.material(palette.TREE, scaled(leaf, tone), 0.45, 0.11) for tone in (0.68, 0.88, 1.1)]
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
    """Draw the broken shadow of a crown on the ground around (x, z)."""
    depth = max(0.6, z - radius)
    corners = [canvas.camera.point(x + a, 0.0, b) for a in (-radius, radius) for b in (depth, z + radius)]
    columns, rows = [corner[0] for corner in corners], [corner[1] for corner in corners]
    at = canvas.window(min(columns), max(columns), min(rows), max(rows))
    if at is None:
        return
    aside, far = canvas.on_ground(*at)
    aside = aside - x
    distance = (aside * aside + (far - z) * (far - z)) * (1 / (radius * radius)) + canvas.rag[at] * 0.7
    canvas.shade[at][(distance < 1) & (far > 0)] = strength


def lamp(stand: Stand, draw: Draw, light: Light) -> None:
    """Draw a street lamp or a plain mast."""
    height = draw.between(5.0, 8.0)
    paint = stand.material(palette.POLE, draw.paint(palette.METAL), 0.04)
    stand.shadow(light.sunlight, 0.07, height, light.sun)
    stand.bar(paint, -0.12, 0.12, 0.0, height)
    if stand.shows(0.05):
        stand.bar(paint, -0.13, 0.13, 0.0, 1.1)
    if draw.chance(0.6):
        reach = (1 if stand.x < 0 else -1) * draw.between(0.8, 1.6)
        stand.limb(paint, (0.0, height - 0.05), (reach, height + 0.15), 0.1)
        stand.limb(paint, (reach * 0.75, height + 0.08), (reach * 1.15, height + 0.15), 0.2)


def post(stand: Stand, draw: Draw, light: Light) -> None:
    """Draw a short bollard post."""
    paint = stand.material(palette.POLE, draw.paint(palette.METAL), 0.04)
    stand.shadow(light.sunlight, 0.08, 1.0, light.sun)
    stand.bar(paint, -0.1, 0.1, 0.0, draw.between(0.9, 1.3))
    if stand.shows(0.05):
        stand.box(stand.material(palette.POLE, palette.WHITE), -0.1, 0.1, 0.75, 0.85)


def sign(stand: Stand, draw: Draw, light: Light) -> None:
    """Draw a round, triangular or square plate, or a street name, on a pole."""
    middle, size = draw.between(2.1, 2.7), draw.between(0.46, 0.62)
    stand.shadow(light.sunlight, 0.05, middle, light.sun)
    stand.bar(stand.material(palette.POLE, draw.paint(palette.SIGN_POLES)), -0.045, 0.045, 0.0, middle + 0.1)
    rim = stand.material(palette.SIGN, draw.shade(palette.RED, 0.04))
    face = stand.material(palette.SIGN, draw.shade(palette.WHITE, 0.04))
    mark = stand.material(palette.SIGN, palette.BLACK)
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
        blue = stand.material(palette.SIGN, draw.paint(palette.SIGN_FACES))
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
    """Draw traffic lights."""
    stand.shadow(light.sunlight, 0.07, 3.2, light.sun)
    stand.bar(stand.material(palette.POLE, draw.paint((palette.GREY, palette.DARK))), -0.06, 0.06, 0.0, 2.4)
    frame, case = stand.material(palette.SIGN, draw.shade(palette.WHITE)), stand.material(palette.SIGN, palette.BLACK)
    stand.box(frame, -0.34, 0.34, 2.1, 3.5)
    stand.box(case, -0.27, 0.27, 2.17, 3.43)
    lit = draw.whole(0, 2)
    for place, colour in enumerate(palette.LENSES):
        lens = stand.material(palette.SIGN, colour if place == lit else scaled(colour, 0.3))
        stand.ellipse(lens, 0.0, 3.22 - place * 0.42, 0.19, 0.19)


def bin_(stand: Stand, draw: Draw, light: Light) -> None:
    """Draw a litter bin or a letter box: nothing that has a class."""
    colour = draw.paint(palette.BINS)
    body, lid = stand.material(IGNORE, colour, 0.1), stand.material(IGNORE, scaled(colour, 0.6))
    stand.shadow(light.sunlight, 0.3, 1.0, light.sun)
    stand.box(body, -0.3, 0.3, 0.0, 1.0)
    stand.box(lid, -0.34, 0.34, 0.95, 1.1)
    stand.box(lid, -0.2, 0.2, 0.7, 0.8)


def fence(canvas: Canvas, plan: Fence, light: Light) -> None:
    """Draw pickets and two rails between two ground points, in perspective; the gaps are open."""
    draw = Draw(plan.seed)
    height, pitch, width = draw.between(1.0, 1.5), draw.between(0.28, 0.42), draw.between(0.09, 0.13)
    colour = draw.paint(palette.PICKETS)
    (xa, za), (xb, zb) = plan.start, plan.end
    span = math.sqrt((xb - xa) * (xb - xa) + (zb - za) * (zb - za))
    pickets, point = int(span / pitch), canvas.camera.point
    middle = (za + zb) / 2
    reach_x, reach_z = (xb - xa) / span * width / 2, (zb - za) / span * width / 2
    rail = canvas.material(palette.FENCE, scaled(colour, 0.85), middle)
    stripe = [(xa, za), (xb, zb), (xb + height * light.sun[0], zb), (xa + height * light.sun[0], za)]
    canvas.shadow(light.sunlight * 0.5, stripe)
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
            continue  # at this distance the image cannot resolve every picket
        last = column
        if abs(z - painted) > 1.0:
            paint, painted = canvas.material(palette.FENCE, colour, z, 0.15, 0.1), z
        # A picket is flat and lies in the fence: seen along it, it is as narrow as the board is thick.
        along = point(x + reach_x, 0.0, z + reach_z)[0] - point(x - reach_x, 0.0, z - reach_z)[0]
        half = max(abs(along), 0.025 * canvas.camera.focal / z) / 2
        canvas.bar(paint, column - half, column + half, point(x, height, z)[1], foot)


GLASS = (0.20, 0.25, 0.30)


def car(stand: Stand, draw: Draw, light: Light, *, behind: bool) -> None:
    """Draw a car seen from behind or from the front."""
    material = partial(stand.material, palette.CAR)
    van = draw.chance(0.18)
    half, length = draw.between(0.84, 0.95), draw.between(3.8, 4.6)
    waist, roof = draw.between(0.85, 0.98), draw.between(1.38, 1.6)
    if van:
        waist, roof, half = 1.15, draw.between(2.0, 2.5), 1.0
    paint = draw.paint(palette.BODIES)
    _ground_shadow(stand, half, length, roof, light)
    if abs(stand.x) > half:
        _flank(stand, draw, half, length, waist, roof, paint, van)
    body, dark = material(paint), material(scaled(paint, 0.72))
    black, glass = material(palette.BLACK), material(draw.shade(GLASS))
    for way in (-1, 1):
        tyre = sorted((way * half * 0.95, way * half * 0.66))
        stand.box(black, tyre[0], tyre[1], 0.0, 0.4)
    top = half * (0.95 if van else 0.78)
    stand.polygon(body, [(-half, waist), (half, waist), (top, roof), (-top, roof)])
    stand.box(body, -half, half, 0.28, waist + 0.02)
    stand.polygon(
        glass, [(-half * 0.86, waist), (half * 0.86, waist), (top * 0.88, roof - 0.1), (-top * 0.88, roof - 0.1)]
    )
    stand.box(dark, -half, half, 0.22, 0.42)
    lamp = material(draw.shade(palette.RED if behind else draw.pick(palette.HEADLIGHTS)))
    for way in (-1, 1):
        near, far = sorted((way * half * 0.96, way * half * 0.62))
        stand.box(lamp, near, far, waist - 0.28, waist - 0.1)
    stand.box(material(palette.YELLOW if behind else palette.WHITE), -0.26, 0.26, 0.5, 0.62)
    if not behind and stand.shows(0.08):
        stand.box(black, -half * 0.5, half * 0.5, waist - 0.26, waist - 0.14)


def _flank(
    stand: Stand, draw: Draw, half: float, length: float, waist: float, roof: float, paint: Colour, van: bool
) -> None:
    """Draw the side that is turned to the middle of the image."""
    canvas, point = stand.canvas, stand.canvas.camera.point
    x, z = stand.x + (half if stand.x < 0 else -half), stand.z
    colours = scaled(paint, 0.86), draw.shade(GLASS), palette.BLACK, (0.55, 0.55, 0.57)
    body, glass, tyre, hub = (canvas.material(palette.CAR, colour, z + length / 2) for colour in colours)
    lean = x - (0.0 if van else 0.16 * (1 if stand.x < 0 else -1))
    front, back = (0.05, 0.95) if van else (0.06, 0.74)
    low, high = z + length * front, z + length * back
    edge = 0.02 if van else 0.12
    panel = ((x, 0.25, z), (x, waist, z), (x, waist, z + length), (x, 0.25, z + length))
    near, far = (lean, roof, low + length * edge), (lean, roof, high - length * edge)
    cabin = ((x, waist, z), near, far, (x, waist, high + length * 0.04))
    near, far = (lean, roof - 0.1, low + length * (edge + 0.04)), (lean, roof - 0.1, high - length * (edge + 0.03))
    window = ((x, waist, low + length * 0.07), near, far, (x, waist, high - length * 0.02))
    for number, corners in ((body, panel), (body, cabin), (glass, window)):
        canvas.polygon(number, [point(*corner) for corner in corners])
    for place in (length * 0.82, length * 0.2):
        column, row = point(x, 0.32, z + place)
        across = abs(point(x, 0.0, z + place - 0.32)[0] - point(x, 0.0, z + place + 0.32)[0]) / 2
        down = 0.33 * canvas.camera.focal / (z + place)
        canvas.ellipse(tyre, column, row, max(across, 1.0), max(down, 1.0))
        canvas.ellipse(hub, column, row, max(across * 0.5, 0.5), max(down * 0.5, 0.5))


def crossing_car(stand: Stand, draw: Draw, light: Light) -> None:
    """Draw a car across the street, seen from its side."""
    material = partial(stand.material, palette.CAR)
    paint = draw.paint(palette.BODIES)
    body, dark = material(paint), material(scaled(paint, 0.7))
    glass, black = material(draw.shade(GLASS)), material(palette.BLACK)
    hub = material((0.55, 0.55, 0.57))
    below = ((-2, 0), (2, 0), (2.1, 1.7), (-2.1, 1.7))
    stand.canvas.shadow(max(light.sunlight, 0.35), [(stand.x + a, stand.z + b) for a, b in below])
    stand.polygon(body, [(-1.3, 0.85), (1.6, 0.85), (1.05, 1.45), (-0.7, 1.45)])
    stand.polygon(glass, [(-1.1, 0.88), (0.2, 0.88), (0.2, 1.38), (-0.64, 1.38)])
    stand.polygon(glass, [(0.3, 0.88), (1.4, 0.88), (1.0, 1.38), (0.3, 1.38)])
    stand.polygon(body, [(-2.05, 0.3), (2.05, 0.3), (2.0, 0.88), (-1.9, 0.82)])
    stand.box(dark, -2.0, 2.0, 0.24, 0.36)
    stand.box(material(palette.RED), 1.9, 2.03, 0.62, 0.76)
    for place in (-1.25, 1.25):
        stand.ellipse(black, place, 0.33, 0.34, 0.34)
        stand.ellipse(hub, place, 0.33, 0.18, 0.18)


def _ground_shadow(stand: Stand, half: float, length: float, roof: float, light: Light) -> None:
    """Draw the dark under a car, which is there without sun too, and the shadow it casts."""
    near, far = max(stand.z - 0.15, 0.5), stand.z + length
    patches = [(0.62, stand.x - half * 1.04, stand.x + half * 1.04)]
    if light.sunlight > 0.2:
        left, right = sorted((stand.x, stand.x + roof * light.sun[0] * 0.9))
        patches.insert(0, (light.sunlight, left - half, right + half))
    for strength, left, right in patches:
        stand.canvas.shadow(strength, ((left, near), (right, near), (right, far), (left, far)))


def pedestrian(stand: Stand, draw: Draw, light: Light) -> None:
    """Draw somebody walking or standing, seen from the front, the back or the side."""
    material = partial(stand.material, palette.PEDESTRIAN)
    size = draw.between(0.92, 1.08)
    coat, cloth = draw.paint(palette.COATS), draw.paint(palette.CLOTHS)
    skin, hair = draw.paint(palette.SKIN, 0.03), draw.paint(palette.HAIR)
    stride = draw.between(0.05, 0.3)
    legs, dark_leg = material(cloth, 0.05), material(scaled(cloth, 0.75))
    top, dark_top = material(coat, 0.05), material(scaled(coat, 0.75))
    face, crown = material(skin), material(hair)
    shoe = material(palette.BLACK)
    stand.shadow(light.sunlight, 0.2, 1.7 * size, light.sun)
    k = size
    for paint, way in ((dark_leg, 1), (legs, -1)):
        foot = way * (0.06 + stride)
        stand.limb(paint, (way * 0.07 * k, 0.9 * k), (foot * k, 0.06 * k), 0.19 * k, 0.14 * k)
        stand.box(shoe, (foot - 0.09) * k, (foot + 0.13) * k, 0.0, 0.08 * k)
    if draw.chance(0.3):  # a coat or a skirt
        stand.polygon(top, [(-0.2 * k, 0.95 * k), (0.2 * k, 0.95 * k), (0.27 * k, 0.5 * k), (-0.27 * k, 0.5 * k)])
    swing = draw.between(0.0, 0.22)
    stand.limb(dark_top, (0.2 * k, 1.4 * k), ((0.24 + swing) * k, 0.88 * k), 0.13 * k)
    shoulders = [(-0.23 * k, 1.45 * k), (0.23 * k, 1.45 * k)]
    stand.polygon(top, [*shoulders, (0.18 * k, 0.82 * k), (-0.18 * k, 0.82 * k)])
    half = [(0.05 * k, 1.45 * k), shoulders[1], (0.18 * k, 0.82 * k), (0.05 * k, 0.82 * k)]
    stand.polygon(dark_top, half)
    stand.limb(top, (-0.21 * k, 1.4 * k), (-(0.24 + swing) * k, 0.88 * k), 0.13 * k)
    if draw.chance(0.25):
        bag = material(draw.paint(palette.COATS))
        stand.box(bag, 0.22 * k, 0.42 * k, 0.6 * k, 0.92 * k)
    stand.ellipse(crown, 0.0, 1.63 * k, 0.135 * k, 0.16 * k)
    if draw.chance(0.75):
        stand.ellipse(face, 0.02 * k, 1.59 * k, 0.10 * k, 0.12 * k)


def bicyclist(stand: Stand, draw: Draw, light: Light) -> None:
    """Draw a rider with the bicycle, from the side or from behind."""
    material = partial(stand.material, palette.BICYCLIST)
    frame = material(draw.paint(palette.COATS))
    tyre, skin = material(palette.BLACK), material(draw.paint(palette.SKIN, 0.03))
    jacket = draw.paint(palette.JACKETS)
    top, dark_top = material(jacket, 0.05), material(scaled(jacket, 0.75))
    legs = material(draw.paint(palette.TROUSERS))
    helmet = material(draw.paint(palette.HELMETS))
    stand.shadow(light.sunlight, 0.5, 1.0, light.sun)
    if draw.chance(0.8):
        for hub in (-0.54, 0.54):
            stand.ellipse(tyre, hub, 0.35, 0.36, 0.36, hole=0.8)
        saddle, crank, bar = (-0.2, 0.95), (-0.05, 0.36), (0.4, 0.95)
        strokes = [((-0.54, 0.35), crank), (crank, bar), (saddle, bar), (saddle, crank), (bar, (0.54, 0.35))]
        for start, end in strokes if stand.shows(0.04) else strokes[1:5:2] + strokes[-1:]:
            stand.limb(frame, start, end, 0.06)
        knee = draw.between(-0.05, 0.25)
        stand.limb(legs, (-0.2, 1.02), (knee + 0.05, 0.68), 0.2)
        stand.limb(legs, (knee + 0.05, 0.68), (0.0, 0.25), 0.14)
        stand.limb(dark_top, (-0.22, 1.02), (0.12, 1.45), 0.34)
        stand.limb(top, (-0.22, 1.06), (0.1, 1.48), 0.24)
        stand.limb(top, (0.13, 1.42), (0.42, 1.02), 0.13)
        stand.ellipse(skin, 0.27, 1.64, 0.13, 0.15)
        stand.ellipse(helmet, 0.24, 1.71, 0.16, 0.11)
        return
    stand.bar(tyre, -0.06, 0.06, 0.0, 0.72)
    for way, foot in ((-1, 0.15), (1, 0.4)):
        stand.limb(legs, (way * 0.1, 1.0), (way * 0.17, foot), 0.17, 0.12)
    stand.limb(frame, (-0.34, 1.0), (0.34, 1.0), 0.07)
    for way in (-1, 1):
        stand.limb(dark_top, (way * 0.2, 1.42), (way * 0.34, 1.04), 0.12)
    stand.polygon(top, [(-0.23, 1.48), (0.23, 1.48), (0.19, 0.92), (-0.19, 0.92)])
    stand.ellipse(skin, 0.0, 1.62, 0.12, 0.15)
    stand.ellipse(helmet, 0.0, 1.69, 0.16, 0.12)


PAINTERS: dict[str, Callable[[Stand, Draw, Light], None]] = {
    "car_ahead": partial(car, behind=True),
    "car_oncoming": partial(car, behind=False),
    "bin": bin_,
    **{painter.__name__: painter for painter in (crossing_car, pedestrian, bicyclist)},
    **{painter.__name__: painter for painter in (tree, hedge, lamp, post, sign, signal)},
}
