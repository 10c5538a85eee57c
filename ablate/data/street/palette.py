"""The labels of the street scenes, the stock of paints that all classes share, and what a painted surface is."""

from __future__ import annotations

from typing import NamedTuple

from ablate.data.dataset import CAMVID

Colour = tuple[float, float, float]  # red, green, blue in 0..1

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(len(CAMVID))

# One stock of paints for every class, so that a colour does not tell what carries it.
BRICK, OCHRE, CREAM, WHITE = (0.56, 0.29, 0.22), (0.74, 0.60, 0.40), (0.86, 0.81, 0.69), (0.91, 0.91, 0.89)
GREY, DARK, SLATE, PALE_BLUE = (0.52, 0.52, 0.54), (0.24, 0.25, 0.28), (0.36, 0.43, 0.53), (0.60, 0.71, 0.83)
GREEN, BROWN, BLACK, RED = (0.24, 0.40, 0.24), (0.40, 0.29, 0.20), (0.11, 0.11, 0.13), (0.74, 0.16, 0.14)
YELLOW, NAVY, OLIVE, BLUE = (0.88, 0.74, 0.20), (0.15, 0.20, 0.38), (0.42, 0.46, 0.24), (0.10, 0.28, 0.66)

WALLS = (BRICK, BRICK, OCHRE, CREAM, WHITE, GREY, SLATE, PALE_BLUE, BROWN, OLIVE)
ROOFS = (BRICK, DARK, SLATE, BROWN)
BODIES = (BRICK, CREAM, WHITE, WHITE, GREY, GREY, DARK, SLATE, PALE_BLUE, GREEN, BLACK, RED, NAVY, OCHRE)
COATS = (BRICK, DARK, GREEN, BROWN, BLACK, RED, NAVY, NAVY, CREAM)
JACKETS = (YELLOW, YELLOW, YELLOW, WHITE, PALE_BLUE, RED, OCHRE)
CLOTHS = (NAVY, NAVY, DARK, BLACK, BROWN, SLATE)
METAL = (GREY, DARK, SLATE, GREEN, BROWN, BLACK, CREAM)
PICKETS = (WHITE, WHITE, BROWN, BROWN, GREEN, BLACK, DARK, CREAM, BRICK)
LEAVES = (
    (0.23, 0.38, 0.15),
    (0.31, 0.44, 0.18),
    (0.42, 0.48, 0.20),
    (0.62, 0.50, 0.20),
    (0.55, 0.30, 0.18),
    (0.40, 0.28, 0.18),
)
LENSES = ((0.95, 0.15, 0.10), (1.0, 0.70, 0.10), (0.15, 0.85, 0.40))
SIGN_POLES, SIGN_FACES, KERBS = (GREY, GREY, DARK, CREAM), (BLUE, (0.12, 0.42, 0.26), YELLOW), (CREAM, GREY, GREY)
TRIMS, AWNINGS = (WHITE, CREAM, DARK, GREY), (*WALLS, PALE_BLUE, DARK)
BINS, HEADLIGHTS = (DARK, GREEN, RED, BLACK, NAVY), (WHITE, WHITE, (1.0, 0.96, 0.8))
HAIR, TROUSERS = (BLACK, BROWN, DARK, (0.7, 0.6, 0.4)), (NAVY, DARK, BLACK, BROWN, GREY)
HELMETS = (WHITE, RED, BLACK, YELLOW, SLATE)
SKIN = ((0.86, 0.68, 0.56), (0.72, 0.52, 0.40), (0.48, 0.33, 0.25), (0.92, 0.76, 0.66))


class Material(NamedTuple):
    """Properties of a surface: its class and how it takes the light."""

    label: int
    colour: Colour
    depth: float = 0.0  # metres from the camera; 0 where it varies over the surface and stands on the canvas
    grain: float = 0.0  # relative brightness range of the texture
    cell: float = 0.2  # metres, size of one grain


def scaled(colour: Colour, factor: float) -> Colour:
    """Return the colour, brightened or darkened by a factor."""
    return colour[0] * factor, colour[1] * factor, colour[2] * factor
