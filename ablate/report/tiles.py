"""The pictures of the page: small files of image, truth, prediction and error, as data URIs within a budget."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ablate.analysis.analyse import Analysis
from ablate.report.figures.common import setting_label
from ablate.report.figures.panels import RUN_SHOWN, gallery, image_scores, predictions, shown_trials
from ablate.report.panels import Gallery, fixed_images, reduce
from ablate.report.svg import data_uri

# Pixels of all tiles of a page together: about 4 MB of files.
BUDGET = 12_000_000
WIDEST = 480
_ERROR = (224, 30, 20)


@dataclass(frozen=True)
class Tile:
    """One test image on the page: data URIs, and what is written beneath."""

    name: str
    caption: str
    image: str
    truth: str
    prediction: str
    error: str


@dataclass(frozen=True)
class Panel:
    """The tiles of one variant."""

    variant: str
    rule: str
    tiles: tuple[Tile, ...]


def panels(analysis: Analysis) -> list[Panel]:
    """The fixed test images for every variant; raises `NotDrawn` where there are no pictures."""
    pictures = gallery(analysis)
    chosen = fixed_images(pictures.count)
    found = predictions(analysis, pictures, chosen)
    height, width = pictures.target(chosen[0].index).shape
    count = len(chosen) * (1 + 3 * len(found))
    scale = min(1.0, WIDEST / max(height, width), (BUDGET / (count * height * width)) ** 0.5)
    most = max(32, int(max(height, width) * scale))
    scores = image_scores(analysis)
    trials = shown_trials(analysis)
    shared = []
    for one in chosen:
        photo, target = pictures.image(one.index), pictures.target(one.index)
        shared.append(
            (target, jpeg(reduce(photo, most, labels=False)), index_png(pictures, reduce(target, most, labels=True)))
        )
    made = []
    for variant, labels in found.items():
        tiles = []
        for one, (target, image, truth), prediction in zip(chosen, shared, labels, strict=True):
            wrong = (prediction != target) & (target != pictures.ignore_index)
            score = scores[variant][one.index] if variant in scores else np.nan
            known = f", mIoU {100 * score:.0f} %" if np.isfinite(score) else ""
            small = reduce(prediction, most, labels=True)
            tiles.append(
                Tile(
                    name=f"test image {one.index}",
                    caption=f"{one.index} · {pictures.name(one.index)}{known}",
                    image=image,
                    truth=truth,
                    prediction=index_png(pictures, small),
                    error=mask_png(reduce(wrong.astype(np.uint8), most, labels=True)),
                )
            )
        setting = setting_label(analysis, analysis.own_best[variant])
        rule = (
            f"Trial {trials[variant]}, at {setting}. {RUN_SHOWN} The same evenly spaced test images for every variant."
        )
        made.append(Panel(variant, rule, tuple(tiles)))
    return made


def jpeg(image: np.ndarray) -> str:
    """A photograph (H, W, 3) as data URI."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=82)
    return data_uri(buffer.getvalue(), "image/jpeg")


def index_png(pictures: Gallery, labels: np.ndarray) -> str:
    """Labels (H, W) in the classes' colours as data URI: one byte a pixel before compression."""
    picture = Image.frombytes("P", labels.shape[::-1], np.ascontiguousarray(labels).tobytes())
    picture.putpalette(pictures.palette.tobytes())
    return _png(picture)


def mask_png(mask: np.ndarray) -> str:
    """A mask (H, W) of 0 and 1 as data URI: red where it is 1, else transparent."""
    picture = Image.frombytes("P", mask.shape[::-1], np.ascontiguousarray(mask).tobytes())
    picture.putpalette(bytes([0, 0, 0, *_ERROR]))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", transparency=0, bits=1)
    return data_uri(buffer.getvalue(), "image/png")


def _png(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return data_uri(buffer.getvalue(), "image/png")
