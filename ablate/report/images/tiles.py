"""The images of the page: small files of image, truth, prediction and error, as data URIs within a budget."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ablate.analysis.analyse import Analysis
from ablate.records.paint import labels_uri, mask_uri, photo_uri, reduce, wrong_pixels
from ablate.report.images.gallery import RUN_SHOWN, fixed_images, gallery, image_scores, predictions
from ablate.report.lookup import setting_label, shown_trials

# Pixels of all tiles of a page together: about a third of a megabyte of it.
BUDGET = 6_000_000
WIDEST = 480


@dataclass(frozen=True)
class Tile:
    """One test image on the page: data URIs, and what is written beneath."""

    name: str
    caption: str
    image: str
    truth: str
    prediction: str
    error: str
    width: int
    height: int
    """Of all four, in pixels."""


@dataclass(frozen=True)
class Panel:
    """The tiles of one variant."""

    variant: str
    rule: str
    tiles: tuple[Tile, ...]


def panels(analysis: Analysis) -> list[Panel]:
    """Return the fixed test images for every variant; raise `NotDrawn` where there are no images."""
    shown = gallery(analysis)
    chosen = fixed_images(shown.count)
    found = predictions(analysis, shown, [one.index for one in chosen])
    height, width = shown.target(chosen[0].index).shape
    count = len(chosen) * (1 + 3 * len(found))
    scale = min(1.0, WIDEST / max(height, width), (BUDGET / (count * height * width)) ** 0.5)
    most = max(32, int(max(height, width) * scale))
    scores, trials = image_scores(analysis), shown_trials(analysis)
    images = [photo_uri(reduce(shown.image(one.index), most, labels=False)) for one in chosen]
    targets = [shown.target(one.index) for one in chosen]
    truths = [labels_uri(reduce(target, most, labels=True), shown.palette) for target in targets]
    made = []
    for variant, labels in found.items():
        tiles = []
        for one, image, target, truth, prediction in zip(chosen, images, targets, truths, labels, strict=True):
            wrong = wrong_pixels(target, prediction, shown.ignore_index).astype(np.uint8)
            score = scores[variant][one.index] if variant in scores else np.nan
            known = f", mIoU {100 * score:.0f} %" if np.isfinite(score) else ""
            tiles.append(
                Tile(
                    name=f"test image {one.index}",
                    caption=f"{one.index} · {shown.name(one.index)}{known}",
                    image=image,
                    truth=truth,
                    prediction=labels_uri(reduce(prediction, most, labels=True), shown.palette),
                    error=mask_uri(reduced := reduce(wrong, most, labels=True)),
                    width=reduced.shape[1],
                    height=reduced.shape[0],
                )
            )
        at = setting_label(analysis, analysis.own_best[variant])
        rule = f"Trial {trials[variant]}, at {at}. {RUN_SHOWN} The same evenly spaced test images for every variant."
        if analysis.frames.multilabel:
            rule += " A pixel of several classes has the mean of their colours, one of none is nearly black."
        made.append(Panel(variant, rule, tuple(tiles)))
    return made
