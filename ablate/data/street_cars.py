"""How cars and vans are drawn: boxes in perspective with glass, lights and wheels."""

from __future__ import annotations

from ablate.data.street_canvas import Draw, Stand
from ablate.data.street_paint import BLACK, BODIES, CAR, RED, WHITE, YELLOW, Colour, Material, scaled
from ablate.data.street_scene import Light

GLASS = (0.20, 0.25, 0.30)


def car_ahead(stand: Stand, draw: Draw, light: Light) -> None:
    """A car seen from behind."""
    _car(stand, draw, light, behind=True)


def car_oncoming(stand: Stand, draw: Draw, light: Light) -> None:
    """A car seen from the front."""
    _car(stand, draw, light, behind=False)


def _car(stand: Stand, draw: Draw, light: Light, *, behind: bool) -> None:
    van = draw.chance(0.18)
    half, length = draw.between(0.84, 0.95), draw.between(3.8, 4.6)
    waist, roof = draw.between(0.85, 0.98), draw.between(1.38, 1.6)
    if van:
        waist, roof, half = 1.15, draw.between(2.0, 2.5), 1.0
    paint = draw.shade(draw.pick(BODIES))
    _ground_shadow(stand, half, length, roof, light)
    if abs(stand.x) > half:
        _flank(stand, draw, half, length, waist, roof, paint, van)
    body, dark = stand.material(CAR, paint), stand.material(CAR, scaled(paint, 0.72))
    black, glass = stand.material(CAR, BLACK), stand.material(CAR, draw.shade(GLASS))
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
    lamp = stand.material(CAR, draw.shade(RED if behind else draw.pick((WHITE, WHITE, (1.0, 0.96, 0.8)))))
    for way in (-1, 1):
        near, far = sorted((way * half * 0.96, way * half * 0.62))
        stand.box(lamp, near, far, waist - 0.28, waist - 0.1)
    stand.box(stand.material(CAR, YELLOW if behind else WHITE), -0.26, 0.26, 0.5, 0.62)
    if not behind and stand.shows(0.08):
        stand.box(black, -half * 0.5, half * 0.5, waist - 0.26, waist - 0.14)


def _flank(
    stand: Stand, draw: Draw, half: float, length: float, waist: float, roof: float, paint: Colour, van: bool
) -> None:
    """The side that is turned to the middle of the picture."""
    canvas, point = stand.canvas, stand.canvas.camera.point
    x, z = stand.x + (half if stand.x < 0 else -half), stand.z
    body = canvas.material(Material(CAR, scaled(paint, 0.86), z + length / 2))
    glass = canvas.material(Material(CAR, draw.shade(GLASS), z + length / 2))
    tyre = canvas.material(Material(CAR, BLACK, z + length / 2))
    hub = canvas.material(Material(CAR, (0.55, 0.55, 0.57), z + length / 2))
    lean = x - (0.0 if van else 0.16 * (1 if stand.x < 0 else -1))
    front, back = (0.05, 0.95) if van else (0.06, 0.74)
    canvas.polygon(
        body, [point(x, 0.25, z), point(x, waist, z), point(x, waist, z + length), point(x, 0.25, z + length)]
    )
    low, high = z + length * front, z + length * back
    edge = 0.02 if van else 0.12
    canvas.polygon(
        body,
        [
            point(x, waist, z),
            point(lean, roof, low + length * edge),
            point(lean, roof, high - length * edge),
            point(x, waist, high + length * 0.04),
        ],
    )
    canvas.polygon(
        glass,
        [
            point(x, waist, low + length * 0.07),
            point(lean, roof - 0.1, low + length * (edge + 0.04)),
            point(lean, roof - 0.1, high - length * (edge + 0.03)),
            point(x, waist, high - length * 0.02),
        ],
    )
    for place in (length * 0.82, length * 0.2):
        column, row = point(x, 0.32, z + place)
        across = abs(point(x, 0.0, z + place - 0.32)[0] - point(x, 0.0, z + place + 0.32)[0]) / 2
        down = 0.33 * canvas.camera.focal / (z + place)
        canvas.ellipse(tyre, column, row, max(across, 1.0), max(down, 1.0))
        canvas.ellipse(hub, column, row, max(across * 0.5, 0.5), max(down * 0.5, 0.5))


def crossing_car(stand: Stand, draw: Draw, light: Light) -> None:
    """A car across the street, seen from its side."""
    paint = draw.shade(draw.pick(BODIES))
    body, dark = stand.material(CAR, paint), stand.material(CAR, scaled(paint, 0.7))
    glass, black = stand.material(CAR, draw.shade(GLASS)), stand.material(CAR, BLACK)
    hub = stand.material(CAR, (0.55, 0.55, 0.57))
    stand.canvas.shadow(
        max(light.sunlight, 0.35),
        [
            stand.canvas.camera.point(stand.x + a, 0.0, stand.z + b)
            for a, b in ((-2, 0), (2, 0), (2.1, 1.7), (-2.1, 1.7))
        ],
    )
    stand.polygon(body, [(-1.3, 0.85), (1.6, 0.85), (1.05, 1.45), (-0.7, 1.45)])
    stand.polygon(glass, [(-1.1, 0.88), (0.2, 0.88), (0.2, 1.38), (-0.64, 1.38)])
    stand.polygon(glass, [(0.3, 0.88), (1.4, 0.88), (1.0, 1.38), (0.3, 1.38)])
    stand.polygon(body, [(-2.05, 0.3), (2.05, 0.3), (2.0, 0.88), (-1.9, 0.82)])
    stand.box(dark, -2.0, 2.0, 0.24, 0.36)
    stand.box(stand.material(CAR, RED), 1.9, 2.03, 0.62, 0.76)
    for place in (-1.25, 1.25):
        stand.ellipse(black, place, 0.33, 0.34, 0.34)
        stand.ellipse(hub, place, 0.33, 0.18, 0.18)


def _ground_shadow(stand: Stand, half: float, length: float, roof: float, light: Light) -> None:
    """The dark under a car, which is there without sun too, and the shadow it casts."""
    canvas = stand.canvas
    point = canvas.camera.point
    near, far = max(stand.z - 0.15, 0.5), stand.z + length
    if light.sunlight > 0.2:
        reach = roof * light.sun[0] * 0.9
        left, right = sorted((stand.x, stand.x + reach))
        canvas.shadow(
            light.sunlight,
            [
                point(left - half, 0.0, near),
                point(right + half, 0.0, near),
                point(right + half, 0.0, far),
                point(left - half, 0.0, far),
            ],
        )
    wide = half * 1.04
    canvas.shadow(
        0.62,
        [
            point(stand.x - wide, 0.0, near),
            point(stand.x + wide, 0.0, near),
            point(stand.x + wide, 0.0, far),
            point(stand.x - wide, 0.0, far),
        ],
    )
