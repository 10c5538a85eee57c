"""How people on a street are drawn: on foot and on bicycles."""

from __future__ import annotations

from ablate.data.street_canvas import Draw, Stand
from ablate.data.street_paint import (
    BICYCLIST,
    BLACK,
    BROWN,
    CLOTHS,
    COATS,
    DARK,
    GREY,
    JACKETS,
    NAVY,
    PEDESTRIAN,
    RED,
    SKIN,
    SLATE,
    WHITE,
    YELLOW,
    scaled,
)
from ablate.data.street_scene import Light


def pedestrian(stand: Stand, draw: Draw, light: Light) -> None:
    """Somebody walking or standing, seen from the front, the back or the side."""
    size = draw.between(0.92, 1.08)
    coat, cloth = draw.shade(draw.pick(COATS)), draw.shade(draw.pick(CLOTHS))
    skin, hair = draw.shade(draw.pick(SKIN), 0.03), draw.shade(draw.pick((BLACK, BROWN, DARK, (0.7, 0.6, 0.4))))
    stride = draw.between(0.05, 0.3)
    legs, dark_leg = stand.material(PEDESTRIAN, cloth, 0.05), stand.material(PEDESTRIAN, scaled(cloth, 0.75))
    top, dark_top = stand.material(PEDESTRIAN, coat, 0.05), stand.material(PEDESTRIAN, scaled(coat, 0.75))
    face, crown = stand.material(PEDESTRIAN, skin), stand.material(PEDESTRIAN, hair)
    shoe = stand.material(PEDESTRIAN, BLACK)
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
        bag = stand.material(PEDESTRIAN, draw.shade(draw.pick(COATS)))
        stand.box(bag, 0.22 * k, 0.42 * k, 0.6 * k, 0.92 * k)
    stand.ellipse(crown, 0.0, 1.63 * k, 0.135 * k, 0.16 * k)
    if draw.chance(0.75):
        stand.ellipse(face, 0.02 * k, 1.59 * k, 0.10 * k, 0.12 * k)


def bicyclist(stand: Stand, draw: Draw, light: Light) -> None:
    """A rider with the bicycle, from the side or from behind."""
    frame = stand.material(BICYCLIST, draw.shade(draw.pick(COATS)))
    tyre, skin = stand.material(BICYCLIST, BLACK), stand.material(BICYCLIST, draw.shade(draw.pick(SKIN), 0.03))
    jacket = draw.shade(draw.pick(JACKETS))
    top, dark_top = stand.material(BICYCLIST, jacket, 0.05), stand.material(BICYCLIST, scaled(jacket, 0.75))
    legs = stand.material(BICYCLIST, draw.shade(draw.pick((NAVY, DARK, BLACK, BROWN, GREY))))
    helmet = stand.material(BICYCLIST, draw.shade(draw.pick((WHITE, RED, BLACK, YELLOW, SLATE))))
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
